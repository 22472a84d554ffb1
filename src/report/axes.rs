//! Coordinates beside a table: those that vary are columns, the others are stated once above it.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::schema::Source;
use crate::report::table::{Column, Keep, Side};

/// One coordinate of every row.
pub(crate) struct Axis {
    /// The name in files, used in the caption.
    name: String,
    /// The head's lines in the table.
    head: Vec<String>,
    side: Side,
    shown: Shown,
    cells: Vec<String>,
}

/// When a coordinate is a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Always,
    /// Only where it varies.
    WhereItVaries,
}

impl Axis {
    pub(crate) fn words(name: &str, shown: Shown, cells: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            head: vec![name.to_owned()],
            side: Side::Left,
            shown,
            cells,
        }
    }

    pub(crate) fn numbers(name: &str, head: &[&str], shown: Shown, cells: Vec<String>) -> Self {
        let head = head.iter().map(|line| (*line).to_owned()).collect();
        Self {
            name: name.to_owned(),
            head,
            side: Side::Right,
            shown,
            cells,
        }
    }
}

/// The further axes of all rows, `-` where a row lacks one.
pub(crate) fn extra_axes(rows: &[&BTreeMap<String, String>]) -> Vec<Axis> {
    extra_keys(rows)
        .into_iter()
        .map(|key| {
            let value = |row: &&BTreeMap<String, String>| match row.get(key) {
                Some(value) => value.clone(),
                None => "-".to_owned(),
            };
            Axis::words(key, Shown::WhereItVaries, rows.iter().map(value).collect())
        })
        .collect()
}

/// The names of the further axes of all rows.
pub(crate) fn extra_keys<'a>(rows: &[&'a BTreeMap<String, String>]) -> BTreeSet<&'a str> {
    rows.iter()
        .flat_map(|row| row.keys().map(String::as_str))
        .collect()
}

/// Columns for coordinates that vary, and a caption for the others.
pub(crate) fn split(axes: Vec<Axis>) -> (Vec<Column>, String) {
    let mut columns = Vec::new();
    let mut caption = Vec::new();
    for Axis {
        name,
        head,
        side,
        shown,
        cells,
    } in axes
    {
        let constant = cells.iter().all(|cell| Some(cell) == cells.first());
        if constant && shown == Shown::WhereItVaries {
            caption.extend(cells.first().map(|value| format!("{name} {value}")));
        } else {
            columns.push(Column {
                head,
                side,
                keep: Keep::Always,
                cells,
            });
        }
    }
    (columns, caption.join(", "))
}

/// The notice above numbers of these sources; none when all were measured.
pub(crate) fn banner(sources: impl IntoIterator<Item = Source>) -> Option<&'static str> {
    let sources: BTreeSet<_> = sources.into_iter().collect();
    match (
        sources.contains(&Source::Simulated),
        sources.contains(&Source::Measured),
    ) {
        (true, false) => {
            Some("Simulated: these numbers come from the built-in simulator, not from hardware.")
        }
        (true, true) => Some(
            "Partly simulated: the column `source` shows which numbers come from the built-in simulator.",
        ),
        (false, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_that_vary_are_columns_and_others_are_stated_once() {
        let texts = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        let (columns, caption) = split(vec![
            Axis::words("label", Shown::WhereItVaries, texts(["a", "a"])),
            Axis::words("tier", Shown::Always, texts(["cpu", "cpu"])),
            Axis::numbers("gen_len", &["gen"], Shown::WhereItVaries, texts(["4", "4"])),
            Axis::numbers("repeat", &["rep"], Shown::WhereItVaries, texts(["1", "2"])),
        ]);
        let heads: Vec<_> = columns.iter().map(|column| column.head.join(" ")).collect();
        assert_eq!(
            (heads.join(","), caption),
            ("tier,rep".to_owned(), "label a, gen_len 4".to_owned())
        );
    }

    #[test]
    fn simulated_is_always_stated() {
        use Source::{Measured, Simulated};
        assert!(
            banner([Simulated, Simulated])
                .unwrap()
                .starts_with("Simulated:")
        );
        assert!(
            banner([Simulated, Measured])
                .unwrap()
                .starts_with("Partly simulated:")
        );
        assert_eq!(banner([Measured]), None);
        assert_eq!(banner([]), None);
    }
}
