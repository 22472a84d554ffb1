//! Latencies and counts of each pass, from its requests. The only place that uses polars for
//! aggregation.
//!
//! It reads cell by cell: only a few cells' requests are in memory at once. Of a pass it retains
//! the sorted latencies and a summary of the gaps, which are most of the data.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use polars::prelude::{BooleanChunked, DataFrame, Series};

use crate::aggregate::gaps::Gaps;
use crate::aggregate::imported;
use crate::aggregate::slo::{Latencies, Slo};
use crate::metric::Metric;
use crate::parallel::side_by_side;
use crate::plan::state::CacheState;
use crate::record::reader::{Requests, RunData};
use crate::record::schema::{Counts, RequestOutcome};
use crate::stats::Summary;

const COLUMNS: [&str; 10] = [
    "state",
    "outcome",
    "ttft_ms",
    "e2e_ms",
    "tpot_ms",
    "lateness_ms",
    "gaps_ms",
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
];

/// The requests of one pass; latencies are those of the ok ones, ascending.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    /// Outcomes of the requests, counted from their rows.
    pub counts: Counts,
    pub ttft: Vec<f64>,
    pub tpot: Vec<f64>,
    pub e2e: Vec<f64>,
    pub lateness: Vec<f64>,
    pub gaps: Gaps,
    /// Sum over ok requests; absent when a request lacks its count, as the sum would be too low.
    pub prompt_tokens: Option<u64>,
    /// Sum over ok requests; absent when a request lacks its count.
    pub output_tokens: Option<u64>,
    /// Mean over the ok requests for which the server reported it.
    pub cached_tokens_mean: Option<f64>,
    /// Mean over the ok requests for which the server reported it.
    pub prompt_tokens_mean: Option<f64>,
    /// Ok requests that met every objective on single requests.
    pub within_slos: u64,
    /// Another tool's summaries of latencies whose values it did not store.
    pub imported: BTreeMap<Metric, Summary>,
    /// Whether the requests were imported without their latencies.
    pub lacks_requests: bool,
}

impl Samples {
    /// What a pass without requests has.
    pub(crate) fn none() -> Self {
        Self {
            counts: Counts {
                sent: 0,
                ok: 0,
                failed: 0,
                unfinished: 0,
            },
            ttft: vec![],
            tpot: vec![],
            e2e: vec![],
            lateness: vec![],
            gaps: Gaps::default(),
            prompt_tokens: Some(0),
            output_tokens: Some(0),
            cached_tokens_mean: None,
            prompt_tokens_mean: None,
            within_slos: 0,
            imported: BTreeMap::new(),
            lacks_requests: false,
        }
    }

    /// How many values of its own it has of one of its latencies.
    pub(crate) fn own(&self, metric: Metric) -> usize {
        match metric {
            Metric::Itl => self.gaps.n(),
            _ => self.values(metric).len(),
        }
    }

    fn values(&self, metric: Metric) -> &[f64] {
        match metric {
            Metric::Ttft => &self.ttft,
            Metric::Tpot => &self.tpot,
            Metric::E2e => &self.e2e,
            Metric::Lateness => &self.lateness,
            _ => unreachable!("{metric:?} is not a latency of a request"),
        }
    }

    /// The distribution of one of its latencies.
    pub(crate) fn summary(&self, metric: Metric) -> Summary {
        if let Some(summary) = self.imported.get(&metric) {
            return summary.clone();
        }
        match metric {
            Metric::Itl => self.gaps.summary(),
            _ => Summary::of_sorted(metric, self.values(metric)),
        }
    }
}

/// The samples of every pass, by cell and state.
#[derive(Clone, Debug)]
pub(crate) struct Passes(Vec<BTreeMap<CacheState, Samples>>);

