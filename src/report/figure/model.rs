//! What a figure shows, before any drawing: summaries sorted into panels.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::{Place, Pool, tier_order};
use crate::metric::Metric;
use crate::record::schema::{Source, VerdictStatus};
use crate::report::figure::axis::Kind;
use crate::stats::Summary;

/// A figure's panels beyond this number are left out, with a note: nobody reads them.
const MAX_PANELS: usize = 24;

/// One summary to be shown: a tier at a prompt length, in one panel.
#[derive(Clone, Debug)]
pub(crate) struct Dot {
    /// Facts that make rows of panels, by name: label, generated tokens, state and so on.
    pub facts: Vec<(String, String)>,
    /// Makes columns of panels.
    pub concurrency: Option<u32>,
    pub prompt_len: u32,
    pub tier: String,
    pub summary: Summary,
    /// Absent where it was never judged.
    pub verdict: Option<VerdictStatus>,
    /// Absent where it was not recorded.
    pub source: Option<Source>,
}

impl Dot {
    /// One summary of a pool.
    pub(crate) fn of(pool: &Pool, summary: Summary) -> Self {
        let place = &pool.place;
        let mut facts = facts(place);
        facts.push(("state".to_owned(), place.state.title().to_owned()));
        Self {
            facts,
            concurrency: Some(place.concurrency.get()),
            prompt_len: place.prompt_len.get(),
            tier: pool.tier.clone(),
            summary,
            verdict: Some(pool.verdict),
            source: Some(pool.source),
        }
    }
}

/// Facts that make panels in any figure: label, generated tokens and further axes.
pub(crate) fn facts(place: &Place) -> Vec<(String, String)> {
    let mut facts = vec![
        ("workload".to_owned(), place.label.clone()),
        ("gen_len".to_owned(), place.gen_len.to_string()),
    ];
    let extra = place.extra.iter();
    facts.extend(extra.map(|(key, value)| (key.clone(), value.clone())));
    facts
}

/// What stands in one panel for one tier.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// Facts that make rows of panels, by name.
    pub facts: Vec<(String, String)>,
    /// Makes columns of panels.
    pub concurrency: Option<u32>,
    pub tier: String,
    /// In the order that a line joins them.
    pub points: Vec<Point>,
    /// Absent where it was not recorded.
    pub source: Option<Source>,
}

/// What kind of figure it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Design {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub join: Join,
    /// A value of the y axis that a line is drawn at.
    pub reference: Option<f64>,
}

/// An axis before it has values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub title: String,
    pub kind: Kind,
}

impl Axis {
    pub(crate) fn new(title: &str, kind: Kind) -> Self {
        Self {
            title: title.to_owned(),
            kind,
        }
    }
}

/// How the points of a tier belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// Markers, a line and a band.
    Line,
    /// Markers alone, each with a whisker.
    Whiskers,
    /// A line without markers.
    Curve,
    /// A line without markers that only goes along and up.
    Steps,
}

impl Join {
    /// Whether points have markers.
    pub(crate) fn has_markers(self) -> bool {
        matches!(self, Self::Line | Self::Whiskers)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub title: String,
    pub design: Design,
    /// What holds for all panels.
    pub caption: String,
    /// `simulated` or `partly simulated`.
    pub mark: Option<&'static str>,
    pub tiers: Vec<String>,
    pub columns: usize,
    pub panels: Vec<Panel>,
    pub notes: Vec<String>,
}

/// One pair of axes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Panel {
    pub title: String,
    /// Where it stands, from 0.
    pub row: usize,
    pub column: usize,
    /// One line a tier, by index into [`Figure::tiers`].
    pub lines: BTreeMap<usize, Vec<Point>>,
    /// A line of no tier behind all others, such as a Pareto front.
    pub front: Vec<(f64, f64)>,
}

/// One marker with its spread.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    pub x: f64,
    pub y: f64,
    /// From the lower to the upper end, of y.
    pub band: Option<(f64, f64)>,
    pub verdict: VerdictStatus,
    /// Beside the marker.
    pub label: String,
}

