//! Tables of comma-separated values (RFC 4180): the one reader and the one writer of rows.
//!
//! Text that a spreadsheet would run as a formula gets a leading quote when it is written and loses
//! it when it is read. Numbers never change.

use std::rc::Rc;

use anyhow::{Context as _, Result, bail, ensure};
use csv::{ReaderBuilder, StringRecord};

/// What other programs write where they have no number.
const NO_NUMBER: [&str; 5] = ["nan", "na", "n/a", "null", "none"];

/// Appends one row. A field is quoted only where it must be.
pub(crate) fn push_row<S: AsRef<str>>(text: &mut String, fields: &[S]) {
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        let field = field.as_ref();
        let guard = if is_formula(field) { "'" } else { "" };
        // A row of one empty field would be an empty line, which readers pass over.
        let is_blank_row = fields.len() == 1 && field.is_empty();
        if is_blank_row || field.contains([',', '"', '\n', '\r']) {
            text.push('"');
            text.push_str(guard);
            text.push_str(&field.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(guard);
            text.push_str(field);
        }
    }
    text.push('\n');
}

/// Whether a spreadsheet would run `text`, be it behind leading quotes.
fn is_formula(text: &str) -> bool {
    let begins = text
        .trim_start_matches('\'')
        .starts_with(['=', '+', '-', '@', '\t', '\r']);
    begins && text.parse::<f64>().is_err()
}

/// A field as it was before it was written.
fn unguarded(field: &str) -> &str {
    match field.strip_prefix('\'') {
        Some(rest) if is_formula(field) => rest,
        _ => field,
    }
}

/// A table: a head of names and the rows under it.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    head: Rc<[String]>,
    /// The rows, without empty lines.
    pub rows: Vec<Row>,
}

/// One row, its fields by name.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    head: Rc<[String]>,
    fields: StringRecord,
    /// The line of the text where it begins, from 1.
    pub line: u64,
}

impl Table {
    /// Reads `text`. Refused are rows of another length than the head, a name that stands twice, and
    /// quotes that do not close where a field ends: they would swallow rows.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        check_quotes(text)?;
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_bytes());
        let mut head: Option<Rc<[String]>> = None;
        let mut rows = Vec::new();
        for record in reader.records() {
            let fields = record.context("it cannot be read as CSV")?;
            let line = fields.position().map_or(0, csv::Position::line);
            let Some(head) = &head else {
                head = Some(head_of(&fields, line)?);
                continue;
            };
            ensure!(
                fields.len() == head.len(),
                "row {line} has {} fields under {} names{}",
                fields.len(),
                head.len(),
                comment_hint(line, &fields, head)
            );
            rows.push(Row {
                head: Rc::clone(head),
                fields,
                line,
            });
        }
        let head = head.context("it is empty")?;
        Ok(Self { head, rows })
    }

    /// The names of the columns.
    pub(crate) fn names(&self) -> &[String] {
        &self.head
    }

    /// Whether there is a column of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.head.iter().any(|known| known == name)
    }

    /// Fails where one of `names` is no column, and names all that are missing.
    pub(crate) fn require(&self, names: &[&str]) -> Result<()> {
        let missing: Vec<&str> = names.iter().copied().filter(|n| !self.has(n)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let hint = match self.head.first() {
            Some(first) if first.starts_with('#') => {
                "; row 1 is a comment, which CSV does not have: remove it"
            }
            Some(only) if self.head.len() == 1 && only.contains([';', '\t']) => {
                "; its fields are not separated by commas"
            }
            _ => "",
        };
        let has = self.head.join("`, `");
        bail!("no column `{}`; it has `{has}`{hint}", missing.join("`, `"));
    }
}

fn head_of(fields: &StringRecord, line: u64) -> Result<Rc<[String]>> {
    let names: Vec<String> = fields.iter().map(|name| name.trim().to_owned()).collect();
    for (at, name) in names.iter().enumerate() {
        let is_double = !name.is_empty() && names[..at].contains(name);
        ensure!(!is_double, "row {line} names the column `{name}` twice");
    }
    Ok(names.into())
}

