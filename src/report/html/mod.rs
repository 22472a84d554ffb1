//! `report.html`: one file that needs nothing else, opened from disk.

mod evidence;
mod pages;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, Result};
use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use crate::foreign::shortened;
use crate::metric::{Metric, WORDS};
use crate::record::manifest::Manifest;
use crate::record::redact;
use crate::report::facts::RunFacts;
use crate::report::html::evidence::Failure;
use crate::report::html::pages::PageView;
use crate::report::section::Section;
use crate::report::timeline::Timelines;
use crate::report::{Drawing, Price, Report, lengths, memory};
use crate::secret;

const TEMPLATE: &str = include_str!("../../../templates/report/report.html");
const CELL: &str = include_str!("../../../templates/report/cell.html");
const CELLS: &str = include_str!("../../../templates/report/cells.html");
const TIMELINE: &str = include_str!("../../../templates/report/timeline.html");
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
    /// Where what the row's verdict rests on stands.
    link: Option<String>,
}

impl TableView {
    fn of(section: &Section, links: &[String]) -> Self {
        let columns = &section.table.columns;
        let height = columns.first().map_or(0, |column| column.cells.len());
        let mut notes = section.notes.clone();
        if height > MAX_ROWS {
            notes.insert(
                0,
                format!("the first {MAX_ROWS} of {height} rows; the CSV files have all"),
            );
        }
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
            rows: (0..height.min(MAX_ROWS)).map(row).collect(),
            notes,
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

/// Whether to use a tier.
#[derive(Serialize)]
struct VerdictView {
    tier: String,
    advice: &'static str,
    words: String,
    details: String,
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
    verdicts: Vec<VerdictView>,
    answer: Option<TableView>,
    /// What the GPU and each tier hold.
    memory: Option<String>,
    /// What the price of an hour means.
    cost: Option<String>,
    headline: Vec<String>,
    /// Where the first token's time went.
    time: Option<FigureView>,
    trust: Vec<String>,
    figures: Vec<FigureView>,
    parts: Vec<Part>,
    /// Each cell's evidence, as HTML; none where they stand in pages of their own.
    cells: Vec<String>,
    cell_count: usize,
    pages: Vec<PageView>,
    timelines: Option<String>,
    failures: Vec<Failure>,
    remarks: Vec<String>,
    runs: Vec<RunView>,
    glossary: Vec<MetricView>,
    words: Vec<WordView>,
}

/// Limit of the page without the notes on timelines: together they stay below 5 MB.
const PAGE_BYTES: usize = 4_800_000;
/// Limit of the evidence of all cells, without timelines.
const EVIDENCE_BYTES: usize = 2_400_000;
/// Room that timelines get at least, however large the rest is.
const MIN_TIMELINES_BYTES: usize = 400_000;

/// A figure whose SVG is larger stands in the page as pixels: thousands of points need no lines.
const MAX_SVG_BYTES: usize = 400_000;

/// The most rows of a table in the page.
const MAX_ROWS: usize = 1_000;
/// The most failures and notes that the page spells out.
const MAX_FAILURES: usize = 50;
/// The most bytes of a plan, and the most cells of a manifest, that the page shows.
const MAX_PLAN_CHARS: usize = 200_000;

/// The report, and the pages of cells that it has no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Html {
    /// `report.html`.
    pub report: String,
    /// Pages beside it: their names below the report's folder, and what they hold.
    pub pages: Vec<(String, String)>,
}

/// The whole document, with as many of `timelines` as it has room for; the others become files. Where the
/// evidence of all cells is more than a page holds, it stands in pages of its own.
pub(super) fn document(
    report: &Report,
    runs: &[RunFacts],
    drawings: &[Drawing],
    timelines: &mut Timelines,
) -> Result<Html> {
    within(
        (PAGE_BYTES, EVIDENCE_BYTES),
        report,
        runs,
        drawings,
        timelines,
    )
}

fn within(
    (page_bytes, evidence_bytes): (usize, usize),
    report: &Report,
    runs: &[RunFacts],
    drawings: &[Drawing],
    timelines: &mut Timelines,
) -> Result<Html> {
    let environment = environment()?;
    let bare = Timelines::default();
    let cells = pages::render(&environment, &evidence::cells(report))?;
    let bytes: usize = cells.iter().map(String::len).sum();
    let is_paged = bytes > evidence_bytes;
    if *timelines == bare {
        let cells = pages::with_timelines(&environment, cells, &bare)?;
        return rendered(
            &environment,
            report,
            runs,
            drawings,
            (cells, timelines),
            is_paged,
        );
    }
    let room = if is_paged {
        0
    } else {
        let bare = (cells.clone(), &*timelines);
        let page = rendered(&environment, report, runs, drawings, bare, false)?;
        page_bytes.saturating_sub(page.report.len())
    };
    timelines.fit(&report.cells, room.max(MIN_TIMELINES_BYTES));
    let cells = pages::with_timelines(&environment, cells, timelines)?;
    rendered(
        &environment,
        report,
        runs,
        drawings,
        (cells, timelines),
        is_paged,
    )
}

fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    for (name, source) in [
        ("report.html", TEMPLATE),
        ("cell.html", CELL),
        ("cells.html", CELLS),
        ("timeline.html", TIMELINE),
    ] {
        environment
            .add_template(name, source)
            .context("the report's template is wrong")?;
    }
    Ok(environment)
}

