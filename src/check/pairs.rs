//! Several stacks checked one after the other: the file that names them, and the table of what was
//! found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::{Answer, StackCheck};
use crate::report::escape::markdown;
use crate::report::table::{Column, Keep, Table};
use crate::report::wrap::push_wrapped;

/// The stacks of a `--pairs` file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pairs {
    /// The stacks, in the order that they are checked.
    #[serde(default)]
    pub pair: Vec<Pair>,
}

/// One stack: how it differs from the plan.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pair {
    /// What the table calls it.
    pub name: String,
    /// Settings of this stack (`process.bin_dir`), beside the file that names the stacks.
    pub config: Option<PathBuf>,
    /// Tiers, instead of the plan's.
    #[serde(default)]
    pub tiers: Vec<String>,
    /// Values of the plan, by dotted key, as `--set` takes them.
    #[serde(default)]
    pub set: toml::Table,
    /// A run of `labrun check`, beside the file that names the stacks: it is judged again from its files,
    /// and nothing is started.
    pub run: Option<PathBuf>,
}

impl Pair {
    /// Whether it says how to measure the stack.
    fn is_to_measure(&self) -> bool {
        self.config.is_some() || !self.tiers.is_empty() || !self.set.is_empty()
    }
}

impl Pairs {
    /// Reads the text of such a file, called `file`.
    ///
    /// # Errors
    /// With line and column where the text is no such file; where two stacks have one name, or there is
    /// none.
    pub(crate) fn parse(text: &str, file: &str) -> Result<Self> {
        let pairs: Self = match toml::from_str(text) {
            Ok(pairs) => pairs,
            Err(error) => bail!("`{file}` does not name stacks: {error}"),
        };
        if pairs.pair.is_empty() {
            bail!("`{file}` names no stack: add one as [[pair]] with `name`");
        }
        let mut names = BTreeSet::new();
        for pair in &pairs.pair {
            if pair.name.trim().is_empty() || !names.insert(&pair.name) {
                bail!(
                    "`{file}`: each [[pair]] needs a name of its own, and `{}` is none",
                    pair.name
                );
            }
            if pair.run.is_some() && pair.is_to_measure() {
                bail!(
                    "`{file}`: `{}` names a finished check with `run`; remove `config`, `tiers` and `set`, \
                     which say how to measure it",
                    pair.name
                );
            }
        }
        Ok(pairs)
    }
}

/// What was found of one stack.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Checked {
    /// Its name.
    pub name: String,
    /// What was found; absent where nothing was measured.
    pub check: Option<StackCheck>,
    /// Why nothing was measured.
    pub error: Option<String>,
    /// The folder of its run.
    pub folder: Option<PathBuf>,
}

/// Which stacks give back what they took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compatibility {
    /// The stacks, in their order.
    pub stacks: Vec<Checked>,
}

impl Compatibility {
    /// Whether every stack is right.
    pub(crate) fn is_right(&self) -> bool {
        let is_right = |one: &Checked| one.check.as_ref().is_some_and(StackCheck::is_right);
        self.stacks.iter().all(is_right)
    }

    /// A row a stack, a column a tier: its worst answer, and at how many places.
    pub(crate) fn table(&self) -> Table {
        let by_tier: Vec<BTreeMap<String, String>> = self
            .stacks
            .iter()
            .map(|one| worst_of(one.check.as_ref()))
            .collect();
        let tiers: BTreeSet<&String> = by_tier.iter().flat_map(BTreeMap::keys).collect();
        let names = self.stacks.iter().map(|one| one.name.clone());
        let mut columns = vec![Column::words("stack", Keep::Always, names.collect())];
        for tier in tiers {
            let cells = by_tier
                .iter()
                .map(|worst| worst.get(tier).map_or("-", String::as_str).to_owned());
            columns.push(Column::words(tier, Keep::Always, cells.collect()));
        }
        Table { columns }
    }

    /// For a terminal of `width` columns.
    pub(crate) fn terminal(&self, width: u16) -> String {
        let mut text = self.table().terminal(width);
        for (one, error) in self.errors() {
            push_wrapped(&mut text, &format!("{one}: {error}"), width);
        }
        text
    }

