//! One side of a diff: cells by coordinates, each with its repeats.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use crate::aggregate::{Passes, Place, SummaryRow, summarize_passes};
use crate::diff::Measure;
use crate::matrix::Coordinates;
use crate::metric::Metric;
use crate::plan::state::CacheState;
use crate::record::reader::RunData;
use crate::record::schema::{CellRecord, Counts, Source, VerdictStatus};

/// What cells of two sides are matched by: all coordinates but the repeat, and the state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CellKey {
    /// Everything but the tier.
    pub place: Place,
    /// The tier.
    pub tier: String,
}

impl CellKey {
    /// The names of the coordinates that every cell has.
    pub(crate) const KEYS: [&'static str; 6] = [
        "label",
        "tier",
        "state",
        "concurrency",
        "prompt_len",
        "gen_len",
    ];

    /// The coordinate called `name`, or the value of that axis.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let place = &self.place;
        match name {
            "label" => Some(place.label.clone()),
            "tier" => Some(self.tier.clone()),
            "state" => Some(place.state.to_string()),
            "concurrency" => Some(place.concurrency.to_string()),
            "prompt_len" => Some(place.prompt_len.to_string()),
            "gen_len" => Some(place.gen_len.to_string()),
            axis => place.extra.get(axis).cloned(),
        }
    }
}

impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        write!(
            f,
            "{} {} {} p{} g{} c{}",
            place.label,
            self.tier,
            place.state.word(),
            place.prompt_len,
            place.gen_len,
            place.concurrency
        )?;
        for (axis, value) in &place.extra {
            write!(f, " {axis}={value}")?;
        }
        Ok(())
    }
}

/// One repeat of a cell in one state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trial {
    /// Its coordinates.
    pub coordinates: Coordinates,
    /// The cell's id.
    pub cell: String,
    /// Simulated or measured.
    pub source: Source,
    /// The model.
    pub model: String,
    /// Whether the declared tier served.
    pub verdict: VerdictStatus,
    /// The verdict's first reason.
    pub reason: String,
    /// What became of its requests.
    pub counts: Counts,
    /// Length of the pass, seconds.
    pub duration_s: f64,
    /// A short hash of what decides its result; empty where the record has none.
    pub identity: String,
    /// A short hash of its requests; empty where the record has none.
    pub corpus: String,
    /// How many samples stand behind each metric.
    pub n: BTreeMap<Metric, usize>,
    /// Means of its metrics.
    pub means: BTreeMap<Metric, f64>,
    /// Its numbers; one that its samples cannot support is absent.
    pub values: BTreeMap<Measure, f64>,
    /// Latencies of its requests, ascending. From compact tables of a large pass, quantiles at
    /// equal distances.
    pub samples: BTreeMap<Metric, Vec<f64>>,
}

/// One side of a diff: its cells and the facts behind them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Side {
    /// How the user named it.
    pub name: String,
    /// Where it was read from, in words.
    pub origin: String,
    /// The repeats of each cell and state.
    pub cells: BTreeMap<CellKey, Vec<Trial>>,
    /// Cells that were not measured to their end, and why.
    pub failed: Vec<(Coordinates, String)>,
    /// What the numbers rest on, by dotted name.
    pub facts: BTreeMap<String, String>,
}

impl Side {
    /// The side of a run's records; `facts` complete those of the cells.
    pub(crate) fn of_run(
        name: &str,
        origin: String,
        run: &RunData,
        facts: BTreeMap<String, String>,
    ) -> Result<Self> {
        let passes = Passes::gather(run, &[])?;
        let table = summarize_passes(run, &passes, &[]);
        let records: BTreeMap<&str, (usize, &CellRecord)> = (0..)
            .zip(&run.cells)
            .map(|(at, cell)| (cell.id.as_str(), (at, cell)))
            .collect();
        let mut side = Self {
            name: name.to_owned(),
            origin,
            facts,
            ..Self::default()
        };
        for row in &table.rows {
            let record = records.get(row.cell.as_str()).copied();
            let samples = record.and_then(|(at, _)| passes.get(at, row.state));
            // Not the gaps between tokens: those of one request are no independent values.
            let samples = samples.map(|samples| {
                let of = [
                    (Metric::Ttft, samples.ttft.clone()),
                    (Metric::Tpot, samples.tpot.clone()),
                    (Metric::E2e, samples.e2e.clone()),
                ];
                of.into_iter().collect()
            });
            side.add(row.state, trial(row, record.map(|(_, cell)| cell), samples));
        }
        for failed in table.failed {
            side.failed.push((failed.coordinates, failed.what));
        }
        side.add_cell_facts(run);
        Ok(side)
    }