fn rendered(
    environment: &Environment<'_>,
    report: &Report,
    runs: &[RunFacts],
    drawings: &[Drawing],
    (cells, timelines): (Vec<String>, &Timelines),
    is_paged: bool,
) -> Result<Html> {
    let template = environment.get_template("report.html")?;
    let (glossary, words) = glossary();
    let banner = report.banner();
    let answer = lengths::section(report).map(|section| TableView::of(&section, &[]));
    let verdicts = lengths::told(report).into_iter();
    let verdicts = verdicts.map(|told| VerdictView {
        tier: told.tier,
        advice: told.advice,
        words: told.words,
        details: told.details,
    });
    let (time, others): (Vec<&Drawing>, Vec<&Drawing>) =
        drawings.iter().partition(|it| it.name == "ttft_parts");
    let (files, pages, cells) = if is_paged {
        let (files, views) = pages::split(environment, report, &cells)?;
        (files, views, Vec::new())
    } else {
        (Vec::new(), Vec::new(), cells)
    };
    let document = Document {
        title: &report.title,
        version: env!("CARGO_PKG_VERSION"),
        nonce: nonce(report, runs),
        css: CSS,
        js: JS,
        banner,
        mark: banner.map(mark),
        facts: facts(report, runs),
        verdicts: verdicts.collect(),
        answer,
        memory: memory::line(report),
        cost: report.price.map(Price::note),
        headline: report.headline(),
        time: figures(time)?.pop(),
        trust: lengths::trust(report),
        figures: figures(others)?,
        parts: parts(report, &pages),
        cells,
        cell_count: report.cells.len(),
        pages,
        timelines: evidence::lacking(timelines),
        failures: first(evidence::failures(&report.cells)),
        remarks: remarks(report),
        runs: runs.iter().map(run).collect(),
        glossary,
        words,
    };
    let text = template
        .render(Serde(&document))
        .context("cannot write the report")?;
    Ok(Html {
        report: text,
        pages: files,
    })
}

fn remarks(report: &Report) -> Vec<String> {
    let all = report.remarks();
    let more = all.len().saturating_sub(MAX_FAILURES);
    let mut shown: Vec<String> = all
        .iter()
        .take(MAX_FAILURES)
        .map(|text| redact::text(text))
        .collect();
    if more > 0 {
        shown.push(format!("and {more} more, in report.md"));
    }
    shown
}

fn first<T>(mut all: Vec<T>) -> Vec<T> {
    all.truncate(MAX_FAILURES);
    all
}

