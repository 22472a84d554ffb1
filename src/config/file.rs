//! A settings file: every problem at its line and column, as with plans.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::plan::problem::{PlanProblems, Problem, suggestion};
use crate::plan::value::describe;

/// Checks that `text` is TOML, and that each of its keys is one of `defaults` with a value of the
/// same type.
///
/// # Errors
/// All problems, with the values of their lines masked: settings may hold secrets.
pub(super) fn check(file: &str, text: &str, defaults: &toml::Table) -> Result<(), PlanProblems> {
    let mut problems = Vec::new();
    match DeTable::parse(text) {
        Ok(document) => keys(document.get_ref(), defaults, &mut problems),
        Err(error) => add(
            &mut problems,
            error.span().unwrap_or(0..0),
            error.message(),
            "",
        ),
    }
    if problems.is_empty() {
        return Ok(());
    }
    problems.sort_by_key(|problem: &Problem| problem.span.start);
    Err(PlanProblems::masked(file, text, problems))
}

/// Where `path` (`["telemetry", "pcie"]`) stands in `text`, which [`check`] has accepted.
pub(super) fn span_of(text: &str, path: &[String]) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let (last, above) = path.split_last()?;
    for key in above {
        table = table.get(key.as_str())?.get_ref().as_table()?;
    }
    Some(table.get(last.as_str())?.span())
}

fn add(problems: &mut Vec<Problem>, span: Range<usize>, message: &str, hint: &str) {
    problems.push(Problem::new(span, message, hint));
}

fn keys(document: &DeTable<'_>, defaults: &toml::Table, problems: &mut Vec<Problem>) {
    let sections: Vec<&str> = defaults.keys().map(String::as_str).collect();
    for (section, value) in document {
        let name: &str = section.get_ref();
        if !sections.contains(&name) {
            let message = format!("unknown key `{name}` in the settings");
            add(
                problems,
                section.span(),
                &message,
                &suggestion(name, &sections),
            );
            continue;
        }
        let Some(table) = value.get_ref().as_table() else {
            let message = format!("`{name}` must be a table, written [{name}]");
            add(problems, value.span(), &message, "");
            continue;
        };
        let known = defaults
            .get(name)
            .and_then(toml::Value::as_table)
            .filter(|_| name != "env");
        for (key, value) in table {
            let at: &str = key.get_ref();
            let default = match known {
                // `[env]` holds any names.
                None => Some(&EMPTY),
                Some(known) => known.get(at),
            };
            let Some(default) = default else {
                let message = format!("unknown key `{at}` in [{name}]");
                let names: Vec<&str> = known
                    .into_iter()
                    .flatten()
                    .map(|(key, _)| key.as_str())
                    .collect();
                add(problems, key.span(), &message, &suggestion(at, &names));
                continue;
            };
            if let Some(expected) = other_type(value.get_ref(), default) {
                let message = format!("`{at}` in [{name}] must be {expected}");
                let hint = format!("it is {}", kind(value.get_ref()));
                add(problems, value.span(), &message, &hint);
            }
        }
    }
}

/// The default of a setting that may have any text.
static EMPTY: toml::Value = toml::Value::String(String::new());

/// What is expected where `value` is of another type than `default`.
fn other_type(value: &DeValue<'_>, default: &toml::Value) -> Option<&'static str> {
    match (value, default) {
        (DeValue::String(_), toml::Value::String(_))
        | (DeValue::Integer(_), toml::Value::Integer(_) | toml::Value::Float(_))
        | (DeValue::Float(_), toml::Value::Float(_))
        | (DeValue::Boolean(_), toml::Value::Boolean(_)) => None,
        (DeValue::Array(items), toml::Value::Array(_)) => {
            let texts = items.iter().all(|item| item.get_ref().is_str());
            (!texts).then_some("an array of strings")
        }
        (_, toml::Value::String(_)) => Some("a string"),
        (_, toml::Value::Integer(_)) => Some("a whole number"),
        (_, toml::Value::Float(_)) => Some("a number"),
        (_, toml::Value::Boolean(_)) => Some("`true` or `false`"),
        (_, toml::Value::Array(_)) => Some("an array of strings"),
        _ => Some("something else"),
    }
}

/// The type of a value; of a string, not its text.
fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "a string".to_owned(),
        other => describe(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        let defaults: toml::Table = toml::from_str(crate::config::DEFAULTS).unwrap();
        check("box.toml", text, &defaults)
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn every_problem_stands_at_its_line_and_column() {
        let text = "[redis]\nurll = \"s3cret\"\n[telemetri]\n[paths]\nresults = 1\n[slurm]\ngpus = \"4\"\n\
                    args = [1]\n[env]\nOMP = 4\n";
        let shown = problems(text);
        for expected in [
            "box.toml:2:1",
            "did you mean `url`?",
            "box.toml:3:2",
            "did you mean `telemetry`?",
            "box.toml:5:11",
            "`results` in [paths] must be a string",
            "box.toml:7:8",
            "`gpus` in [slurm] must be a whole number",
            "`args` in [slurm] must be an array of strings",
            "`OMP` in [env] must be a string",
            "6 problems in `box.toml`",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_line_that_is_no_toml_is_shown_without_its_text() {
        let shown = problems("[redis]\nurl = \"redis://:s3cret@h:1\nx = 1\n");
        assert!(
            shown.contains("box.toml:2:") && !shown.contains("s3cret"),
            "{shown}"
        );
        assert_eq!(
            problems("redis = \"redis://:s3cret@h\"\n")
                .matches("s3cret")
                .count(),
            0
        );
    }

    #[test]
    fn the_defaults_and_what_the_docs_show_are_accepted() {
        assert_eq!(problems(crate::config::DEFAULTS), "");
        assert_eq!(
            problems("[telemetry]\nbudget_percent = 2\n[env]\nNAME = \"x\"\n"),
            ""
        );
    }

    #[test]
    fn a_value_is_found_again_by_its_path() {
        let text = "[telemetry]\npcie = \"x\"\n";
        let path = ["telemetry".to_owned(), "pcie".to_owned()];
        assert_eq!(span_of(text, &path), Some(19..22));
        assert_eq!(span_of(text, &path[..1]), Some(0..11));
    }
}
