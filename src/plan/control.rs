//! Control characters in a plan's texts: no name, path or argument may hold one, and a terminal obeys them.

use toml::de::{DeTable, DeValue};

use super::reader::Problems;
use crate::foreign::visible;

/// Reports every key and text with a control character other than a line end or a tab.
pub(super) fn refuse(table: &DeTable<'_>, problems: &Problems) {
    for (key, value) in table {
        if is_bad(key.get_ref()) {
            add(key.span(), problems);
        }
        look_at(value.get_ref(), value.span(), problems);
    }
}

fn look_at(value: &DeValue<'_>, span: std::ops::Range<usize>, problems: &Problems) {
    match value {
        DeValue::String(text) if is_bad(text) => add(span, problems),
        DeValue::Array(items) => items
            .iter()
            .for_each(|item| look_at(item.get_ref(), item.span(), problems)),
        DeValue::Table(table) => refuse(table, problems),
        _ => {}
    }
}

fn is_bad(text: &str) -> bool {
    // It would be shown written out.
    visible(text) != text
}

fn add(span: std::ops::Range<usize>, problems: &Problems) {
    problems.add(
        span,
        "this text holds a control character",
        "remove it: names, paths and arguments have none",
    );
}