/// What is wrong with a row of another length where a line is a comment.
fn comment_hint(line: u64, fields: &StringRecord, head: &[String]) -> String {
    let is_comment = |first: Option<&str>| first.is_some_and(|first| first.starts_with('#'));
    let line = match head.first() {
        first if is_comment(first.map(String::as_str)) => 1,
        _ if is_comment(fields.get(0)) => line,
        _ => return String::new(),
    };
    format!(": row {line} is a comment, which CSV does not have: remove it")
}

/// Fails where a quote is not closed or closes within a field. The reader would take what follows,
/// rows and all, for a part of that field.
fn check_quotes(text: &str) -> Result<()> {
    let (mut line, mut opened, mut starts_field) = (1_u64, None, true);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, opened) {
            ('"', None) if starts_field => opened = Some(line),
            ('"', Some(_)) if letters.next_if_eq(&'"').is_some() => {}
            ('"', Some(from)) => {
                let ends = letters
                    .peek()
                    .is_none_or(|next| [',', '\n', '\r'].contains(next));
                ensure!(
                    ends,
                    "row {from} holds a quoted field that does not end at its closing quote (line \
                     {line})"
                );
                opened = None;
            }
            _ => {}
        }
        line += u64::from(letter == '\n');
        starts_field = opened.is_none() && [',', '\n', '\r'].contains(&letter);
    }
    match opened {
        Some(from) => bail!("row {from} opens a quote that is never closed"),
        None => Ok(()),
    }
}

