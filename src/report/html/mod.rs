//! `report.html`: one file that needs nothing else, opened from disk.

mod evidence;

use anyhow::{Context as _, Result};
use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;
use serde_json::Value;

use crate::metric::{Metric, WORDS};
use crate::record::redact;
use crate::report::facts::RunFacts;
use crate::report::html::evidence::{CellPart, Failure};
use crate::report::section::Section;
use crate::report::timeline::Timelines;
use crate::report::{Drawing, Report};

const TEMPLATE: &str = include_str!("../../../templates/report/report.html");
const CSS: &str = include_str!("../../../templates/report/report.css");
const JS: &str = include_str!("../../../templates/report/report.js");

/// A name and a value, as text.
#[derive(Serialize)]
pub(super) struct Pair {
    pub name: String,
    pub value: String,
}

#[derive(Serialize)]
struct TableView {
    banner: Option<&'static str>,
    caption: String,
    columns: Vec<ColumnView>,
    rows: Vec<RowView>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct ColumnView {
    head: String,
    number: bool,
}

#[derive(Serialize)]
struct RowView {
    cells: Vec<String>,
    /// The id of what the row's verdict rests on.
    link: Option<String>,
}

impl TableView {
    fn of(section: &Section, links: &[String]) -> Self {
        let columns = &section.table.columns;
        let height = columns.first().map_or(0, |column| column.cells.len());
        let row = |at: usize| RowView {
            cells: columns
                .iter()
                .map(|column| column.cells[at].clone())
                .collect(),
            link: links.get(at).cloned(),
        };
        let head = |column: &crate::report::table::Column| ColumnView {
            head: column.head.join(" "),
            number: column.side == crate::report::table::Side::Right,
        };
        Self {
            banner: section.banner,
            caption: section.caption.clone(),
            columns: columns.iter().map(head).collect(),
            rows: (0..height).map(row).collect(),
            notes: section.notes.clone(),
        }
    }
}

#[derive(Serialize)]
struct Part {
    id: &'static str,
    short: &'static str,
    title: &'static str,
    section: TableView,
}

#[derive(Serialize)]
struct FigureView {
    svg: String,
    caption: String,
}

#[derive(Serialize)]
struct RunView {
    name: String,
    plan: Option<String>,
    manifest: Option<String>,
}

#[derive(Serialize)]
struct MetricView {
    title: &'static str,
    short: &'static str,
    column: &'static str,
    unit: &'static str,
    better: &'static str,
    definition: &'static str,
}

#[derive(Serialize)]
struct WordView {
    word: String,
    meaning: String,
}

#[derive(Serialize)]
struct Document<'a> {
    title: &'a str,
    version: &'static str,
    nonce: String,
    css: &'static str,
    js: &'static str,
    banner: Option<&'static str>,
    mark: Option<&'static str>,
    facts: Vec<Pair>,
    answer: Option<TableView>,
    headline: Vec<String>,
    figures: Vec<FigureView>,
    parts: Vec<Part>,
    cells: Vec<CellPart>,
    timelines: Option<String>,
    failures: Vec<Failure>,
    remarks: Vec<String>,
    runs: Vec<RunView>,
    glossary: Vec<MetricView>,
    words: Vec<WordView>,
}

/// A page stays below 5 MB: this much of it and some words about each timeline.
const PAGE_BYTES: usize = 4_800_000;
/// What timelines take at least, however large the rest is.
const LEAST_TIMELINES_BYTES: usize = 400_000;

/// The whole document, with as many of `timelines` as it has room for; the others become files.
pub(super) fn document(
    report: &Report,
    runs: &[RunFacts],
    drawings: &[Drawing],
    timelines: &mut Timelines,
) -> Result<String> {
    within(PAGE_BYTES, report, runs, drawings, timelines)
}

fn within(
    page_bytes: usize,
    report: &Report,
    runs: &[RunFacts],
    drawings: &[Drawing],
    timelines: &mut Timelines,
) -> Result<String> {
    let bare = rendered(report, runs, drawings, &Timelines::default())?;
    if *timelines == Timelines::default() {
        return Ok(bare);
    }
    let room = page_bytes.saturating_sub(bare.len());
    timelines.fit(&report.cells, room.max(LEAST_TIMELINES_BYTES));
    rendered(report, runs, drawings, timelines)
}

fn rendered(
    report: &Report,
    runs: &[RunFacts],
    drawings: &[Drawing],
    timelines: &Timelines,
) -> Result<String> {
    let cells = evidence::cells(&report.cells, timelines);
    let mut environment = Environment::new();
    environment
        .add_template("report.html", TEMPLATE)
        .context("the report's template is wrong")?;
    let template = environment.get_template("report.html")?;
    let (glossary, words) = glossary();
    let banner = report.banner();
    let answer = report.answer().map(|section| TableView::of(&section, &[]));
    let document = Document {
        title: &report.title,
        version: env!("CARGO_PKG_VERSION"),
        nonce: nonce(report, runs),
        css: CSS,
        js: JS,
        banner,
        mark: banner.map(mark),
        facts: facts(report, runs),
        answer,
        headline: report.headline(),
        figures: figures(drawings),
        parts: parts(report, &cells),
        cells,
        timelines: evidence::lacking(timelines),
        failures: evidence::failures(&report.cells),
        remarks: report
            .remarks()
            .iter()
            .map(|text| redact::urls(text))
            .collect(),
        runs: runs.iter().map(run).collect(),
        glossary,
        words,
    };
    template
        .render(Serde(&document))
        .context("cannot write the report")
}

