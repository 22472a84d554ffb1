//! Many comparisons at once: the more one looks, the more one finds by chance.

/// Probabilities adjusted by Benjamini and Hochberg's step-up method: of those taken for
/// differences, the expected share of false ones is at most the level; where nothing differs at
/// all, the chance of even one is (Benjamini & Hochberg, "Controlling the False Discovery Rate",
/// Journal of the Royal Statistical Society B 57, 1995).
pub(crate) fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let count = p.len();
    let mut adjusted = vec![0.0; count];
    let mut smallest = 1.0_f64;
    for (passed, at) in ascending(p).into_iter().enumerate().rev() {
        smallest = smallest.min(p[at] * count as f64 / (passed + 1) as f64);
        adjusted[at] = smallest;
    }
    adjusted
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
        }
    }

    #[test]
    fn agrees_with_r() {
        // R: p.adjust(c(.01, .04, .03, .005), "BH")
        let p = [0.01, 0.04, 0.03, 0.005];
        close(&benjamini_hochberg(&p), &[0.02, 0.04, 0.04, 0.02]);
    }

    #[test]
    fn agrees_with_benjamini_and_hochbergs_own_example() {
        // Their 15 p values: at 0.05 the four smallest are differences.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.0,
        ];
        let adjusted = benjamini_hochberg(&p);
        assert_eq!(adjusted.iter().filter(|p| **p <= 0.05).count(), 4);
    }

    #[test]
    fn one_is_left_alone_and_none_is_none() {
        close(&benjamini_hochberg(&[0.04]), &[0.04]);
        close(&benjamini_hochberg(&[]), &[]);
    }
}
