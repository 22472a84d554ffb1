//! Text as part of HTML, SVG or Markdown: what others wrote is shown and means nothing there.

use crate::foreign::one_line;

/// `text` with what would be read as markup spelled out, within elements and quoted attributes.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// `text` as one line of Markdown. Names between single backticks stay code; all else is text: no tag, no
/// link, no emphasis, no cell of a table.
pub(crate) fn markdown(text: &str) -> String {
    let text = one_line(text);
    // Pairs of single backticks are the only code that labrun's own sentences have.
    let has_code = text.matches('`').count().is_multiple_of(2) && !text.contains("``");
    let mut out = String::with_capacity(text.len() + 8);
    let mut in_code = false;
    let mut mark_end = 0;
    for (at, c) in text.char_indices() {
        if !in_code && c == '[' {
            mark_end = at + note_mark(&text[at..]);
        }
        match c {
            _ if at < mark_end => out.push(c),
            '`' if has_code => {
                in_code = !in_code;
                out.push(c);
            }
            // In a table it would end the cell, code or not.
            '|' => out.push_str("\\|"),
            _ if in_code => out.push(c),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '`' | '[' | ']' | '*' | '\\' => out.extend(['\\', c]),
            '_' if !is_inside_word(&text, at) => out.push_str("\\_"),
            // A list begins with a plus and a space; `+0.00` is a number.
            '+' if at == 0 && !text[1..].starts_with(' ') => out.push(c),
            '#' | '>' | '+' if at == 0 => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

/// The bytes of `[12]` at the begin of `text`, where that is a mark of a note and no link.
fn note_mark(text: &str) -> usize {
    let digits = text[1..].bytes().take_while(u8::is_ascii_digit).count();
    let after = &text[1 + digits..];
    let is_mark = digits > 0 && after.starts_with(']') && !after[1..].starts_with(['(', '[', ':']);
    if is_mark { digits + 2 } else { 0 }
}

/// `text` as code in one line of Markdown.
pub(crate) fn markdown_code(text: &str) -> String {
    format!("`{}`", one_line(text).replace('`', "'"))
}

/// Whether the character at `at` stands between two letters or digits: such an underscore is none of
/// Markdown's.
fn is_inside_word(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    let after = text[at + 1..].chars().next();
    [before, after]
        .iter()
        .all(|c| c.is_some_and(char::is_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_means_nothing_in_markdown() {
        for (text, expected) in [
            ("plain_name of 5 % (a)", "plain_name of 5 % (a)"),
            (
                "<script>alert(1)</script>",
                "&lt;script>alert(1)&lt;/script>",
            ),
            (
                "![x](http://h) [y](javascript:z)",
                "!\\[x\\](http://h) \\[y\\](javascript:z)",
            ),
            ("[1], [23] [4](x) [5]: y", "[1], [23] \\[4\\](x) \\[5\\]: y"),
            ("a|b *c* _d_", "a\\|b \\*c\\* \\_d\\_"),
            ("the cell `a_<b>` failed", "the cell `a_<b>` failed"),
            ("`a` <b> `c", "\\`a\\` &lt;b> \\`c"),
            ("``a`` <b>", "\\`\\`a\\`\\` &lt;b>"),
            ("# no heading\n# none", "\\# no heading # none"),
            ("&lt;b>", "&amp;lt;b>"),
            ("\u{1b}[2J", "\\\\x1b\\[2J"),
        ] {
            assert_eq!(markdown(text), expected);
        }
        assert_eq!(markdown_code("a`b\nc"), "`a'b c`");
    }
}