impl Figure {
    /// A latency by prompt length: one panel a row of facts and a concurrency.
    pub(crate) fn of(dots: &[Dot], caption: &[String], notes: Vec<String>) -> Self {
        let metric = dots.first().map_or(Metric::Ttft, |dot| dot.summary.metric);
        let spec = metric.spec();
        let design = Design {
            title: format!("{} by prompt length", spec.title),
            x: Axis::new("Prompt length (tokens)", Kind::Lengths),
            y: Axis::new(spec.title, Kind::Times),
            join: Join::Line,
            reference: None,
        };
        let marks: Vec<_> = dots.iter().map(Dot::mark).collect();
        let mut figure = Self::drawn(design, &marks, caption, notes);
        for points in figure
            .panels
            .iter_mut()
            .flat_map(|panel| panel.lines.values_mut())
        {
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
        }
        figure.notes.extend(notes_on(dots));
        figure
    }

    /// Sorts `marks` into panels: rows by facts in the order of first appearance, columns by
    /// concurrency. `caption` holds for all of them.
    pub(crate) fn drawn(
        design: Design,
        marks: &[Mark],
        caption: &[String],
        notes: Vec<String>,
    ) -> Self {
        let mut tiers: Vec<String> = marks.iter().map(|mark| mark.tier.clone()).collect();
        tiers.sort_by(|a, b| tier_order(a).cmp(&tier_order(b)));
        tiers.dedup();
        let varying = varying(marks);
        let concurrencies: BTreeSet<_> = marks.iter().map(|mark| mark.concurrency).collect();
        let mut figure = Self {
            title: design.title.clone(),
            design,
            caption: constants(marks, caption, &varying, &concurrencies),
            mark: simulated(marks.iter().map(|mark| mark.source)),
            tiers,
            columns: 1,
            panels: vec![],
            notes,
        };
        figure.fill(marks, &varying, &concurrencies);
        figure
    }

    fn fill(
        &mut self,
        marks: &[Mark],
        varying: &BTreeSet<String>,
        columns: &BTreeSet<Option<u32>>,
    ) {
        let mut rows: Vec<&[(String, String)]> = Vec::new();
        let mut panels: BTreeMap<(usize, Option<u32>), Panel> = BTreeMap::new();
        for mark in marks {
            let row = rows
                .iter()
                .position(|facts| *facts == mark.facts)
                .unwrap_or_else(|| {
                    rows.push(&mark.facts);
                    rows.len() - 1
                });
            let column = columns
                .iter()
                .position(|column| *column == mark.concurrency)
                .unwrap_or(0);
            let panel = panels
                .entry((row, mark.concurrency))
                .or_insert_with(|| Panel {
                    title: title(mark, varying, columns.len() > 1),
                    row,
                    column,
                    lines: BTreeMap::new(),
                    front: vec![],
                });
            let tier = self
                .tiers
                .iter()
                .position(|tier| *tier == mark.tier)
                .unwrap_or(0);
            let points = mark.points.iter().cloned();
            panel.lines.entry(tier).or_default().extend(points);
        }
        let total = panels.len();
        self.panels = panels.into_values().take(MAX_PANELS).collect();
        if total > MAX_PANELS {
            self.notes.push(format!(
                "only the first {MAX_PANELS} of {total} panels are shown"
            ));
        }
        self.columns = columns.len();
        if !(2..=4).contains(&columns.len()) {
            // A single column would be a tower and many a ribbon: let the panels flow instead.
            self.columns = self
                .panels
                .len()
                .clamp(1, if columns.len() > 4 { 4 } else { 3 });
            for (at, panel) in self.panels.iter_mut().enumerate() {
                (panel.row, panel.column) = (at / self.columns, at % self.columns);
            }
        }
    }
}

