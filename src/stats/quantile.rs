//! Quantiles by one named definition.

use crate::stats::{Interval, quantile_interval};

/// The quantile `q` (0 to 1) of values in ascending order; `None` for an empty slice.
///
/// Definition 7 of Hyndman & Fan, "Sample Quantiles in Statistical Packages", The American
/// Statistician 50(4), 1996 (R's default, NumPy's and polars' `linear`): with `h = (n - 1) q`,
/// the straight line between the values at `floor(h)` and `floor(h) + 1`, counted from 0. The
/// other definitions are in [`crate::stats::Definition`]; labrun prints this one everywhere.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    debug_assert!(sorted.is_sorted(), "quantile of unsorted values");
    let last = sorted.len().checked_sub(1)?;
    let h = last as f64 * q.clamp(0.0, 1.0);
    let below = h.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    Some(low + (h - h.floor()) * (high - low))
}

/// How many samples the quantile `q` needs to be shown: `ceil(1 / tail)`, where the tail is the
/// smaller of `q` and `1 - q`; at least 2. With fewer, no sample is expected beyond it, and the
/// value is little more than the extreme of the sample under another name.
pub fn support(q: f64) -> usize {
    let tail = q.min(1.0 - q);
    if tail <= 0.0 {
        return 1; // the smallest and the largest value are what they are
    }
    ((1.0 / tail - 1e-9).ceil() as usize).max(2)
}

/// A quantile of a sample, with how many samples it rests on. One that they cannot support is a
/// value of its own, never a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QuantileEstimate {
    /// There are samples enough.
    Known {
        /// The quantile, by [`quantile`].
        value: f64,
        /// How many samples.
        n: usize,
        /// Its interval by order statistics; absent where `n` does not reach the confidence.
        interval: Option<Interval>,
    },
    /// There are too few.
    Unsupported {
        /// How many there are.
        n: usize,
        /// How many it takes.
        need: usize,
    },
}

impl QuantileEstimate {
    /// The quantile `q` of independent values in ascending order, with its interval at
    /// `confidence`.
    pub fn of(sorted: &[f64], q: f64, confidence: f64) -> Self {
        let (n, need) = (sorted.len(), support(q));
        match quantile(sorted, q) {
            Some(value) if n >= need => Self::Known {
                value,
                n,
                interval: quantile_interval(sorted, q, confidence),
            },
            _ => Self::Unsupported { n, need },
        }
    }

    /// How many samples it rests on.
    pub fn n(self) -> usize {
        let (Self::Known { n, .. } | Self::Unsupported { n, .. }) = self;
        n
    }

    /// The number, where there is one.
    pub fn value(self) -> Option<f64> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Unsupported { .. } => None,
        }
    }
}

/// The quantiles that are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Percentile {
    /// The 10th: the lower edge of a figure's band.
    P10,
    /// The median.
    P50,
    /// The 90th.
    P90,
    /// The 95th.
    P95,
    /// The 99th.
    P99,
}

impl Percentile {
    /// Every percentile, ascending.
    pub const ALL: [Percentile; 5] = [Self::P10, Self::P50, Self::P90, Self::P95, Self::P99];

    /// The word used in columns and heads.
    pub fn name(self) -> &'static str {
        match self {
            Self::P10 => "p10",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P95 => "p95",
            Self::P99 => "p99",
        }
    }

    /// The share of values at or below it.
    pub fn share(self) -> f64 {
        match self {
            Self::P10 => 0.1,
            Self::P50 => 0.5,
            Self::P90 => 0.9,
            Self::P95 => 0.95,
            Self::P99 => 0.99,
        }
    }

    /// How many samples it needs to be shown: see [`support`].
    pub fn need(self) -> usize {
        support(self.share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_r() {
        // R: quantile(c(1, 2, 4, 7, 11), c(0, .1, .25, .5, .9, 1), type = 7)
        let values = [1.0, 2.0, 4.0, 7.0, 11.0];
        for (q, expected) in [
            (0.0, 1.0),
            (0.1, 1.4),
            (0.25, 2.0),
            (0.5, 4.0),
            (0.9, 9.4),
            (1.0, 11.0),
        ] {
            let got = quantile(&values, q).unwrap();
            assert!(
                (got - expected).abs() < 1e-12,
                "q {q}: {got} is not {expected}"
            );
        }
        // R: quantile(1:100, .99) is 99.01
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((quantile(&hundred, 0.99).unwrap() - 99.01).abs() < 1e-9);
    }

    #[test]
    fn one_value_is_every_quantile_and_none_has_none() {
        assert_eq!(quantile(&[3.0], 0.99), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn need_follows_the_tail() {
        let needs = Percentile::ALL.map(Percentile::need);
        assert_eq!(needs, [10, 2, 10, 20, 100]);
        assert_eq!((support(0.0), support(1.0), support(0.999)), (1, 1, 1000));
    }

    #[test]
    fn what_the_samples_cannot_support_is_no_number() {
        let values: Vec<f64> = (1..=99).map(f64::from).collect();
        let p99 = QuantileEstimate::of(&values, 0.99, 0.95);
        assert_eq!(p99, QuantileEstimate::Unsupported { n: 99, need: 100 });
        assert_eq!((p99.n(), p99.value()), (99, None));
        let p95 = QuantileEstimate::of(&values[..20], 0.95, 0.95);
        // 20 values hold their 95th percentile, but not its interval: 0.95^20 = 0.36.
        let known = QuantileEstimate::Known {
            value: 19.05,
            n: 20,
            interval: None,
        };
        assert_eq!(p95, known);
        assert_eq!(
            QuantileEstimate::of(&[], 0.5, 0.95),
            QuantileEstimate::Unsupported { n: 0, need: 2 }
        );
    }
}
