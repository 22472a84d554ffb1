//! Refuses secrets in plans, which are stored with their results.

use std::ops::Range;

use toml::de::{DeArray, DeValue};

use super::problem::{Problem, ProblemKind};
use super::reader::{Located, TableReader};
use crate::secret::{self, form, name};

/// `text` with the strings in the line at `at` masked, byte for byte.
pub(super) fn mask_line(text: &str, at: usize) -> String {
    let at = at.min(text.len());
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..]
        .find('\n')
        .map_or(text.len(), |newline| at + newline);
    let mut masked = text[..start].to_owned();
    let mut quote = None;
    for c in text[start..end].chars() {
        match (quote, c) {
            (None, '"' | '\'') => {
                quote = Some(c);
                masked.push(c);
            }
            (Some(open), _) if c == open => {
                quote = None;
                masked.push(c);
            }
            (Some(_), _) => masked.push_str(&"*".repeat(c.len_utf8())),
            (None, _) => masked.push(c),
        }
    }
    masked.push_str(&text[end..]);
    masked
}

/// Where `text` holds a secret by its form, comments included. A value that has another problem as a
/// secret in `known` is left out.
pub(super) fn by_form(text: &str, known: &[Problem]) -> Vec<Problem> {
    let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count();
    let is_known = |at: usize| {
        let mut secrets = known
            .iter()
            .filter(|problem| problem.kind == ProblemKind::Secret);
        secrets.any(|problem| line_of(problem.span.start) == line_of(at))
    };
    let foreign = form::certain(text).filter(|range| !is_known(range.start));
    foreign
        .map(|span| {
            let message = "this has the form of a secret, and plans are stored with their results";
            Problem {
                kind: ProblemKind::Secret,
                ..Problem::new(span, message, "set it in the environment or in `.env`")
            }
        })
        .collect()
}

/// Reports every secret in the value of `key`, nested ones too; `instead` is the hint. Returns whether
/// there was none.
pub(crate) fn refuse(
    table: &TableReader<'_>,
    key: &Located<String>,
    value: &DeValue<'_>,
    instead: &str,
) -> bool {
    let finder = Finder { table, instead };
    finder.named(&key.value, key.span.clone(), value)
}

/// Reports user and password of a URL in the value of `key`. Returns whether there were none.
pub(crate) fn refuse_user_info(table: &TableReader<'_>, key: &str, instead: &str) -> bool {
    let finder = Finder { table, instead };
    match table.value(key) {
        Some(located) => finder.inside(key, located.span, located.value),
        None => true,
    }
}

struct Finder<'a, 't> {
    table: &'a TableReader<'t>,
    instead: &'a str,
}

impl Finder<'_, '_> {
    fn named(&self, name: &str, span: Range<usize>, value: &DeValue<'_>) -> bool {
        if is_secret(name, value) {
            self.report(name, "looks like a secret", span);
            return false;
        }
        self.inside(name, span, value)
    }

    fn report(&self, name: &str, what: &str, span: Range<usize>) {
        let message = format!(
            "`{name}` in {} {what}, and plans are stored with their results",
            self.table.title()
        );
        self.table.problems().push(Problem {
            kind: ProblemKind::Secret,
            ..Problem::new(span, message, self.instead)
        });
    }

    fn inside(&self, name: &str, span: Range<usize>, value: &DeValue<'_>) -> bool {
        match value {
            DeValue::String(text) if form::is_secret(text) => {
                let what = if form::has_user_info(text) {
                    secret::remember_urls(text);
                    "holds a URL with a user or a password"
                } else {
                    secret::remember(text);
                    "has the form of a secret"
                };
                self.report(name, what, span);
                false
            }
            // `--api-key=...`, `Authorization: Bearer ...`, `{"password": ...}`.
            DeValue::String(text) if form::named(text).is_some() => {
                form::named(text).into_iter().for_each(secret::remember);
                self.report(name, "sets a secret", span);
                false
            }
            DeValue::Array(items) if follows_its_flag(items) => {
                self.report(name, "sets a secret", span);
                false
            }
            DeValue::Array(items) => items
                .iter()
                .all(|item| self.inside(name, item.span(), item.get_ref())),
            DeValue::Table(items) => items.iter().fold(true, |good, (key, item)| {
                self.named(key.get_ref(), key.span(), item.get_ref()) && good
            }),
            _ => true,
        }
    }
}

/// Whether the value of `name` is a secret, whose texts are masked from now on. A flag is none:
/// `hf-token = true` takes the one that the machine has.
fn is_secret(name: &str, value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Integer(_) | DeValue::Float(_) => name::is_secret_number(name),
        value => name::is_secret(name) && remember_texts(value),
    }
}

/// Masks every text in `value` from now on. Whether there was one.
fn remember_texts(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::String(text) => {
            secret::remember(text);
            !text.is_empty()
        }
        DeValue::Array(items) => {
            let hits: Vec<bool> = items
                .iter()
                .map(|item| remember_texts(item.get_ref()))
                .collect();
            hits.contains(&true)
        }
        DeValue::Table(items) => {
            let values = items.iter().map(|(_, item)| remember_texts(item.get_ref()));
            values.collect::<Vec<_>>().contains(&true)
        }
        _ => false,
    }
}

/// Whether a list holds a flag of a secret with its value as the next item, which is masked from now on.
fn follows_its_flag(items: &DeArray<'_>) -> bool {
    let texts = items.iter().map(|item| item.get_ref().as_str());
    let texts: Vec<&str> = texts.map(Option::unwrap_or_default).collect();
    texts.windows(2).any(|pair| {
        let is_one = pair[0].starts_with("--") && form::named(&pair.join(" ")).is_some();
        if is_one {
            secret::remember(pair[1]);
        }
        is_one
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_line_keeps_its_length_and_its_names() {
        let text = "a = 1\nb = { k = \"sé\", 'x' = 'y' } # no\nc = \"z\"\n";
        let masked = mask_line(text, text.find("k =").unwrap());
        assert_eq!(
            masked,
            "a = 1\nb = { k = \"***\", '*' = '*' } # no\nc = \"z\"\n"
        );
        assert_eq!(masked.len(), text.len());
    }
}
