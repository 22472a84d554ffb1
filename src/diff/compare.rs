//! Two sides to what differs between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::diff::judge::{Judged, Outcome, Requests, correct, judge};
use crate::diff::noise::{Floor, Pair};
use crate::diff::provenance::{Difference, differences};
use crate::diff::{CellKey, Measure, Side, Trial};
use crate::metric::Metric;
use crate::record::schema::{Source, VerdictStatus};
use crate::stats::{Percentile, geomean};

/// What a user lets pass that would be refused or left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a word of the command line"
)]
pub(crate) struct Allow {
    /// The sides ran different models.
    pub model: bool,
    /// One side is simulated and the other measured.
    pub source: bool,
    /// Inconclusive cells: nothing proves that the tier served.
    pub inconclusive: bool,
    /// Invalid cells: something proves that it did not serve.
    pub invalid: bool,
}

/// Which numbers the tables for people show. Files for programs have all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Those that changed; where none could be tested, all of them.
    Changed,
    /// All of them.
    All,
}

/// What to compare, what to allow and what to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Which numbers, in order.
    pub measures: Vec<Measure>,
    /// Differences that do not refuse the comparison.
    pub allow: Allow,
    /// Which rows are shown.
    pub shown: Shown,
}

/// Why two sides are not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(Vec<String>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Refusal {}

/// One cell in one state on both sides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DiffRow {
    /// The compared cell and state.
    pub key: CellKey,
    /// `Simulated` as soon as one side is.
    pub source: Source,
    /// Its numbers; one that a side lacks is absent.
    pub numbers: BTreeMap<Measure, Judged>,
}

/// All cells of one measure together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Overall {
    /// Geometric mean of side A.
    pub a: f64,
    /// Geometric mean of side B.
    pub b: f64,
    /// Number of cells.
    pub cells: usize,
    /// Number of cells that became better.
    pub better: usize,
    /// Number of cells that became worse.
    pub worse: usize,
}

/// A cell, or some of its repeats, that is on a side but not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// The compared cell and state.
    pub key: CellKey,
    /// On which side: its place in [`Diff::names`].
    pub side: usize,
    /// Why it is not compared.
    pub reason: String,
    /// Whether nothing of the cell is left on that side.
    pub whole: bool,
}

/// What differs between two sides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Diff {
    /// What each side is called.
    pub names: [String; 2],
    /// Where each side was read from.
    pub origins: [String; 2],
    /// The measures, in order.
    pub measures: Vec<Measure>,
    /// Which rows are shown.
    pub shown: Shown,
    /// The cells on both sides, by coordinates.
    pub rows: Vec<DiffRow>,
    /// All cells together, by measure.
    pub overall: BTreeMap<Measure, Overall>,
    /// Cells that only the first side has.
    pub missing: Vec<CellKey>,
    /// Cells that only the second side has.
    pub new: Vec<CellKey>,
    /// What was not compared.
    pub left_out: Vec<LeftOut>,
    /// What the numbers rest on, where it differs.
    pub differences: Vec<Difference>,
    /// What a reader should know besides.
    pub notes: Vec<String>,
}

/// Compares `b` with `a`, or refuses with the reasons why the result would mean nothing.
pub(crate) fn compare(a: &Side, b: &Side, options: &Options) -> Result<Diff, Refusal> {
    refuse(a, b, options.allow)?;
    let (shared, only_a): (Vec<_>, Vec<_>) =
        a.cells.keys().partition(|key| b.cells.contains_key(*key));
    let mut diff = Diff {
        names: [a.name.clone(), b.name.clone()],
        origins: [a.origin.clone(), b.origin.clone()],
        measures: options.measures.clone(),
        shown: options.shown,
        rows: Vec::new(),
        overall: BTreeMap::new(),
        missing: only_a.into_iter().cloned().collect(),
        new: b
            .cells
            .keys()
            .filter(|key| !a.cells.contains_key(*key))
            .cloned()
            .collect(),
        left_out: Vec::new(),
        differences: differences(&a.facts, &b.facts),
        notes: Vec::new(),
    };
    let mut cells = Vec::new();
    for key in shared {
        let mut of = |at: usize| {
            let trials = [a, b][at].cells[key].clone();
            eligible((key, at), trials, options.allow, &mut diff.left_out)
        };
        let (of_a, of_b) = (of(0), of(1));
        if !of_a.is_empty() && !of_b.is_empty() {
            cells.push((key.clone(), of_a, of_b));
        }
    }
    diff.rows = judged(&cells, &options.measures);
    for measure in &options.measures {
        let overall = overall(&diff.rows, *measure);
        diff.overall
            .extend(overall.map(|overall| (*measure, overall)));
    }
    diff.notes.extend(prompts(&cells));
    diff.notes.extend(summaries(&cells));
    Ok(diff)
}

