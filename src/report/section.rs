//! A table with what must stand around it, and its two renderings.

use std::fmt::Write as _;

use crate::record::schema::Source;
use crate::report::axes::banner;
use crate::report::escape::markdown;
use crate::report::notes::Notes;
use crate::report::table::Table;
use crate::report::wrap::push_wrapped;

/// One table of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub banner: Option<&'static str>,
    pub caption: String,
    pub table: Table,
    pub notes: Vec<String>,
}

impl Section {
    pub(crate) fn new(
        sources: impl IntoIterator<Item = Source>,
        caption: String,
        table: Table,
        notes: &Notes,
    ) -> Self {
        Self {
            banner: banner(sources),
            caption,
            table,
            notes: notes.lines(),
        }
    }

    /// For a terminal of `width` columns.
    pub(crate) fn terminal(&self, width: u16) -> String {
        let mut text = String::new();
        for line in self.banner.into_iter().chain(self.caption()) {
            push_wrapped(&mut text, line, width);
        }
        text.push('\n');
        text.push_str(&self.table.terminal(width));
        for note in &self.notes {
            push_wrapped(&mut text, note, width);
        }
        text
    }

    /// As Markdown, without a heading.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        if let Some(banner) = self.banner {
            let _ = writeln!(text, "**{banner}**\n");
        }
        if let Some(caption) = self.caption() {
            let _ = writeln!(text, "{}\n", markdown(caption));
        }
        text.push_str(&self.table.markdown());
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "- {}", markdown(note));
        }
        text
    }

    /// The coordinates that do not vary, if any.
    pub(crate) fn caption(&self) -> Option<&str> {
        Some(self.caption.as_str()).filter(|caption| !caption.is_empty())
    }
}
