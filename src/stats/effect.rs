//! How large a difference is, beside how sure.

use crate::stats::mann_whitney;

/// Cliff's delta: how much more often a value of `second` is above one of `first` than below,
/// over all pairs; -1 to 1, 0 for no difference. The rank-biserial correlation of the
/// Mann-Whitney test (Cliff, "Dominance Statistics", Psychological Bulletin 114(3), 1993). `None`
/// for an empty sample.
pub(crate) fn cliffs_delta(first: &[f64], second: &[f64]) -> Option<f64> {
    let test = mann_whitney(first, second)?;
    let pairs = first.len() as f64 * second.len() as f64;
    Some(1.0 - 2.0 * test.u / pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delta_goes_from_minus_one_to_one() {
        assert_eq!(cliffs_delta(&[1.0, 2.0], &[3.0, 4.0]), Some(1.0));
        assert_eq!(cliffs_delta(&[3.0, 4.0], &[1.0, 2.0]), Some(-1.0));
        assert_eq!(cliffs_delta(&[1.0, 2.0], &[1.0, 2.0]), Some(0.0));
    }
}
