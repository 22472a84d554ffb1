//! What tokens cost where an hour of the server has a price.

use std::fmt;
use std::str::FromStr;

use crate::aggregate::{Comparison, ComparisonRow, Place, Standing};
use crate::report::advice::{Answer, TierAnswer};
use crate::units::grouped;

/// What an hour of the server costs, in any currency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Price(f64);

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let price = text.parse::<f64>().ok();
        let price = price.filter(|price| price.is_finite() && *price > 0.0);
        price.map(Self).ok_or_else(|| {
            format!("invalid price `{text}`: expected a number above 0 for an hour, such as 2.50")
        })
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&money(self.0))
    }
}

impl Price {
    /// What a million tokens cost at this rate; absent where nothing was generated.
    pub(super) fn per_million(self, tokens_per_s: Option<f64>) -> Option<f64> {
        let rate = tokens_per_s.filter(|rate| *rate > 0.0)?;
        Some(self.0 / 3600.0 / rate * 1e6)
    }

    /// What the numbers rest on.
    pub(super) fn note(self) -> String {
        format!(
            "cost: of a million generated tokens at the measured throughput, where an hour of the server \
             costs {self}; reading the prompts is in it"
        )
    }
}

/// `0.0042`, `3.21`, `1,204`.
pub(super) fn money(value: f64) -> String {
    let decimals = match value {
        v if v >= 1000.0 => 0,
        v if v >= 0.1 => 2,
        _ => 4,
    };
    grouped(format!("{value:.decimals$}"))
}

/// The comparison with `tier` that an answer shows, at its longest length that is compared.
pub(super) fn longest<'a>(
    comparison: &'a Comparison,
    answer: &Answer,
    tier: &str,
) -> Option<&'a ComparisonRow> {
    let at = |prompt_len| {
        let place = Place {
            prompt_len,
            ..answer.place.clone()
        };
        let mut rows = comparison.rows.iter();
        rows.find(|row| {
            row.tier == tier && row.place == place && row.standing == Standing::Compared
        })
    };
    answer.lengths.iter().rev().find_map(|length| at(*length))
}

/// What a million generated tokens cost with `tier`, and without it.
pub(super) fn of_tier(
    comparison: &Comparison,
    answer: &Answer,
    tier: &TierAnswer,
    price: Price,
) -> Option<String> {
    let row = longest(comparison, answer, &tier.tier)?;
    let with = price.per_million(row.output.tier)?;
    let without = price.per_million(row.output.baseline)?;
    Some(format!(
        "a million generated tokens cost {} ({} without) at {} prompt tokens",
        money(with),
        money(without),
        grouped(row.place.prompt_len)
    ))
}

/// The cost without and with each tier in a line; `None` where nothing was compared.
pub(super) fn line(comparison: &Comparison, answer: &Answer, price: Price) -> Option<String> {
    let tiers = answer.tiers.iter();
    let rows: Vec<&ComparisonRow> = tiers
        .filter_map(|tier| longest(comparison, answer, &tier.tier))
        .collect();
    let length = rows.iter().map(|row| row.place.prompt_len).max()?;
    let rows = rows
        .into_iter()
        .filter(|row| row.place.prompt_len == length);
    let mut without = None;
    let with = rows.filter_map(|row| {
        without = without.or(price.per_million(row.output.baseline));
        let cost = price.per_million(row.output.tier)?;
        Some(format!("{} {}", row.tier, money(cost)))
    });
    let with: Vec<String> = with.collect();
    Some(format!(
        "At {price} an hour and {} prompt tokens, a million generated tokens cost {} without a tier; {}.",
        grouped(length),
        money(without?),
        with.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::fixture::realistic;
    use crate::report::Report;

    #[test]
    fn a_price_is_a_number_above_0() {
        assert_eq!("2.50".parse(), Ok(Price(2.5)));
        for wrong in ["0", "-1", "nan", "inf", "$2", ""] {
            assert!(wrong.parse::<Price>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn tokens_cost_the_price_of_the_time_that_they_take() {
        let price = Price(3.6);
        // 1,000 tokens a second: a million take 1,000 seconds, at 0.001 each.
        assert_eq!(
            price.per_million(Some(1000.0)).map(money),
            Some("1.00".to_owned())
        );
        assert_eq!(price.per_million(Some(0.0)), None, "nothing was generated");
        assert_eq!(price.per_million(None), None);
    }

    #[test]
    fn the_screen_and_the_table_have_costs_where_there_is_a_price() {
        let mut report = Report::of(&realistic(), "t").unwrap();
        let text = |report: &Report| report.screen("run", 80) + &report.terminal(200);
        assert!(!text(&report).contains("cost/M"));
        report.note_price(Some(Price(2.5)));
        let text = text(&report)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        for expected in [
            "At 2.50 an hour and 16,384 prompt tokens,",
            " without a tier; cpu ",
            "a million generated tokens cost",
            "cost/M",
            "an hour of the",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}