    /// As a Markdown page.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("# Stacks that were checked\n\n{}", self.table().markdown());
        for one in &self.stacks {
            let _ = write!(text, "\n## {}\n\n", markdown(&one.name));
            let said = match (&one.check, &one.error) {
                (Some(check), _) => format!("{}. {}", check.stack(), check.sentence()),
                (None, Some(error)) => format!("Not checked: {error}"),
                (None, None) => "Not checked.".to_owned(),
            };
            let _ = writeln!(text, "{}", markdown(&said));
            for group in one.check.iter().flat_map(StackCheck::groups) {
                let _ = write!(text, "\n**{}**\n\n", markdown(&group.title()));
                for reason in group.reasons {
                    let _ = writeln!(text, "- {}", markdown(reason));
                }
            }
        }
        text
    }

    fn errors(&self) -> impl Iterator<Item = (&str, &str)> {
        let stacks = self.stacks.iter();
        stacks.filter_map(|one| Some((one.name.as_str(), one.error.as_deref()?)))
    }
}

/// Of each tier its worst answer, with the number of places that have it.
fn worst_of(check: Option<&StackCheck>) -> BTreeMap<String, String> {
    let findings = check.map_or(&[][..], |check| &check.findings);
    let mut answers: BTreeMap<&str, Vec<Answer>> = BTreeMap::new();
    for finding in findings {
        let of_tier = answers.entry(&finding.spot.tier).or_default();
        of_tier.push(finding.answer);
    }
    let worst = answers.into_iter().filter_map(|(tier, answers)| {
        let worst = answers.iter().copied().max()?;
        let count = answers.iter().filter(|answer| **answer == worst).count();
        let text = match worst {
            Answer::Right => worst.name().to_owned(),
            worst => format!("{} ({count} of {})", worst.name(), answers.len()),
        };
        Some((tier.to_owned(), text))
    });
    worst.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_read_with_what_they_change() {
        let pairs = Pairs::parse(
            "[[pair]]\nname = \"a\"\nconfig = \"a.toml\"\ntiers = [\"cpu\"]\n\
             [pair.set]\n\"server.lmcache\" = \"multi-process\"\n[[pair]]\nname = \"b\"\n",
            "pairs.toml",
        )
        .unwrap();
        assert_eq!(pairs.pair[0].config, Some(PathBuf::from("a.toml")));
        assert_eq!(
            pairs.pair[0].set["server.lmcache"].as_str(),
            Some("multi-process")
        );
        assert_eq!(pairs.pair[1].name, "b");
    }

    #[test]
    fn a_file_that_names_no_stacks_is_refused_with_the_place() {
        for (text, words) in [
            ("", "names no stack"),
            (
                "[[pair]]\nname = \"a\"\n[[pair]]\nname = \"a\"",
                "a name of its own",
            ),
            ("[[pair]]\nname = \"a\"\nimages = 1", "line 3"),
            ("pair = 3", "line 1"),
        ] {
            let error = Pairs::parse(text, "pairs.toml").unwrap_err().to_string();
            assert!(
                error.contains(words) && error.contains("pairs.toml"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_table_has_the_worst_answer_of_each_tier() {
        let check = StackCheck::of(&super::super::tests::bench().run());
        let both = Compatibility {
            stacks: vec![
                Checked {
                    name: "new pair".to_owned(),
                    check,
                    error: None,
                    folder: None,
                },
                Checked {
                    name: "old pair".to_owned(),
                    check: None,
                    error: Some("no `vllm`".to_owned()),
                    folder: None,
                },
            ],
        };
        assert!(!both.is_right());
        assert_eq!(
            both.terminal(80),
            "\x20stack     cpu    disk\n\
             ─────────────────────────────────\n\
             \x20new pair  right  WRONG (1 of 2)\n\
             \x20old pair  -      -\n\
             old pair: no `vllm`\n"
        );
        assert!(
            both.markdown()
                .contains("| new pair | right | WRONG (1 of 2) |")
        );
    }
}
