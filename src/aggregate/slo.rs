//! Service-level objectives: limits on latencies, and which requests and passes meet them.
//!
//! An objective is `LATENCY[_PERCENTILE]=LIMIT`, such as `ttft=500ms` (every request on its own)
//! or `ttft_p99=500ms` (the pass as a whole). Several are parted by commas.

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use polars::prelude::{Float64Chunked, IntoSeries as _, ListChunked, Series};

use crate::aggregate::samples::Samples;
use crate::metric::Metric;
use crate::stats::Percentile;

/// A limit on one latency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    /// The limited latency: TTFT, TPOT, ITL or E2E.
    pub metric: Metric,
    /// The percentile that the limit applies to; absent: it applies to each request on its own.
    pub percentile: Option<Percentile>,
    /// The limit; a latency equal to it meets it.
    pub limit_ms: f64,
}

/// Objectives in the order that they were given.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Slos(pub Vec<Slo>);

/// Why a text cannot be read as an objective.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SloError {
    text: String,
    /// The first character that is wrong, from 0, and how many are.
    at: usize,
    length: usize,
    what: String,
}

impl fmt::Display for SloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            text,
            at,
            length,
            what,
        } = self;
        let caret = "^".repeat((*length).max(1));
        write!(
            f,
            "column {}: {what}\n  {text}\n  {:at$}{caret}",
            at + 1,
            ""
        )
    }
}

impl std::error::Error for SloError {}

const LATENCIES: [(&str, Metric); 4] = [
    ("ttft", Metric::Ttft),
    ("tpot", Metric::Tpot),
    ("itl", Metric::Itl),
    ("e2e", Metric::E2e),
];

impl FromStr for Slos {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Self, SloError> {
        let mut from = 0;
        let mut slos = Vec::new();
        for part in text.split(',') {
            slos.push(one(text, from, part)?);
            from += part.chars().count() + 1;
        }
        Ok(Self(slos))
    }
}

/// The objective `part`, which begins at character `from` of `text`.
fn one(text: &str, from: usize, part: &str) -> Result<Slo, SloError> {
    let wrong = |at: usize, word: &str, what: String| SloError {
        text: text.to_owned(),
        at: from + at,
        length: word.chars().count(),
        what,
    };
    let Some((left, limit)) = part.split_once('=') else {
        let what = "an objective is LATENCY[_PERCENTILE]=LIMIT, such as `ttft_p99=500ms`";
        return Err(wrong(0, part, what.to_owned()));
    };
    let (latency, percentile) = match left.split_once('_') {
        Some((latency, percentile)) => (latency, Some(percentile)),
        None => (left, None),
    };
    let known = LATENCIES.iter().find(|(name, _)| *name == latency);
    let Some((_, metric)) = known else {
        let what = format!("unknown latency `{latency}`: expected ttft, tpot, itl or e2e");
        return Err(wrong(0, latency, what));
    };
    let percentile = match percentile {
        None => None,
        Some(name) => {
            let known = Percentile::ALL.into_iter().find(|p| p.name() == name);
            let what = || format!("unknown percentile `{name}`: expected p50, p90, p95 or p99");
            Some(known.ok_or_else(|| wrong(latency.chars().count() + 1, name, what()))?)
        }
    };
    let at = left.chars().count() + 1;
    Ok(Slo {
        metric: *metric,
        percentile,
        limit_ms: limit_ms(limit).ok_or_else(|| {
            let what = "the limit is a time above zero with its unit, such as `500ms` or `2s`";
            wrong(at, limit, what.to_owned())
        })?,
    })
}

fn limit_ms(text: &str) -> Option<f64> {
    let (digits, factor) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1.0),
        None => (text.strip_suffix('s')?, 1000.0),
    };
    let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let limit = digits.parse::<f64>().ok()? * factor;
    (plain && limit.is_finite() && limit > 0.0).then_some(limit)
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.metric.spec().short;
        match self.percentile {
            Some(percentile) => write!(f, "{short} {} <= {} ms", percentile.name(), self.limit_ms),
            None => write!(f, "{short} <= {} ms", self.limit_ms),
        }
    }
}

/// Whether a pass meets an objective on the pass as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standard {
    Met,
    Broken,
    /// The pass has too few requests for the percentile.
    TooFewRequests,
}

