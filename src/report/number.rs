//! Numbers to text: one unit and one precision for a whole column, to compare them at a glance.

use crate::metric::Unit;
use crate::units::grouped;

/// How the numbers of one column, or of columns that belong together, are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    divisor: f64,
    decimals: usize,
    /// The unit's sign.
    pub sign: &'static str,
}

impl Scale {
    /// The scale for these values: seconds when all times reach one, and three significant
    /// digits for the smallest as long as the largest stays readable.
    pub(crate) fn of(unit: Unit, values: impl IntoIterator<Item = Option<f64>>) -> Self {
        let present = values
            .into_iter()
            .flatten()
            .map(f64::abs)
            .filter(|value| *value > 1e-9);
        let (smallest, largest) = present.fold((f64::INFINITY, 0.0_f64), |(low, high), v| {
            (low.min(v), high.max(v))
        });
        let in_seconds = unit == Unit::Milliseconds && smallest.is_finite() && smallest >= 1000.0;
        let (divisor, sign) = if in_seconds {
            (1000.0, "s")
        } else {
            (1.0, unit.sign())
        };
        Self {
            divisor,
            decimals: decimals(smallest / divisor, largest / divisor),
            sign,
        }
    }

    /// A value, or `-` for none.
    pub(crate) fn text(&self, value: Option<f64>) -> String {
        match value {
            Some(value) => grouped(format!("{:.*}", self.decimals, value / self.divisor)),
            None => "-".to_owned(),
        }
    }

    /// A difference with its sign, or `-` for none.
    pub(crate) fn signed(&self, value: Option<f64>) -> String {
        match value {
            Some(value) => grouped(format!("{:+.*}", self.decimals, value / self.divisor)),
            None => "-".to_owned(),
        }
    }
}

fn decimals(smallest: f64, largest: f64) -> usize {
    let wanted: usize = match smallest {
        s if s >= 100.0 => 0,
        s if s >= 10.0 => 1,
        s if s >= 1.0 => 2,
        _ => 3,
    };
    let bearable = match largest {
        l if l >= 10_000.0 => 0,
        l if l >= 1000.0 => 1,
        l if l >= 100.0 => 2,
        _ => 3,
    };
    wanted.min(bearable)
}

/// A latency on its own, as in a sentence: `9.53 ms`, `320 ms`, `1.90 s`.
pub(crate) fn duration(value_ms: f64) -> String {
    let scale = Scale::of(Unit::Milliseconds, [Some(value_ms)]);
    format!("{} {}", scale.text(Some(value_ms)), scale.sign)
}

/// How many times: `0.76x`, `5.94x`, `12.3x`.
pub(crate) fn times(ratio: f64) -> String {
    let decimals = match ratio {
        r if r >= 100.0 => 0,
        r if r >= 10.0 => 1,
        _ => 2,
    };
    format!("{ratio:.decimals$}x")
}

/// A latency in few letters, as in a cell of a small table: `8.5 ms`, `271 ms`, `2.34 s`.
pub(crate) fn brief(value_ms: f64) -> String {
    match value_ms.abs() {
        v if v >= 9_995.0 => format!("{:.1} s", value_ms / 1000.0),
        v if v >= 999.5 => format!("{:.2} s", value_ms / 1000.0),
        v if v >= 9.95 => format!("{value_ms:.0} ms"),
        _ => format!("{value_ms:.1} ms"),
    }
}

/// How many times in few letters: `0.05x`, `0.4x`, `0.96x`, `2.9x`, `12x`.
pub(crate) fn brief_times(ratio: f64) -> String {
    let decimals = match ratio {
        r if r >= 9.95 => 0,
        r if (0.9..1.1).contains(&r) || r < 0.1 => 2,
        _ => 1,
    };
    format!("{ratio:.decimals$}x")
}

