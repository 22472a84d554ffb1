//! `labrun keys` and `labrun schema`: the reference of the plan and of the settings.

use anyhow::{Result, bail};

use super::{ExitStatus, print};
use crate::cli::{KeysArgs, SchemaArgs, SchemaOf};
use crate::config;
use crate::plan::keys::{
    self, Default, Key, LMCACHE_DOCS, SECTIONS, Section, Type, VLLM_DOCS, other_lmcache_keys,
};
use crate::plan::problem::{nearest, suggestion};

/// Columns of the output.
const WIDTH: usize = 80;

/// Before the words of a key.
const INDENT: &str = "      ";
/// Before the second line of a section's words in the overview.
const COLUMN: &str = "                 ";

/// The name that `labrun keys` has for the settings.
const SETTINGS: &str = "settings";

/// Prints the sections, one section, or the keys of one name.
pub(super) fn keys(args: &KeysArgs) -> Result<ExitStatus> {
    let text = match args.section.as_deref() {
        None if args.markdown => keys::page(),
        None => overview(),
        Some(SETTINGS) => settings(),
        Some(word) => about(word)?,
    };
    print(&text)?;
    Ok(ExitStatus::Success)
}

/// Prints a schema.
pub(super) fn schema(args: &SchemaArgs) -> Result<ExitStatus> {
    let schema = match args.of {
        SchemaOf::Plan => keys::schema(),
        SchemaOf::Settings => config::schema::schema(),
    };
    print(&format!("{}\n", serde_json::to_string_pretty(&schema)?))?;
    Ok(ExitStatus::Success)
}

fn overview() -> String {
    let mut text = String::from("The sections of a plan:\n\n");
    for section in &SECTIONS {
        let about = section.about.split_inclusive(". ").next();
        let about = about.unwrap_or_default().trim_end();
        text.push_str(&wrapped(&format!("  {:<15}", section.id), COLUMN, about));
    }
    let about = "Where things are on this machine: the file of --config.";
    text.push_str(&wrapped(&format!("  {SETTINGS:<15}"), COLUMN, about));
    text.push_str(
        "\n`labrun keys SECTION` shows its keys, `labrun keys KEY` one key.\n\
         `labrun schema` prints all as JSON Schema, for editors.\n",
    );
    text
}

/// The settings file with every default, whose comments explain it.
fn settings() -> String {
    let mut text = String::new();
    for line in config::DEFAULTS.lines() {
        match line.strip_prefix("# ") {
            Some(comment) => text.push_str(&wrapped("# ", "# ", comment)),
            None => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

/// The section or the keys called `word`.
fn about(word: &str) -> Result<String> {
    let id = word.trim_matches(['[', ']']);
    let head = |section: &&Section| section.head.trim_matches(['[', ']']) == id;
    let found = keys::section(id).or_else(|| SECTIONS.iter().find(head));
    if let Some(section) = found {
        return Ok(whole(section));
    }
    let mut text = String::new();
    for section in &SECTIONS {
        let namesakes: Vec<&Key> = section.keys.iter().filter(|key| key.name == id).collect();
        if !namesakes.is_empty() {
            text.push_str(&format!("{}\n\n", title(section)));
            for key in namesakes {
                text.push_str(&entry(key));
            }
        }
    }
    if text.is_empty() && other_lmcache_keys().contains(&id) {
        text = format!("`{id}` is LMCache's own key, for [tier.NAME]:\n{LMCACHE_DOCS}\n");
    }
    if text.is_empty() {
        let mut sections: Vec<&str> = SECTIONS.iter().map(|section| section.id).collect();
        sections.push(SETTINGS);
        let names = SECTIONS.iter().flat_map(|section| section.keys);
        let names: Vec<&str> = names
            .map(|key| key.name)
            .chain(sections.iter().copied())
            .collect();
        let hint = match nearest(id, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => suggestion(id, &sections),
        };
        bail!("a plan has no section or key `{word}`: {hint}");
    }
    Ok(text)
}

fn title(section: &Section) -> &'static str {
    match section.head {
        "" => "Top of the plan",
        head => head,
    }
}

fn whole(section: &Section) -> String {
    let mut text = format!("{}\n\n", title(section));
    text.push_str(&wrapped("", "", section.about));
    text.push('\n');
    for key in section.keys {
        text.push_str(&entry(key));
    }
    match section.id {
        "server" => text.push_str(&wrapped(
            "",
            "",
            &format!("The arguments of `vllm serve` are at {VLLM_DOCS}"),
        )),
        "tier" => {
            let names = other_lmcache_keys().join(", ");
            let about = format!("Further keys of LMCache, see {LMCACHE_DOCS} : {names}");
            text.push_str(&wrapped("", "", &about));
        }
        _ => {}
    }
    text
}

/// A key as it stands in a plan, what it takes and means.
fn entry(key: &Key) -> String {
    let mut text = format!("  {}\n", key.line().unwrap_or_else(|| key.name.to_owned()));
    let default = key.default_words(str::to_owned);
    let holds = match key.default {
        Default::Required => default,
        Default::Value(_) | Default::Else(_) => format!("default: {default}"),
    };
    let more = match key.takes {
        Type::Section(id) | Type::Sections(id) | Type::Named(id) => {
            format!(" (see `labrun keys {id}`)")
        }
        _ => String::new(),
    };
    let takes = format!("{}; {holds}{more}", key.takes_words());
    text.push_str(&wrapped(INDENT, INDENT, &takes));
    text.push_str(&wrapped(INDENT, INDENT, key.about));
    if !key.only.is_empty() {
        text.push_str(&wrapped(
            INDENT,
            INDENT,
            &format!("Only with `{}`.", key.only),
        ));
    }
    text.push('\n');
    text
}

/// `text` after `first`, in lines of [`WIDTH`] columns; later lines begin with `rest`.
fn wrapped(first: &str, rest: &str, text: &str) -> String {
    let mut out = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            rest.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(&line);
    out.push('\n');
    out
}
