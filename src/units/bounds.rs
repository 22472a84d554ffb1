//! An interval that is certain to hold a quantity.

use serde::{Deserialize, Serialize};

/// The lowest and the highest value that a quantity can have, in the quantity's own unit. Equal
/// ends: the value is exact.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// Lowest possible value.
    pub low: f64,
    /// Highest possible value.
    pub high: f64,
}

impl Bounds {
    /// A value that its source states exactly.
    pub(crate) fn exact(value: f64) -> Self {
        Self {
            low: value,
            high: value,
        }
    }

    /// `value` give or take `uncertainty`, in the same unit.
    pub(crate) fn within(value: f64, uncertainty: f64) -> Self {
        Self {
            low: value - uncertainty,
            high: value + uncertainty,
        }
    }

    /// The same quantity measured by something that errs by at most `share` of it.
    pub(crate) fn widened(self, share: f64) -> Self {
        Self {
            low: self.low * (1.0 - share),
            high: self.high * (1.0 + share),
        }
    }

    /// `factor`, which is exact and not negative, times the quantity.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self {
            low: self.low * factor,
            high: self.high * factor,
        }
    }

    /// The middle of the interval.
    pub(crate) fn middle(self) -> f64 {
        f64::midpoint(self.low, self.high)
    }

    /// Whether both can be the same value, with `share` of rounding allowed.
    pub(crate) fn agrees(self, other: Self, share: f64) -> bool {
        self.low <= other.high * (1.0 + share) && other.low <= self.high * (1.0 + share)
    }
}

impl std::ops::Add for Bounds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            low: self.low + other.low,
            high: self.high + other.high,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_what_their_parts_hold() {
        let ten = Bounds::within(10.0, 1.0);
        assert_eq!((ten.low, ten.high, ten.middle()), (9.0, 11.0, 10.0));
        let sum = ten + Bounds::exact(5.0);
        assert_eq!((sum.low, sum.high), (14.0, 16.0));
        assert_eq!(ten.times(2.0), Bounds::within(20.0, 2.0));
        assert_eq!(Bounds::exact(10.0).widened(0.1), ten);
        assert!(ten.agrees(Bounds::exact(11.0), 0.0));
        assert!(!ten.agrees(Bounds::exact(11.5), 0.0));
        assert!(ten.agrees(Bounds::exact(11.5), 0.05));
    }
}
