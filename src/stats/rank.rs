//! Whether two samples differ by more than their own scatter.

use crate::stats::normal;

/// What the rank test found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankTest {
    /// U of the first sample: over all pairs, how often its value is the larger one, ties half.
    pub u: f64,
    /// The two-sided probability of a U at least this far from the middle, if both samples came
    /// from one distribution.
    pub p: f64,
}

/// The Mann-Whitney U test: Mann & Whitney, "On a Test of Whether one of Two Random Variables is
/// Stochastically Larger than the Other", Annals of Mathematical Statistics 18(1), 1947. `None`
/// when a sample has fewer than 4 values: then no outcome could be clear at 0.05 with both that
/// small, and the approximation is poor.
///
/// P by the normal approximation with correction for ties and continuity (as R's
/// `wilcox.test(exact = FALSE)`). It assumes that values are independent; requests of one pass
/// share a server, so P is a guard against reading noise, not proof.
pub fn rank_test(first: &[f64], second: &[f64]) -> Option<RankTest> {
    let (n, m) = (first.len() as f64, second.len() as f64);
    if first.len().min(second.len()) < 4 {
        return None;
    }
    let mut pooled: Vec<(f64, bool)> = first.iter().map(|value| (*value, true)).collect();
    pooled.extend(second.iter().map(|value| (*value, false)));
    pooled.sort_by(|a, b| a.0.total_cmp(&b.0));

    let (mut rank_sum, mut tie_term, mut before) = (0.0, 0.0, 0.0);
    for tied in pooled.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let size = tied.len() as f64;
        let rank = before + f64::midpoint(size, 1.0);
        rank_sum += rank * tied.iter().filter(|(_, is_first)| *is_first).count() as f64;
        tie_term += size.powi(3) - size;
        before += size;
    }
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - tie_term / (total * (total - 1.0)));
    let distance = ((u - n * m / 2.0).abs() - 0.5).max(0.0);
    // All values equal: no variance, and nothing that could differ.
    let p = if variance <= 0.0 {
        1.0
    } else {
        normal::two_sided(distance / variance.sqrt())
    };
    Some(RankTest { u, p })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_calculation_by_hand() {
        let a = [1.1, 2.2, 3.3, 4.4, 5.5, 6.6];
        let b = [4.0, 6.0, 7.0, 8.0, 9.0, 10.0];
        let test = rank_test(&a, &b).unwrap();
        assert!((test.u - 4.0).abs() < 1e-12, "{test:?}");
        // u = 4, mean 18, sd sqrt(39) = 6.245; z = 13.5 / 6.245 = 2.1617; p = 0.03064
        assert!((test.p - 0.030_64).abs() < 1e-4, "{test:?}");
    }

    #[test]
    fn ties_share_their_rank() {
        // Ranks of {1,2,2,3} and {2,3,3,4}: 1, 3, 3, 6 and 3, 6, 6, 8; U = 13 - 10 = 3.
        let test = rank_test(&[1.0, 2.0, 2.0, 3.0], &[2.0, 3.0, 3.0, 4.0]).unwrap();
        assert!((test.u - 3.0).abs() < 1e-12);
        // var = 16/12 (9 - (24 + 24)/56) = 10.857; z = (5 - 0.5) / 3.295 = 1.3657; p = 0.1720
        assert!((test.p - 0.172_0).abs() < 2e-4, "{test:?}");
    }

    #[test]
    fn equal_samples_do_not_differ_and_small_ones_cannot_tell() {
        assert_eq!(
            rank_test(&[2.0; 4], &[2.0; 4]),
            Some(RankTest { u: 8.0, p: 1.0 })
        );
        assert_eq!(rank_test(&[1.0; 3], &[2.0; 9]), None);
    }
}
