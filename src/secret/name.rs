//! Names whose values are secrets.

use std::cell::RefCell;
use std::collections::HashMap;

/// Words that mark a secret wherever they stand in a name, its separators left out.
const ANYWHERE: [&str; 14] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "CREDENTIAL",
    "APIKEY",
    "ACCESSKEY",
    "PRIVATEKEY",
    "SIGNINGKEY",
    "ENCRYPTIONKEY",
    "SSHKEY",
    "AUTHKEY",
    "AUTHORIZATION",
    "CONNECTIONSTRING",
];

/// Parts of a name that mark a secret wherever they stand.
const PARTS: [&str; 6] = ["COOKIE", "COOKIES", "DSN", "JWT", "CREDS", "BEARER"];

/// Parts that mark a secret at the end of a name alone: `compilation_pass_config` is none.
const LAST_PARTS: [&str; 6] = ["PASS", "PAT", "PWD", "AUTH", "PASSCODE", "CRED"];

/// What follows `TOKEN` in names of what is counted in tokens, or makes them.
const HARMLESS_AFTER_TOKEN: [&str; 11] = [
    "S",
    "_TIMEOUT",
    "IZ",
    "_ID",
    "_THRESHOLD",
    "_COUNT",
    "_LEN",
    "_LIMIT",
    "_BUDGET",
    "_SIZE",
    "_NUM",
];

/// What follows `TOKEN` to the end in names of times of tokens.
const UNITS_AFTER_TOKEN: [&str; 2] = ["_S", "_MS"];

/// What stands before `TOKEN` in names of sizes and costs.
const HARMLESS_BEFORE_TOKEN: &str = "PER_";

/// Last parts of names whose values say where a secret is, or what it is called.
const PLACES: [&str; 6] = ["FILE", "PATH", "DIR", "FOLDER", "NAME", "SOCK"];

/// The shell's own names for folders.
const FOLDERS: [&str; 2] = ["PWD", "OLDPWD"];

/// What the name of a value says about it.
#[derive(Clone, Copy)]
struct Meaning {
    /// A text of this name is a secret.
    text_is_secret: bool,
    /// A number of this name is a secret.
    number_is_secret: bool,
}

/// The most names whose meaning a thread remembers, and the longest of them, bytes.
const MAX_REMEMBERED: (usize, usize) = (4096, 64);

/// The same few hundred names stand in every record: each is looked at once.
fn meaning(name: &str) -> Meaning {
    thread_local! {
        static REMEMBERED: RefCell<HashMap<Box<str>, Meaning>> = RefCell::default();
    }
    REMEMBERED.with_borrow_mut(|remembered| {
        if let Some(meaning) = remembered.get(name) {
            return *meaning;
        }
        let snake = snake(name);
        let number_is_secret = is_ordinary(&snake).is_some_and(|ordinary| !ordinary);
        let meaning = Meaning {
            text_is_secret: number_is_secret || is_token(&snake),
            number_is_secret,
        };
        if remembered.len() < MAX_REMEMBERED.0 && name.len() <= MAX_REMEMBERED.1 {
            remembered.insert(name.into(), meaning);
        }
        meaning
    })
}

/// Whether the value of something called `name` is a secret, in whatever style the name is written:
/// `DB_PASS`, `api-key`, `redisPassword`.
pub(crate) fn is_secret(name: &str) -> bool {
    meaning(name).text_is_secret
}

/// Whether a number called `name` is a secret: one of tokens is a count, a numeric password is one.
pub(crate) fn is_secret_number(name: &str) -> bool {
    meaning(name).number_is_secret
}

fn is_token(name: &str) -> bool {
    is_ordinary(name).is_some()
        && name.match_indices("TOKEN").any(|(at, word)| {
            let (before, after) = (&name[..at], &name[at + word.len()..]);
            let is_count = HARMLESS_AFTER_TOKEN
                .iter()
                .any(|harmless| after.starts_with(harmless));
            let is_quantity =
                UNITS_AFTER_TOKEN.contains(&after) || before.ends_with(HARMLESS_BEFORE_TOKEN);
            !is_count && !is_quantity
        })
}

/// Whether no word but `TOKEN` can mark `name` as a secret's. Absent where nothing can: it points to a
/// secret.
fn is_ordinary(name: &str) -> Option<bool> {
    let parts: Vec<&str> = name.split('_').filter(|part| !part.is_empty()).collect();
    let last = parts.last().copied().unwrap_or_default();
    // `secrets` in [server] is a list of names.
    if PLACES.contains(&last) || FOLDERS.contains(&name) || last == "SECRETS" {
        return None;
    }
    let joined = parts.concat();
    let marked = ANYWHERE.iter().any(|word| joined.contains(word))
        || parts.iter().any(|part| PARTS.contains(part))
        || LAST_PARTS.contains(&last);
    Some(!marked)
}

/// `redisPassword-2` as `REDIS_PASSWORD_2`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before_is_lower = false;
    for c in name.chars() {
        if c.is_uppercase() && before_is_lower {
            out.push('_');
        }
        before_is_lower = c.is_lowercase() || c.is_ascii_digit();
        if c.is_alphanumeric() {
            out.extend(c.to_uppercase());
        } else {
            out.push('_');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_in_any_style() {
        for secret in [
            "api-key",
            "HF_TOKEN",
            "hf-token",
            "redis_password",
            "AWS_SECRET_ACCESS_KEY",
            "apiKey",
            "HF_TOKEN_2",
            "REDIS_PASSWD",
            "PASSPHRASE",
            "SSH_PRIVATE_KEY",
            "GITHUB_PAT",
            "AUTHORIZATION",
            "Authorization",
            "DB_PASS",
            "COOKIE",
            "DSN",
            "SENTRY_DSN",
            "dbPwd",
            "REDISCLI_AUTH",
            "redisPassword",
            "proxy-authorization",
            "APIKEY",
            "FIRST_TOKEN",
            "TOKEN_SECRET",
            "session-cookie",
            "AZURE_STORAGE_CONNECTION_STRING",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
    }

    #[test]
    fn counts_places_and_ordinary_names_are_no_secrets() {
        for harmless in [
            "first_token_s",
            "first_token_timeout_s",
            "kv_bytes_per_token",
            "max-num-batched-tokens",
            "tokenizer-mode",
            "TOKENIZERS_PARALLELISM",
            "long-prefill-token-threshold",
            "eos_token_id",
            "min_retrieve_tokens",
            "HF_TOKEN_PATH",
            "PWD",
            "OLDPWD",
            "compilation_pass_config",
            "GPG_KEY",
            "PATH",
            "SSH_AUTH_SOCK",
            "AWS_SHARED_CREDENTIALS_FILE",
            "compass",
            "author",
            "keyspace_hits",
            "bypass",
            "plan.server.docker.secrets",
        ] {
            assert!(!is_secret(harmless), "{harmless}");
        }
    }

    #[test]
    fn a_number_of_tokens_is_a_count_and_a_numeric_password_is_a_secret() {
        assert!(is_secret("max-num-batched-token") && !is_secret_number("max-num-batched-token"));
        assert!(is_secret_number("redis-password"));
    }
}