impl Dot {
    fn mark(&self) -> Mark {
        let summary = &self.summary;
        let point = summary.p50.map(|p50| Point {
            x: f64::from(self.prompt_len),
            y: p50,
            band: summary.p10.zip(summary.p90),
            verdict: self.verdict.unwrap_or(VerdictStatus::Valid),
            label: String::new(),
        });
        Mark {
            facts: self.facts.clone(),
            concurrency: self.concurrency,
            tier: self.tier.clone(),
            points: point.into_iter().collect(),
            source: self.source,
        }
    }
}

/// The names of facts that are not the same for all marks.
fn varying(marks: &[Mark]) -> BTreeSet<String> {
    let mut values: BTreeMap<&str, BTreeSet<Option<&str>>> = BTreeMap::new();
    let names: BTreeSet<&str> = marks
        .iter()
        .flat_map(|mark| mark.facts.iter().map(|(name, _)| name.as_str()))
        .collect();
    for (mark, name) in marks
        .iter()
        .flat_map(|mark| names.iter().map(move |name| (mark, *name)))
    {
        let value = mark
            .facts
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, v)| v.as_str());
        values.entry(name).or_default().insert(value);
    }
    values
        .into_iter()
        .filter(|(_, seen)| seen.len() > 1)
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// What a panel shows that others do not, in few words.
fn title(mark: &Mark, varying: &BTreeSet<String>, with_concurrency: bool) -> String {
    let facts = mark.facts.iter().filter(|(name, _)| varying.contains(name));
    let mut parts: Vec<_> = facts
        .map(|(name, value)| match name.as_str() {
            "state" => value.clone(),
            "prompt_len" => format!("{value} tokens"),
            "gen_len" => format!("{value} generated"),
            _ => format!("{name} {value}"),
        })
        .collect();
    if let (true, Some(concurrency)) = (with_concurrency, mark.concurrency) {
        parts.push(format!("{concurrency} at a time"));
    }
    parts.join(", ")
}

fn constants(
    marks: &[Mark],
    caption: &[String],
    varying: &BTreeSet<String>,
    concurrencies: &BTreeSet<Option<u32>>,
) -> String {
    let mut parts = caption.to_vec();
    for (name, value) in marks.first().map_or(&[][..], |mark| &mark.facts) {
        if !varying.contains(name) {
            parts.push(format!("{name} {value}"));
        }
    }
    if let (1, Some(Some(concurrency))) = (concurrencies.len(), concurrencies.first()) {
        parts.push(format!("concurrency {concurrency}"));
    }
    parts.join(", ")
}

/// The note on all numbers of a figure whose sources include the simulator.
pub(crate) fn simulated(
    sources: impl Iterator<Item = Option<Source>> + Clone,
) -> Option<&'static str> {
    let simulated = |source| source == Some(Source::Simulated);
    let mut any = sources.clone();
    let mut all = sources;
    match (any.any(simulated), all.all(simulated)) {
        (true, true) => Some("simulated"),
        (true, false) => Some("partly simulated"),
        (false, _) => None,
    }
}

fn notes_on(dots: &[Dot]) -> Vec<String> {
    let counts = || dots.iter().map(|dot| dot.summary.n).filter(|n| *n >= 2);
    let mut notes = Vec::new();
    if let Some((fewest, most)) = counts().min().zip(counts().max()) {
        let range = if fewest == most {
            fewest.to_string()
        } else {
            format!("{fewest} to {most}")
        };
        notes.push(format!(
            "median, and p10 to p90 as a band or whisker, of {range} ok requests a point"
        ));
    }
    if counts().any(|n| n < 10) {
        notes.push("no band where a point has fewer than 10 requests".to_owned());
    }
    let is_imported =
        |dot: &Dot| dot.summary.n >= 10 && dot.summary.p50.is_some() && dot.summary.p10.is_none();
    if dots.iter().any(is_imported) {
        notes.push("no band where a file was imported that has only a summary".to_owned());
    }
    match dots.iter().filter(|dot| dot.summary.p50.is_none()).count() {
        0 => {}
        1 => notes.push("1 point has too few ok requests to be shown".to_owned()),
        few => notes.push(format!("{few} points have too few ok requests to be shown")),
    }
    notes
}