impl Passes {
    /// Reads the requests of every cell of `run`.
    pub(crate) fn gather(run: &RunData, slos: &[Slo]) -> Result<Self> {
        let cells = run.cells.len();
        let passes = side_by_side(cells, |at| {
            let mut passes = of_cell(&run.requests, at, slos)?;
            for pass in &run.cells[at].passes {
                if let Some(samples) = passes.get_mut(&pass.state) {
                    imported::complete(samples, pass);
                }
            }
            anyhow::Ok(passes)
        });
        Ok(Self(passes.into_iter().collect::<Result<_>>()?))
    }

    /// Those of one pass; `None` for a pass without a single request row.
    pub(crate) fn get(&self, cell: usize, state: CacheState) -> Option<&Samples> {
        self.0.get(cell)?.get(&state)
    }
}

fn of_cell(
    requests: &Requests,
    cell: usize,
    slos: &[Slo],
) -> Result<BTreeMap<CacheState, Samples>> {
    let frame = requests.of_cell(cell, &COLUMNS)?;
    let states = frame.column("state")?.str()?.clone();
    let outcomes = frame.column("outcome")?.str()?.clone();
    let mut counts: BTreeMap<CacheState, Counts> = BTreeMap::new();
    for (state, outcome) in states.iter().zip(outcomes.iter()) {
        let state = state.and_then(CacheState::from_name);
        let state = state.context("a request without a known cache state")?;
        let counts = counts.entry(state).or_insert(Samples::none().counts);
        let name = |outcome: RequestOutcome| outcome.name();
        match outcome {
            Some(o) if o == name(RequestOutcome::Ok) => counts.ok += 1,
            Some(o) if o == name(RequestOutcome::Failed) => counts.failed += 1,
            Some(o) if o == name(RequestOutcome::Unfinished) => counts.unfinished += 1,
            _ => anyhow::bail!("a request without a known outcome"),
        }
        counts.sent += 1;
    }
    let mut passes = BTreeMap::new();
    for (state, counts) in counts {
        let ok = states
            .iter()
            .zip(outcomes.iter())
            .map(|(of, outcome)| {
                Some(of == Some(state.name()) && outcome == Some(RequestOutcome::Ok.name()))
            })
            .collect::<BooleanChunked>();
        let ok = if counts.ok as usize == frame.height() {
            frame.clone()
        } else {
            frame.filter(&ok)?
        };
        passes.insert(state, samples(&ok, counts, slos)?);
    }
    Ok(passes)
}

fn samples(ok: &DataFrame, counts: Counts, slos: &[Slo]) -> Result<Samples> {
    let column =
        |name: &str| -> Result<Series> { Ok(ok.column(name)?.as_materialized_series().rechunk()) };
    let sorted = |name: &str| -> Result<Vec<f64>> {
        let mut values: Vec<f64> = column(name)?.f64()?.iter().flatten().collect();
        values.retain(|value| value.is_finite());
        values.sort_unstable_by(f64::total_cmp);
        Ok(values)
    };
    let sum = |name: &str| -> Result<Option<u64>> {
        let tokens = column(name)?;
        let complete = tokens.null_count() == 0;
        let sum = tokens.u32()?.iter().flatten().map(u64::from).sum();
        Ok(Some(sum).filter(|_| complete))
    };
    let gaps = column("gaps_ms")?;
    Ok(Samples {
        counts,
        ttft: sorted("ttft_ms")?,
        tpot: sorted("tpot_ms")?,
        e2e: sorted("e2e_ms")?,
        lateness: sorted("lateness_ms")?,
        within_slos: Latencies {
            ttft: &column("ttft_ms")?,
            tpot: &column("tpot_ms")?,
            e2e: &column("e2e_ms")?,
            gaps: &gaps,
        }
        .count_within(slos)?,
        gaps: Gaps::of(&gaps)?,
        imported: BTreeMap::new(),
        lacks_requests: false,
        prompt_tokens: sum("prompt_tokens")?,
        output_tokens: sum("output_tokens")?,
        cached_tokens_mean: column("cached_tokens")?.mean(),
        prompt_tokens_mean: column("prompt_tokens")?.mean(),
    })
}
