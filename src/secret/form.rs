//! Secrets that are known by their form, whatever they are called.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// Keys and tokens whose makers gave them a form of their own.
const FORMS: &str = concat!(
    // Behind an escape (`\n`, `%3D`) its last letter touches the token.
    r"(?:\b|_|\\[nrtbf]|%[0-9A-Fa-f]{2}|\\u[0-9a-f]{4})(?:",
    r"hf_[A-Za-z0-9]{16,}",
    r"|sk-(?:proj|ant|svcacct|admin|or|lf)-[A-Za-z0-9_-]{16,}",
    r"|sk-[A-Za-z0-9]{20,}",
    r"|gh[pousr]_[A-Za-z0-9]{20,}",
    r"|github_pat_[A-Za-z0-9_]{20,}",
    r"|gl(?:pat|dt|rt|cbt|ptt|oas)-[A-Za-z0-9_-]{16,}",
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"|xapp-[A-Za-z0-9-]{10,}",
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
    r"|AIza[A-Za-z0-9_-]{35}",
    r"|nvapi-[A-Za-z0-9_-]{20,}",
    r"|npm_[A-Za-z0-9]{36}",
    r"|dckr_pat_[A-Za-z0-9_-]{20,}",
    r"|pypi-AgE[A-Za-z0-9_-]{20,}",
    r"|[sr]k_live_[A-Za-z0-9]{16,}",
    r")",
);

/// A private key between its marks; one whose end is missing goes as far as its lines do.
const KEY_BLOCK: &str = concat!(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
    r"(?:[A-Za-z0-9+/=\s\\:,.-]*?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
    r"|(?:\s|\\n|\\r)*(?:[A-Za-z0-9+/=]{16,}(?:\s|\\n|\\r)*)*)",
);

/// A name that marks a secret, and what it is set to: `password=...`, `"api_key": "..."`,
/// `Authorization: Bearer ...`.
const ASSIGNED: &str = concat!(
    r"(?i)(?:passw(?:or)?d|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key",
    r"|account[_-]?key|(?:signing|encryption|shared|ssh|auth)[_-]?key|credential|cookie|\bjwt|x-amz-signature",
    r"|_(?:pass|pwd|pat)\b|\bsig\b|[?&]token\b|--token\b",
    r"|(?:hf|hub|access|auth|refresh|api|bearer|session|github|gitlab)[_-]?token|authorization)",
    r#"[a-z0-9_-]*\\?["']?\s*[:=]\s*(?:\\?["']([^"'\\\s][^"'\\\n]{5,})\\?["']"#,
    r#"|\\?["']?(?:(?:bearer|basic|token)\s+)?([^\s"'\\,;&)}\]\[({<`]{6,}))"#,
);

/// `--api-key ...` and `Bearer ...`, parted by a blank, or as two items of a list.
const FOLLOWING: &str = concat!(
    r#"(?:--[a-z-]*(?:api-key|password|passwd|secret|token)(?:\s+|["'],\s*["'])|(?i:\bbearer)\s+"#,
    r#"|(?i:api[_-]?keys?)["']?\s*[:=]\s*\[["'])"#,
    r#"([^\s"'`<-][^\s"'`<]{7,})"#,
);

/// Nothing shorter has a name and a value, a known form, or a URL with a user.
const MIN_BYTES: usize = 8;

/// Values after such a name that are not secrets.
const NO_VALUES: [&str; 8] = [
    "None",
    "null",
    "true",
    "false",
    "***",
    "[REDACTED]",
    "<redacted>",
    "default",
];

#[expect(
    clippy::unwrap_used,
    reason = "constant patterns, compiled by every test of this file"
)]
fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

static BY_ITSELF: LazyLock<Regex> = LazyLock::new(|| compiled(&format!("{FORMS}|{KEY_BLOCK}")));
static NAMED: LazyLock<[Regex; 2]> = LazyLock::new(|| [compiled(ASSIGNED), compiled(FOLLOWING)]);

/// Whether `text` holds what can be nothing but a secret.
pub(crate) fn is_secret(text: &str) -> bool {
    certain(text).next().is_some()
}

/// Whether a URL in `text` names a user with a password, or a user that is one.
pub(crate) fn has_user_info(text: &str) -> bool {
    user_infos(text).next().is_some()
}

/// Where `text` holds text whose form is always that of a secret.
pub(crate) fn certain(text: &str) -> impl Iterator<Item = Range<usize>> {
    let forms = BY_ITSELF.find_iter(text).map(|form| form.range());
    forms.chain(user_infos(text))
}

/// The value that `text` gives to the name of a secret, if it does.
pub(crate) fn named(text: &str) -> Option<&str> {
    let all = NAMED.iter().flat_map(|pattern| pattern.captures_iter(text));
    let mut values = all.filter_map(|captures| captures.get(1).or_else(|| captures.get(2)));
    let value = values.find(|value| !is_no_value(value.as_str()))?;
    Some(value.as_str())
}

