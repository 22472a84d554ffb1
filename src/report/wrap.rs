//! Lines of text for a terminal.

/// Breaks `line` between words at `width`; what follows is indented by two more than the line.
pub(crate) fn push_wrapped(text: &mut String, line: &str, width: u16) {
    let words = line.trim_start_matches(' ');
    let indent = line.len() - words.len();
    text.push_str(&line[..indent]);
    let mut used = indent;
    let mut is_first = true;
    for word in words.split(' ') {
        let length = word.chars().count();
        if !is_first && used + 1 + length > usize::from(width) {
            text.push('\n');
            text.push_str(&" ".repeat(indent + 2));
            used = indent + 2;
        } else if !is_first {
            text.push(' ');
            used += 1;
        }
        is_first = false;
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
        text.clear();
        push_wrapped(&mut text, "  - one two three", 11);
        assert_eq!(text, "  - one two\n    three\n");
    }
}
