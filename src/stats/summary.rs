//! A sample in a few numbers.

use std::fmt;

use crate::metric::Metric;
use crate::stats::{Interval, Percentile, median_interval, quantile};

/// Confidence asked of the median's interval.
const CONFIDENCE: f64 = 0.95;

/// Why a number is missing or doubtful. A value that travels with the number, not an error.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// A percentile is not shown.
    TooFewSamples {
        /// The metric that lacks it.
        metric: Metric,
        /// The percentile that is not shown.
        percentile: Percentile,
        /// How many samples there are.
        have: usize,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewSamples {
                metric,
                percentile,
                have,
            } => write!(
                f,
                "too few samples for {} of {}: needs {}, has {have}",
                percentile.name(),
                metric.spec().short,
                percentile.need()
            ),
        }
    }
}

/// The distribution of one metric over `n` samples. A percentile is absent where `n` is below
/// [`Percentile::need`]; then there is a warning.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The summarised metric.
    pub metric: Metric,
    /// Number of samples.
    pub n: usize,
    /// Arithmetic mean; absent without samples.
    pub mean: Option<f64>,
    /// 10th percentile.
    pub p10: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// The largest value; absent without samples.
    pub max: Option<f64>,
    /// 95 % interval of the median; absent for fewer than 6 samples, and for [`Metric::Itl`],
    /// whose samples are not independent within a request.
    pub median_interval: Option<Interval>,
}

impl Summary {
    /// Sums up `samples`, which need not be sorted. Values that are not finite are left out.
    pub fn of(metric: Metric, mut samples: Vec<f64>) -> Self {
        samples.retain(|value| value.is_finite());
        samples.sort_by(f64::total_cmp);
        Self::of_sorted(metric, &samples)
    }

    /// Sums up finite values in ascending order.
    pub fn of_sorted(metric: Metric, samples: &[f64]) -> Self {
        let n = samples.len();
        let shown = |percentile: Percentile| {
            quantile(samples, percentile.share()).filter(|_| n >= percentile.need())
        };
        Self {
            metric,
            n,
            mean: (n > 0).then(|| samples.iter().sum::<f64>() / n as f64),
            p10: shown(Percentile::P10),
            p50: shown(Percentile::P50),
            p90: shown(Percentile::P90),
            p95: shown(Percentile::P95),
            p99: shown(Percentile::P99),
            max: samples.last().copied(),
            median_interval: match metric {
                Metric::Itl => None,
                _ => median_interval(samples, CONFIDENCE),
            },
        }
    }

    /// One percentile, where there are samples enough for it.
    pub fn percentile(&self, percentile: Percentile) -> Option<f64> {
        match percentile {
            Percentile::P10 => self.p10,
            Percentile::P50 => self.p50,
            Percentile::P90 => self.p90,
            Percentile::P95 => self.p95,
            Percentile::P99 => self.p99,
        }
    }

    /// What is missing from it among `wanted`, and why. Nothing for an empty sample, whose count is
    /// 0.
    pub fn warnings(&self, wanted: &[Percentile]) -> Vec<Warning> {
        let short = |percentile: &&Percentile| self.n > 0 && self.n < percentile.need();
        let warn = |percentile: &Percentile| Warning::TooFewSamples {
            metric: self.metric,
            percentile: *percentile,
            have: self.n,
        };
        wanted.iter().filter(short).map(warn).collect()
    }
}

/// The geometric mean: `exp(mean(ln x))`. The mean of ratios must be this one, else the result
/// depends on which side was divided by: Fleming & Wallace, "How Not to Lie with Statistics",
/// Communications of the ACM 29(3), 1986. `None` for no values or any that is not above zero.
pub(crate) fn geomean(values: &[f64]) -> Option<f64> {
    if values.is_empty()
        || values
            .iter()
            .any(|value| !(value.is_finite() && *value > 0.0))
    {
        return None;
    }
    let logs: f64 = values.iter().map(|value| value.ln()).sum();
    Some((logs / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_unsorted_samples() {
        let summary = Summary::of(Metric::Ttft, (1..=10).rev().map(f64::from).collect());
        assert_eq!((summary.n, summary.mean), (10, Some(5.5)));
        assert_eq!((summary.p50, summary.p99), (Some(5.5), None));
        assert!((summary.p10.unwrap() - 1.9).abs() < 1e-12);
        assert!((summary.p90.unwrap() - 9.1).abs() < 1e-12);
        assert_eq!(
            summary.median_interval.map(|i| (i.low, i.high)),
            Some((2.0, 9.0))
        );
    }

    #[test]
    fn a_missing_percentile_has_a_warning() {
        let nine = Summary::of(Metric::E2e, vec![1.0; 9]);
        assert_eq!((nine.p50, nine.p90), (Some(1.0), None));
        let warnings: Vec<_> = nine
            .warnings(&Percentile::ALL)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            warnings,
            [
                "too few samples for p10 of E2E: needs 10, has 9",
                "too few samples for p90 of E2E: needs 10, has 9",
                "too few samples for p95 of E2E: needs 20, has 9",
                "too few samples for p99 of E2E: needs 100, has 9",
            ]
        );
        assert_eq!(Summary::of(Metric::E2e, vec![1.0]).p50, None);
        assert!(
            Summary::of(Metric::E2e, vec![1.0; 100])
                .warnings(&Percentile::ALL)
                .is_empty()
        );
        assert!(
            Summary::of(Metric::E2e, vec![])
                .warnings(&Percentile::ALL)
                .is_empty()
        );
    }

    #[test]
    fn gaps_have_no_interval_and_nan_no_weight() {
        assert_eq!(
            Summary::of(Metric::Itl, vec![1.0; 20]).median_interval,
            None
        );
        let summary = Summary::of(Metric::Ttft, vec![1.0, f64::NAN, 3.0]);
        assert_eq!((summary.n, summary.p50), (2, Some(2.0)));
    }

    #[test]
    fn geometric_mean_of_ratios() {
        assert!((geomean(&[2.0, 8.0]).unwrap() - 4.0).abs() < 1e-12);
        assert_eq!(geomean(&[2.0, 0.0]), None);
        assert_eq!(geomean(&[]), None);
    }
}
