//! Quantiles by one named definition.

/// The quantile `q` (0 to 1) of values in ascending order; `None` for an empty slice.
///
/// Definition 7 of Hyndman & Fan, "Sample Quantiles in Statistical Packages", The American
/// Statistician 50(4), 1996 (R's default, NumPy's and polars' `linear`): with `h = (n - 1) q`,
/// the straight line between the values at `floor(h)` and `floor(h) + 1`, counted from 0.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    debug_assert!(sorted.is_sorted(), "quantile of unsorted values");
    let last = sorted.len().checked_sub(1)?;
    let place = QuantilePlace::of(q, last);
    Some(place.between(sorted[place.below], sorted[place.above]))
}

/// Where a quantile by the definition of [`quantile`] lies among values in ascending order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QuantilePlace {
    /// The value at or below it, counted from 0.
    pub below: usize,
    /// The next one; the same at the largest value.
    pub above: usize,
    /// How far it is from the one to the other, 0 to 1.
    share: f64,
}

impl QuantilePlace {
    /// That of the quantile `q` (0 to 1), where the largest value is at `last`.
    pub(crate) fn of(q: f64, last: usize) -> Self {
        let h = last as f64 * q.clamp(0.0, 1.0);
        let below = h.floor() as usize;
        Self {
            below,
            above: (below + 1).min(last),
            share: h - h.floor(),
        }
    }

    /// The quantile, from the values at [`Self::below`] and [`Self::above`].
    pub(crate) fn between(self, low: f64, high: f64) -> f64 {
        low + self.share * (high - low)
    }
}

/// How many samples the quantile `q` needs to be shown: `ceil(1 / tail)`, where the tail is the
/// smaller of `q` and `1 - q`; at least 2. With fewer, no sample is expected beyond it, and the
/// value is little more than the extreme of the sample under another name.
fn support(q: f64) -> usize {
    let tail = q.min(1.0 - q);
    if tail <= 0.0 {
        return 1; // the smallest and the largest value are what they are
    }
    ((1.0 / tail - 1e-9).ceil() as usize).max(2)
}

/// The quantiles that are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Percentile {
    /// The 10th: the lower edge of a figure's band.
    P10,
    /// The median.
    P50,
    /// The 90th percentile.
    P90,
    /// The 95th percentile.
    P95,
    /// The 99th percentile.
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
}
