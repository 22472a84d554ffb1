//! From which prompt length on a tier pays.

use std::collections::BTreeMap;

use crate::aggregate::{Comparison, ComparisonRow, Place, Standing};
use crate::units::PromptLen;

/// Where a tier's median time to first token crosses the baseline's, over prompt lengths.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BreakEven {
    /// It is at least as fast at every measured length, from this one on.
    Everywhere(PromptLen),
    /// It is slower at every measured length, up to this one.
    Nowhere(PromptLen),
    /// It pays from about this length on. Interpolated: the log of the speedup on a straight line
    /// over the log of the length, between two measured lengths.
    From {
        /// Prompt length, tokens.
        tokens: f64,
        /// The measured lengths on either side.
        between: (PromptLen, PromptLen),
    },
    /// It pays up to about this length, and not beyond.
    UpTo {
        /// Prompt length, tokens.
        tokens: f64,
        /// The measured lengths on either side.
        between: (PromptLen, PromptLen),
    },
    /// It crosses more than once: noise, or a limit such as a full tier; no single length.
    Several {
        /// How many times it crosses.
        crossings: usize,
    },
    /// Fewer than two lengths can be compared.
    TooFew,
}

/// The break-even of one tier where all else is equal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BreakEvenRow {
    /// Coordinates without the tier; its prompt length is the shortest one.
    pub place: Place,
    /// The tier's name.
    pub tier: String,
    /// The lengths that can be compared, with the speedup at each, ascending.
    pub speedups: Vec<(PromptLen, f64)>,
    /// The lengths at which the tier pays.
    pub crossing: BreakEven,
}

/// The break-even of speedups by prompt length, ascending.
pub(super) fn break_even(speedups: &[(PromptLen, f64)]) -> BreakEven {
    let [(first, _), .., (last, _)] = speedups else {
        return BreakEven::TooFew;
    };
    let pays = |speedup: f64| speedup >= 1.0;
    let crossings: Vec<_> = speedups
        .windows(2)
        .filter(|pair| pays(pair[0].1) != pays(pair[1].1))
        .collect();
    match crossings[..] {
        [] if pays(speedups[0].1) => BreakEven::Everywhere(*first),
        [] => BreakEven::Nowhere(*last),
        [pair] => {
            let (low, high) = (pair[0], pair[1]);
            let tokens = crossing(low, high);
            let between = (low.0, high.0);
            if pays(high.1) {
                BreakEven::From { tokens, between }
            } else {
                BreakEven::UpTo { tokens, between }
            }
        }
        ref several => BreakEven::Several {
            crossings: several.len(),
        },
    }
}

fn crossing((low, at_low): (PromptLen, f64), (high, at_high): (PromptLen, f64)) -> f64 {
    let [low, high] = [low, high].map(|length| f64::from(length.get()).ln());
    let part = at_low.ln() / (at_low.ln() - at_high.ln());
    (low + part * (high - low)).exp()
}

