//! How a run paces itself: limits of time, pauses to cool down, how many repeats. None of it decides
//! what a cell measures.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reader::TableReader;
use super::value::{boolean, positive, positive_number, seconds, up_to};
use crate::units::{Repeat, span_of_seconds};

/// A latency whose mean over repeats can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AutoMetric {
    /// Time to first token.
    Ttft,
    /// From the write of the request to its last token.
    E2e,
    /// (E2E - TTFT) / (tokens - 1).
    Tpot,
}

impl AutoMetric {
    const NAMED: [(&'static str, Self); 3] = [
        ("ttft", Self::Ttft),
        ("e2e", Self::E2e),
        ("tpot", Self::Tpot),
    ];

    /// The name that plans use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::E2e => "e2e",
            Self::Tpot => "tpot",
        }
    }
}

/// `[run.auto]`: how often a cell is repeated with `repeats = "auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoRepeats {
    /// What is looked at: its median over a pass's requests.
    pub metric: AutoMetric,
    /// The width of the 95 % interval of the mean over repeats, as a share of that mean, below which
    /// a cell is repeated no more.
    pub relative_width: f64,
    /// Repeats of every cell.
    pub min_repeats: Repeat,
    /// Repeats of no cell are more.
    pub max_repeats: Repeat,
    /// No repeat beyond `min_repeats` begins later than this after the run's start.
    pub budget: Option<Duration>,
}

/// The part of `[run]` that paces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// After this the run drains and stops, as at Ctrl-C.
    pub time_limit: Option<Duration>,
    /// A cell that takes longer has failed.
    pub cell_time_limit: Option<Duration>,
    /// No cell begins before the hottest GPU is below this, degrees Celsius.
    pub cooldown_below_c: Option<f64>,
    /// How long a cell waits for that at most.
    pub cooldown_limit: Duration,
    /// Whether one cell of the baseline is measured twice where `repeats` is 1, for a noise floor.
    pub aa: bool,
    /// Repeats until an interval is narrow enough.
    pub auto: Option<AutoRepeats>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            time_limit: None,
            cell_time_limit: None,
            cooldown_below_c: None,
            cooldown_limit: Duration::from_secs(300),
            aa: false,
            auto: None,
        }
    }
}

/// The most repeats of a cell.
const MAX_REPEATS: u32 = 10_000;

impl Pace {
    /// Reads the keys of `[run]` that pace, and `repeats` with them.
    pub fn read(table: &TableReader<'_>) -> (Option<Repeat>, Self) {
        let mut pace = Self::default();
        let span = |key: &str| {
            table
                .read(key, seconds)
                .map(|located| span_of_seconds(located.value))
        };
        pace.time_limit = span("time_limit_s");
        pace.cell_time_limit = span("cell_time_limit_s");
        pace.cooldown_below_c = table
            .read("cooldown_below_c", positive_number)
            .map(|located| located.value);
        if let Some(limit) = span("cooldown_limit_s") {
            pace.cooldown_limit = limit;
        }
        if let Some(located) = table.read("aa", boolean) {
            pace.aa = located.value;
        }
        let auto = table.table("auto");
        let is_auto = table
            .value("repeats")
            .is_some_and(|located| located.value.as_str() == Some("auto"));
        if is_auto {
            pace.auto = auto.as_ref().map_or_else(
                || {
                    let hint = "add `metric`, `relative_width` and `max_repeats` under it";
                    table.problem("`repeats = \"auto\"` needs [run.auto]", hint);
                    None
                },
                read_auto,
            );
            return (pace.auto.map(|auto| auto.max_repeats), pace);
        }
        if let Some(auto) = auto {
            auto.problem("[run.auto] needs `repeats = \"auto\"`", "set it in [run]");
        }
        let repeats = table.read("repeats", |value| {
            up_to(MAX_REPEATS)(value).map_err(|expected| format!("{expected}, or \"auto\""))
        });
        (repeats.and_then(|located| Repeat::new(located.value)), pace)
    }
}

fn read_auto(table: &TableReader<'_>) -> Option<AutoRepeats> {
    if table.value("metric").is_none() {
        table.problem(
            "`metric` is missing in [run.auto]",
            "such as `metric = \"ttft\"`",
        );
    }
    let metric = table.choice("metric", &AutoMetric::NAMED);
    let relative_width = table.require("relative_width", |value| {
        positive_number(value).and_then(|width| {
            if width <= 1.0 {
                Ok(width)
            } else {
                Err("a number above 0 and up to 1, such as 0.05".to_owned())
            }
        })
    });
    let max_repeats = table.require("max_repeats", up_to(MAX_REPEATS));
    let min_repeats = table.read("min_repeats", positive);
    let budget = table.read("budget_s", seconds);
    table.finish();
    let most = max_repeats?.value;
    // An interval needs two values.
    let least = min_repeats
        .as_ref()
        .map_or(3.min(most), |located| located.value);
    if least < 2 || least > most {
        table.problem(
            format!("`min_repeats` is {least} and `max_repeats` {most}"),
            "an interval needs at least 2 repeats, and no more than `max_repeats`",
        );
    }
    Some(AutoRepeats {
        metric: metric?.value,
        relative_width: relative_width?.value,
        min_repeats: Repeat::new(least)?,
        max_repeats: Repeat::new(most)?,
        budget: budget.map(|located| span_of_seconds(located.value)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::reader::Problems;
    use super::*;
    use toml::de::DeTable;

    fn read(text: &str) -> (Option<Repeat>, Pace, Vec<String>) {
        let document = DeTable::parse(text).unwrap();
        let problems = Problems::default();
        let table = TableReader::new("run", document.get_ref(), 0..0, &problems);
        let (repeats, pace) = Pace::read(&table);
        table.finish();
        let sorted = problems.into_sorted().into_iter();
        let lines = sorted.map(|problem| format!("{} | {}", problem.message, problem.hint));
        (repeats, pace, lines.collect())
    }

    #[test]
    fn auto_repeats_are_at_most_their_maximum() {
        let text = "repeats = \"auto\"\n[auto]\nmetric = \"ttft\"\nrelative_width = 0.1\n\
                    max_repeats = 9\nbudget_s = 60\n";
        let (repeats, pace, problems) = read(text);
        assert_eq!((repeats.map(Repeat::get), problems.len()), (Some(9), 0));
        let auto = pace.auto.unwrap();
        assert_eq!(auto.min_repeats.get(), 3);
        assert_eq!(auto.budget, Some(Duration::from_secs(60)));
    }

    #[test]
    fn settings_that_do_not_fit_together_are_reported() {
        let (_, _, problems) = read("repeats = \"auto\"\n");
        assert_eq!(
            problems,
            ["`repeats = \"auto\"` needs [run.auto] | \
              add `metric`, `relative_width` and `max_repeats` under it"]
        );
        let (_, _, problems) =
            read("repeats = 2\n[auto]\nmetric = \"ttft\"\nrelative_width = 0.1\nmax_repeats = 9\n");
        assert_eq!(
            problems[0],
            "[run.auto] needs `repeats = \"auto\"` | set it in [run]"
        );
        let (_, _, problems) = read("repeats = \"lots\"\ntime_limit_s = 0\n");
        assert!(problems[0].contains("or \"auto\""), "{problems:?}");
        assert!(problems[1].contains("time_limit_s"), "{problems:?}");
    }
}
