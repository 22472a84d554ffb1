//! Summaries to text, tables and figures. Returns strings and bytes; writes nothing.

mod advice;
mod answer;
pub(crate) mod axes;
mod by_turn;
pub(crate) mod causes;
mod cell;
mod cells;
mod contrast;
mod controls;
mod cost;
pub(crate) mod escape;
mod facts;
mod figure;
mod figures;
mod files;
mod headline;
mod html;
mod lengths;
mod markdown;
mod memory;
pub(crate) mod notes;
pub(crate) mod number;
pub(crate) mod plot;
mod screen;
pub(crate) mod section;
pub(crate) mod table;
pub(crate) mod timeline;
pub(crate) mod wrap;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::Result;

use crate::aggregate::{
    Comparison, Passes, Slo, SummaryTable, TurnRow, compare_passes, summarize_passes, turns,
};
use crate::matrix::controls::is_control;
use crate::metric::{Metric, glossary_markdown};
use crate::plan::state::CacheState;
use crate::record::manifest::Manifest;
use crate::record::reader::RunData;
use crate::record::schema::CellRecord;
use crate::report::axes::banner;
use crate::report::figure::Picture;
use crate::report::section::Section;
use crate::report::timeline::Timelines;
use crate::report::wrap::push_wrapped;

pub(crate) use cost::Price;
pub(crate) use facts::RunFacts;
pub(crate) use html::Html;

/// The figures of a run.
const FIGURES: [(Metric, &str); 2] = [
    (Metric::Ttft, "comparison_ttft"),
    (Metric::E2e, "comparison_e2e"),
];

/// The report of one run: its tables, figures and evidence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    title: String,
    summary: SummaryTable,
    comparison: Comparison,
    turns: Vec<TurnRow>,
    slos: Vec<Slo>,
    cells: Vec<CellRecord>,
    scope: Scope,
    price: Option<Price>,
}

/// What a run was to measure, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Scope {
    /// Cells that were asked for, where the manifests list them.
    planned: Option<usize>,
    /// From the start of the last attempt to its end, seconds.
    span_s: Option<f64>,
}

impl Report {
    /// Sums up `run` under `title`.
    pub(crate) fn of(run: &RunData, title: &str) -> Result<Self> {
        Self::under(run, title, &[])
    }

    /// Sums up `run` under `title` and objectives.
    pub(crate) fn under(run: &RunData, title: &str, slos: &[Slo]) -> Result<Self> {
        let passes = Passes::gather(run, slos)?;
        Ok(Self {
            title: title.to_owned(),
            summary: summarize_passes(run, &passes, slos),
            comparison: compare_passes(run, &passes, slos),
            turns: turns(run)?,
            slos: slos.to_vec(),
            cells: run.cells.clone(),
            scope: Scope::default(),
            price: None,
        })
    }

    /// One row a cell and cache state.
    pub(crate) fn summary(&self) -> &SummaryTable {
        &self.summary
    }

    /// What each tier bought, in sentences.
    pub(crate) fn headline(&self) -> Vec<String> {
        let mut sentences = headline::headline(&self.comparison);
        sentences.extend(controls::lines(&self.comparison));
        let failed: Vec<_> = self
            .summary
            .failed
            .iter()
            .map(|cell| cell.cell.as_str())
            .collect();
        if !failed.is_empty() {
            let cells = if failed.len() == 1 { "cell" } else { "cells" };
            let (count, names) = (failed.len(), failed.join(", "));
            sentences.push(format!(
                "Not measured to the end, {count} {cells}: {names}."
            ));
        }
        sentences
    }

    /// Takes over from `runs` how many cells were asked for, and how long a single run took.
    pub(crate) fn note_scope(&mut self, runs: &[RunFacts]) {
        let planned = runs.iter().map(RunFacts::planned);
        self.scope = Scope {
            planned: planned.sum(),
            span_s: match runs {
                [one] => one.manifest.as_ref().and_then(Manifest::span_s),
                _ => None,
            },
        };
    }

    /// Shows what tokens cost at this price of an hour.
    pub(crate) fn note_price(&mut self, price: Option<Price>) {
        self.price = price;
    }

    /// The last screen of a run: whether to use each tier, and why. `folder` is the report's, as a command
    /// takes it.
    pub(crate) fn screen(&self, folder: &str, width: u16) -> String {
        screen::screen(self, folder, width)
    }

    /// One cell: its verdicts and where its time went. `folder` has its files.
    pub(crate) fn cell(&self, id: &str, folder: &Path, width: u16) -> String {
        cell::cell(self, id, folder, width)
    }

    /// All of it for a terminal of `width` columns. Controls are summed up in a line each.
    pub(crate) fn terminal(&self, width: u16) -> String {
        let mut text = String::new();
        for sentence in self.headline() {
            push_wrapped(&mut text, &sentence, width);
        }
        let shown = self.comparison.without_controls();
        if !shown.rows.is_empty() {
            text.push_str("\nEach tier against the baseline\n");
            text.push_str(&contrast::section(&shown, self.price).terminal(width));
        }
        text.push_str(&self.terminal_cells(width));
        text
    }

