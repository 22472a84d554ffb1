//! The nine sample quantiles of Hyndman & Fan, by their names in R.

/// How a quantile lies between two values of a sample: Hyndman & Fan, "Sample Quantiles in
/// Statistical Packages", The American Statistician 50(4), 1996. labrun prints [`Self::R7`]; the
/// others are for reading other tools' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Definition {
    /// Inverse of the distribution function.
    R1,
    /// The same, with the mean at its steps (SAS 5).
    R2,
    /// The nearest value, the even one at a half (SAS 2).
    R3,
    /// Straight line of the distribution function.
    R4,
    /// Straight line, the steps' middles (hydrologists).
    R5,
    /// Straight line, `k / (n + 1)` (Minitab, SPSS).
    R6,
    /// Straight line, `(k - 1) / (n - 1)` (S, R's default, NumPy, polars, Excel).
    R7,
    /// Straight line, unbiased for the median of any distribution, nearly.
    R8,
    /// Straight line, unbiased for normal values, nearly.
    R9,
}

impl Definition {
    /// Every definition, in order.
    pub const ALL: [Self; 9] = [
        Self::R1,
        Self::R2,
        Self::R3,
        Self::R4,
        Self::R5,
        Self::R6,
        Self::R7,
        Self::R8,
        Self::R9,
    ];

    /// The quantile `q` (0 to 1) of values in ascending order; `None` for an empty slice.
    pub fn quantile(self, sorted: &[f64], q: f64) -> Option<f64> {
        debug_assert!(sorted.is_sorted(), "quantile of unsorted values");
        let n = sorted.len() as f64;
        let last = *sorted.last()?;
        // The rank, from 1, with its part between two values.
        let h = n * q.clamp(0.0, 1.0) + self.offset(q.clamp(0.0, 1.0));
        // Products such as 30 * 0.1 miss whole numbers by a few units in the last place; R has
        // the same tolerance.
        let whole = (h + 4.0 * f64::EPSILON * h.abs().max(1.0)).floor();
        let part = match h - whole {
            part if part.abs() < 4.0 * f64::EPSILON * h.abs().max(1.0) => 0.0,
            part => part,
        };
        let weight = match self {
            Self::R2 if part <= 0.0 => 0.5,
            Self::R1 | Self::R2 => f64::from(part > 0.0),
            Self::R3 => f64::from(part > 0.0 || whole % 2.0 != 0.0),
            _ => part,
        };
        let at = |rank: f64| {
            if rank < 1.0 {
                sorted[0]
            } else {
                sorted.get(rank as usize - 1).copied().unwrap_or(last)
            }
        };
        let (low, high) = (at(whole), at(whole + 1.0));
        Some(low + weight * (high - low))
    }

    /// What is added to `n q` for the rank: Hyndman & Fan's `m`.
    fn offset(self, q: f64) -> f64 {
        match self {
            Self::R1 | Self::R2 | Self::R4 => 0.0,
            Self::R3 => -0.5,
            Self::R5 => 0.5,
            Self::R6 => q,
            Self::R7 => 1.0 - q,
            Self::R8 => (q + 1.0) / 3.0,
            Self::R9 => q / 4.0 + 0.375,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::quantile;

    #[test]
    fn agrees_with_r() {
        // R: quantile(c(1, 2, 4, 7, 11), .3, type = 1:9), and at .4, where n q is whole.
        let values = [1.0, 2.0, 4.0, 7.0, 11.0];
        let at = |q| Definition::ALL.map(|d| d.quantile(&values, q).unwrap());
        let close = |got: [f64; 9], expected: [f64; 9]| {
            for (at, (got, expected)) in got.into_iter().zip(expected).enumerate() {
                assert!((got - expected).abs() < 1e-12, "R{}: {got}", at + 1);
            }
        };
        close(
            at(0.3),
            [2.0, 2.0, 2.0, 1.5, 2.0, 1.8, 2.4, 29.0 / 15.0, 1.95],
        );
        close(
            at(0.4),
            [2.0, 3.0, 2.0, 2.0, 3.0, 2.8, 3.2, 44.0 / 15.0, 2.95],
        );
    }

    #[test]
    fn seven_is_what_is_printed_and_the_ends_are_the_ends() {
        let values: Vec<f64> = (0..30).map(|i| f64::from(i * i)).collect();
        for percent in 0..=100 {
            let q = f64::from(percent) / 100.0;
            let seven = Definition::R7.quantile(&values, q).unwrap();
            assert!((seven - quantile(&values, q).unwrap()).abs() < 1e-9, "{q}");
        }
        for definition in Definition::ALL {
            assert_eq!(
                definition.quantile(&values, 0.0),
                Some(0.0),
                "{definition:?}"
            );
            assert_eq!(
                definition.quantile(&values, 1.0),
                Some(841.0),
                "{definition:?}"
            );
            assert_eq!(definition.quantile(&[], 0.5), None);
        }
    }
}
