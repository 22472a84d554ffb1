//! Lines of text for a terminal.

/// Breaks `line` between words at `width`; what follows is indented.
pub(crate) fn push_wrapped(text: &mut String, line: &str, width: u16) {
    let mut used = 0;
    for word in line.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > usize::from(width) {
            text.push_str("\n  ");
            used = 2;
        } else if used > 0 {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        let mut text = String::new();
        push_wrapped(&mut text, "one two three four", 9);
        assert_eq!(text, "one two\n  three\n  four\n");
    }
}