/// Where secrets stand in `text` by their form or their name. Ranges may overlap.
pub(super) fn ranges(text: &str) -> Vec<Range<usize>> {
    // Most texts of a record are names and units.
    if text.len() < MIN_BYTES {
        return Vec::new();
    }
    let mut all: Vec<Range<usize>> = certain(text).collect();
    for pattern in &*NAMED {
        let values = pattern
            .captures_iter(text)
            .filter_map(|captures| captures.get(1).or_else(|| captures.get(2)));
        all.extend(
            values
                .filter(|value| !is_no_value(value.as_str()))
                .map(|value| value.range()),
        );
    }
    all
}

fn is_no_value(text: &str) -> bool {
    // A path points to a secret; a number is a count.
    text.starts_with(['/', '~', '$', '%'])
        || text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
        || NO_VALUES.iter().any(|word| text.starts_with(word))
}

/// The user and password of every URL in `text`. The user of `ssh://user@host` alone is shown.
pub(super) fn user_infos(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("://").filter_map(|(mark, _)| {
        let start = mark + "://".len();
        let after = &text[start..];
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'<>,)".contains(c));
        let at = after[..end.unwrap_or(after.len())].rfind('@')?;
        let is_ssh = text[..mark].ends_with("ssh") && !after[..at].contains(':');
        (at > 0 && !is_ssh && &after[..at] != super::MASK).then_some(start..start + at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_known_makers_are_known_by_their_form() {
        for secret in [
            "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
            "sk-proj-abcdefghijklmnopqrstuvwxyz012345",
            "sk-ABCDEFGHIJKLMNOPQRSTUVWX",
            "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
            "github_pat_11ABCDEFG0abcdefghijkl_mnop",
            "glpat-abcdefghijklmnopqrst",
            "AKIAIOSFODNN7EXAMPLE",
            "xoxb-123456789012-abcdefGHIJ",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----",
            "redis://u:p@h:1/0",
            "redis://:p@h",
            "see https://t@github.com",
            "ssh://me:pw@host",
            r"Invalid token:\nhf_abcdefghijklmnopqrstuv",
            "https://h/?x%3Dhf_abcdefghijklmnopqrstuv",
            "my_hf_abcdefghijklmnopqrstuv",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
    }

    #[test]
    fn ordinary_words_have_no_such_form() {
        for harmless in [
            "hf_transfer",
            "disk-abcdefghijklmnopqrstuvwxyz",
            "w-sk-p1024-g16-c4-r1-0123456789",
            "meta-llama/Meta-Llama-3-8B-Instruct",
            "http://h:1/a@b",
            "mail a@b",
            "http://h?x=a@b",
            "ssh://user@host",
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert!(!is_secret(harmless), "{harmless}");
        }
    }

    #[test]
    fn values_of_secret_names_are_found_and_nothing_else_of_the_line() {
        let values = |text: &str| -> Vec<String> {
            ranges(text)
                .into_iter()
                .map(|range| text[range].to_owned())
                .collect()
        };
        for (text, value) in [
            ("password=hunter22 x", "hunter22"),
            ("{'api_key': 'qwertyuiop'}", "qwertyuiop"),
            (r#"{\"hf_token\": \"qwertyuiop\"}"#, "qwertyuiop"),
            ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
            ("vllm serve m --api-key qwertyuiop", "qwertyuiop"),
            ("REDIS_PASSWORD: hunter22", "hunter22"),
            ("['vllm', '--api-key', 'qwertyuiop']", "qwertyuiop"),
            (r#"["--api-key","qwertyuiop"]"#, "qwertyuiop"),
            ("args: {'api_key': ['qwertyuiop']}", "qwertyuiop"),
            ("password='a long, secret phrase'", "a long, secret phrase"),
            ("Set-Cookie: sid=qwertyuiop; path=/", "sid=qwertyuiop"),
            ("DB_PASS=hunter22", "hunter22"),
            ("--token qwertyuiop", "qwertyuiop"),
            ("https://h/x?token=qwertyuiop&b=1", "qwertyuiop"),
            ("https://h/x?sv=1&sig=qwertyuiop%3D", "qwertyuiop%3D"),
            ("https://h/x?X-Amz-Signature=0a1b2c3d4e5f", "0a1b2c3d4e5f"),
            ("AccountKey=qwertyuiop==;EndpointSuffix=x", "qwertyuiop=="),
        ] {
            assert_eq!(values(text), [value], "{text}");
        }
        for text in [
            "api_key=None",
            "hf_token=/root/.cache/token",
            "secrets = [\"HF_TOKEN\"]",
            "max_num_batched_tokens=8192",
            "eos_token='<|im_end|>'",
            "password: ***",
            "tokens = [\"--max-num-batched-tokens\", \"8192\"]",
            "--tokenizer meta-llama/Meta-Llama-3-8B",
            "http_cookies: 123456",
            "design=qwertyuiop",
        ] {
            assert_eq!(values(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn a_key_whose_end_is_missing_goes_as_far_as_its_lines() {
        let text =
            "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEA\n# end";
        let [range] = &ranges(text)[..] else { panic!() };
        assert_eq!(&text[range.end..], "# end");
    }
}
