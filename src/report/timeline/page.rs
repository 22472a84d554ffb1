//! Which timelines stand in the page, and which beside it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Seen, strip, took_s};
use crate::record::schema::{CellOutcome, CellRecord, VerdictStatus};
use crate::report::Drawing;

/// The timelines of all cells of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timelines {
    /// As figures: of each tier of each run, the cell that took longest.
    pub figures: Vec<Drawing>,
    /// For the page, in the order of the report's cells.
    pub(super) strips: Vec<Strip>,
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
        /// What was done to its series.
        told: String,
        /// Its title, should it become a file.
        title: String,
    },
    /// The page has no room for it; it is a file.
    Aside {
        /// The file's name.
        file: String,
        /// The file.
        svg: String,
    },
}

impl Strip {
    pub(super) fn of(seen: &Seen) -> Self {
        match seen {
            Seen::Nothing => Self::Nothing,
            Seen::Unreadable(why) => Self::Unreadable(why.clone()),
            Seen::Drawn(timeline) => Self::Inline {
                svg: strip::strip(timeline),
                names: strip::names(timeline),
                told: strip::told(timeline),
                title: format!("{} ({})", timeline.title, timeline.subtitle),
            },
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

    /// The files of those that the page has no room for: names and what they hold.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.strips.iter().filter_map(|strip| match strip {
            Strip::Aside { file, svg } => Some((file.as_str(), svg.as_bytes())),
            _ => None,
        })
    }

    /// Moves out of the page what does not fit into `budget_bytes`. `cells` are the report's.
    pub(in crate::report) fn fit(&mut self, cells: &[CellRecord], budget_bytes: usize) {
        let mut left = budget_bytes;
        let figures = self.figures.iter().map(|figure| figure.name.clone());
        let mut taken: BTreeSet<String> = figures.collect();
        for at in by_weight(cells) {
            let bytes = self.strips[at].bytes();
            if bytes <= left {
                left -= bytes;
                continue;
            }
            if let Strip::Inline { svg, title, .. } = &self.strips[at] {
                let svg = strip::alone(svg, title);
                let name = free_name(&format!("timeline_{}", cells[at].id), &mut taken);
                let file = format!("{name}.svg");
                self.strips[at] = Strip::Aside { file, svg };
            }
        }
    }
}

/// The cells, those first whose timelines tell most: of each tier and prompt length the one that
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

fn is_doubtful(cell: &CellRecord) -> bool {
    let mut passes = cell.passes.iter();
    cell.outcome != CellOutcome::Completed
        || passes.any(|pass| pass.verdict.status != VerdictStatus::Valid)
}

/// `wanted`, or with a number behind it: cells of two runs may have one id.
pub(super) fn free_name(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = wanted.to_owned();
    let mut at = 2;
    while !taken.insert(name.clone()) {
        name = format!("{wanted}_{at}");
        at += 1;
    }
    name
}

#[cfg(test)]
pub(in crate::report) mod tests;
