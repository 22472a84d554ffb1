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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_only_where_needed() {
        let mut text = String::new();
        push_row(&mut text, &["a", "b,c", "", "d \"e\"", "f\ng"]);
        assert_eq!(text, "a,\"b,c\",,\"d \"\"e\"\"\",\"f\ng\"\n");
    }
}