/// From the smallest to the largest difference of latencies: `+7..13 ms`, `-0.4..+2.1 ms`.
pub(crate) fn brief_cost(low_ms: f64, high_ms: f64) -> String {
    let largest = low_ms.abs().max(high_ms.abs());
    let (divisor, sign) = if largest >= 999.5 {
        (1000.0, "s")
    } else {
        (1.0, "ms")
    };
    let decimals = match largest / divisor {
        v if v >= 99.5 => 0,
        v if v >= 9.95 && divisor < 2.0 => 0,
        v if v >= 9.95 => 1,
        _ if divisor > 2.0 => 2,
        _ => 1,
    };
    let text = |value: f64, signed: bool| {
        let value = value / divisor;
        if signed {
            format!("{value:+.decimals$}")
        } else {
            format!("{value:.decimals$}")
        }
    };
    let (low, high) = (text(low_ms, true), text(high_ms, true));
    if low == high {
        return format!("{low} {sign}");
    }
    let same_sign = (low_ms >= 0.0) == (high_ms >= 0.0);
    let high = if same_sign {
        text(high_ms.abs(), false)
    } else {
        high
    };
    format!("{low}..{high} {sign}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn column(values: &[f64], expected: &[&str], sign: &str) {
        let scale = Scale::of(Unit::Milliseconds, values.iter().copied().map(Some));
        let texts: Vec<_> = values
            .iter()
            .map(|value| scale.text(Some(*value)))
            .collect();
        assert_eq!(
            (texts.as_slice(), scale.sign),
            (expected.map_to_owned().as_slice(), sign)
        );
    }

    trait MapToOwned {
        fn map_to_owned(&self) -> Vec<String>;
    }

    impl MapToOwned for &[&str] {
        fn map_to_owned(&self) -> Vec<String> {
            self.iter().map(|text| (*text).to_owned()).collect()
        }
    }

    #[test]
    fn one_unit_and_precision_a_column() {
        column(&[5.25, 31.0], &["5.25", "31.00"], "ms");
        column(&[5.25, 1900.0], &["5.2", "1,900.0"], "ms");
        column(&[48.0, 19_000.0], &["48", "19,000"], "ms");
        column(&[1900.0, 45_000.0], &["1.90", "45.00"], "s");
    }

    #[test]
    fn nothing_is_a_dash_and_zero_does_not_set_the_precision() {
        let scale = Scale::of(Unit::Milliseconds, [None, Some(0.0), Some(250.0)]);
        assert_eq!(
            (scale.text(None), scale.text(Some(0.0))),
            ("-".to_owned(), "0".to_owned())
        );
        assert_eq!(
            (scale.signed(Some(250.0)), scale.signed(Some(-3.0))),
            ("+250".to_owned(), "-3".to_owned())
        );
    }

    #[test]
    fn a_small_table_has_few_letters() {
        let texts = [8.46, 9.97, 271.4, 999.7, 2340.0, 12_345.0].map(brief);
        assert_eq!(
            texts,
            ["8.5 ms", "10 ms", "271 ms", "1.00 s", "2.34 s", "12.3 s"]
        );
        let texts = [0.052, 0.38, 0.962, 1.04, 2.86, 12.3].map(brief_times);
        assert_eq!(texts, ["0.05x", "0.4x", "0.96x", "1.04x", "2.9x", "12x"]);
        let costs = [
            (7.2, 12.9),
            (6.9, 130.0),
            (-0.4, 2.1),
            (2.0, 2.0),
            (90.0, 1310.0),
        ];
        assert_eq!(
            costs.map(|(low, high)| brief_cost(low, high)),
            [
                "+7..13 ms",
                "+7..130 ms",
                "-0.4..+2.1 ms",
                "+2.0 ms",
                "+0.09..1.31 s"
            ]
        );
    }

    #[test]
    fn alone_in_a_sentence() {
        assert_eq!(
            (duration(9.534), duration(320.4), duration(1900.0)),
            (
                "9.53 ms".to_owned(),
                "320 ms".to_owned(),
                "1.90 s".to_owned()
            )
        );
        assert_eq!(
            (times(0.756), times(12.34), times(250.2)),
            ("0.76x".to_owned(), "12.3x".to_owned(), "250x".to_owned())
        );
    }
}
