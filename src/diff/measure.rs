//! The numbers that are compared, and their names.

use std::fmt;

use crate::metric::{Better, Metric, Unit};
use crate::stats::Percentile;

/// One number of a cell: a percentile of a latency, or a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Measure {
    /// The measured metric.
    pub metric: Metric,
    /// The percentile of a latency; none for rates, which have one value a pass.
    pub percentile: Option<Percentile>,
}

const LATENCIES: [Metric; 4] = [Metric::Ttft, Metric::Itl, Metric::Tpot, Metric::E2e];
const PERCENTILES: [Percentile; 4] = [
    Percentile::P50,
    Percentile::P90,
    Percentile::P95,
    Percentile::P99,
];
const RATES: [Metric; 4] = [
    Metric::Energy,
    Metric::RequestThroughput,
    Metric::OutputThroughput,
    Metric::TotalThroughput,
];

impl Measure {
    /// What is compared unless other measures are named.
    pub(crate) const DEFAULT: [Measure; 4] = [
        Self::latency(Metric::Ttft, Percentile::P50),
        Self::latency(Metric::Tpot, Percentile::P50),
        Self::latency(Metric::E2e, Percentile::P50),
        Self::rate(Metric::OutputThroughput),
    ];

    const fn latency(metric: Metric, percentile: Percentile) -> Self {
        Self {
            metric,
            percentile: Some(percentile),
        }
    }

    const fn rate(metric: Metric) -> Self {
        Self {
            metric,
            percentile: None,
        }
    }

    /// Every measure, in the glossary's order.
    pub(crate) fn all() -> Vec<Self> {
        let latencies = LATENCIES
            .iter()
            .flat_map(|metric| PERCENTILES.map(|percentile| Self::latency(*metric, percentile)));
        latencies.chain(RATES.map(Self::rate)).collect()
    }

    /// The measure called `name`; `ttft_p50_ms` is `ttft_p50`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let name = name.strip_suffix("_ms").unwrap_or(name);
        Self::all()
            .into_iter()
            .find(|measure| measure.to_string() == name)
    }

    /// What it counts.
    pub(crate) fn unit(self) -> Unit {
        self.metric.spec().unit
    }

    /// Which direction is an improvement.
    pub(crate) fn better(self) -> Better {
        self.metric.spec().better
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.percentile {
            Some(percentile) => self.metric.column_of(percentile.name()),
            None => self.metric.spec().column.to_owned(),
        };
        f.pad(name.strip_suffix("_ms").unwrap_or(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_has_a_name_of_its_own() {
        for measure in Measure::all() {
            assert_eq!(Measure::from_name(&measure.to_string()), Some(measure));
        }
        let named = Measure::from_name("ttft_p99_ms").map(|measure| measure.to_string());
        assert_eq!(named.as_deref(), Some("ttft_p99"));
        assert_eq!(Measure::from_name("ttft"), None);
    }
}
