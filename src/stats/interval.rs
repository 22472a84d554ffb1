//! Intervals for quantiles that assume nothing about the distribution.

/// Between which two values the truth lies, and how surely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The confidence: for order statistics what was reached, at least what was asked for; for a
    /// bootstrap what was asked for.
    pub confidence: f64,
}

/// The narrowest pair of order statistics that covers the quantile `q` with at least `confidence`,
/// no more than half of the rest on either side; `None` when even the extremes do not reach it
/// (the median needs 6 values for 0.95, the 99th percentile 368).
///
/// For independent values of any continuous distribution, `P(X(l) <= quantile <= X(u))` is
/// `P(l <= B <= u - 1)` with `B ~ Binomial(n, q)`: David & Nagaraja, "Order Statistics", 3rd ed.
/// 2003, section 7.1. Requests of one pass share a server and are not quite independent, so the
/// interval is a lower bound of the doubt.
pub(super) fn quantile_interval(sorted: &[f64], q: f64, confidence: f64) -> Option<Interval> {
    debug_assert!(sorted.is_sorted(), "interval of unsorted values");
    let tail = (1.0 - confidence) / 2.0;
    let (lower, below) = rank_below(sorted.len(), q, tail)?;
    // The upper end is the lower one of the mirrored sample.
    let (upper, above) = rank_below(sorted.len(), 1.0 - q, tail)?;
    Some(Interval {
        low: sorted[lower - 1],
        high: sorted[sorted.len() - upper],
        confidence: 1.0 - below - above,
    })
}

/// The interval of the median.
pub(crate) fn median_interval(sorted: &[f64], confidence: f64) -> Option<Interval> {
    quantile_interval(sorted, 0.5, confidence)
}

/// The largest rank `k`, from 1, with `P(B <= k - 1) <= tail`, and that probability.
fn rank_below(n: usize, q: f64, tail: f64) -> Option<(usize, f64)> {
    if !(q > 0.0 && q < 1.0) {
        return None;
    }
    let odds = (q / (1.0 - q)).ln();
    // In logarithms: the first term of a large `n` would underflow.
    let mut log_share = n as f64 * (1.0 - q).ln();
    let mut below = 0.0;
    let mut reached = None;
    for k in 1..=n {
        below += log_share.exp();
        if below > tail {
            break;
        }
        reached = Some((k, below));
        log_share += ((n - k + 1) as f64 / k as f64).ln() + odds;
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascending(n: u32) -> Vec<f64> {
        (1..=n).map(f64::from).collect()
    }

    #[test]
    fn agrees_with_published_tables() {
        // Conover, "Practical Nonparametric Statistics", table of the sign interval for the
        // median: n = 10 gives ranks 2 and 9 at 97.9 %, n = 20 gives 6 and 15 at 95.9 %.
        let ten = median_interval(&ascending(10), 0.95).unwrap();
        assert_eq!((ten.low, ten.high), (2.0, 9.0));
        assert!((ten.confidence - 0.978_515_625).abs() < 1e-12);
        let twenty = median_interval(&ascending(20), 0.95).unwrap();
        assert_eq!((twenty.low, twenty.high), (6.0, 15.0));
        assert!((twenty.confidence - 0.958_610_534).abs() < 1e-9);
    }

    #[test]
    fn a_quantile_off_the_middle_has_its_own_ranks() {
        // R: qbinom(c(.025, .975), 100, .9) is 84 and 95: X(84) and X(96) hold
        // pbinom(95, 100, .9) - pbinom(83, 100, .9) = 0.9557.
        let ninety = quantile_interval(&ascending(100), 0.9, 0.95).unwrap();
        assert_eq!((ninety.low, ninety.high), (84.0, 96.0));
        assert!((ninety.confidence - 0.9557).abs() < 1e-4, "{ninety:?}");
        let ten = quantile_interval(&ascending(100), 0.1, 0.95).unwrap();
        assert_eq!((ten.low, ten.high), (5.0, 17.0));
    }

    #[test]
    fn too_few_values_have_none() {
        assert_eq!(median_interval(&ascending(5), 0.95), None);
        assert_eq!(median_interval(&[], 0.95), None);
        let six = median_interval(&ascending(6), 0.95).unwrap();
        assert_eq!((six.low, six.high, six.confidence), (1.0, 6.0, 0.96875));
        // 0.99^367 > 0.025 >= 0.99^368.
        assert_eq!(quantile_interval(&ascending(367), 0.99, 0.95), None);
        assert!(quantile_interval(&ascending(368), 0.99, 0.95).is_some());
    }

    #[test]
    fn many_values_do_not_overflow() {
        // Normal approximation: 5000 -+ 1.96 sqrt(10000) / 2 = 4902 and 5098.
        let many = median_interval(&ascending(10_000), 0.95).unwrap();
        assert!(
            (many.low - 4902.0).abs() <= 1.0 && (many.high - 5099.0).abs() <= 1.0,
            "{many:?}"
        );
    }
}
