//! Text that others wrote: servers, files, users. It is shown, never sent: nothing in it may steer a
//! terminal, and no more of it is shown than a person reads.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with control characters written out (`\x1b`): those of terminals, and those that turn the
/// direction of what follows. Line ends and tabs stay.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        // A line that ends as Windows writes it.
        if c == '\r' && chars.peek() == Some(&'\n') {
            continue;
        }
        // Writing to a `String` cannot fail.
        let _ = match (steers(c), u32::from(c)) {
            (false, _) => write!(out, "{c}"),
            (true, code @ 0..=0xff) => write!(out, "\\x{code:02x}"),
            (true, code) => write!(out, "\\u{{{code:x}}}"),
        };
    }
    Cow::Owned(out)
}

fn steers(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}'
    );
    let breaks = matches!(c, '\u{2028}' | '\u{2029}');
    (c.is_control() && c != '\n' && c != '\t') || turns || breaks
}

/// `text` without the colours (and other CSI sequences) that loggers write even into files.
pub(crate) fn without_colours(text: &str) -> Cow<'_, str> {
    if !text.contains("\u{1b}[") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        out.push_str(&rest[..at]);
        let code = &rest[at + 2..];
        let end = code
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or(code.len(), |at| at + 1);
        rest = &code[end..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// [`visible`], on one line.
pub(crate) fn one_line(text: &str) -> String {
    visible(text).replace(['\n', '\t'], " ")
}

/// The first `most` characters of `text`, and how much there is where that is more.
pub(crate) fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}... ({} bytes)", &text[..end], text.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        assert_eq!(
            visible("\u{1b}]0;pwned\u{7}\u{1b}[31mred\u{9b}2J\r"),
            "\\x1b]0;pwned\\x07\\x1b[31mred\\x9b2J\\x0d"
        );
        assert_eq!(visible("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(visible("a\r\nb\tc \u{e9}"), "a\nb\tc \u{e9}");
        assert_eq!(one_line("a\nb\u{1b}"), "a b\\x1b");
    }

    #[test]
    fn a_long_text_says_how_long_it_was() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(
            shortened("\u{e9}\u{e9}\u{e9}", 2),
            "\u{e9}\u{e9}... (6 bytes)"
        );
    }

    proptest! {
        #[test]
        fn no_control_character_is_left_and_it_changes_nothing_twice(text in any::<String>()) {
            let shown = visible(&text).into_owned();
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
            prop_assert_eq!(visible(&shown), shown.as_str());
        }
    }
}
