//! Small tables of a run for a repository: stable rows, fixed precision, one fact a line. `git
//! diff` reads well, and a later diff has what it needs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

use crate::aggregate::tier_order;
use crate::csv_table::{self, Table, push_row};
use crate::diff::measure::Measure;
use crate::diff::side::{CellKey, Side, Trial};
use crate::matrix::Coordinates;
use crate::metric::Metric;
use crate::plan::state::CacheState;
use crate::record::schema::{Counts, Source, VerdictStatus};
use crate::stats::{Percentile, median_interval, quantile};
use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

/// Values stored of one pass and metric; of more, quantiles at equal distances.
const MAX_VALUES: usize = 100;

/// The files' names.
pub(crate) const FILES: [&str; 4] = [
    "cells.csv",
    "measures.csv",
    "samples.csv",
    "provenance.json",
];

const PLACE: [&str; 7] = [
    "label",
    "gen_len",
    "state",
    "concurrency",
    "prompt_len",
    "tier",
    "repeat",
];
const CELL: [&str; 13] = [
    "outcome",
    "cell",
    "source",
    "model",
    "verdict",
    "reason",
    "sent",
    "ok",
    "failed",
    "unfinished",
    "duration_s",
    "identity",
    "corpus",
];
const MEASURE: [&str; 11] = [
    "metric", "unit", "n", "value", "mean", "p50", "p50_low", "p50_high", "p90", "p95", "p99",
];

/// The tables of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compact {
    /// One row a cell, state and repeat: what became of it.
    pub cells: String,
    /// One row a cell, state, repeat and metric.
    pub measures: String,
    /// The same rows for latencies, with the values of single requests.
    pub samples: String,
    /// What the numbers rest on, by dotted name.
    pub provenance: String,
}

impl Compact {
    /// The tables of `side`.
    pub(crate) fn of(side: &Side) -> Result<Self> {
        let axes: BTreeSet<&str> = side
            .cells
            .keys()
            .flat_map(|key| key.place.extra.keys().map(String::as_str))
            .collect();
        let axes: Vec<&str> = axes.into_iter().collect();
        let mut compact = Self::default();
        push_row(&mut compact.cells, &head(&axes, &CELL));
        push_row(&mut compact.measures, &head(&axes, &MEASURE));
        push_row(&mut compact.samples, &head(&axes, &["metric", "values"]));
        let mut order: Vec<(&CellKey, &Trial)> = side
            .cells
            .iter()
            .flat_map(|(key, trials)| trials.iter().map(move |trial| (key, trial)))
            .collect();
        order.sort_by_key(|(key, trial)| {
            (&key.place, tier_order(&key.tier), trial.coordinates.repeat)
        });
        for (key, trial) in order {
            let place = place(&trial.coordinates, key.place.state.name(), &axes);
            compact.push(&place, trial);
        }
        for (at, what) in &side.failed {
            let mut row = place(at, "", &axes);
            row.extend(["failed", "", "", "", "", what].map(str::to_owned));
            row.resize(PLACE.len() + axes.len() + CELL.len(), String::new());
            push_row(&mut compact.cells, &row);
        }
        compact.provenance = serde_json::to_string_pretty(&side.facts)? + "\n";
        Ok(compact)
    }

    fn push(&mut self, place: &[String], trial: &Trial) {
        let counts = &trial.counts;
        let mut row = place.to_vec();
        row.extend(
            [
                "completed",
                &trial.cell,
                trial.source.name(),
                &trial.model,
                trial.verdict.name(),
                &trial.reason,
            ]
            .map(str::to_owned),
        );
        row.extend(
            [counts.sent, counts.ok, counts.failed, counts.unfinished].map(|n| n.to_string()),
        );
        row.push(number(Some(trial.duration_s)));
        row.extend([trial.identity.clone(), trial.corpus.clone()]);
        push_row(&mut self.cells, &row);

        let of_values = trial.values.keys().map(|measure| measure.metric);
        let metrics: BTreeSet<Metric> = of_values.chain(trial.n.keys().copied()).collect();
        for metric in metrics {
            let fields = measure_fields(trial, metric);
            push_row(&mut self.measures, &[place, &fields].concat());
        }
        for (metric, values) in trial
            .samples
            .iter()
            .filter(|(_, values)| !values.is_empty())
        {
            let values: Vec<String> = thinned(values).map(|v| number(Some(v))).collect();
            let fields = [metric.spec().column.to_owned(), values.join(" ")];
            push_row(&mut self.samples, &[place, &fields].concat());
        }
    }

