//! The request columns, grouped. The only place that talks to polars for aggregation.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use polars::prelude::{Column, DataFrame, DataType, ExplodeOptions, IntoLazy as _, col, len, lit};

use crate::metric::Metric;
use crate::plan::state::CacheState;
use crate::record::reader::Requests;
use crate::record::schema::RequestOutcome;
use crate::stats::Summary;

/// What the ok requests of one group and state say.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    pub ttft: Vec<f64>,
    pub itl: Vec<f64>,
    pub tpot: Vec<f64>,
    pub e2e: Vec<f64>,
    pub lateness: Vec<f64>,
    /// Sum over ok requests; absent when a request lacks its count, as the sum would be too low.
    pub prompt_tokens: Option<u64>,
    /// Same.
    pub output_tokens: Option<u64>,
    /// Mean over the ok requests for which the server said it.
    pub cached_tokens_mean: Option<f64>,
    /// Same.
    pub prompt_tokens_mean: Option<f64>,
}

impl Samples {
    /// What a group without ok requests has.
    pub fn none() -> Self {
        Self {
            ttft: vec![],
            itl: vec![],
            tpot: vec![],
            e2e: vec![],
            lateness: vec![],
            prompt_tokens: Some(0),
            output_tokens: Some(0),
            cached_tokens_mean: None,
            prompt_tokens_mean: None,
        }
    }

    /// The distribution of one of its latencies.
    pub fn summary(&self, metric: Metric) -> Summary {
        let samples = match metric {
            Metric::Ttft => &self.ttft,
            Metric::Itl => &self.itl,
            Metric::Tpot => &self.tpot,
            Metric::E2e => &self.e2e,
            Metric::Lateness => &self.lateness,
            _ => unreachable!("{metric:?} is no latency of a request"),
        };
        Summary::of(metric, samples.clone())
    }
}

/// A group's index and a cache state.
pub(super) type Key = (u32, CacheState);

/// The samples of the ok requests by group and state; `group_of[cell]` says which group a cell
/// belongs to. Groups without ok requests are absent.
pub(super) fn gather(requests: &Requests, group_of: &[u32]) -> Result<BTreeMap<Key, Samples>> {
    let frame = with_groups(requests, group_of)?;
    let values = |name: &str| col(name).drop_nulls().implode(true);
    let tokens = |name: &str| col(name).cast(DataType::UInt64).sum();
    let explode = ExplodeOptions {
        empty_as_null: false,
        keep_nulls: false,
    };
    let grouped = frame
        .lazy()
        .filter(col("outcome").eq(lit(RequestOutcome::Ok.name())))
        .group_by([col("group"), col("state")])
        .agg([
            values("ttft_ms"),
            col("gaps_ms").explode(explode).drop_nulls().implode(true),
            values("tpot_ms"),
            values("e2e_ms"),
            values("lateness_ms"),
            tokens("prompt_tokens"),
            tokens("output_tokens"),
            col("prompt_tokens")
                .null_count()
                .alias("prompt_tokens_lacking"),
            col("output_tokens")
                .null_count()
                .alias("output_tokens_lacking"),
            col("cached_tokens").mean().alias("cached_tokens_mean"),
            col("prompt_tokens").mean().alias("prompt_tokens_mean"),
        ])
        .collect()
        .context("cannot group the requests")?;
    keys(&grouped)?
        .into_iter()
        .enumerate()
        .map(|(at, key)| Ok((key, samples_at(&grouped, at)?)))
        .collect()
}

/// How many request rows there are of each cell, state and outcome.
pub(super) fn outcomes(requests: &Requests) -> Result<BTreeMap<(u32, CacheState, String), u64>> {
    let counted = requests
        .frame()
        .clone()
        .lazy()
        .group_by([col("cell").alias("group"), col("state"), col("outcome")])
        .agg([len().alias("rows")])
        .collect()
        .context("cannot count the requests")?;
    let outcome = counted.column("outcome")?.str()?;
    let rows = counted.column("rows")?.cast(&DataType::UInt64)?;
    keys(&counted)?
        .into_iter()
        .zip(outcome.iter().zip(rows.u64()?.iter()))
        .map(|((cell, state), (outcome, rows))| {
            let outcome = outcome.context("a request without outcome")?.to_owned();
            Ok(((cell, state, outcome), rows.unwrap_or(0)))
        })
        .collect()
}

fn with_groups(requests: &Requests, group_of: &[u32]) -> Result<DataFrame> {
    let mut frame = requests.frame().clone();
    let cells = frame.column("cell")?.u32()?.clone();
    let groups: Vec<u32> = cells
        .iter()
        .flatten()
        .map(|cell| group_of[cell as usize])
        .collect();
    frame.with_column(Column::new("group".into(), groups))?;
    Ok(frame)
}

fn keys(frame: &DataFrame) -> Result<Vec<Key>> {
    let groups = frame.column("group")?.u32()?;
    let states = frame.column("state")?.str()?;
    groups
        .iter()
        .zip(states.iter())
        .map(|(group, state)| {
            let state = state.and_then(CacheState::from_name);
            group
                .zip(state)
                .context("a request without a known cell and state")
        })
        .collect()
}

fn samples_at(grouped: &DataFrame, at: usize) -> Result<Samples> {
    let values = |name: &str| -> Result<Vec<f64>> {
        let list = grouped.column(name)?.list()?.get_as_series(at);
        Ok(match list {
            Some(series) => series.f64()?.iter().flatten().collect(),
            None => Vec::new(),
        })
    };
    let mean = |name: &str| -> Result<Option<f64>> { Ok(grouped.column(name)?.f64()?.get(at)) };
    let sum = |name: &str| -> Result<Option<u64>> {
        let lacking = grouped
            .column(&format!("{name}_lacking"))?
            .cast(&DataType::UInt64)?;
        let complete = lacking.u64()?.get(at) == Some(0);
        Ok(grouped.column(name)?.u64()?.get(at).filter(|_| complete))
    };
    Ok(Samples {
        ttft: values("ttft_ms")?,
        itl: values("gaps_ms")?,
        tpot: values("tpot_ms")?,
        e2e: values("e2e_ms")?,
        lateness: values("lateness_ms")?,
        prompt_tokens: sum("prompt_tokens")?,
        output_tokens: sum("output_tokens")?,
        cached_tokens_mean: mean("cached_tokens_mean")?,
        prompt_tokens_mean: mean("prompt_tokens_mean")?,
    })
}
