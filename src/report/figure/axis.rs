//! Scales and ticks. Pure arithmetic.

use std::collections::BTreeSet;

/// The most ticks of a value axis.
const MAX_TICKS: usize = 8;

/// From values to a place on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// Equal steps are equal distances.
    Linear {
        /// The value at 0.
        low: f64,
        /// The value at 1.
        high: f64,
    },
    /// Equal ratios are equal distances.
    Log {
        /// The value at 0, above zero.
        low: f64,
        /// The value at 1.
        high: f64,
    },
}

impl Scale {
    /// A scale for latencies: logarithmic when they span more than a decade, else from zero
    /// for comparable heights. `None` for no values.
    pub(crate) fn for_values(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, high) = extent(values)?;
        // 6 % of air on either side keeps markers off the frame.
        Some(if high / low > 10.0 {
            let air = (high / low).powf(0.06);
            Self::Log {
                low: low / air,
                high: high * air,
            }
        } else {
            Self::Linear {
                low: 0.0,
                high: high * 1.08,
            }
        })
    }

    /// A scale for prompt lengths: logarithmic from a factor of 8 on, as sweeps by powers of two
    /// have it. One length alone stands in the middle.
    pub(crate) fn for_lengths(lengths: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, high) = extent(lengths)?;
        Some(if high / low >= 8.0 {
            let air = (high / low).powf(0.08);
            Self::Log {
                low: low / air,
                high: high * air,
            }
        } else {
            let air = if high > low {
                (high - low) * 0.1
            } else {
                low * 0.5
            };
            Self::Linear {
                low: low - air,
                high: high + air,
            }
        })
    }

    /// A scale for ratios: logarithmic, with 1 on it.
    pub(crate) fn for_ratios(ratios: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, high) = extent(ratios)?;
        // Wide enough for two ticks beside 1.
        let (low, high) = (low.min(0.5), high.max(2.0));
        let air = (high / low).powf(0.06);
        Some(Self::Log {
            low: low / air,
            high: high * air,
        })
    }

    /// Where a value lies: 0 at the lower end, 1 at the upper.
    pub(crate) fn position(self, value: f64) -> f64 {
        match self {
            Self::Linear { low, high } => (value - low) / (high - low),
            // Values too small for the scale, such as zero, stand at its end.
            Self::Log { low, high } => (value.max(low) / low).ln() / (high / low).ln(),
        }
    }

    /// From zero to `high`.
    pub(crate) fn from_zero(high: f64) -> Self {
        Self::Linear { low: 0.0, high }
    }

    fn round_values(self) -> Vec<f64> {
        match self {
            Self::Linear { high, .. } => linear_ticks(high),
            Self::Log { low, high } => log_ticks(low, high),
        }
    }
}

/// What an axis shows, and so how it is divided.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Latencies, milliseconds.
    Times,
    /// A plain number a second.
    Rates,
    /// From none to all.
    Shares,
    /// How many times: equal ratios are equal distances, and 1 is always shown.
    Ratios,
    /// Tokens: a tick at each value that occurs.
    Lengths,
    /// A count: a tick at each value that occurs.
    Counts,
    /// The places 0, 1, 2 and so on have these names.
    Named(Vec<String>),
}

/// A scale with its ticks, ascending.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ruler {
    pub scale: Scale,
    pub ticks: Vec<(f64, String)>,
}

impl Kind {
    /// The ruler for these values; `None` for none that can be shown.
    pub(crate) fn ruler(&self, values: &[f64]) -> Option<Ruler> {
        let each = |label: fn(u32) -> String| {
            let distinct: BTreeSet<u32> = values.iter().map(|value| *value as u32).collect();
            let ticks = distinct
                .into_iter()
                .map(|value| (f64::from(value), label(value)));
            ticks.collect()
        };
        let values = || values.iter().copied();
        let round = |scale: Scale, label: fn(f64) -> String| Ruler {
            ticks: scale
                .round_values()
                .into_iter()
                .map(|value| (value, label(value)))
                .collect(),
            scale,
        };
        Some(match self {
            Self::Times => round(Scale::for_values(values())?, tick_label_ms),
            Self::Rates => round(Scale::for_values(values())?, plain),
            Self::Shares => Ruler {
                scale: Scale::from_zero(1.02),
                ticks: (0..=4)
                    .map(|quarter| (f64::from(quarter) / 4.0, format!("{} %", quarter * 25)))
                    .collect(),
            },
            Self::Ratios => round(Scale::for_ratios(values())?, |value| {
                format!("{}x", plain(value))
            }),
            Self::Lengths => Ruler {
                scale: Scale::for_lengths(values())?,
                ticks: each(token_label),
            },
            Self::Counts => Ruler {
                scale: Scale::for_lengths(values())?,
                ticks: each(|value| value.to_string()),
            },
            Self::Named(names) => Ruler {
                scale: Scale::Linear {
                    low: -0.5,
                    high: names.len() as f64 - 0.5,
                },
                ticks: (0..).map(f64::from).zip(names.iter().cloned()).collect(),
            },
        })
    }

    /// The unit and scale shown beside its title.
    pub(crate) fn unit(&self, scale: Scale) -> &'static str {
        match (self, scale) {
            (Self::Times, Scale::Linear { .. }) => " (ms, s)",
            (Self::Times, Scale::Log { .. }) => " (ms, s; log scale)",
            (_, Scale::Log { .. }) => " (log scale)",
            (_, Scale::Linear { .. }) => "",
        }
    }
}

fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let usable = values
        .into_iter()
        .filter(|value| value.is_finite() && *value > 0.0);
    usable.fold(None, |extent, value| match extent {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

fn linear_ticks(high: f64) -> Vec<f64> {
    let magnitude = 10_f64.powf((high / 5.0).log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|factor| factor * magnitude)
        .into_iter()
        .find(|step| high / step <= 6.0)
        .unwrap_or(magnitude * 10.0);
    let count = (high / step).floor() as u32;
    (0..=count).map(|at| f64::from(at) * step).collect()
}

/// The densest of 1-2-5, 1-3 and whole decades that is not too dense.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let within = |steps: &[f64]| -> Vec<f64> {
        (first..=last)
            .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
            .filter(|value| (low..=high).contains(value))
            .collect()
    };
    let choices: [&[f64]; 3] = [&[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
    let fitting = choices
        .iter()
        .map(|steps| within(steps))
        .find(|ticks| ticks.len() <= MAX_TICKS);
    fitting.unwrap_or_else(|| within(&[1.0]))
}

/// `0`, `0.5 ms`, `200 ms`, `1 s`, `2.5 s`.
fn tick_label_ms(value_ms: f64) -> String {
    let (value, unit) = if value_ms >= 1000.0 {
        (value_ms / 1000.0, "s")
    } else {
        (value_ms, "ms")
    };
    if value_ms == 0.0 {
        "0".to_owned()
    } else {
        format!("{} {unit}", plain(value))
    }
}

/// A tick without a unit. Powers of ten are not exact in binary; six digits hide that and lose no
/// tick.
fn plain(value: f64) -> String {
    let digits = format!("{value:.6}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    digits.to_owned()
}

/// `512`, `1k` for 1024, `5k` for 5120, `1000` for other numbers.
pub(crate) fn token_label(tokens: u32) -> String {
    if tokens > 0 && tokens.is_multiple_of(1024) {
        format!("{}k", tokens / 1024)
    } else {
        tokens.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale) -> String {
        let labels: Vec<_> = scale
            .round_values()
            .into_iter()
            .map(tick_label_ms)
            .collect();
        labels.join(", ")
    }

    fn ruled(kind: &Kind, values: &[f64]) -> String {
        let ticks = kind.ruler(values).unwrap().ticks.into_iter();
        ticks.map(|(_, label)| label).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_kind_has_its_own_ticks() {
        assert_eq!(ruled(&Kind::Shares, &[]), "0 %, 25 %, 50 %, 75 %, 100 %");
        assert_eq!(ruled(&Kind::Ratios, &[0.9, 1.1]), "0.5x, 1x, 2x");
        assert_eq!(
            ruled(&Kind::Ratios, &[0.1, 8.0]),
            "0.1x, 0.2x, 0.5x, 1x, 2x, 5x, 10x"
        );
        assert_eq!(ruled(&Kind::Counts, &[8.0, 1.0, 8.0]), "1, 8");
        assert_eq!(ruled(&Kind::Lengths, &[1024.0, 512.0]), "512, 1k");
        assert_eq!(ruled(&Kind::Rates, &[30.0, 55.0]), "0, 10, 20, 30, 40, 50");
        let named = Kind::Named(vec!["a".to_owned(), "b".to_owned()]);
        let ruler = named.ruler(&[]).unwrap();
        assert!((ruler.scale.position(0.0) - 0.25).abs() < 1e-12);
        assert_eq!(Kind::Times.ruler(&[]), None);
    }

    #[test]
    fn more_than_a_decade_is_logarithmic() {
        let scale = Scale::for_values([30.0, 9000.0]).unwrap();
        assert!(matches!(scale, Scale::Log { low, high } if low < 30.0 && high > 9000.0));
        assert_eq!(
            labels(scale),
            "50 ms, 100 ms, 200 ms, 500 ms, 1 s, 2 s, 5 s, 10 s"
        );
        let decades = Scale::for_values([0.5, 90_000.0]).unwrap();
        assert_eq!(labels(decades), "1 ms, 10 ms, 100 ms, 1 s, 10 s, 100 s");
    }

    #[test]
    fn less_starts_at_zero() {
        let scale = Scale::for_values([400.0, 1300.0]).unwrap();
        assert_eq!(labels(scale), "0, 250 ms, 500 ms, 750 ms, 1 s, 1.25 s");
        assert!((scale.position(0.0)).abs() < 1e-12);
        assert_eq!(
            labels(Scale::for_values([7.0]).unwrap()),
            "0, 2 ms, 4 ms, 6 ms"
        );
    }

    #[test]
    fn equal_ratios_are_equal_distances() {
        let scale = Scale::for_lengths([512.0, 16_384.0]).unwrap();
        let [a, b, c] = [512.0, 1024.0, 2048.0].map(|tokens| scale.position(tokens));
        assert!(((b - a) - (c - b)).abs() < 1e-12 && a > 0.0);
        assert!((Scale::for_lengths([1024.0]).unwrap().position(1024.0) - 0.5).abs() < 1e-12);
        assert_eq!(Scale::for_values([]), None);
    }

    #[test]
    fn token_counts_are_short_only_where_exact() {
        let labels = [512, 1000, 1024, 5120, 16_384].map(token_label);
        assert_eq!(labels, ["512", "1000", "1k", "5k", "16k"]);
    }
}