    /// The side that the tables hold.
    pub(crate) fn read(&self, name: &str, origin: String) -> Result<Side> {
        let mut trials = BTreeMap::new();
        let mut side = Side {
            name: name.to_owned(),
            origin,
            facts: serde_json::from_str(&self.provenance)
                .context("provenance.json is not as labrun writes it")?,
            ..Side::default()
        };
        for row in rows("cells.csv", &self.cells)? {
            let at = row.coordinates()?;
            match CacheState::from_name(row.get("state")?) {
                Some(state) => {
                    trials.insert((at.clone(), state), row.trial(at)?);
                }
                None => side.failed.push((at, row.get("reason")?.to_owned())),
            }
        }
        let keyed = |row: &Row<'_>| -> Result<((Coordinates, CacheState), Metric)> {
            let state = CacheState::from_name(row.get("state")?);
            let metric = Metric::ALL
                .into_iter()
                .find(|metric| Ok(metric.spec().column) == row.get("metric").map_err(drop));
            let state = state.with_context(|| row.wrong("state"))?;
            Ok((
                (row.coordinates()?, state),
                metric.with_context(|| row.wrong("metric"))?,
            ))
        };
        for row in rows("measures.csv", &self.measures)? {
            let (key, metric) = keyed(&row)?;
            let trial = trials.get_mut(&key).with_context(|| row.wrong("repeat"))?;
            row.measures(metric, trial)?;
        }
        for row in rows("samples.csv", &self.samples)? {
            let (key, metric) = keyed(&row)?;
            let trial = trials.get_mut(&key).with_context(|| row.wrong("repeat"))?;
            let values = row.get("values")?.split(' ').map(str::parse);
            let values: Vec<f64> = values
                .collect::<Result<_, _>>()
                .with_context(|| row.wrong("values"))?;
            trial.samples.insert(metric, values);
        }
        for ((_, state), trial) in trials {
            side.add(state, trial);
        }
        Ok(side)
    }
}

fn head<'a>(axes: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&PLACE, axes, more].concat()
}

fn place(at: &Coordinates, state: &str, axes: &[&str]) -> Vec<String> {
    let mut row = vec![
        at.label.clone(),
        at.gen_len.to_string(),
        state.to_owned(),
        at.concurrency.to_string(),
        at.prompt_len.to_string(),
        at.tier.clone(),
        at.repeat.to_string(),
    ];
    let value = |axis: &&str| at.extra.get(*axis).cloned().unwrap_or_default();
    row.extend(axes.iter().map(value));
    row
}

fn measure_fields(trial: &Trial, metric: Metric) -> Vec<String> {
    let value = |percentile| number(trial.values.get(&Measure { metric, percentile }).copied());
    let samples = trial.samples.get(&metric);
    let interval = samples.and_then(|values| median_interval(values, 0.95));
    let mut fields = vec![
        metric.spec().column.to_owned(),
        metric.spec().unit.sign().to_owned(),
        trial
            .n
            .get(&metric)
            .map(usize::to_string)
            .unwrap_or_default(),
        value(None),
        number(trial.means.get(&metric).copied()),
        value(Some(Percentile::P50)),
        number(interval.map(|interval| interval.low)),
        number(interval.map(|interval| interval.high)),
    ];
    fields.extend([Percentile::P90, Percentile::P95, Percentile::P99].map(|p| value(Some(p))));
    fields
}

fn thinned(values: &[f64]) -> impl Iterator<Item = f64> {
    let count = values.len().min(MAX_VALUES);
    let all = values.len() == count;
    (0..count).filter_map(move |at| {
        if all {
            Some(values[at])
        } else {
            quantile(values, (at as f64 + 0.5) / count as f64)
        }
    })
}