fn refuse(a: &Side, b: &Side, allow: Allow) -> Result<(), Refusal> {
    let words = |side: &Side, word: fn(&Trial) -> &str| -> BTreeSet<String> {
        let trials = side.cells.values().flatten();
        trials.map(|trial| word(trial).to_owned()).collect()
    };
    let list = |words: &BTreeSet<String>| words.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut reasons = Vec::new();
    let mut check = |what: &str, word: fn(&Trial) -> &str, allowed: bool| {
        let (of_a, of_b) = (words(a, word), words(b, word));
        if !allowed && !of_a.is_empty() && !of_b.is_empty() && of_a != of_b {
            reasons.push(format!(
                "the {what} differs: `{}` is {}, `{}` is {} (--allow {what} compares them all the \
                 same)",
                a.name,
                list(&of_a),
                b.name,
                list(&of_b)
            ));
        }
    };
    check("model", |trial| &trial.model, allow.model);
    check("source", |trial| trial.source.name(), allow.source);
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(Refusal(reasons))
    }
}

/// The repeats that may be compared; what is left out is noted.
fn eligible(
    (key, side): (&CellKey, usize),
    trials: Vec<Trial>,
    allow: Allow,
    left_out: &mut Vec<LeftOut>,
) -> Vec<Trial> {
    let all = trials.len();
    let mut reasons: Vec<String> = Vec::new();
    let eligible: Vec<Trial> = trials
        .into_iter()
        .filter(|trial| {
            let passes = match trial.verdict {
                VerdictStatus::Valid => true,
                VerdictStatus::Inconclusive => allow.inconclusive,
                VerdictStatus::Invalid => allow.invalid,
            };
            if !passes {
                reasons.push(format!("{}: {}", trial.verdict.name(), trial.reason));
            } else if trial.counts.ok == 0 {
                reasons.push("no request was answered".to_owned());
            }
            passes && trial.counts.ok > 0
        })
        .collect();
    if let Some(first) = reasons.first() {
        let whole = eligible.is_empty();
        let reason = match (whole, all) {
            (true, _) | (false, 1) => first.clone(),
            (false, _) => format!("{} of {all} repeats: {first}", reasons.len()),
        };
        left_out.push(LeftOut {
            key: key.clone(),
            side,
            reason,
            whole,
        });
    }
    eligible
}

type Cell = (CellKey, Vec<Trial>, Vec<Trial>);

