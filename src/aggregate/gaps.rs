//! The gaps between tokens of one pass or pool. They are by far the most numerous values of a run
//! and are never sorted whole or stored.

use anyhow::Result;
use polars::prelude::{ExplodeOptions, Series};

use crate::metric::Metric;
use crate::stats::{Percentile, QuantilePlace, Summary};

/// Shares at which the distribution is retained: enough to draw it, its tail more finely.
const SHARES: [f64; 27] = [
    0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7,
    0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0,
];

/// The distribution of gaps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Gaps {
    n: usize,
    sum: f64,
    /// The quantile at each of [`SHARES`]; empty without gaps.
    curve: Vec<f64>,
}

impl Gaps {
    /// Those of a list column, one list a request.
    pub(crate) fn of(lists: &Series) -> Result<Self> {
        let options = ExplodeOptions {
            empty_as_null: false,
            keep_nulls: false,
        };
        let flat = lists.explode(options)?;
        let values = flat.f64()?.iter().flatten();
        Ok(Self::of_values(
            values.filter(|value| value.is_finite()).collect(),
        ))
    }

    fn of_values(mut values: Vec<f64>) -> Self {
        let Some(last) = values.len().checked_sub(1) else {
            return Self::default();
        };
        let places = SHARES.map(|share| QuantilePlace::of(share, last));
        let mut ranks: Vec<usize> = places
            .iter()
            .flat_map(|place| [place.below, place.above])
            .collect();
        ranks.sort_unstable();
        ranks.dedup();
        place(&mut values, 0, &ranks);
        let quantile =
            |place: QuantilePlace| place.between(values[place.below], values[place.above]);
        Self {
            n: values.len(),
            sum: values.iter().sum(),
            curve: places.map(quantile).to_vec(),
        }
    }

    /// In a few numbers.
    pub(crate) fn summary(&self) -> Summary {
        let at = |percentile: Percentile| {
            let same = |share: &f64| (share - percentile.share()).abs() < 1e-9;
            let at = SHARES.iter().position(same);
            at.and_then(|at| self.curve.get(at).copied())
                .filter(|_| self.n >= percentile.need())
        };
        Summary {
            metric: Metric::Itl,
            n: self.n,
            mean: (self.n > 0).then(|| self.sum / self.n as f64),
            p10: at(Percentile::P10),
            p50: at(Percentile::P50),
            p90: at(Percentile::P90),
            p95: at(Percentile::P95),
            p99: at(Percentile::P99),
            max: self.curve.last().copied(),
            median_interval: None,
        }
    }

    /// How many there are.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Points of the distribution function: a gap and the share of gaps up to it, ascending.
    pub(crate) fn distribution(&self) -> Vec<(f64, f64)> {
        self.curve.iter().copied().zip(SHARES).collect()
    }

    /// The distribution of all gaps of `parts` together. Exact for one part; else at the points
    /// where one of them is known, each part between its own points on a straight line.
    pub(crate) fn mixed<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Vec<(f64, f64)> {
        let parts: Vec<&Self> = parts.into_iter().filter(|part| part.n > 0).collect();
        if let [one] = parts[..] {
            return one.distribution();
        }
        let mut values: Vec<f64> = parts.iter().flat_map(|part| part.curve.clone()).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let all: usize = parts.iter().map(|part| part.n).sum();
        let share = |value: f64| {
            let weighted = parts
                .iter()
                .map(|part| part.share_up_to(value) * part.n as f64);
            weighted.sum::<f64>() / all as f64
        };
        values
            .into_iter()
            .map(|value| (value, share(value)))
            .collect()
    }

    fn share_up_to(&self, value: f64) -> f64 {
        let above = self.curve.partition_point(|known| *known <= value);
        match (above.checked_sub(1), self.curve.get(above)) {
            (None, _) => 0.0,
            (Some(_), None) => 1.0,
            (Some(below), Some(next)) => {
                let low = self.curve[below];
                let part = (value - low) / (next - low);
                SHARES[below] + part * (SHARES[above] - SHARES[below])
            }
        }
    }
}

/// Moves `values`, which begin at rank `first`, until each of `ranks` (ascending) holds the value
/// that it would hold if all were sorted: a selection for the middle rank, then for each half.
fn place(values: &mut [f64], first: usize, ranks: &[usize]) {
    let Some(rank) = ranks.get(ranks.len() / 2) else {
        return;
    };
    let (below, _, above) = values.select_nth_unstable_by(rank - first, f64::total_cmp);
    place(below, first, &ranks[..ranks.len() / 2]);
    place(above, rank + 1, &ranks[ranks.len() / 2 + 1..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::quantile;

    fn scrambled(n: u32) -> Vec<f64> {
        (0..n).map(|at| f64::from(at * 7919 % n) / 3.0).collect()
    }

    #[test]
    fn agrees_with_sorting_all_of_them() {
        for n in [1, 2, 3, 20, 99, 1000, 4001] {
            let values = scrambled(n);
            let gaps = Gaps::of_values(values.clone());
            let whole = Summary::of(Metric::Itl, values.clone());
            let summary = gaps.summary();
            assert_eq!(summary.p99, whole.p99, "{n}");
            assert_eq!(
                (summary.p10, summary.p50, summary.p95, summary.max),
                (whole.p10, whole.p50, whole.p95, whole.max)
            );
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            for (value, share) in gaps.distribution() {
                assert_eq!(Some(value), quantile(&sorted, share), "{n} {share}");
            }
        }
        assert_eq!(Gaps::of_values(vec![]).summary().p50, None);
    }

    #[test]
    fn parts_together_weigh_by_their_gaps() {
        let low = Gaps::of_values(vec![1.0; 30]);
        let high = Gaps::of_values(vec![3.0; 10]);
        assert_eq!(Gaps::mixed([&low, &high]), [(1.0, 0.75), (3.0, 1.0)]);
        assert_eq!(Gaps::mixed([&low]), low.distribution());
        assert_eq!(Gaps::mixed([&Gaps::default()]), []);
    }
}
