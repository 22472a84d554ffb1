//! The one table of a plan's keys: what each is called, takes and means. `docs/plan.md`, `labrun keys`
//! and the JSON Schema are made from it, and the tests hold it to the reader.

mod connector;
mod load;
mod page;
mod schema;
mod server;
mod tier;
mod top;
mod vllm_tier;

use super::lmcache_keys;
use crate::units::grouped;

pub(crate) use page::page;
pub(crate) use schema::schema;

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Type {
    /// Any text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number from the first to the second.
    Count(u64, u64),
    /// A number above 0.
    Positive,
    /// A number from the first to the second.
    Within(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// An array that is not empty.
    List(&'static Type),
    /// One of several types.
    Either(&'static [Type]),
    /// The table of a section of its own.
    Section(&'static str),
    /// An array of tables, each of which is a section.
    Sections(&'static str),
    /// A table of tables with names of the author's own, each of which is a section.
    Named(&'static str),
    /// A table that is handed on as it is, or whose names another program defines.
    Foreign,
    /// A table of texts.
    Texts,
    /// Any value but a date.
    Any,
}

/// What holds where the key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// It may not be absent.
    Required,
    /// This value, as TOML writes it.
    Value(&'static str),
    /// What the words say.
    Else(&'static str),
}

/// One key of a section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Its name; a quoted one stands for every dotted key.
    pub name: &'static str,
    /// What it takes.
    pub takes: Type,
    /// The unit of its number; empty for none.
    pub unit: &'static str,
    /// What holds without it.
    pub default: Default,
    /// One sentence.
    pub about: &'static str,
    /// A value of an example, as TOML writes it; empty where the key is a table.
    pub example: &'static str,
    /// Another key of the section with the value that this key needs, as TOML writes it; empty for none.
    pub only: &'static str,
}

/// One table of a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    /// The name by which `labrun keys` finds it.
    pub id: &'static str,
    /// The head that it has in a plan; empty for the top.
    pub head: &'static str,
    /// What it is about, in one or two sentences.
    pub about: &'static str,
    /// A key of the table with the value that all keys of the section need; empty for none.
    pub only: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// Every section, in the order of the documentation.
pub(crate) const SECTIONS: [Section; 21] = [
    top::PLAN,
    top::MATRIX,
    top::PARTIAL,
    top::RUN,
    top::AUTO,
    load::WORKLOAD,
    load::LOAD,
    tier::TIER,
    vllm_tier::NATIVE,
    vllm_tier::SIMPLE,
    vllm_tier::SIMPLE_DISK,
    connector::CONNECTOR,
    connector::SIDE,
    connector::WATCH,
    connector::COUNTERS,
    connector::RESET,
    server::SERVER,
    server::DOCKER,
    server::SIM,
    top::VERDICT,
    top::PROFILE,
];

/// A limit that nobody reaches is not shown.
const MANY: u64 = u32::MAX as u64;

/// The documentation of the arguments of `vllm serve`.
pub(crate) const VLLM_DOCS: &str = "https://docs.vllm.ai/en/latest/cli/serve/";
/// The documentation of LMCache's keys.
pub(crate) const LMCACHE_DOCS: &str = "https://docs.lmcache.ai/api_reference/configurations.html";

const fn key(
    name: &'static str,
    takes: Type,
    unit: &'static str,
    default: Default,
    about: &'static str,
    example: &'static str,
) -> Key {
    Key {
        name,
        takes,
        unit,
        default,
        about,
        example,
        only: "",
    }
}

impl Key {
    /// The same key, for tables in which `other` stands.
    const fn only(self, other: &'static str) -> Self {
        Self {
            only: other,
            ..self
        }
    }

    /// What it takes, in words.
    pub(crate) fn takes_words(&self) -> String {
        let words = self.takes.words();
        if self.unit.is_empty() {
            words
        } else {
            format!("{words} ({})", self.unit)
        }
    }

    /// What holds without it, in words; `code` writes a value.
    pub(crate) fn default_words(&self, code: impl Fn(&str) -> String) -> String {
        match self.default {
            Default::Required => "required".to_owned(),
            Default::Value(value) => code(value),
            Default::Else(words) => words.to_owned(),
        }
    }

    /// A line of a plan; `None` where the key is a table.
    pub(crate) fn line(&self) -> Option<String> {
        (!self.example.is_empty()).then(|| format!("{} = {}", self.name, self.example))
    }
}

impl Type {
    fn words(self) -> String {
        let join = |types: &[Self]| {
            let words: Vec<String> = types.iter().map(|one| one.words()).collect();
            words.join(", or ")
        };
        match self {
            Self::Text => "text".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Count(least, most) if most >= MANY => format!("whole number from {least}"),
            Self::Count(least, most) => {
                format!("whole number, {} to {}", grouped(least), grouped(most))
            }
            Self::Positive => "number above 0".to_owned(),
            Self::Within(least, f64::MAX) => format!("number from {least}"),
            Self::Within(least, most) if most >= 1e6 => format!("number, {least} to {most:e}"),
            Self::Within(least, most) => format!("number, {least} to {most}"),
            Self::OneOf(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                quoted.join(", ")
            }
            Self::List(Self::Any) => "list".to_owned(),
            Self::List(Self::Text) => "list of texts".to_owned(),
            Self::List(item) => {
                format!("list of {}", item.words().replace("number", "numbers"))
            }
            Self::Either(types) => join(types),
            Self::Section(_) | Self::Foreign => "table".to_owned(),
            Self::Sections(_) => "tables".to_owned(),
            Self::Named(_) => "a table each".to_owned(),
            Self::Texts => "table of text".to_owned(),
            Self::Any => "any value".to_owned(),
        }
    }
}

/// The section called `id`.
pub(crate) fn section(id: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.id == id)
}

/// LMCache's keys that the table has no row for: a plan may set each, and LMCache's own
/// documentation says what it does.
pub(crate) fn other_lmcache_keys() -> Vec<&'static str> {
    let own = |name: &&str| tier::TIER.keys.iter().any(|key| key.name == *name);
    let mut names = lmcache_keys::in_process();
    names.retain(|name| !own(name));
    names
}

#[cfg(test)]
mod tests;