fn judged(cells: &[Cell], measures: &[Measure]) -> Vec<DiffRow> {
    let mut rows: Vec<DiffRow> = cells
        .iter()
        .map(|(key, a, b)| DiffRow {
            key: key.clone(),
            source: a
                .iter()
                .chain(b)
                .map(|t| t.source)
                .max()
                .unwrap_or(Source::Measured),
            numbers: BTreeMap::new(),
        })
        .collect();
    for measure in measures {
        let values = |trials: &[Trial]| -> Vec<f64> {
            let values = trials.iter().filter_map(|t| t.values.get(measure).copied());
            values.filter(|value| value.is_finite()).collect()
        };
        let pairs: Vec<(&CellKey, Pair)> = cells
            .iter()
            .map(|(key, a, b)| {
                let (a, b) = (values(a), values(b));
                (key, Pair { a, b })
            })
            .collect();
        let floor = Floor::of(pairs.iter().map(|(key, pair)| (*key, pair)));
        for ((row, (_, a, b)), (key, pair)) in rows.iter_mut().zip(cells).zip(&pairs) {
            let (samples_a, samples_b) = (samples(a, *measure), samples(b, *measure));
            let requests = Requests {
                a: &samples_a,
                b: &samples_b,
                n: (count(a, *measure), count(b, *measure)),
            };
            let noise = floor.yardstick(key, pair);
            let judged = judge(pair, measure.percentile, requests, noise);
            row.numbers.extend(judged.map(|judged| (*measure, judged)));
        }
    }
    let all = rows.iter_mut().flat_map(|row| row.numbers.iter_mut());
    correct(all.map(|(measure, judged)| (measure.better(), judged)));
    rows
}

fn samples(trials: &[Trial], measure: Measure) -> Vec<f64> {
    let of = |trial: &Trial| trial.samples.get(&measure.metric).cloned();
    let mut all: Vec<f64> = trials.iter().filter_map(of).flatten().collect();
    all.sort_by(f64::total_cmp);
    all
}

/// Samples behind a latency; for a rate, the requests that it counts.
fn count(trials: &[Trial], measure: Measure) -> usize {
    let of = |trial: &Trial| match measure.percentile {
        Some(_) => trial.n.get(&measure.metric).copied().unwrap_or(0),
        None => usize::try_from(trial.counts.ok).unwrap_or(usize::MAX),
    };
    trials.iter().map(of).sum()
}

fn overall(rows: &[DiffRow], measure: Measure) -> Option<Overall> {
    let numbers: Vec<&Judged> = rows
        .iter()
        .filter_map(|row| row.numbers.get(&measure))
        .filter(|judged| judged.ratio.is_some())
        .collect();
    let of = |outcome| numbers.iter().filter(|j| j.outcome == outcome).count();
    Some(Overall {
        a: geomean(&numbers.iter().map(|j| j.a).collect::<Vec<_>>())?,
        b: geomean(&numbers.iter().map(|j| j.b).collect::<Vec<_>>())?,
        cells: numbers.len(),
        better: of(Outcome::Better),
        worse: of(Outcome::Worse),
    })
}

/// A note on medians whose single requests were not stored.
fn summaries(cells: &[Cell]) -> Option<String> {
    let median = |metric| Measure {
        metric,
        percentile: Some(Percentile::P50),
    };
    let is_bare = |trial: &Trial, metric: Metric| {
        let values = trial.samples.get(&metric);
        trial.values.contains_key(&median(metric)) && values.is_none_or(Vec::is_empty)
    };
    let bare = |metric: &Metric| {
        let mut trials = cells.iter().flat_map(|(_, a, b)| a.iter().chain(b));
        trials.any(|trial| is_bare(trial, *metric))
    };
    let all = [Metric::Ttft, Metric::Tpot, Metric::E2e];
    let all: Vec<_> = all.iter().filter(|metric| bare(metric)).collect();
    let names: Vec<_> = all.iter().map(|metric| metric.spec().short).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{}: some numbers are summaries of imported files, whose requests were not stored; they \
             have no interval and no test but over repeats",
            names.join(", ")
        )
    })
}

/// Whether the two sides asked the same.
fn prompts(cells: &[Cell]) -> Option<String> {
    let corpora = |trials: &[Trial]| -> BTreeSet<String> {
        let known = trials.iter().map(|trial| trial.corpus.clone());
        known.filter(|corpus| !corpus.is_empty()).collect()
    };
    let differ = cells.iter().filter(|(_, a, b)| {
        let (a, b) = (corpora(a), corpora(b));
        !a.is_empty() && !b.is_empty() && a.is_disjoint(&b)
    });
    let count = differ.count();
    (count > 0).then(|| {
        format!(
            "the requests are not the same on both sides in {count} of {} cells",
            cells.len()
        )
    })
}