/// Whether `samples` meet the percentile objective `slo`. A request that was not answered counts
/// as one that took for ever.
fn standard(slo: &Slo, percentile: Percentile, samples: &Samples) -> Standard {
    let lost = (samples.counts.sent - samples.counts.ok) as usize;
    let values = match slo.metric {
        Metric::Ttft => &samples.ttft,
        Metric::Tpot => &samples.tpot,
        Metric::E2e => &samples.e2e,
        // A lost request has no gaps, and how many it would have had is not known.
        _ if samples.gaps.n() < percentile.need() => return Standard::TooFewRequests,
        _ => {
            let reached = samples.gaps.summary().percentile(percentile);
            let is_met = reached.is_some_and(|value| value <= slo.limit_ms);
            return if is_met {
                Standard::Met
            } else {
                Standard::Broken
            };
        }
    };
    let n = values.len() + lost;
    if n < percentile.need() {
        return Standard::TooFewRequests;
    }
    let h = (n - 1) as f64 * percentile.share();
    let below = h.floor() as usize;
    let value = |rank: usize| values.get(rank).copied().unwrap_or(f64::INFINITY);
    let reached = match h - h.floor() {
        part if part > 0.0 => value(below) + part * (value(below + 1) - value(below)),
        _ => value(below),
    };
    // Infinity minus infinity is NaN, which meets no objective.
    if reached <= slo.limit_ms {
        Standard::Met
    } else {
        Standard::Broken
    }
}

/// How a pass stands to the objectives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// The objectives on the pass as a whole that it misses.
    pub broken: Vec<Slo>,
    /// Those that it has too few requests for.
    pub too_few_requests: Vec<Slo>,
    /// Those on latencies that are only known as another tool's summary.
    pub unknown: Vec<Slo>,
    /// Requests a second that met every objective on single requests. It is 0 where the pass breaks
    /// an objective on itself, and absent where that is unknown.
    pub goodput_per_s: Option<f64>,
}

impl Service {
    /// How `samples` of a pass of `duration_s` stand to `slos`.
    pub(super) fn of(slos: &[Slo], samples: &Samples, duration_s: f64) -> Self {
        let mut service = Self::default();
        for slo in slos {
            if samples.lacks_requests && samples.own(slo.metric) == 0 {
                service.unknown.push(*slo);
                continue;
            }
            match slo.percentile.map(|p| standard(slo, p, samples)) {
                Some(Standard::Broken) => service.broken.push(*slo),
                Some(Standard::TooFewRequests) => service.too_few_requests.push(*slo),
                Some(Standard::Met) | None => {}
            }
        }
        let good = if service.broken.is_empty() {
            samples.within_slos as f64
        } else {
            0.0
        };
        let all_known = service.too_few_requests.is_empty() && service.unknown.is_empty();
        let is_known = all_known || !service.broken.is_empty();
        service.goodput_per_s = (is_known && duration_s > 0.0).then(|| good / duration_s);
        service
    }
}

/// The latencies of ok requests, one row a request.
pub(super) struct Latencies<'a> {
    pub ttft: &'a Series,
    pub tpot: &'a Series,
    pub e2e: &'a Series,
    pub gaps: &'a Series,
}

impl Latencies<'_> {
    /// How many of the requests meet every objective of `slos` on single requests. A request of
    /// one token meets any on TPOT and ITL.
    pub(super) fn count_within(&self, slos: &[Slo]) -> Result<u64> {
        let mut within = vec![true; self.ttft.len()];
        for slo in slos.iter().filter(|slo| slo.percentile.is_none()) {
            let longest;
            let (values, absent) = match slo.metric {
                Metric::Ttft => (self.ttft, false),
                Metric::E2e => (self.e2e, false),
                Metric::Tpot => (self.tpot, true),
                _ => {
                    longest = largest(self.gaps.list()?).into_series();
                    (&longest, true)
                }
            };
            for (within, value) in within.iter_mut().zip(values.f64()?.iter()) {
                *within &= value.map_or(absent, |value| value <= slo.limit_ms);
            }
        }
        Ok(within.into_iter().filter(|within| *within).count() as u64)
    }
}

/// The largest number in each list; absent for a list without one.
fn largest(lists: &ListChunked) -> Float64Chunked {
    lists.apply_amortized_generic(|list| list?.as_ref().max::<f64>().ok().flatten())
}

#[cfg(test)]
mod tests;
