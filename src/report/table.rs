//! A table as columns of text, and its two renderings.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ContentArrangement, TableComponent, presets};

use crate::report::escape::markdown;
use crate::report::wrap::push_wrapped;

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Whether a column may be left out of a narrow terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Keep {
    /// Always there.
    Always,
    /// Left out when room is short; those with the larger number first.
    Droppable(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// The head's lines.
    pub head: Vec<String>,
    /// Where the text stands.
    pub side: Side,
    /// Whether it may be left out.
    pub keep: Keep,
    /// One text a row.
    pub cells: Vec<String>,
}

impl Column {
    /// A column of words.
    pub(crate) fn words(head: &str, keep: Keep, cells: Vec<String>) -> Self {
        Self {
            head: vec![head.to_owned()],
            side: Side::Left,
            keep,
            cells,
        }
    }

    /// A column of numbers.
    pub(crate) fn numbers(head: &[&str], keep: Keep, cells: Vec<String>) -> Self {
        let head = head
            .iter()
            .filter(|line| !line.is_empty())
            .map(|line| (*line).to_owned());
        Self {
            head: head.collect(),
            side: Side::Right,
            keep,
            cells,
        }
    }

    fn width(&self) -> usize {
        let longest = self
            .head
            .iter()
            .chain(&self.cells)
            .map(|text| text.chars().count())
            .max();
        // One blank on either side.
        longest.unwrap_or(0) + 2
    }
}

/// Columns of equal height.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// From left to right.
    pub columns: Vec<Column>,
}

impl Table {
    /// For a terminal of `width` columns. Droppable columns are left out until it fits, and
    /// listed below it.
    pub(crate) fn terminal(&self, width: u16) -> String {
        let mut shown: Vec<&Column> = self.columns.iter().collect();
        let mut left_out = Vec::new();
        while shown.iter().map(|column| column.width()).sum::<usize>() > usize::from(width) {
            let droppable = |(_, column): &(usize, &&Column)| column.keep > Keep::Always;
            let candidates = shown.iter().enumerate().filter(droppable);
            let Some((at, _)) = candidates.max_by_key(|(at, column)| (column.keep, *at)) else {
                break;
            };
            left_out.push(shown.remove(at).head.join(" "));
        }
        let mut text = drawn(&shown, width);
        if !left_out.is_empty() {
            left_out.reverse();
            let names = left_out.join(", ");
            push_wrapped(
                &mut text,
                &format!("not shown at this width: {names}"),
                width,
            );
        }
        text
    }

    /// As a Markdown pipe table.
    pub(crate) fn markdown(&self) -> String {
        let line = |fields: Vec<String>| format!("| {} |\n", fields.join(" | "));
        let mut text = line(
            self.columns
                .iter()
                .map(|c| markdown(&c.head.join(" ")))
                .collect(),
        );
        let rules = self.columns.iter().map(|column| match column.side {
            Side::Left => ":--",
            Side::Right => "--:",
        });
        let _ = writeln!(text, "|{}|", rules.collect::<Vec<_>>().join("|"));
        let height = self.columns.first().map_or(0, |column| column.cells.len());
        for row in 0..height {
            text.push_str(&line(
                self.columns
                    .iter()
                    .map(|c| markdown(&c.cells[row]))
                    .collect(),
            ));
        }
        text
    }
}

fn drawn(columns: &[&Column], width: u16) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    // The preset parts columns by a blank that the cells' own padding already gives.
    table.remove_style(TableComponent::VerticalLines);
    table.remove_style(TableComponent::MiddleHeaderIntersections);
    table.set_style(TableComponent::HeaderLines, '─');
    if columns.iter().map(|column| column.width()).sum::<usize>() > usize::from(width) {
        // Nothing left to drop: let the words wrap.
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    let aligned = |text: &str, side| {
        Cell::new(text).set_alignment(match side {
            Side::Left => CellAlignment::Left,
            Side::Right => CellAlignment::Right,
        })
    };
    // Heads of fewer lines stand at the bottom, next to their numbers.
    let lines = columns
        .iter()
        .map(|column| column.head.len())
        .max()
        .unwrap_or(0);
    table.set_header(columns.iter().map(|column| {
        let above = "\n".repeat(lines - column.head.len());
        aligned(&format!("{above}{}", column.head.join("\n")), column.side)
    }));
    let height = columns.first().map_or(0, |column| column.cells.len());
    for row in 0..height {
        table.add_row(
            columns
                .iter()
                // A line end in a value must not pass for a row.
                .map(|column| aligned(&column.cells[row].replace('\n', " "), column.side)),
        );
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Table {
            columns: vec![
                Column::words("tier", Keep::Always, texts(&["cpu", "a|b"])),
                Column::numbers(
                    &["TTFT", "p50", "ms"],
                    Keep::Always,
                    texts(&["9.5", "120.0"]),
                ),
                Column::numbers(&["n"], Keep::Droppable(1), texts(&["24", "-"])),
                Column::numbers(&["cached"], Keep::Droppable(2), texts(&["0", "1000"])),
            ],
        }
    }

    #[test]
    fn numbers_stand_right_under_heads_with_units() {
        assert_eq!(
            table().terminal(80),
            "        TTFT\n\
             \x20        p50\n\
             \x20tier     ms   n  cached\n\
             ─────────────────────────\n\
             \x20cpu     9.5  24       0\n\
             \x20a|b   120.0   -    1000\n"
        );
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_important_columns_and_lists_them() {
        assert_eq!(
            table().terminal(18),
            "        TTFT\n\
             \x20        p50\n\
             \x20tier     ms   n\n\
             ─────────────────\n\
             \x20cpu     9.5  24\n\
             \x20a|b   120.0   -\n\
             not shown at this\n\
             \x20 width: cached\n"
        );
    }

    #[test]
    fn markdown_aligns_and_escapes() {
        assert_eq!(
            table().markdown(),
            "| tier | TTFT p50 ms | n | cached |\n\
             |:--|--:|--:|--:|\n\
             | cpu | 9.5 | 24 | 0 |\n\
             | a\\|b | 120.0 | - | 1000 |\n"
        );
    }
}