impl Row {
    /// Whether there is a column of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.head.iter().any(|known| known == name)
    }

    /// The field, unless it is empty or there is no such column.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let at = self.head.iter().position(|known| known == name)?;
        self.fields
            .get(at)
            .map(unguarded)
            .filter(|text| !text.is_empty())
    }

    /// Names and fields in their order, without the empty ones.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.head.iter().map(String::as_str).zip(&self.fields);
        fields.filter_map(|(name, field)| match unguarded(field) {
            "" => None,
            text => Some((name, text)),
        })
    }

    /// A finite number. Empty, `NaN` and `null` are none.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(text) = self.get(name).map(str::trim) else {
            return Ok(None);
        };
        if NO_NUMBER.contains(&text.to_lowercase().as_str()) {
            return Ok(None);
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => bail!(self.wrong(name, "a number")),
        }
    }

    /// A whole number of at least 0; a spreadsheet may have written `1024.0`.
    pub(crate) fn count(&self, name: &str) -> Result<Option<u32>> {
        let Some(number) = self.number(name)? else {
            return Ok(None);
        };
        let fits = (0.0..=f64::from(u32::MAX)).contains(&number) && number.fract() == 0.0;
        ensure!(fits, self.wrong(name, "a whole number of at least 0"));
        Ok(Some(number as u32))
    }

    /// `value`, or the error that the row lacks it.
    pub(crate) fn required<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.with_context(|| format!("row {} has no `{name}`", self.line))
    }

    /// The error that the field is not what was `expected`.
    pub(crate) fn wrong(&self, name: &str, expected: &str) -> String {
        let (line, text) = (self.line, self.get(name).unwrap_or_default());
        format!("row {line}, column `{name}`: invalid value `{text}`: expected {expected}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(table: &Table) -> Vec<Vec<String>> {
        let of = |row: &Row| row.fields.iter().map(|f| unguarded(f).to_owned()).collect();
        table.rows.iter().map(of).collect()
    }

    fn refusal(text: &str) -> String {
        format!("{:#}", Table::parse(text).unwrap_err())
    }

    /// Fields with all that CSV and spreadsheets take for special.
    fn field() -> impl Strategy<Value = String> {
        prop_oneof![
            "[=+@',\"\n\r\t a-z0-9.-]{0,6}",
            any::<f64>().prop_map(|number| number.to_string()),
            any::<String>(),
        ]
    }

    fn rows() -> impl Strategy<Value = Vec<Vec<String>>> {
        (1_usize..5).prop_flat_map(|width| {
            proptest::collection::vec(proptest::collection::vec(field(), width), 0..8)
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(rows in rows(), crlf in any::<bool>()) {
            let width = rows.first().map_or(1, Vec::len);
            let names: Vec<String> = (0..width).map(|at| format!("c{at}")).collect();
            let mut text = String::new();
            push_row(&mut text, &names);
            let mut lines = vec![text];
            for row in &rows {
                let mut line = String::new();
                push_row(&mut line, row);
                lines.push(line);
            }
            // Other line ends and empty lines between rows change nothing.
            let end = if crlf { "\r\n\r\n" } else { "\n" };
            let lines: Vec<&str> = lines.iter().map(|l| l.strip_suffix('\n').unwrap()).collect();
            let text = lines.join(end) + end;
            let table = Table::parse(&text).unwrap();
            prop_assert_eq!(table.names(), names);
            prop_assert_eq!(fields(&table), rows);
        }

        #[test]
        fn no_text_panics_and_no_row_is_swallowed(text in "[a,\"\n]{0,20}") {
            if let Ok(table) = Table::parse(&text) {
                let quoted = text.contains('"');
                let lines = text.lines().filter(|line| !line.is_empty()).count();
                prop_assert!(quoted || table.rows.len() + 1 == lines);
            }
        }
    }

    #[test]
    fn only_text_is_guarded_and_quotes_stand_only_where_needed() {
        let mut text = String::new();
        push_row(&mut text, &["a", "b,c", "", "d \"e\"", "f\ng"]);
        assert_eq!(text, "a,\"b,c\",,\"d \"\"e\"\"\",\"f\ng\"\n");
        for (field, written) in [
            ("=1+1", "'=1+1\n"),
            ("@SUM(1)", "'@SUM(1)\n"),
            ("+a", "'+a\n"),
            ("-a", "'-a\n"),
            ("-0.5", "-0.5\n"),
            ("+3e9", "+3e9\n"),
            ("-inf", "-inf\n"),
            ("'=x", "''=x\n"),
            ("'a", "'a\n"),
            ("=a,b", "\"'=a,b\"\n"),
        ] {
            let mut text = String::new();
            push_row(&mut text, &[field]);
            assert_eq!(text, written);
        }
    }

    #[test]
    fn odd_tables_are_refused_with_their_row() {
        for (text, expected) in [
            ("", "it is empty"),
            ("a,b\n1\n", "row 2 has 1 fields under 2 names"),
            ("a,b\n1,2,3\n", "row 2 has 3 fields under 2 names"),
            (
                "# x\na,b\n",
                "row 2 has 2 fields under 1 names: row 1 is a comment",
            ),
            (
                "a,b\n1,2\n# x\n",
                "row 3 has 1 fields under 2 names: row 3 is a comment",
            ),
            ("a,b,a\n", "row 1 names the column `a` twice"),
            ("a\n\"b\nc\nd\n", "row 2 opens a quote that is never closed"),
            ("a,b\n\"x,1\ny,2\n\"z\",3\n", "row 2 holds a quoted field"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.starts_with(expected), "{text:?}: {refusal}");
        }
        let table = Table::parse("# x\n").unwrap();
        let error = table.require(&["a"]).unwrap_err().to_string();
        assert!(
            error.ends_with("row 1 is a comment, which CSV does not have: remove it"),
            "{error}"
        );
        let table = Table::parse("a;b\n1;2\n").unwrap();
        let error = table.require(&["a", "b"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "no column `a`, `b`; it has `a;b`; its fields are not separated by commas"
        );
    }

    #[test]
    fn numbers_are_read_as_other_programs_write_them() {
        let table =
            Table::parse("n\n7\n1024.0\nNaN\nNA\n512.5\n-1\nx\ninf\n99999999999\n").unwrap();
        let counts: Vec<_> = table.rows.iter().map(|row| row.count("n").ok()).collect();
        let some = |n| Some(Some(n));
        let none = Some(None);
        assert_eq!(
            counts,
            [
                some(7),
                some(1024),
                none,
                none,
                None,
                None,
                None,
                None,
                None
            ]
        );
        assert_eq!(
            table.rows[4].count("n").unwrap_err().to_string(),
            "row 6, column `n`: invalid value `512.5`: expected a whole number of at least 0"
        );
        assert_eq!(table.rows[0].number("other").unwrap(), None);
    }
}
