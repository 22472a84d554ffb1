//! Keeps secrets out of plans, which are kept with their results.

use std::ops::Range;

use toml::de::DeValue;

use super::problem::{Problem, ProblemKind};
use super::reader::{Located, TableReader};

/// Words that mark a name whose value is a secret.
const SECRET_WORDS: [&str; 5] = ["PASSWORD", "SECRET", "API_KEY", "APIKEY", "CREDENTIAL"];

/// What follows `TOKEN` in names of what is counted in tokens, or makes them.
const HARMLESS_AFTER_TOKEN: [&str; 4] = ["S", "IZ", "_ID", "_THRESHOLD"];

/// `text` with what its strings say masked in the line at `at`, byte for byte.
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

/// Whether a value of this name is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_uppercase().replace('-', "_");
    let token = name.match_indices("TOKEN").any(|(at, word)| {
        let after = &name[at + word.len()..];
        !HARMLESS_AFTER_TOKEN
            .iter()
            .any(|harmless| after.starts_with(harmless))
    });
    token || SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Reports every secret in the value of `key`, nested ones too. `instead` says where else to put
/// one. Whether there was none.
pub fn refuse(
    table: &TableReader<'_>,
    key: &Located<String>,
    value: &DeValue<'_>,
    instead: &str,
) -> bool {
    let finder = Finder { table, instead };
    finder.named(&key.value, key.span.clone(), value)
}

/// Reports user and password of a URL in the value of `key`. Whether there were none.
pub fn refuse_user_info(table: &TableReader<'_>, key: &str, instead: &str) -> bool {
    let finder = Finder { table, instead };
    match table.value(key) {
        Some(found) => finder.inside(key, found.span, found.value),
        None => true,
    }
}

struct Finder<'a, 't> {
    table: &'a TableReader<'t>,
    instead: &'a str,
}

impl Finder<'_, '_> {
    fn named(&self, name: &str, span: Range<usize>, value: &DeValue<'_>) -> bool {
        // A flag is no secret: `hf-token = true` takes the one that the machine has.
        if is_secret_name(name) && !value.is_bool() {
            self.report(name, "looks like a secret", span);
            return false;
        }
        self.inside(name, span, value)
    }

    fn report(&self, name: &str, what: &str, span: Range<usize>) {
        let message = format!(
            "`{name}` in {} {what}, and plans are kept",
            self.table.title()
        );
        self.table.problems().push(Problem {
            kind: ProblemKind::Secret,
            ..Problem::new(span, message, self.instead)
        });
    }

    fn inside(&self, name: &str, span: Range<usize>, value: &DeValue<'_>) -> bool {
        match value {
            DeValue::String(text) if has_user_info(text) => {
                self.report(name, "holds a URL with a user or a password", span);
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

/// Whether a URL in `text` names a user or a password: `scheme://user:password@host`.
fn has_user_info(text: &str) -> bool {
    text.match_indices("://").any(|(at, mark)| {
        let after = &text[at + mark.len()..];
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'<>,)".contains(c));
        after[..end.unwrap_or(after.len())].contains('@')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_in_any_writing_and_counts_are_not() {
        for secret in [
            "api-key",
            "HF_TOKEN",
            "hf-token",
            "redis_password",
            "AWS_SECRET_ACCESS_KEY",
            "apiKey",
            "HF_TOKEN_2",
        ] {
            assert!(is_secret_name(secret), "{secret}");
        }
        for harmless in [
            "max-num-batched-tokens",
            "tokenizer-mode",
            "TOKENIZERS_PARALLELISM",
            "long-prefill-token-threshold",
            "eos_token_id",
            "min_retrieve_tokens",
        ] {
            assert!(!is_secret_name(harmless), "{harmless}");
        }
    }

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

    #[test]
    fn user_info_is_found_in_the_authority_only() {
        for secret in [
            "redis://u:p@h:1/0",
            "redis://:p@h",
            "see https://t@github.com",
        ] {
            assert!(has_user_info(secret), "{secret}");
        }
        for harmless in ["http://h:1/a@b", "mail a@b", "http://h?x=a@b"] {
            assert!(!has_user_info(harmless), "{harmless}");
        }
    }
}