    /// Adds one repeat.
    pub(crate) fn add(&mut self, state: CacheState, trial: Trial) {
        let key = CellKey {
            place: Place::of(&trial.coordinates, state),
            tier: trial.coordinates.tier.clone(),
        };
        self.cells.entry(key).or_default().push(trial);
    }

    /// What all cells agree on: server, versions, and what decides their results.
    fn add_cell_facts(&mut self, run: &RunData) {
        let mut seen: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for cell in &run.cells {
            let server = &cell.server;
            let of_cell = [
                ("model", Some(cell.model.as_str())),
                ("source", Some(cell.source.name())),
                ("server.launcher", Some(server.launcher_name())),
                ("server.version", server.version.as_deref()),
            ];
            let named = of_cell
                .iter()
                .filter_map(|(name, value)| Some(((*name).to_owned(), (*value)?)));
            let identity = cell
                .identity
                .iter()
                .map(|(name, value)| (format!("identity.{name}"), value.as_str()));
            for (name, value) in named.chain(identity) {
                let values = seen.entry(name).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
        for (name, values) in seen {
            // The coordinates show what differs from cell to cell.
            if values.len() == 1 || !name.starts_with("identity.") {
                self.facts.insert(name, values.join(", "));
            }
        }
    }
}

fn trial(
    row: &SummaryRow,
    record: Option<&CellRecord>,
    samples: Option<BTreeMap<Metric, Vec<f64>>>,
) -> Trial {
    let mut trial = Trial {
        coordinates: row.coordinates.clone(),
        cell: row.cell.clone(),
        source: row.source,
        model: row.model.clone(),
        verdict: row.verdict,
        reason: row.reason.clone().unwrap_or_default(),
        counts: row.counts,
        duration_s: row.duration_s,
        identity: record.map(identity_hash).unwrap_or_default(),
        corpus: record
            .and_then(|cell| cell.passes.iter().find(|pass| pass.state == row.state))
            .map(|pass| pass.corpus.chars().take(HASH).collect())
            .unwrap_or_default(),
        n: BTreeMap::new(),
        means: BTreeMap::new(),
        values: BTreeMap::new(),
        samples: samples.unwrap_or_default(),
    };
    for measure in Measure::all() {
        let value = match measure.percentile {
            Some(percentile) => row
                .latency(measure.metric)
                .and_then(|summary| summary.percentile(percentile)),
            None => rate(row, measure.metric),
        };
        trial.values.extend(value.map(|value| (measure, value)));
        if let Some(summary) = row.latency(measure.metric) {
            trial.n.insert(measure.metric, summary.n);
            let mean = summary.mean.map(|mean| (measure.metric, mean));
            trial.means.extend(mean);
        }
    }
    trial
}

fn rate(row: &SummaryRow, metric: Metric) -> Option<f64> {
    match metric {
        Metric::Energy => row.energy_j_per_token,
        Metric::RequestThroughput => row.requests_per_s,
        Metric::OutputThroughput => row.output_tokens_per_s,
        Metric::TotalThroughput => row.total_tokens_per_s,
        _ => None,
    }
}

/// Letters stored of a hash: 48 bits distinguish a run's cells.
const HASH: usize = 12;

fn identity_hash(cell: &CellRecord) -> String {
    if cell.identity.is_empty() {
        return String::new();
    }
    let mut hasher = blake3::Hasher::new();
    for (name, value) in &cell.identity {
        hasher.update(format!("{name}\0{value}\0").as_bytes());
    }
    hasher.finalize().to_hex()[..HASH].to_owned()
}
