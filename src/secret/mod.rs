//! Secrets, known by value, by form and by name, and their masking in all that labrun writes or shows.
//!
//! [`remember`] takes the value of every secret that labrun reads; [`mask`] takes out whatever was
//! remembered, in the usual escaped forms too, and what has the form of a secret.

pub(crate) mod form;
pub(crate) mod lines;
pub(crate) mod name;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;

use crate::bounded;

/// What stands where a secret stood.
pub(crate) const MASK: &str = "***";

/// Shorter values stand in too much that is none.
const MIN_CHARS: usize = 6;

/// Fewer digits of base64 stand in too much that is no secret.
const MIN_BASE64_DIGITS: usize = 8;

/// Words that are set as passwords and say nothing.
const TRIVIAL: [&str; 16] = [
    "password",
    "passwd",
    "secret",
    "default",
    "changeme",
    "example",
    "required",
    "disabled",
    "enabled",
    "optional",
    "production",
    "localhost",
    "redacted",
    "unknown",
    "bearer",
    "string",
];

/// The most bytes of a file with a token.
const MAX_TOKEN_FILE_BYTES: u64 = 64 << 10;

/// The values that are masked, and what finds them.
struct Known {
    forms: BTreeSet<String>,
    finder: Option<AhoCorasick>,
}

static KNOWN: RwLock<Known> = RwLock::new(Known {
    forms: BTreeSet::new(),
    finder: None,
});

/// Masks `value` from now on wherever it comes up. A short or trivial one is left: it occurs in too
/// much harmless text.
pub(crate) fn remember(value: &str) {
    let value = value.trim();
    let mut forms = BTreeSet::new();
    // A log shows a value of several lines line by line.
    for part in std::iter::once(value).chain(value.lines()) {
        let part = part.trim();
        if is_worth_masking(part) {
            forms.extend(written_forms(part));
        }
    }
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    let before = known.forms.len();
    known.forms.extend(forms);
    if known.forms.len() > before {
        // It fails only beyond gigabytes of secrets; the forms that were known before stay masked.
        let built = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // Header names and hosts are often lowered, and hexadecimal keys mean the same in both.
            .ascii_case_insensitive(true)
            .build(&known.forms);
        if let Ok(finder) = built {
            known.finder = Some(finder);
        }
    }
}

/// Masks the passwords of the URLs in `text` from now on.
pub(crate) fn remember_urls(text: &str) {
    for range in form::user_infos(text) {
        let info = &text[range];
        match info.split_once(':') {
            Some((_, password)) => {
                remember(password);
                remember(&base64(info.as_bytes()));
            }
            None => remember(info),
        }
    }
}

/// Masks `value` from now on where `name` or its own form marks it as a secret.
pub(crate) fn remember_named(name: &str, value: &str) {
    if name::is_secret(name) || form::is_secret(value) {
        if form::has_user_info(value) {
            remember_urls(value);
        } else {
            remember(value);
        }
    }
}

/// Masks the secrets of this process's environment, and the token of the Hugging Face hub.
pub(crate) fn remember_environment() {
    // Compiles the patterns now, not in the midst of a load.
    let _nothing = ranges("");
    for (name, value) in std::env::vars_os() {
        remember_named(&name.to_string_lossy(), &value.to_string_lossy());
    }
    if let Some(token) =
        hub_token_file().and_then(|file| bounded::read(&file, MAX_TOKEN_FILE_BYTES).ok())
    {
        remember(&token);
    }
}

/// The file in which the Hugging Face libraries look for a token.
pub(crate) fn hub_token_file() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("HF_TOKEN_PATH").or_else(|| {
        let home =
            set("HF_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache/huggingface")));
        Some(home?.join("token"))
    })
}

/// `text` with a mask where a secret stood.
pub(crate) fn mask(text: &str) -> Cow<'_, str> {
    replaced(text, |out, _| out.push_str(MASK))
}

