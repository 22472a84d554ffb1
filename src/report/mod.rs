//! Summaries to text, tables and figures. Returns strings and bytes; writes nothing.

pub(crate) mod axes;
mod cells;
mod contrast;
mod figure;
mod files;
mod headline;
pub mod lab;
pub(crate) mod notes;
pub(crate) mod number;
pub(crate) mod section;
pub(crate) mod table;
pub(crate) mod wrap;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;

use crate::aggregate::{Comparison, Pool, SummaryTable, compare, summarize};
use crate::metric::{Metric, glossary_markdown};
use crate::record::reader::RunData;
use crate::report::axes::banner;
use crate::report::figure::{Dot, Figure};
use crate::report::wrap::push_wrapped;

/// The figures of a run.
const FIGURES: [(Metric, &str); 2] = [
    (Metric::Ttft, "comparison_ttft"),
    (Metric::E2e, "comparison_e2e"),
];

/// Everything that is said of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    title: String,
    summary: SummaryTable,
    comparison: Comparison,
}

impl Report {
    /// Sums up `run` under `title`.
    pub fn of(run: &RunData, title: &str) -> Result<Self> {
        let (summary, comparison) = (summarize(run)?, compare(run)?);
        Ok(Self {
            title: title.to_owned(),
            summary,
            comparison,
        })
    }

    /// One row a cell and cache state.
    pub fn summary(&self) -> &SummaryTable {
        &self.summary
    }

    /// Each tier against the baseline.
    pub fn comparison(&self) -> &Comparison {
        &self.comparison
    }

    /// What each tier bought, in sentences.
    pub fn headline(&self) -> Vec<String> {
        let mut sentences = headline::headline(&self.comparison);
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

    /// All of it for a terminal of `width` columns.
    pub fn terminal(&self, width: u16) -> String {
        let mut text = String::new();
        for sentence in self.headline() {
            push_wrapped(&mut text, &sentence, width);
        }
        if !self.comparison.rows.is_empty() {
            text.push_str("\nEach tier against the baseline\n");
            text.push_str(&contrast::section(&self.comparison).terminal(width));
        }
        text.push_str(&self.terminal_cells(width));
        text
    }

    /// Only the table of cells, for one load that has nothing to be compared with.
    pub fn terminal_cells(&self, width: u16) -> String {
        let mut text = String::new();
        if !self.summary.rows.is_empty() {
            text.push_str("\nEvery cell and cache state\n");
            text.push_str(&cells::section(&self.summary).terminal(width));
        }
        for line in self.remarks() {
            push_wrapped(&mut text, &line, width);
        }
        text
    }

    /// `summary.md`. Its figures are those of [`Report::figures`] in `figures/`.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n", self.title);
        if let Some(banner) = banner(self.summary.rows.iter().map(|row| row.source)) {
            let _ = writeln!(text, "**{banner}**\n");
        }
        for sentence in self.headline() {
            let _ = writeln!(text, "- {sentence}");
        }
        if !self.comparison.rows.is_empty() {
            text.push_str("\n## Each tier against the baseline\n\n");
            text.push_str(&contrast::section(&self.comparison).markdown());
        }
        if !self.comparison.pools.is_empty() {
            text.push_str("\n## Figures\n\n");
            for (metric, name) in FIGURES {
                let _ = writeln!(text, "![{}](figures/{name}.png)\n", metric.spec().title);
            }
            text.pop();
        }
        if !self.summary.rows.is_empty() {
            text.push_str("\n## Every cell and cache state\n\n");
            text.push_str(&cells::section(&self.summary).markdown());
        }
        let remarks = self.remarks();
        if !remarks.is_empty() {
            text.push_str("\n## Notes\n\n");
        }
        for line in remarks {
            let _ = writeln!(text, "- {line}");
        }
        let _ = write!(text, "\n## Glossary\n\n{}", glossary());
        text
    }

    /// `summary.csv`: one row a cell and cache state.
    pub fn summary_csv(&self) -> String {
        files::summary_csv(&self.summary)
    }

    /// `comparison.csv`: one row a place and tier other than the baseline.
    pub fn comparison_csv(&self) -> String {
        files::comparison_csv(&self.comparison)
    }

    /// `comparison_ttft` and `comparison_e2e`, each as PNG and SVG; none without any pass.
    pub fn figures(&self) -> Result<Vec<FigureFile>> {
        let pools = &self.comparison.pools;
        let models: BTreeSet<_> = self
            .summary
            .rows
            .iter()
            .map(|row| row.model.clone())
            .collect();
        let caption: Vec<_> = models.into_iter().collect();
        let mut files = Vec::new();
        for (metric, name) in FIGURES.into_iter().filter(|_| !pools.is_empty()) {
            let summary = |pool: &Pool| match metric {
                Metric::E2e => pool.e2e.clone(),
                _ => pool.ttft.clone(),
            };
            let dots: Vec<_> = pools
                .iter()
                .map(|pool| Dot::of(pool, summary(pool)))
                .collect();
            files.extend(twins(name, &Figure::of(&dots, &caption, vec![]))?);
        }
        Ok(files)
    }

    fn remarks(&self) -> Vec<String> {
        let failed = self.summary.failed.iter();
        let failed = failed.map(|cell| format!("cell `{}` {}", cell.cell, cell.what));
        failed.chain(self.summary.notes.iter().cloned()).collect()
    }
}

/// A figure as it is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FigureFile {
    /// The file's name, such as `comparison_ttft.png`.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

fn twins(name: &str, figure: &Figure) -> Result<Vec<FigureFile>> {
    let file = |ending: &str, bytes| FigureFile {
        name: format!("{name}.{ending}"),
        bytes,
    };
    Ok(vec![
        file("png", figure.png()?),
        file("svg", figure.svg()?.into_bytes()),
    ])
}

/// What each number means, as a Markdown table.
pub fn glossary() -> String {
    glossary_markdown()
}

#[cfg(test)]
mod tests;
