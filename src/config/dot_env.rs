//! Reads `.env` as Docker takes it.
//!
//! A line is `NAME=VALUE` or `NAME: VALUE`, with `export ` before it or not, or a name alone, which
//! sets nothing: its value is that of the environment. A value ends at ` #`, or is in quotes, over
//! several lines or not; between double ones `\n` and the like stand for what they mean. `$NAME`,
//! `${NAME:-default}` and the other forms of a shell stand for earlier values, `$$` for `$`, but not
//! between single quotes.

/// A line that cannot be read. It is not quoted: it may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Number of the line, from 1.
    pub line: usize,
    /// The expected form.
    pub expected: &'static str,
}

/// The names and values that `text` sets, in its order. `known` gives values of the environment.
///
/// # Errors
/// The first line that cannot be read.
pub(crate) fn parse(
    text: &str,
    known: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, BadLine> {
    let mut set: Vec<(String, String)> = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let bad = |expected| BadLine {
            line: index + 1,
            expected,
        };
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line
            .strip_prefix("export")
            .filter(|rest| rest.starts_with(char::is_whitespace))
            .map_or(line, str::trim_start);
        let separators = ["=", ": "].into_iter();
        let separators = separators.filter_map(|separator| line.split_once(separator));
        let (name, value) = match separators.min_by_key(|(name, _)| name.len()) {
            Some((name, value)) => (name.trim_end(), Some(value)),
            None => (line.split(" #").next().unwrap_or(line).trim_end(), None),
        };
        if !is_name(name) {
            return Err(bad(
                "NAME=VALUE, the name of letters, digits and `_`, no digit first",
            ));
        }
        let Some(value) = value else { continue };
        let look_up = |name: &str| {
            let earlier = set.iter().rev().find(|(known, _)| known == name);
            earlier
                .map(|(_, value)| value.clone())
                .or_else(|| known(name))
        };
        let mut value = value.trim_start().to_owned();
        while let Some(quote) = open_quote(&value) {
            // Up to the next line that may close it: the others need not be looked at.
            let mut closes = false;
            for (_, line) in lines.by_ref() {
                value.push('\n');
                value.push_str(line);
                closes = line.contains(quote);
                if closes {
                    break;
                }
            }
            if !closes {
                return Err(bad("a value whose quote is closed"));
            }
        }
        if value.contains('\0') {
            return Err(bad("a value without a NUL byte"));
        }
        let value = read(&value, &look_up).map_err(bad)?;
        set.push((name.to_owned(), value));
    }
    Ok(set)
}

/// The quote that `text` opens and does not close.
fn open_quote(text: &str) -> Option<char> {
    let quote = text.chars().next().filter(|c| "'\"".contains(*c))?;
    let mut escaped = true;
    for letter in text.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if letter == quote => return None,
            _ => {}
        }
    }
    Some(quote)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn read(text: &str, look_up: &dyn Fn(&str) -> Option<String>) -> Result<String, &'static str> {
    let Some(quote) = text.chars().next().filter(|c| "'\"".contains(*c)) else {
        let comment = |(at, c): (usize, char)| {
            c == '#'
                && text[..at]
                    .chars()
                    .next_back()
                    .is_none_or(char::is_whitespace)
        };
        let end = text.char_indices().find(|at| comment(*at));
        let value = &text[..end.map_or(text.len(), |(at, _)| at)];
        return expand(value.trim_end(), look_up, MAX_DEPTH);
    };
    let mut value = String::new();
    let mut chars = text[1..].chars();
    let rest = loop {
        match chars.next() {
            None => return Err("a value whose quote is closed"),
            Some(c) if c == quote => break chars.as_str().trim_start(),
            Some('\\') if quote == '"' => match chars.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                // Distinct from one that stands for a variable.
                Some('$') => value.push('\0'),
                Some(c @ ('"' | '\\')) => value.push(c),
                Some(c) => value.extend(['\\', c]),
                None => return Err("a value whose quote is closed"),
            },
            Some(c) => value.push(c),
        }
    };
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err("nothing but a comment behind the closing quote");
    }
    if quote == '"' {
        value = expand(&value, look_up, MAX_DEPTH)?.replace('\0', "$");
    }
    Ok(value)
}

/// Defaults within defaults that are expanded.
const MAX_DEPTH: u32 = 8;

/// `text` with `$NAME`, `${NAME}` and the like replaced; a name that is not set is empty.
fn expand(
    text: &str,
    look_up: &dyn Fn(&str) -> Option<String>,
    depth: u32,
) -> Result<String, &'static str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (inner, behind) = match braced(after) {
            Some(parts) => parts,
            None => after.split_at(name_end(after)),
        };
        let (name, form) = inner.split_at(name_end(inner));
        if is_name(name) {
            let inner = |word: &str| match depth.checked_sub(1) {
                Some(depth) => expand(word, look_up, depth),
                None => Err("fewer defaults within defaults"),
            };
            out.push_str(&replaced(look_up(name), form, &inner)?);
            rest = behind;
        } else {
            out.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What `${NAME<form>}` stands for. With a colon, an empty value is one that is not set.
fn replaced(
    value: Option<String>,
    form: &str,
    expand: &dyn Fn(&str) -> Result<String, &'static str>,
) -> Result<String, &'static str> {
    let (value, form) = match form.strip_prefix(':') {
        Some(form) => (value.filter(|value| !value.is_empty()), form),
        None => (value, form),
    };
    let mut letters = form.chars();
    match (letters.next(), value) {
        (None, value) => Ok(value.unwrap_or_default()),
        (Some('-'), None) | (Some('+'), Some(_)) => expand(letters.as_str()),
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => Err("that the variable in `${NAME:?...}` is set"),
        (Some(_), _) => Err("`${NAME}`, with `:-`, `:+` or `:?` behind the name or nothing"),
    }
}

