//! An interval for the median that assumes nothing about the distribution.

/// Between which two values the true median lies, and how surely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MedianInterval {
    /// The lower order statistic.
    pub low: f64,
    /// The upper order statistic.
    pub high: f64,
    /// The confidence that was reached: at least the one asked for.
    pub confidence: f64,
}

/// The narrowest symmetric pair of order statistics that covers the median with at least
/// `confidence`; `None` when even the extremes do not reach it (fewer than 6 values for 0.95).
///
/// For independent values of any continuous distribution, `P(X(k) <= median <= X(n+1-k))` is
/// `1 - 2 P(B <= k - 1)` with `B ~ Binomial(n, 1/2)`: David & Nagaraja, "Order Statistics",
/// 3rd ed. 2003, section 7.1. Requests of one pass share a server and are not quite independent,
/// so the interval is a lower bound of the doubt.
pub fn median_interval(sorted: &[f64], confidence: f64) -> Option<MedianInterval> {
    debug_assert!(sorted.is_sorted(), "interval of unsorted values");
    let n = sorted.len();
    let mut reached = None;
    let mut below = 0.0; // P(B <= k - 1)
    for k in 1..=n.div_ceil(2) {
        below += binomial_half(n, k - 1);
        let covered = 1.0 - 2.0 * below;
        if covered < confidence {
            break;
        }
        reached = Some(MedianInterval {
            low: sorted[k - 1],
            high: sorted[n - k],
            confidence: covered,
        });
    }
    reached
}

/// `P(B = k)` for `B ~ Binomial(n, 1/2)`, through logarithms so that a large `n` does not
/// overflow.
fn binomial_half(n: usize, k: usize) -> f64 {
    let choose: f64 = (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum();
    (choose - n as f64 * std::f64::consts::LN_2).exp()
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
    fn too_few_values_have_none() {
        assert_eq!(median_interval(&ascending(5), 0.95), None);
        assert_eq!(median_interval(&[], 0.95), None);
        let six = median_interval(&ascending(6), 0.95).unwrap();
        assert_eq!((six.low, six.high, six.confidence), (1.0, 6.0, 0.96875));
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
