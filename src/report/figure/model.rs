//! What a figure shows, before any drawing: summaries sorted into panels.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::{Pool, tier_order};
use crate::record::schema::{Source, VerdictStatus};
use crate::stats::Summary;

/// A figure's panels beyond this number are left out, and said: nobody reads them.
const MOST_PANELS: usize = 24;

/// One summary to be shown: a tier at a prompt length, in one panel.
#[derive(Clone, Debug)]
pub(crate) struct Dot {
    /// What tells rows of panels apart, by name: label, generated tokens, state and so on.
    pub facts: Vec<(String, String)>,
    /// What tells columns of panels apart.
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
    pub fn of(pool: &Pool, summary: Summary) -> Self {
        let place = &pool.place;
        let mut facts = vec![
            ("label".to_owned(), place.label.clone()),
            ("gen_len".to_owned(), place.gen_len.to_string()),
        ];
        facts.extend(
            place
                .extra
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        facts.push(("state".to_owned(), place.state.to_string()));
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

/// A figure's content.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub title: String,
    /// The value axis.
    pub axis: String,
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
}

/// One marker with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub prompt_len: u32,
    pub p50: f64,
    /// From p10 to p90.
    pub band: Option<(f64, f64)>,
    pub verdict: VerdictStatus,
}

impl Figure {
    /// Sorts `dots` into panels: rows by facts in the order of first appearance, columns by
    /// concurrency. `caption` holds for all of them.
    pub fn of(dots: &[Dot], caption: &[String], notes: Vec<String>) -> Self {
        let spec = dots
            .first()
            .map_or(crate::metric::Metric::Ttft, |dot| dot.summary.metric)
            .spec();
        let mut tiers: Vec<String> = dots.iter().map(|dot| dot.tier.clone()).collect();
        tiers.sort_by(|a, b| tier_order(a).cmp(&tier_order(b)));
        tiers.dedup();
        let varying = varying(dots);
        let concurrencies: BTreeSet<_> = dots.iter().map(|dot| dot.concurrency).collect();
        let mut figure = Self {
            title: format!("{} by prompt length", spec.title),
            axis: spec.title.to_owned(),
            caption: constants(dots, caption, &varying, &concurrencies),
            mark: mark(dots),
            tiers,
            columns: 1,
            panels: vec![],
            notes,
        };
        figure.fill(dots, &varying, &concurrencies);
        figure.notes.extend(notes_on(dots));
        figure
    }

    fn fill(&mut self, dots: &[Dot], varying: &BTreeSet<String>, columns: &BTreeSet<Option<u32>>) {
        let mut rows: Vec<&[(String, String)]> = Vec::new();
        let mut panels: BTreeMap<(usize, Option<u32>), Panel> = BTreeMap::new();
        for dot in dots {
            let row = rows
                .iter()
                .position(|facts| *facts == dot.facts)
                .unwrap_or_else(|| {
                    rows.push(&dot.facts);
                    rows.len() - 1
                });
            let column = columns
                .iter()
                .position(|column| *column == dot.concurrency)
                .unwrap_or(0);
            let panel = panels
                .entry((row, dot.concurrency))
                .or_insert_with(|| Panel {
                    title: title(dot, varying, columns.len() > 1),
                    row,
                    column,
                    lines: BTreeMap::new(),
                });
            let tier = self
                .tiers
                .iter()
                .position(|tier| *tier == dot.tier)
                .unwrap_or(0);
            panel.lines.entry(tier).or_default().extend(point(dot));
        }
        let total = panels.len();
        self.panels = panels.into_values().take(MOST_PANELS).collect();
        if total > MOST_PANELS {
            self.notes.push(format!(
                "only the first {MOST_PANELS} of {total} panels are shown"
            ));
        }
        for points in self
            .panels
            .iter_mut()
            .flat_map(|panel| panel.lines.values_mut())
        {
            points.sort_by_key(|point| point.prompt_len);
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

fn point(dot: &Dot) -> Option<Point> {
    Some(Point {
        prompt_len: dot.prompt_len,
        p50: dot.summary.p50?,
        band: dot.summary.p10.zip(dot.summary.p90),
        verdict: dot.verdict.unwrap_or(VerdictStatus::Valid),
    })
}

/// The names of facts that are not the same for all dots.
fn varying(dots: &[Dot]) -> BTreeSet<String> {
    let mut values: BTreeMap<&str, BTreeSet<Option<&str>>> = BTreeMap::new();
    let names: BTreeSet<&str> = dots
        .iter()
        .flat_map(|dot| dot.facts.iter().map(|(name, _)| name.as_str()))
        .collect();
    for (dot, name) in dots
        .iter()
        .flat_map(|dot| names.iter().map(move |name| (dot, *name)))
    {
        let value = dot
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

fn title(dot: &Dot, varying: &BTreeSet<String>, with_concurrency: bool) -> String {
    let facts = dot.facts.iter().filter(|(name, _)| varying.contains(name));
    let mut parts: Vec<_> = facts
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    if let (true, Some(concurrency)) = (with_concurrency, dot.concurrency) {
        parts.push(format!("concurrency {concurrency}"));
    }
    parts.join(", ")
}

fn constants(
    dots: &[Dot],
    caption: &[String],
    varying: &BTreeSet<String>,
    concurrencies: &BTreeSet<Option<u32>>,
) -> String {
    let mut parts = caption.to_vec();
    for (name, value) in dots.first().map_or(&[][..], |dot| &dot.facts) {
        if !varying.contains(name) {
            parts.push(format!("{name} {value}"));
        }
    }
    if let (1, Some(Some(concurrency))) = (concurrencies.len(), concurrencies.first()) {
        parts.push(format!("concurrency {concurrency}"));
    }
    parts.join(", ")
}

fn mark(dots: &[Dot]) -> Option<&'static str> {
    let simulated = |dot: &Dot| dot.source == Some(Source::Simulated);
    match (dots.iter().any(simulated), dots.iter().all(simulated)) {
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
    match dots.iter().filter(|dot| dot.summary.p50.is_none()).count() {
        0 => {}
        1 => notes.push("1 point has too few ok requests to be shown".to_owned()),
        few => notes.push(format!("{few} points have too few ok requests to be shown")),
    }
    notes
}
