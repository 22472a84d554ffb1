//! Whether a number changed: tests, effects, and the correction for many comparisons.
//!
//! Requests of one pass are no independent values: they share a server, its clocks and its
//! neighbours. So the unit of replication is the repeat wherever there are repeats:
//!
//! - 4 or more on both sides: the Mann-Whitney U test over the repeats' numbers, exact.
//! - fewer, but some cells have repeats: Student's t of the repeats' numbers against the noise of
//!   repeats, pooled over the cells of the tier.
//! - one repeat everywhere: the Mann-Whitney U test over requests, for medians only. It is
//!   blind to differences from run to run, and the output states that.
//!
//! Where the noise of repeats is known, it is what the correction for many comparisons works on,
//! also beside the U test: the smallest P of 4 against 4 repeats is 0.029, which no correction
//! would leave. A change is named when its own test finds it and, corrected, the noise cannot
//! explain it.

use crate::diff::noise::{Pair, Yardstick};
use crate::metric::Better;
use crate::stats::{Interval, Percentile, benjamini_hochberg, cliffs_delta, mann_whitney};

/// The level of a diff: where nothing changed, at most this share of diffs names a change.
pub(crate) const LEVEL: f64 = 0.05;

/// The level where requests of one repeat are all there is: stricter, as they are not quite
/// independent.
pub(super) const REQUESTS_LEVEL: f64 = 0.01;

/// Repeats on both sides from which they are tested by rank.
const RANKED_REPEATS: usize = 4;

/// Requests on both sides from which they are tested by rank.
const RANKED_REQUESTS: usize = 5;

/// What stands behind a probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Basis {
    /// Mann-Whitney U over repeats.
    Repeats,
    /// Student's t over repeats, their noise pooled over cells.
    PooledRepeats,
    /// Mann-Whitney U over requests of one repeat a side.
    Requests,
    /// Nothing: too few repeats or requests.
    Untested,
}

impl Basis {
    /// The word used in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Repeats => "repeats",
            Self::PooledRepeats => "pooled-repeats",
            Self::Requests => "requests",
            Self::Untested => "untested",
        }
    }
}

/// What became of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It changed for the better.
    Better,
    /// It changed for the worse.
    Worse,
    /// It is indistinguishable from noise.
    Same,
    /// Too few repeats or requests to test.
    Untested,
}

impl Outcome {
    /// The word used in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::Untested => "untested",
        }
    }
}

/// One number of one cell on both sides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judged {
    /// The value on side A: the geometric mean of its repeats.
    pub a: f64,
    /// The value on side B: the geometric mean of its repeats.
    pub b: f64,
    /// Repeats on either side.
    pub repeats: (usize, usize),
    /// Samples on either side, all repeats together.
    pub n: (usize, usize),
    /// 95 % intervals of the values; of the noise of repeats where it is known, else of the
    /// median by order statistics.
    pub intervals: (Option<Interval>, Option<Interval>),
    /// `b / a`; absent where `a` is 0.
    pub ratio: Option<f64>,
    /// 95 % interval of the ratio, where the noise of repeats is known.
    pub ratio_interval: Option<(f64, f64)>,
    /// What the probability is of.
    pub basis: Basis,
    /// The chance of a difference like this without a change.
    pub p: Option<f64>,
    /// The probability that is corrected for many comparisons; the same, or that of the noise.
    noise_p: Option<f64>,
    /// Corrected for all comparisons of the diff (Benjamini-Hochberg).
    pub adjusted_p: Option<f64>,
    /// Cliff's delta over what was tested: -1 all of B below A, 1 all above.
    pub delta: Option<f64>,
    /// The least change that noise would not reach, as a share.
    pub floor: Option<f64>,
    /// What became of it.
    pub outcome: Outcome,
}

/// The samples of one cell and metric, all repeats together, ascending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requests<'a> {
    pub a: &'a [f64],
    pub b: &'a [f64],
    pub n: (usize, usize),
}