/// `text` with asterisks for the bytes of every secret: places in it stay what they are.
pub(crate) fn blank(text: &str) -> Cow<'_, str> {
    replaced(text, |out, secret| {
        let hidden = secret.chars().map(|c| match c {
            '\n' | '\r' => c.to_string(),
            _ => "*".repeat(c.len_utf8()),
        });
        out.extend(hidden);
    })
}

/// Whether [`mask`] would take something out of `text`.
pub(crate) fn is_in(text: &str) -> bool {
    !ranges(text).is_empty()
}

/// Masks every text in `value`, and the values of names that mark a secret.
pub(crate) fn mask_json(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(masked) = mask(text) {
                *text = masked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_json),
        Value::Object(table) => {
            for (name, item) in table {
                match item {
                    Value::String(text) if name::is_secret(name) && !text.is_empty() => {
                        MASK.clone_into(text);
                    }
                    Value::Number(_) if name::is_secret_number(name) => {
                        *item = Value::String(MASK.to_owned());
                    }
                    item => mask_json(item),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn replaced(text: &str, put: impl Fn(&mut String, &str)) -> Cow<'_, str> {
    let ranges = ranges(text);
    if ranges.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    for range in ranges {
        out.push_str(&text[end..range.start]);
        put(&mut out, &text[range.clone()]);
        end = range.end;
    }
    out.push_str(&text[end..]);
    Cow::Owned(out)
}

/// Where secrets stand in `text`, in order, none of them overlapping.
fn ranges(text: &str) -> Vec<Range<usize>> {
    let mut all = form::ranges(text);
    {
        let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(finder) = &known.finder {
            all.extend(finder.find_iter(text).map(|hit| hit.range()));
        }
    }
    all.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(all.len());
    for range in all {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The longest form of a value that is masked, bytes.
fn longest() -> usize {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    known.forms.iter().map(String::len).max().unwrap_or(0)
}

fn is_worth_masking(value: &str) -> bool {
    let first = value.chars().next();
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let is_little = value.chars().count() < MIN_CHARS || (digits && value.len() < 8);
    let is_trivial =
        value.chars().all(|c| Some(c) == first) || TRIVIAL.contains(&value.to_lowercase().as_str());
    // A path points to a secret; the marks of a key stand around it.
    let is_about_one = value.starts_with(['/', '~']) || value.starts_with("-----");
    !(is_little || is_trivial || is_about_one)
}

/// How `value` is written by what quotes it: JSON, Python, HTML, URLs, shells, base64, hexadecimal.
/// Letters are compared without their case.
fn written_forms(value: &str) -> Vec<String> {
    let mut all = vec![value.to_owned()];
    all.extend(percent_decoded(value));
    for plain in all.clone() {
        let quoted = serde_json::to_string(&plain).unwrap_or_default();
        let quoted = quoted.trim_matches('"');
        all.push(quoted.replace('/', r"\/"));
        all.push(quoted.to_owned());
        all.push(ascii_json(&plain));
        all.push(plain.replace('\\', r"\\").replace('\'', r"\'"));
        all.push(plain.replace('\'', r"'\''"));
        all.extend(html_forms(&plain));
        all.extend(escaped_throughout(&plain));
        for unescaped in ["-_.~", "-_.~/", "-_.~!$&'()*+,;="] {
            let encoded = percent_encoded(&plain, unescaped);
            all.push(encoded.replace("%20", "+"));
            // A URL within a URL.
            all.push(encoded.replace('%', "%25"));
            all.push(encoded);
        }
    }
    all.push(hexadecimal(value.as_bytes()));
    all.retain(|form| form.chars().count() >= MIN_CHARS);
    all.extend(base64_forms(value.as_bytes()));
    all
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// With every character escaped: for JSON, a URL, a shell or Python, and HTML.
fn escaped_throughout(text: &str) -> [String; 5] {
    let joined = |pieces: Vec<String>| pieces.concat();
    let bytes = |write: fn(u8) -> String| joined(text.bytes().map(write).collect());
    let chars = |write: fn(u32) -> String| joined(text.chars().map(|c| write(c.into())).collect());
    [
        joined(
            text.encode_utf16()
                .map(|it| format!("\\u{it:04x}"))
                .collect(),
        ),
        bytes(|byte| format!("%{byte:02x}")),
        bytes(|byte| format!("\\x{byte:02x}")),
        chars(|c| format!("&#x{c:x};")),
        chars(|c| format!("&#{c};")),
    ]
}

/// As text of HTML, with the usual names and numbers of quotes.
fn html_forms(text: &str) -> impl Iterator<Item = String> {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let quotes = [
        ("\"", "'"),
        ("&quot;", "'"),
        ("&quot;", "&#x27;"),
        ("&quot;", "&#39;"),
        ("&#34;", "&#39;"),
    ];
    quotes.into_iter().map(move |(double, single)| {
        let text = text.replace('"', double);
        text.replace('\'', single)
    })
}

/// Base64 of `bytes`, alone or in the midst of more bytes (`user:password`), in both alphabets. Digits
/// that hold bits of a neighbour are left out: they differ.
fn base64_forms(bytes: &[u8]) -> Vec<String> {
    let mut all = vec![base64(bytes)];
    for before in 0..3 {
        let text = base64(&[&[0; 3][..before], bytes].concat());
        let shared = usize::from(!(before + bytes.len()).is_multiple_of(3));
        // Of one byte before, two digits hold a part; of two bytes, three.
        let first = if before == 0 { 0 } else { before + 1 };
        let inner = &text[first..text.len() - shared];
        if inner.len() >= MIN_BASE64_DIGITS {
            all.push(inner.to_owned());
        }
    }
    let safe: Vec<String> = all
        .iter()
        .map(|text| text.replace('+', "-").replace('/', "_"))
        .collect();
    all.extend(safe);
    all
}

fn percent_encoded(text: &str, unescaped: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        // Writing to a `String` cannot fail.
        let _ = if c.is_ascii_alphanumeric() || unescaped.contains(c) {
            write!(out, "{c}")
        } else {
            write!(out, "%{byte:02x}")
        };
    }
    out
}

/// What `text` means where it is percent-encoded; absent where it is not.
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = (*first == b'%')
            .then(|| std::str::from_utf8(after.get(..2)?).ok())
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(out)
        .ok()
        .filter(|decoded| decoded != text)
}

/// JSON as Python writes it: everything beyond ASCII is escaped.
fn ascii_json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    let mut out = String::with_capacity(quoted.len());
    for c in quoted.trim_matches('"').chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// Base64 of `bytes`, without padding: what pads it need not be masked.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for digit in 0..=group.len() {
            let index = (bits >> (18 - 6 * digit)) & 63;
            out.push(char::from(DIGITS[index as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_of_which_every_character_is_escaped_is_masked() {
        remember("pw\u{e9}\u{1f511}\"/x");
        for written in [
            r"\u0070\u0077\u00e9\ud83d\udd11\u0022\u002f\u0078",
            r"\u0070\u0077\u00E9\uD83D\uDD11\u0022\u002F\u0078",
            "%70%77%c3%a9%f0%9f%94%91%22%2f%78",
            r"\x70\x77\xc3\xa9\xf0\x9f\x94\x91\x22\x2f\x78",
            "&#x70;&#x77;&#xe9;&#x1f511;&#x22;&#x2f;&#x78;",
            "&#112;&#119;&#233;&#128273;&#34;&#47;&#120;",
        ] {
            assert_eq!(mask(&format!("a {written} b")), "a *** b", "{written}");
        }
    }

    #[test]
    fn a_remembered_value_is_masked_in_every_form_that_it_is_quoted_in() {
        let value = "k\u{e9}y/\"it's&<1>\" +2";
        remember(value);
        for written in [
            value.to_owned(),
            serde_json::to_string(value).unwrap(),
            ascii_json(value),
            percent_encoded(value, "-_.~").to_uppercase(),
            percent_encoded(value, "-_.~/"),
            percent_encoded(&percent_encoded(value, "-_.~"), "-_.~"),
            serde_json::to_string(value).unwrap().replace('/', r"\/"),
            base64(value.as_bytes()),
            base64(value.as_bytes()).replace('+', "-").replace('/', "_"),
            hexadecimal(value.as_bytes()).to_uppercase(),
            value.to_ascii_lowercase(),
            value
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
                .replace('\'', "&#x27;"),
        ] {
            let masked = mask(&format!("<{written}>")).into_owned();
            assert_eq!(masked.trim_matches(['<', '>', '"']), MASK, "{written}");
        }
    }

    #[test]
    fn a_value_is_masked_in_base64_whatever_stands_around_it() {
        let value = "zq7canary/KEY+9=xyz8812";
        remember(value);
        for before in ["", "u", "me", "user:", "Bearer ", "Basic: "] {
            for after in ["", ".", "\n\n", "@host"] {
                let text = base64(format!("{before}{value}{after}").as_bytes());
                let masked = mask(&text).into_owned();
                // A digit on each side may hold four bits of it.
                assert!(masked.contains(MASK), "{before:?} {after:?}: {masked}");
                let most = (before.len() + after.len()) * 4 / 3 + 6;
                assert!(masked.len() <= most + MASK.len(), "{masked}");
            }
        }
    }

    #[test]
    fn short_and_trivial_values_are_not_masked_by_value() {
        for value in [
            "EMPTY",
            "12345",
            "1234567",
            "xxxxxxxx",
            "Default",
            "/root/token",
            "",
        ] {
            remember(value);
            let text = format!("a {value} b");
            assert_eq!(mask(&text), text);
        }
    }

    #[test]
    fn the_password_of_a_remembered_url_is_masked_decoded_too() {
        remember_urls("redis://me:p%40ss-w0rd@10.0.0.1:6379/0");
        assert_eq!(mask("auth p@ss-w0rd, p%40ss-w0rd"), "auth ***, ***");
        assert_eq!(mask("http://10.0.0.1:6379"), "http://10.0.0.1:6379");
    }

    #[test]
    fn urls_lose_user_and_password_and_nothing_else() {
        assert_eq!(
            mask("remote_url: \"redis://me:s3cret@10.0.0.1:6379/0\" x"),
            "remote_url: \"redis://***@10.0.0.1:6379/0\" x"
        );
        assert_eq!(mask("redis://:p@w@host"), "redis://***@host");
        let plain = "see http://127.0.0.1:8000/v1, mail a@b";
        assert_eq!(mask(plain), plain);
    }

    #[test]
    fn json_loses_the_values_of_secret_names() {
        let mut value = serde_json::json!({
            "env": {"HF_TOKEN": "hf_x", "PATH": "/bin"}, "url": "http://a:b@c/", "eos_token": 7,
        });
        mask_json(&mut value);
        assert_eq!(
            value,
            serde_json::json!({
                "env": {"HF_TOKEN": "***", "PATH": "/bin"}, "url": "http://***@c/", "eos_token": 7,
            })
        );
    }

    #[test]
    fn blanked_text_keeps_its_length_and_its_lines() {
        let text = "a = 1\nurl = \"redis://:s\u{e9}cret@h\"\n";
        let blanked = blank(text);
        assert_eq!(blanked, "a = 1\nurl = \"redis://********@h\"\n");
        assert_eq!(blanked.len(), text.len());
    }

    #[test]
    fn base64_is_what_others_write() {
        for (text, expected) in [
            ("a", "YQ"),
            ("ab", "YWI"),
            ("abc", "YWJj"),
            ("user:pass", "dXNlcjpwYXNz"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    proptest! {
        // Every case adds the forms of one more value to what is looked for.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn whatever_surrounds_a_value_it_is_never_left(before in ".{0,20}", value in "[a-z0-9!-/]{12,24}", after in ".{0,20}") {
            let value = format!("Q7{value}");
            remember(&value);
            let text = format!("{before}{value}{after}");
            let masked = mask(&text).into_owned();
            prop_assert!(!masked.contains(&value), "{}", masked);
            let json = serde_json::to_string(&text).unwrap();
            let quoted = serde_json::to_string(&value).unwrap();
            prop_assert!(!mask(&json).contains(quoted.trim_matches('"')));
            prop_assert_eq!(blank(&text).len(), text.len());
        }
    }
}