/// The break-even of every tier over the rows that may be compared.
pub(crate) fn break_evens(comparison: &Comparison) -> Vec<BreakEvenRow> {
    let mut lines: BTreeMap<(Place, usize), Vec<&ComparisonRow>> = BTreeMap::new();
    let mut tiers: Vec<&str> = Vec::new();
    let Some(shortest) = comparison.rows.iter().map(|row| row.place.prompt_len).min() else {
        return Vec::new();
    };
    for row in &comparison.rows {
        let tier = tiers.iter().position(|tier| *tier == row.tier);
        let tier = tier.unwrap_or_else(|| {
            tiers.push(&row.tier);
            tiers.len() - 1
        });
        let place = Place {
            prompt_len: shortest,
            ..row.place.clone()
        };
        lines.entry((place, tier)).or_default().push(row);
    }
    let row = |((place, tier), rows): ((Place, usize), Vec<&ComparisonRow>)| {
        let sound = rows.iter().filter(|row| row.standing == Standing::Compared);
        let mut speedups: Vec<_> = sound
            .filter_map(|row| Some((row.place.prompt_len, row.ttft.speedup?)))
            .filter(|(_, speedup)| *speedup > 0.0)
            .collect();
        speedups.sort_by_key(|(length, _)| *length);
        BreakEvenRow {
            place,
            tier: tiers[tier].to_owned(),
            crossing: break_even(&speedups),
            speedups,
        }
    };
    lines.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::compare;
    use crate::aggregate::fixture::{Bench, rows_of};
    use crate::plan::state::CacheState;
    use crate::record::schema::VerdictStatus;

    fn of(speedups: &[(u32, f64)]) -> BreakEven {
        let speedups: Vec<_> = speedups
            .iter()
            .map(|(length, speedup)| (PromptLen::new(*length).unwrap(), *speedup))
            .collect();
        break_even(&speedups)
    }

    fn length(tokens: u32) -> PromptLen {
        PromptLen::new(tokens).unwrap()
    }

    #[test]
    fn a_crossing_lies_on_a_line_through_the_logs() {
        // From half to double: the geometric middle of 1024 and 4096.
        let BreakEven::From { tokens, between } = of(&[(1024, 0.5), (4096, 2.0)]) else {
            panic!("no crossing");
        };
        assert!((tokens - 2048.0).abs() < 1e-6, "{tokens}");
        assert_eq!(between, (length(1024), length(4096)));
        // ln 0.8 / (ln 0.8 - ln 3.2) = 0.1610 of the way from ln 512 to ln 8192: 800.6.
        let BreakEven::From { tokens, .. } = of(&[(512, 0.8), (8192, 3.2)]) else {
            panic!("no crossing");
        };
        assert!((tokens - 800.1).abs() < 1.0, "{tokens}");
        let BreakEven::UpTo { tokens, .. } = of(&[(1024, 2.0), (4096, 0.5)]) else {
            panic!("no crossing");
        };
        assert!((tokens - 2048.0).abs() < 1e-6, "{tokens}");
    }

    #[test]
    fn a_line_without_a_crossing_is_named_so() {
        assert_eq!(
            of(&[(512, 1.0), (1024, 3.0)]),
            BreakEven::Everywhere(length(512))
        );
        assert_eq!(
            of(&[(512, 0.2), (1024, 0.9)]),
            BreakEven::Nowhere(length(1024))
        );
        assert_eq!(
            of(&[(512, 0.5), (1024, 2.0), (2048, 0.5)]),
            BreakEven::Several { crossings: 2 }
        );
        assert_eq!(
            (of(&[]), of(&[(512, 2.0)])),
            (BreakEven::TooFew, BreakEven::TooFew)
        );
    }

    #[test]
    fn only_what_may_be_compared_counts() {
        let mut bench = Bench::new();
        let state = CacheState::Tier;
        for (length, ttft) in [(1024, 50.0), (4096, 200.0), (8192, 400.0)] {
            bench
                .cell("baseline", length, 1, 1)
                .pass(state, &rows_of(&[ttft; 4], 0));
        }
        bench
            .cell("cpu", 1024, 1, 1)
            .pass(state, &rows_of(&[100.0; 4], 0));
        bench
            .cell("cpu", 4096, 1, 1)
            .pass(state, &rows_of(&[100.0; 4], 0));
        bench
            .cell("cpu", 8192, 1, 1)
            .pass(state, &rows_of(&[900.0; 4], 0))
            .verdict(VerdictStatus::Invalid, "nothing was loaded");
        let rows = break_evens(&compare(&bench.run()).unwrap());
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].speedups, [(length(1024), 0.5), (length(4096), 2.0)]);
        assert!(
            matches!(rows[0].crossing, BreakEven::From { tokens, .. } if (tokens - 2048.0).abs() < 1e-6)
        );
    }
}