/// Microseconds and thousandths: what is beyond is noise in every metric.
fn number(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.3}")).unwrap_or_default()
}

/// One row of the table in `file`.
struct Row<'a> {
    file: &'a str,
    row: csv_table::Row,
}

fn rows<'a>(file: &'a str, text: &str) -> Result<Vec<Row<'a>>> {
    let table = Table::parse(text).with_context(|| format!("reading {file}"))?;
    let rows = table.rows.into_iter();
    Ok(rows.map(|row| Row { file, row }).collect())
}

impl Row<'_> {
    fn get(&self, name: &str) -> Result<&str> {
        ensure!(self.row.has(name), "{} has no column `{name}`", self.file);
        Ok(self.row.get(name).unwrap_or_default())
    }

    fn wrong(&self, name: &str) -> String {
        let value = self.get(name).unwrap_or_default();
        format!(
            "{}, row {}: unusable `{name}`: `{value}`",
            self.file, self.row.line
        )
    }

    fn whole(&self, name: &str) -> Result<u32> {
        self.get(name)?.parse().with_context(|| self.wrong(name))
    }

    fn count(&self, name: &str) -> Result<u64> {
        self.get(name)?.parse().with_context(|| self.wrong(name))
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.get(name)? {
            "" => Ok(None),
            text => text.parse().map(Some).with_context(|| self.wrong(name)),
        }
    }

    fn coordinates(&self) -> Result<Coordinates> {
        // Further axes are columns named by a dotted plan key.
        let axes = self.row.fields().filter(|(name, _)| name.contains('.'));
        Ok(Coordinates {
            label: self.get("label")?.to_owned(),
            tier: self.get("tier")?.to_owned(),
            prompt_len: PromptLen::new(self.whole("prompt_len")?)
                .with_context(|| self.wrong("prompt_len"))?,
            gen_len: GenLen::new(self.whole("gen_len")?).with_context(|| self.wrong("gen_len"))?,
            concurrency: Concurrency::new(self.whole("concurrency")?)
                .with_context(|| self.wrong("concurrency"))?,
            repeat: Repeat::new(self.whole("repeat")?).with_context(|| self.wrong("repeat"))?,
            extra: axes
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    fn trial(&self, coordinates: Coordinates) -> Result<Trial> {
        let verdict = [
            VerdictStatus::Valid,
            VerdictStatus::Inconclusive,
            VerdictStatus::Invalid,
        ];
        let verdict = verdict
            .into_iter()
            .find(|status| Ok(status.name()) == self.get("verdict").map_err(drop));
        Ok(Trial {
            coordinates,
            cell: self.get("cell")?.to_owned(),
            source: Source::from_name(self.get("source")?).with_context(|| self.wrong("source"))?,
            model: self.get("model")?.to_owned(),
            verdict: verdict.with_context(|| self.wrong("verdict"))?,
            reason: self.get("reason")?.to_owned(),
            counts: Counts {
                sent: self.count("sent")?,
                ok: self.count("ok")?,
                failed: self.count("failed")?,
                unfinished: self.count("unfinished")?,
            },
            duration_s: self.number("duration_s")?.unwrap_or_default(),
            identity: self.get("identity")?.to_owned(),
            corpus: self.get("corpus")?.to_owned(),
            n: BTreeMap::new(),
            means: BTreeMap::new(),
            values: BTreeMap::new(),
            samples: BTreeMap::new(),
        })
    }

    fn measures(&self, metric: Metric, trial: &mut Trial) -> Result<()> {
        let mut add = |percentile, value: Option<f64>| {
            let measure = Measure { metric, percentile };
            trial.values.extend(value.map(|value| (measure, value)));
        };
        add(None, self.number("value")?);
        for percentile in [
            Percentile::P50,
            Percentile::P90,
            Percentile::P95,
            Percentile::P99,
        ] {
            add(Some(percentile), self.number(percentile.name())?);
        }
        let mean = self.number("mean")?.map(|mean| (metric, mean));
        trial.means.extend(mean);
        if !self.get("n")?.is_empty() {
            let n = usize::try_from(self.whole("n")?)?;
            trial.n.insert(metric, n);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