/// Only the report's own script has it: text of a plan that passes for a script is not run.
fn nonce(report: &Report, runs: &[RunFacts]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(report.summary_csv().as_bytes());
    for run in runs {
        hasher.update(run.manifest_text().unwrap_or_default().as_bytes());
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

fn parts(report: &Report, pages: &[PageView]) -> Vec<Part> {
    let mut parts = Vec::new();
    if let Some(section) = report.answer() {
        parts.push(Part {
            id: "tiers",
            short: "Tiers",
            title: "Each tier over all places",
            section: TableView::of(&section, &[]),
        });
    }
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
        let numbers: HashMap<&str, usize> = report
            .cells
            .iter()
            .enumerate()
            .map(|(at, cell)| (cell.id.as_str(), at))
            .collect();
        let link = |id: &str| {
            let at = numbers.get(id).copied().unwrap_or_default();
            let page = pages
                .iter()
                .find(|page| (page.first..=page.last).contains(&(at + 1)));
            let file = page.map_or("", |page| page.file.as_str());
            format!("{file}#{}", evidence::anchor(at))
        };
        let rows = report.summary.rows.iter();
        let links: Vec<_> = rows.map(|row| link(&row.cell)).collect();
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
    let mut add = |name: &str, of: fn(&Manifest) -> Option<String>| {
        let manifests = runs.iter().filter_map(|run| run.manifest.as_ref());
        let values: BTreeSet<String> = manifests.filter_map(of).collect();
        if !values.is_empty() {
            let value = values.into_iter().collect::<Vec<_>>().join("; ");
            facts.push((name.to_owned(), value));
        }
    };
    add("started", |run| {
        run.started_at.as_deref().map(to_the_second)
    });
    add("run", |run| run.run.clone());
    add("launcher", |run| Some(run.launcher?.name().to_owned()));
    add("host", |run| run.host.name.clone());
    add("CPU", |run| run.host.cpu.clone());
    add("GPU", |run| counted(&run.gpu_names()));
    add("plan at", |run| {
        let dirty = run.plan.repository.as_ref().is_some_and(|it| it.dirty);
        let changed = if dirty { ", with changes" } else { "" };
        let commit: String = run.plan_commit()?.chars().take(12).collect();
        Some(format!("commit {commit}{changed}"))
    });
    facts
        .into_iter()
        .map(|(name, value)| Pair { name, value })
        .collect()
}

/// A time without its fraction of a second.
fn to_the_second(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, rest)) if rest.ends_with("+00:00") => format!("{seconds}Z"),
        _ => time.to_owned(),
    }
}

/// Each name once, with its count: `8 x NVIDIA H100`.
fn counted(names: &[&str]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let each = counts.into_iter().map(|(name, count)| match count {
        1 => name.to_owned(),
        more => format!("{more} x {name}"),
    });
    let each: Vec<String> = each.collect();
    (!each.is_empty()).then(|| each.join(", "))
}

fn run(facts: &RunFacts) -> RunView {
    let plan = facts.plan.as_deref().map(redact::text);
    RunView {
        name: facts.name.clone(),
        plan: plan.map(|plan| shortened(&plan, MAX_PLAN_CHARS).into_owned()),
        manifest: facts.manifest_text(),
    }
}

fn figures<'a>(drawings: impl IntoIterator<Item = &'a Drawing>) -> Result<Vec<FigureView>> {
    let figure = |drawing: &'a Drawing| {
        let caption = format!("{}.png and {}.svg in figures/", drawing.name, drawing.name);
        let svg = if drawing.svg.len() > MAX_SVG_BYTES {
            let png = secret::base64(&drawing.png()?);
            format!(
                r#"<img src="data:image/png;base64,{png}" alt="{}">"#,
                drawing.name
            )
        } else {
            inlined(&drawing.svg)
        };
        Ok(FigureView { svg, caption })
    };
    drawings.into_iter().map(figure).collect()
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
