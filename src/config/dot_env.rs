//! Reads `.env` as Docker takes it.
//!
//! A line is `NAME=VALUE`, with `export ` before it or not, or a name alone, which sets nothing: its
//! value is that of the environment. A value ends at ` #`, or is in quotes; between double ones `\n` and
//! the like stand for what they mean. `$NAME` and `${NAME:-default}` stand for earlier values, but
//! not between single quotes.

/// A line that cannot be read. It is not quoted: it may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Number of the line, from 1.
    pub line: usize,
    /// The expected form.
    pub expected: &'static str,
}

/// The names and values that `text` sets, in its order. `known` gives values of the environment.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(
    text: &str,
    known: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, BadLine> {
    let mut set: Vec<(String, String)> = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let bad = |expected| BadLine {
            line: index + 1,
            expected,
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line
            .strip_prefix("export")
            .filter(|rest| rest.starts_with(char::is_whitespace))
            .map_or(line, str::trim_start);
        let (name, value) = match line.split_once('=') {
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
        let value = read(value.trim_start(), &look_up).map_err(bad)?;
        set.push((name.to_owned(), value));
    }
    Ok(set)
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
        return Ok(expand(value.trim_end(), look_up));
    };
    let mut value = String::new();
    let mut chars = text[1..].chars();
    let rest = loop {
        match chars.next() {
            None => return Err("a value whose quote is closed in the same line"),
            Some(c) if c == quote => break chars.as_str().trim_start(),
            Some('\\') if quote == '"' => match chars.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                // Distinct from one that stands for a variable.
                Some('$') => value.push('\0'),
                Some(c @ ('"' | '\\')) => value.push(c),
                Some(c) => value.extend(['\\', c]),
                None => return Err("a value whose quote is closed in the same line"),
            },
            Some(c) => value.push(c),
        }
    };
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err("nothing but a comment behind the closing quote");
    }
    if quote == '"' {
        value = expand(&value, look_up).replace('\0', "$");
    }
    Ok(value)
}

/// `text` with `$NAME`, `${NAME}` and `${NAME:-default}` replaced; one that is not set is empty.
fn expand(text: &str, look_up: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        let (name, default, behind) = if let Some((inner, behind)) = braced {
            let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
            (name, default, behind)
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, behind) = after.split_at(end.unwrap_or(after.len()));
            (name, "", behind)
        };
        if is_name(name) {
            let value = look_up(name).filter(|value| !value.is_empty() || default.is_empty());
            out.push_str(value.as_deref().unwrap_or(default));
            rest = behind;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
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
        fn what_is_in_single_quotes_comes_back(text in "[^'\n\r]*") {
            prop_assert_eq!(value(&format!("A='{text}'")), Some(text));
        }
    }
}
