//! Comma-separated values as RFC 4180 has them, with `\n` between rows.

/// Appends one row. A field is quoted only where it must be.
pub(crate) fn push_row<S: AsRef<str>>(text: &mut String, fields: &[S]) {
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        let field = field.as_ref();
        if field.contains([',', '"', '\n', '\r']) {
            text.push('"');
            text.push_str(&field.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(field);
        }
    }
    text.push('\n');
}

/// The rows of a table, its head first. Empty lines are passed over; a quote that is never closed
/// ends with the text.
pub(crate) fn read_rows(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let (mut row, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted && letters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            other => field.push(other),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows.retain(|row| *row != [String::new()]);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let rows = [
            vec!["a", "b,c", "", "d \"e\"", "f\ng"],
            vec!["", "1", "2", "3", ""],
        ];
        let mut text = String::new();
        for row in &rows {
            push_row(&mut text, row);
        }
        assert_eq!(read_rows(&text), rows);
        assert_eq!(read_rows("a,b\r\n\n1,2"), [["a", "b"], ["1", "2"]]);
        assert!(read_rows("").is_empty());
    }

    #[test]
    fn quotes_only_where_needed() {
        let mut text = String::new();
        push_row(&mut text, &["a", "b,c", "", "d \"e\"", "f\ng"]);
        assert_eq!(text, "a,\"b,c\",,\"d \"\"e\"\"\",\"f\ng\"\n");
    }
}