/// What stands in the braces that `text` begins with, and behind them.
fn braced(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{')?;
    let mut open = 1_u32;
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some((&inner[..at], &inner[at + 1..]));
        }
    }
    None
}

fn name_end(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// The entry point of a fuzzer: any file, whose names are names.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    if let Ok(set) = parse(&String::from_utf8_lossy(data), |_| None) {
        assert!(set.iter().all(|(name, _)| is_name(name)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(line: &str) -> Option<String> {
        let known = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        let set = parse(line, known).unwrap();
        set.into_iter().next().map(|(_, value)| value)
    }

    #[test]
    fn values_are_taken_as_docker_takes_them() {
        for (line, expected) in [
            ("A=1", Some("1")),
            ("A=", Some("")),
            ("A", None),
            ("A # of the environment", None),
            ("# A=1", None),
            ("", None),
            ("export A=1", Some("1")),
            ("exported=1", Some("1")),
            (" A = 1 ", Some("1")),
            ("\u{feff}A=1", Some("1")),
            ("A=1\r", Some("1")),
            (
                "A=--max-model-len 8192 --enforce-eager",
                Some("--max-model-len 8192 --enforce-eager"),
            ),
            ("A=x # comment", Some("x")),
            ("A=x#y", Some("x#y")),
            ("A=#", Some("")),
            ("A='x # y' # z", Some("x # y")),
            ("A=\"x \\\"y\\\"\\n\" # z", Some("x \"y\"\n")),
            ("A='$HOME\\n'", Some("$HOME\\n")),
            ("A=$HOME/x", Some("/home/me/x")),
            ("A=\"${HOME}/x\"", Some("/home/me/x")),
            ("A=\"\\$HOME\"", Some("$HOME")),
            ("A=${NONE:-d}", Some("d")),
            ("A=a$NONE", Some("a")),
            ("A=5$", Some("5$")),
            ("A=redis://:p=q@h:1", Some("redis://:p=q@h:1")),
            ("A={\"a\": 1}", Some("{\"a\": 1}")),
            ("A: 1 # c", Some("1")),
            ("A: b=c", Some("b=c")),
            ("A=b: c", Some("b: c")),
            ("A='x\ny'", Some("x\ny")),
            (
                "A=\"-----BEGIN\n\n# \\\"x\\\"\r\n-----END\" # c",
                Some("-----BEGIN\n\n# \"x\"\n-----END"),
            ),
            ("A=p$$w", Some("p$w")),
            ("A=${NONE:-${HOME}/x}", Some("/home/me/x")),
            ("A=${NONE-d}", Some("d")),
            ("A=${HOME-d}", Some("/home/me")),
            ("A=${HOME:+d}", Some("d")),
            ("A=${NONE+d}.", Some(".")),
            ("A=${HOME:?must}", Some("/home/me")),
            ("A=${NONE", Some("${NONE")),
        ] {
            assert_eq!(value(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn an_earlier_line_is_known_to_a_later_one() {
        let set = parse("A=1\nB=$A$A\n", |_| None).unwrap();
        assert_eq!(set[1], ("B".to_owned(), "11".to_owned()));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_without_its_words() {
        for text in [
            "A=1\n\n1A=s3cret\n",
            "A=1\n#\ns3 cret=1\n",
            "A=1\nB=2\n=s3cret\n",
            "A=1\nB=2\nC='s3cret\n",
            "A=1\nB=2\nC=\"s3cret\\\n",
            "A=1\nB=2\nC='s3cret' x\n",
            "A=1\nB=2\nsome s3cret words\n",
            "A=1\nB=2\nC=\"s3cret\nD=1\nE=2\n",
            "A=1\nB=2\nC='s3cret\nD='1'\n",
            "A=1\nB=2\nC=${NONE:?s3cret}\n",
            "A=1\nB=2\nC=${NONE%s3cret}\n",
            "A=1\nB=2\nC=s3\0cret\n",
            "A='1\n'\nC='s3cret' x\n",
        ] {
            let bad = parse(text, |_| None).unwrap_err();
            assert_eq!(bad.line, 3, "{text}");
            assert!(!bad.expected.contains("s3"));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _any = parse(&text, |_| None);
        }

        #[test]
        fn what_is_in_single_quotes_comes_back(text in "[^'\r\0]*") {
            prop_assert_eq!(value(&format!("A='{text}'")), Some(text));
        }
    }
}
