//! Which timelines stand in the page, and which beside it.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Timeline;
use super::{strip, took_s};
use crate::record::schema::{CellOutcome, CellRecord, VerdictStatus};

/// The timelines of all cells of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Timelines {
    /// Those that are files, by name: of each tier of each run, the cell that took longest; and what
    /// the page has no room for.
    files: BTreeMap<String, String>,
    /// For the page, in the order of the report's cells.
    strips: Vec<Strip>,
}

/// The timeline of one cell, for the page.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::report) enum Strip {
    /// It has no telemetry.
    Nothing,
    /// Its files cannot be read, and why.
    Unreadable(String),
    /// It stands in the page.
    Inline {
        /// What is drawn, as the page has it.
        svg: String,
        /// What its panels show.
        names: String,
        /// How its series were reduced.
        resolution: String,
        /// Its title as a file.
        title: String,
        /// The file's name, where it becomes one.
        file: String,
    },
    /// The page has no room for it; it is this file.
    Aside {
        /// The file's name.
        file: String,
    },
}

impl Strip {
    /// What is drawn of `timeline`, and the name of its file, should it become one.
    pub(super) fn of(timeline: &Timeline, file: String) -> Self {
        Self::Inline {
            svg: strip::strip(timeline),
            names: strip::names(timeline),
            resolution: strip::resolution(timeline),
            title: format!("{} ({})", timeline.title, timeline.subtitle),
            file,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Inline { svg, .. } => svg.len(),
            _ => 0,
        }
    }
}

impl Timelines {
    /// Adds that of the next cell; as a file too where `is_file`.
    pub(super) fn add(&mut self, strip: Strip, is_file: bool) {
        if is_file {
            self.write(&strip);
        }
        self.strips.push(strip);
    }

    /// Makes a file of what is drawn, and returns the file's name.
    fn write(&mut self, strip: &Strip) -> Option<String> {
        let Strip::Inline {
            svg, title, file, ..
        } = strip
        else {
            return None;
        };
        self.files.insert(file.clone(), strip::alone(svg, title));
        Some(file.clone())
    }

    /// That of the cell at `at` of the report.
    pub(in crate::report) fn of_cell(&self, at: usize) -> &Strip {
        self.strips.get(at).unwrap_or(&Strip::Nothing)
    }

    /// How many stand in the page, of how many.
    pub(in crate::report) fn counts(&self) -> (usize, usize) {
        let is_inline = |strip: &&Strip| matches!(strip, Strip::Inline { .. });
        let is_aside = |strip: &&Strip| matches!(strip, Strip::Aside { .. });
        let inline = self.strips.iter().filter(is_inline).count();
        (inline, inline + self.strips.iter().filter(is_aside).count())
    }

    /// The files: names and what they hold.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let files = self.files.iter();
        files.map(|(name, svg)| (name.as_str(), svg.as_bytes()))
    }

    /// Moves out of the page what does not fit into `budget_bytes`. `cells` are the report's.
    pub(in crate::report) fn fit(&mut self, cells: &[CellRecord], budget_bytes: usize) {
        let mut left = budget_bytes;
        for at in by_weight(cells) {
            let bytes = self.strips[at].bytes();
            if bytes <= left {
                left -= bytes;
                continue;
            }
            let strip = std::mem::replace(&mut self.strips[at], Strip::Nothing);
            if let Some(file) = self.write(&strip) {
                self.strips[at] = Strip::Aside { file };
            }
        }
    }
}

/// The cells, those with the most informative timelines first: of each tier and prompt length the one that
/// took longest, then those that are not valid, then the others.
fn by_weight(cells: &[CellRecord]) -> Vec<usize> {
    let mut longest = BTreeMap::new();
    for (at, cell) in cells.iter().enumerate() {
        let key = (&cell.coordinates.tier, cell.coordinates.prompt_len);
        let best = longest.entry(key).or_insert(at);
        if took_s(cell) > took_s(&cells[*best]) {
            *best = at;
        }
    }
    let longest: BTreeSet<usize> = longest.into_values().collect();
    let weight = |at: usize| match &cells[at] {
        _ if longest.contains(&at) => 0,
        cell if is_doubtful(cell) => 1,
        _ => 2,
    };
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|at| weight(*at));
    order
}

pub(in crate::report) fn is_doubtful(cell: &CellRecord) -> bool {
    let mut passes = cell.passes.iter();
    cell.outcome != CellOutcome::Completed
        || passes.any(|pass| pass.verdict.status != VerdictStatus::Valid)
}

#[cfg(test)]
pub(in crate::report) mod tests;