/// Only the report's own script has it: text of a plan that passes for a script is not run.
fn nonce(report: &Report, runs: &[RunFacts]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(report.summary_csv().as_bytes());
    for run in runs {
        hasher.update(run.manifest.to_string().as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

fn mark(banner: &str) -> &'static str {
    if banner.starts_with("Partly") {
        "partly simulated"
    } else {
        "simulated"
    }
}

fn parts(report: &Report, cells: &[CellPart]) -> Vec<Part> {
    let mut parts = Vec::new();
    if let Some(section) = report.comparison_section() {
        parts.push(Part {
            id: "comparison",
            short: "Comparison",
            title: "Each tier against the baseline",
            section: TableView::of(&section, &[]),
        });
    }
    if let Some(section) = report.break_even_section() {
        parts.push(Part {
            id: "break-even",
            short: "Break-even",
            title: "Break-even prompt length",
            section: TableView::of(&section, &[]),
        });
    }
    if let Some(section) = report.cells_section() {
        let anchor = |id: &String| {
            let part = cells.iter().find(|part| part.id == *id);
            part.map(|part| part.anchor.clone()).unwrap_or_default()
        };
        let rows = report.summary.rows.iter();
        let links: Vec<_> = rows.map(|row| anchor(&row.cell)).collect();
        parts.push(Part {
            id: "cells",
            short: "Cells",
            title: "Every cell and cache state",
            section: TableView::of(&section, &links),
        });
    }
    parts
}

fn facts(report: &Report, runs: &[RunFacts]) -> Vec<Pair> {
    let mut facts = report.facts();
    let mut told = |name: &str, pointer: &str| {
        let values: std::collections::BTreeSet<_> = runs
            .iter()
            .filter_map(|run| text_at(&run.manifest, pointer))
            .collect();
        if !values.is_empty() {
            let value = values.into_iter().collect::<Vec<_>>().join("; ");
            facts.push((name.to_owned(), value));
        }
    };
    told("started", "/started_at");
    told("run", "/run");
    told("launcher", "/launcher");
    told("host", "/host/name");
    told("CPU", "/host/cpu");
    told("GPU", "/gpu/0/name");
    told("plan at", "/plan/commit");
    facts
        .into_iter()
        .map(|(name, value)| Pair { name, value })
        .collect()
}

fn text_at(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) => Some(match text.split_once('.') {
            // A time to the nanosecond.
            Some((seconds, rest)) if rest.ends_with("+00:00") => format!("{seconds}Z"),
            _ => text.clone(),
        }),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn run(facts: &RunFacts) -> RunView {
    let mut manifest = facts.manifest.clone();
    redact::json(&mut manifest);
    RunView {
        name: facts.name.clone(),
        plan: facts.plan.as_deref().map(redact::urls),
        manifest: (!manifest.is_null())
            .then(|| serde_json::to_string_pretty(&manifest).unwrap_or_default()),
    }
}

fn figures(drawings: &[Drawing]) -> Vec<FigureView> {
    drawings
        .iter()
        .map(|drawing| FigureView {
            svg: inlined(&drawing.svg),
            caption: format!("{}.png and {}.svg in figures/", drawing.name, drawing.name),
        })
        .collect()
}

/// An SVG document as part of a page: it fills the page's width, and its many texts inherit what
/// they have in common.
fn inlined(svg: &str) -> String {
    let font = r#" font-family="DejaVu Sans, Verdana, sans-serif""#;
    let slim = svg
        .replace(font, "")
        .replace(r#" opacity="1""#, "")
        .replace(">\n", ">")
        .replace("\n<", "<");
    let Some((head, rest)) = slim.split_once('>') else {
        return slim;
    };
    let view = head.split_once("viewBox=").map_or("", |(_, view)| view);
    let view: String = view.chars().take_while(|c| *c != 'x').collect();
    format!(
        r#"<svg viewBox={} role="img"{font}>{rest}"#,
        view.trim_end()
    )
}

fn glossary() -> (Vec<MetricView>, Vec<WordView>) {
    let metric = |metric: Metric| {
        let spec = metric.spec();
        MetricView {
            title: spec.title,
            short: spec.short,
            column: spec.column,
            unit: spec.unit.sign(),
            better: spec.better.name(),
            definition: spec.definition,
        }
    };
    let word = |(word, meaning): &(&str, &str)| WordView {
        word: word.replace('`', ""),
        meaning: meaning.replace('`', ""),
    };
    (
        Metric::ALL.into_iter().map(metric).collect(),
        WORDS.iter().map(word).collect(),
    )
}

/// What the failures of a run are, for the Markdown report as well.
pub(super) fn failures(report: &Report) -> Vec<Failure> {
    evidence::failures(&report.cells)
}

#[cfg(test)]
mod tests;
