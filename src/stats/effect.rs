//! How large a difference is, beside how sure.

use crate::stats::normal;
use crate::stats::{Interval, mann_whitney};

/// Cliff's delta: how much more often a value of `second` is above one of `first` than below,
/// over all pairs; -1 to 1, 0 for no difference. The rank-biserial correlation of the
/// Mann-Whitney test (Cliff, "Dominance Statistics", Psychological Bulletin 114(3), 1993). `None`
/// for an empty sample.
pub fn cliffs_delta(first: &[f64], second: &[f64]) -> Option<f64> {
    let test = mann_whitney(first, second)?;
    let pairs = first.len() as f64 * second.len() as f64;
    Some(1.0 - 2.0 * test.u / pairs)
}

/// The Hodges-Lehmann shift from `first` to `second`: the median of all differences between a
/// value of the second and one of the first. Both in ascending order. Hodges & Lehmann, "Estimates
/// of Location Based on Rank Tests", Annals of Mathematical Statistics 34(2), 1963. `None` for an
/// empty sample.
pub fn hodges_lehmann(first: &[f64], second: &[f64]) -> Option<f64> {
    let pairs = first.len() * second.len();
    if pairs == 0 {
        return None;
    }
    let upper = nth_difference(first, second, pairs / 2 + 1);
    if pairs % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(
        nth_difference(first, second, pairs / 2),
        upper,
    ))
}

/// The interval of the Hodges-Lehmann shift: the differences at the ranks at which the
/// Mann-Whitney test turns (Hollander & Wolfe, "Nonparametric Statistical Methods", 2nd ed. 1999,
/// section 4.3, with its large-sample ranks). `None` where the samples are too small for the
/// confidence.
pub fn shift_interval(first: &[f64], second: &[f64], confidence: f64) -> Option<Interval> {
    let (n, m) = (first.len() as f64, second.len() as f64);
    let z = normal::quantile(f64::midpoint(1.0, confidence));
    let rank = n * m / 2.0 - z * (n * m * (n + m + 1.0) / 12.0).sqrt();
    if rank < 1.0 {
        return None;
    }
    let (rank, pairs) = (rank.floor() as usize, first.len() * second.len());
    Some(Interval {
        low: nth_difference(first, second, rank),
        high: nth_difference(first, second, pairs + 1 - rank),
        confidence,
    })
}

/// The `nth` smallest (from 1) of all differences, without making them: bisection on the value,
/// counting with two fingers. Exact to the last few bits.
fn nth_difference(first: &[f64], second: &[f64], nth: usize) -> f64 {
    debug_assert!(first.is_sorted() && second.is_sorted(), "unsorted values");
    let mut low = second[0] - first[first.len() - 1];
    let mut high = second[second.len() - 1] - first[0];
    if at_most(first, second, low) >= nth {
        return low;
    }
    while low < high {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if at_most(first, second, middle) >= nth {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// How many differences are at most `limit`.
fn at_most(first: &[f64], second: &[f64], limit: f64) -> usize {
    let (mut count, mut below) = (0, 0);
    for value in first {
        // The larger the subtrahend, the more of the second sample is within the limit.
        while below < second.len() && second[below] - value <= limit {
            below += 1;
        }
        count += below;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_is_the_median_of_all_differences() {
        let (a, b) = ([1.0, 2.0, 4.0], [3.0, 7.0, 8.0]);
        // 2 6 7 1 5 6 -1 3 4, sorted: -1 1 2 3 4 5 6 6 7.
        assert!((hodges_lehmann(&a, &b).unwrap() - 4.0).abs() < 1e-12);
        for (nth, expected) in (1..).zip([-1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0, 7.0]) {
            assert!(
                (nth_difference(&a, &b, nth) - expected).abs() < 1e-12,
                "{nth}"
            );
        }
        let even = hodges_lehmann(&a[..2], &b[..2]).unwrap(); // 2 6 1 5
        assert!((even - 3.5).abs() < 1e-12);
        assert_eq!(hodges_lehmann(&[], &b), None);
        assert_eq!(hodges_lehmann(&[1.0], &[1.0]), Some(0.0));
    }

    #[test]
    fn delta_goes_from_minus_one_to_one() {
        assert_eq!(cliffs_delta(&[1.0, 2.0], &[3.0, 4.0]), Some(1.0));
        assert_eq!(cliffs_delta(&[3.0, 4.0], &[1.0, 2.0]), Some(-1.0));
        assert_eq!(cliffs_delta(&[1.0, 2.0], &[1.0, 2.0]), Some(0.0));
    }

    #[test]
    fn the_interval_holds_the_shift() {
        let a: Vec<f64> = (0..20).map(|i| f64::from(i) * 1.7 % 10.0).collect();
        let mut a = a;
        a.sort_by(f64::total_cmp);
        let b: Vec<f64> = a.iter().map(|v| v + 3.0).collect();
        let interval = shift_interval(&a, &b, 0.95).unwrap();
        assert!(interval.low < 3.0 && 3.0 < interval.high, "{interval:?}");
        assert!(interval.low > 0.5 && interval.high < 5.5, "{interval:?}");
        assert_eq!(shift_interval(&a[..2], &b[..2], 0.95), None);
    }
}
