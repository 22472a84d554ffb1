//! How much a number moves when nothing has changed: the A/A noise of repeats.

use std::collections::BTreeMap;

use crate::diff::CellKey;
use crate::stats::{t_quantile, t_two_sided};

/// Degrees of freedom from which a tier's own noise is used instead of that of all tiers.
const OWN_FREEDOM: f64 = 6.0;

/// Degrees of freedom below which noise is not known.
const MIN_FREEDOM: f64 = 3.0;

/// The numbers of one cell and measure: one a repeat, on either side.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pair {
    pub a: Vec<f64>,
    pub b: Vec<f64>,
}

/// How far repeats of one cell scatter about their mean, on the logarithm: about a share of the
/// value. Pooled over cells, as 3 repeats of one say little.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Noise {
    squares: f64,
    freedom: f64,
}

impl Noise {
    fn of(values: &[f64]) -> Self {
        if values.len() < 2 || values.iter().any(|value| *value <= 0.0) {
            return Self::default();
        }
        let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        Self {
            squares: logs.iter().map(|log| (log - mean).powi(2)).sum(),
            freedom: (logs.len() - 1) as f64,
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            squares: self.squares + other.squares,
            freedom: self.freedom + other.freedom,
        }
    }

    fn variance(self) -> f64 {
        if self.freedom > 0.0 {
            self.squares / self.freedom
        } else {
            0.0
        }
    }
}

/// What repeats say of the noise of one measure, by tier.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Floor {
    /// With how many deviations 95 of 100 means are within.
    tiers: BTreeMap<String, (Noise, f64)>,
    all: (Noise, f64),
}

/// The noise that one comparison is judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Yardstick {
    /// Standard deviation of one repeat, on the logarithm.
    deviation: f64,
    freedom: f64,
    /// Deviations within which 95 of 100 means are.
    reach: f64,
}

impl Floor {
    pub(super) fn of<'a>(pairs: impl IntoIterator<Item = (&'a CellKey, &'a Pair)>) -> Self {
        let mut tiers: BTreeMap<String, Noise> = BTreeMap::new();
        for (key, pair) in pairs {
            // Either side about its own mean: a change between them is not noise.
            let noise = Noise::of(&pair.a).with(Noise::of(&pair.b));
            let tier = tiers.entry(key.tier.clone()).or_default();
            *tier = tier.with(noise);
        }
        let all = tiers
            .values()
            .fold(Noise::default(), |sum, tier| sum.with(*tier));
        let with_reach = |noise: Noise| (noise, t_quantile(0.05, noise.freedom.max(1.0)));
        Self {
            tiers: tiers
                .into_iter()
                .map(|(tier, noise)| (tier, with_reach(noise)))
                .collect(),
            all: with_reach(all),
        }
    }

    /// The noise for one cell: that of its tier, or of all where its tier has few repeats; its own
    /// where that is larger, as a cell that scatters more than its neighbours is not as sure as
    /// they are. None without repeats enough.
    pub(super) fn yardstick(&self, key: &CellKey, pair: &Pair) -> Option<Yardstick> {
        let tier = self.tiers.get(&key.tier).copied().unwrap_or_default();
        let (pooled, reach) = if tier.0.freedom >= OWN_FREEDOM {
            tier
        } else {
            self.all
        };
        let own = Noise::of(&pair.a).with(Noise::of(&pair.b));
        (pooled.freedom >= MIN_FREEDOM).then(|| Yardstick {
            deviation: pooled.variance().max(own.variance()).sqrt(),
            freedom: pooled.freedom,
            reach,
        })
    }
}

impl Yardstick {
    fn error(&self, pair: (usize, usize)) -> f64 {
        let (a, b) = (pair.0 as f64, pair.1 as f64);
        self.deviation * (1.0 / a + 1.0 / b).sqrt()
    }

    /// The chance of a ratio of means at least this far from 1, by noise alone: Student's t.
    pub(super) fn p(&self, log_ratio: f64, repeats: (usize, usize)) -> f64 {
        let error = self.error(repeats);
        match (log_ratio.abs() < 1e-12, error > 0.0) {
            (true, _) => 1.0,
            (false, false) => 0.0,
            (false, true) => t_two_sided(log_ratio / error, self.freedom),
        }
    }

    /// The least change, as a share, that noise reaches in fewer than 5 of 100 comparisons.
    pub(super) fn least(&self, repeats: (usize, usize)) -> f64 {
        (self.reach * self.error(repeats)).exp_m1()
    }

    /// By what a mean of this many repeats is uncertain, as a share: half of its 95 % interval.
    pub(super) fn half_width(&self, repeats: usize) -> f64 {
        let error = self.deviation / (repeats as f64).sqrt();
        (self.reach * error).exp_m1()
    }

    /// The 95 % interval of a ratio of means.
    pub(super) fn around(&self, log_ratio: f64, repeats: (usize, usize)) -> (f64, f64) {
        let reach = self.reach * self.error(repeats);
        ((log_ratio - reach).exp(), (log_ratio + reach).exp())
    }
}