    /// The table of cells.
    fn terminal_cells(&self, width: u16) -> String {
        let mut text = String::new();
        let mut shown = self.summary.clone();
        shown.rows.retain(|row| !is_control(&row.coordinates.label));
        if !shown.rows.is_empty() {
            text.push_str("\nEvery cell and cache state\n");
            text.push_str(&cells::section(&shown).terminal(width));
        }
        let folded = self.summary.rows.len() - shown.rows.len();
        if folded > 0 {
            let rows = format!("not shown: {folded} rows of controls; report.html has them");
            push_wrapped(&mut text, &rows, width);
        }
        for line in self.remarks() {
            push_wrapped(&mut text, &line, width);
        }
        text
    }

    /// `summary.md`. Its figures are those of [`Report::drawings`] in `figures/`.
    pub(crate) fn markdown(&self) -> String {
        markdown::summary(self)
    }

    /// `report.md`: the summary, and what its verdicts rest on.
    pub(crate) fn full_markdown(&self, runs: &[RunFacts], drawings: &[Drawing]) -> String {
        markdown::full(self, runs, drawings)
    }

    /// `report.html`: one page that needs nothing else, with pages of cells beside it where there are too
    /// many for one. `timelines` are those of the report's cells, or none; those that the page has no room
    /// for become files of theirs.
    pub(crate) fn html(
        &self,
        runs: &[RunFacts],
        drawings: &[Drawing],
        timelines: &mut Timelines,
    ) -> Result<Html> {
        html::document(self, runs, drawings, timelines)
    }

    /// Puts notes before those that the cells give rise to.
    pub(crate) fn add_notes(&mut self, notes: impl IntoIterator<Item = String>) {
        self.summary.notes.splice(0..0, notes);
    }

    /// What must stand above all of it; nothing when all was measured.
    fn banner(&self) -> Option<&'static str> {
        banner(self.cells.iter().map(|cell| cell.source))
    }

    fn answer(&self) -> Option<Section> {
        answer::section(&self.comparison)
    }

    fn break_even_section(&self) -> Option<Section> {
        answer::break_even_section(&self.comparison)
    }

    fn comparison_section(&self) -> Option<Section> {
        let has_rows = !self.comparison.rows.is_empty();
        has_rows.then(|| contrast::section(&self.comparison, self.price))
    }

    fn cells_section(&self) -> Option<Section> {
        (!self.summary.rows.is_empty()).then(|| cells::section(&self.summary))
    }

    /// What limited each pass, by cell and state.
    fn limits(&self) -> HashMap<(&str, CacheState), &str> {
        let rows = self.summary.rows.iter();
        rows.filter_map(|row| Some(((row.cell.as_str(), row.state), row.bottleneck.as_deref()?)))
            .collect()
    }

    /// What holds for all of it, by name.
    fn facts(&self) -> Vec<(String, String)> {
        let models: BTreeSet<_> = self.cells.iter().map(|cell| cell.model.as_str()).collect();
        let models = models.into_iter().collect::<Vec<_>>().join(", ");
        let passes = self.summary.rows.len();
        let mut facts = vec![
            ("model".to_owned(), models),
            ("cells".to_owned(), self.cells.len().to_string()),
            ("passes".to_owned(), passes.to_string()),
        ];
        if !self.slos.is_empty() {
            let slos: Vec<_> = self.slos.iter().map(ToString::to_string).collect();
            facts.push(("objectives".to_owned(), slos.join("; ")));
        }
        facts
    }

    /// `summary.csv`: one row a cell and cache state.
    pub(crate) fn summary_csv(&self) -> String {
        files::summary_csv(&self.summary)
    }

    /// `comparison.csv`: one row a place and tier other than the baseline.
    pub(crate) fn comparison_csv(&self) -> String {
        files::comparison_csv(&self.comparison)
    }

    /// The figures that the run has data for; none without any pass. Controls have a single point
    /// each, and stand in the tables.
    pub(crate) fn drawings(&self) -> Result<Vec<Drawing>> {
        let models = self.summary.rows.iter().map(|row| row.model.clone());
        let models: Vec<_> = models.collect::<BTreeSet<_>>().into_iter().collect();
        figures::drawings(&self.comparison.without_controls(), &models)
    }

    fn remarks(&self) -> Vec<String> {
        let failed = self.summary.failed.iter();
        let failed = failed.map(|cell| format!("cell `{}` {}", cell.cell, cell.what));
        failed.chain(self.summary.notes.iter().cloned()).collect()
    }
}

/// A figure, the same as PNG and as SVG.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drawing {
    /// Its files' name without the ending, such as `comparison_ttft`.
    pub name: String,
    /// Title of the figure.
    pub title: String,
    /// The figure as SVG.
    pub svg: String,
    picture: Picture,
}

impl Drawing {
    fn of(name: &str, picture: Picture) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            title: picture.title().to_owned(),
            svg: picture.svg()?,
            picture,
        })
    }

    /// The figure as PNG.
    pub(crate) fn png(&self) -> Result<Vec<u8>> {
        self.picture.png()
    }

    /// Its files: names and what they hold.
    pub(crate) fn files(&self) -> Result<[(String, Vec<u8>); 2]> {
        Ok([
            (format!("{}.png", self.name), self.png()?),
            (format!("{}.svg", self.name), self.svg.clone().into_bytes()),
        ])
    }
}

/// What each number means, as a Markdown table.
pub(crate) fn glossary() -> String {
    glossary_markdown()
}

#[cfg(test)]
mod tests;