/// Judges one number, but for the correction that [`correct`] makes over all of them.
pub(super) fn judge(
    pair: &Pair,
    percentile: Option<Percentile>,
    requests: Requests<'_>,
    noise: Option<Yardstick>,
) -> Option<Judged> {
    let (a, b) = (mean(&pair.a)?, mean(&pair.b)?);
    let repeats = (pair.a.len(), pair.b.len());
    let ratio = (a > 0.0 && b > 0.0).then(|| b / a);
    let noise = noise.filter(|_| ratio.is_some());
    let log_ratio = ratio.map_or(0.0, f64::ln);
    let noise_p = noise.map(|noise| noise.p(log_ratio, repeats));
    let median = percentile == Some(Percentile::P50);
    let few = repeats.0.min(repeats.1);
    let by_rank = |first: &[f64], second: &[f64]| {
        let test = mann_whitney(first, second)?;
        let pairs = first.len() as f64 * second.len() as f64;
        Some((test.p, Some(1.0 - 2.0 * test.u / pairs)))
    };
    let (basis, tested) = if few >= RANKED_REPEATS {
        (Basis::Repeats, by_rank(&pair.a, &pair.b))
    } else if let Some(p) = noise_p {
        (
            Basis::PooledRepeats,
            Some((p, cliffs_delta(&pair.a, &pair.b))),
        )
    } else if median && requests.a.len().min(requests.b.len()) >= RANKED_REQUESTS {
        (Basis::Requests, by_rank(requests.a, requests.b))
    } else {
        (Basis::Untested, None)
    };
    let interval = |value: f64, repeats: usize, samples: &[f64]| match noise {
        Some(noise) => {
            let half = 1.0 + noise.half_width(repeats);
            Some(Interval {
                low: value / half,
                high: value * half,
                confidence: 0.95,
            })
        }
        None if median => crate::stats::median_interval(samples, 0.95),
        None => None,
    };
    let p = tested.map(|(p, _)| p);
    Some(Judged {
        a,
        b,
        repeats,
        n: requests.n,
        intervals: (
            interval(a, repeats.0, requests.a),
            interval(b, repeats.1, requests.b),
        ),
        ratio,
        ratio_interval: noise.map(|noise| noise.around(log_ratio, repeats)),
        basis,
        p,
        noise_p: p.map(|p| noise_p.unwrap_or(p)),
        adjusted_p: None,
        delta: tested.and_then(|(_, delta)| delta),
        floor: noise.map(|noise| noise.least(repeats)),
        outcome: Outcome::Untested,
    })
}

/// Corrects for all comparisons of a diff at once, and names the changes.
pub(super) fn correct<'a>(all: impl IntoIterator<Item = (Better, &'a mut Judged)>) {
    let mut tested: Vec<(Better, &mut Judged)> = all
        .into_iter()
        .filter(|(_, judged)| judged.noise_p.is_some())
        .collect();
    let p: Vec<f64> = tested.iter().filter_map(|(_, j)| j.noise_p).collect();
    for ((better, judged), adjusted) in tested.iter_mut().zip(benjamini_hochberg(&p)) {
        judged.adjusted_p = Some(adjusted);
        let level = match judged.basis {
            Basis::Requests => REQUESTS_LEVEL,
            Basis::Repeats | Basis::PooledRepeats | Basis::Untested => LEVEL,
        };
        let named = adjusted < level && judged.p.is_some_and(|p| p < level);
        let grew = judged.b > judged.a;
        judged.outcome = match (named && judged.a.total_cmp(&judged.b).is_ne(), better) {
            (false, _) => Outcome::Same,
            (true, Better::Higher) if grew => Outcome::Better,
            (true, Better::Lower) if !grew => Outcome::Better,
            (true, _) => Outcome::Worse,
        };
    }
}

/// The geometric mean: a ratio of such means is the mean of ratios. The arithmetic one where a
/// value is 0. None without values.
fn mean(values: &[f64]) -> Option<f64> {
    let arithmetic = values.iter().sum::<f64>() / values.len() as f64;
    let geometric = crate::stats::geomean(values);
    (!values.is_empty()).then(|| geometric.unwrap_or(arithmetic))
}

#[cfg(test)]
mod tests;
