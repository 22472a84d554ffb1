//! `[load]`: when requests are sent and when the load ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reader::{Located, TableReader};
use super::value::{rate, seconds, seconds_or_none};
use crate::units::span_of_seconds;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Arrival {
    /// Closed loop: the next request when one of `concurrency` slots is free.
    Closed,
    /// Open loop at equal distances.
    Constant {
        /// Requests a second.
        rate_rps: f64,
    },
    /// Open loop, memoryless.
    Poisson {
        /// Mean requests a second.
        rate_rps: f64,
    },
    /// Open loop with gamma-distributed distances.
    Gamma {
        /// Mean requests a second.
        rate_rps: f64,
        /// Shape of the distribution: 1 is Poisson, below 1 comes in bursts, above 1 is steadier.
        burstiness: f64,
    },
    /// Open loop whose rate changes linearly, then stays.
    Ramp {
        /// Requests a second at the start.
        from_rps: f64,
        /// Requests a second at the end.
        to_rps: f64,
        /// How long the change takes, seconds.
        over_s: f64,
    },
    /// Open loop at the times of the workload's trace.
    Trace,
}

impl Arrival {
    /// The word used in plans.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Constant { .. } => "constant",
            Self::Poisson { .. } => "poisson",
            Self::Gamma { .. } => "gamma",
            Self::Ramp { .. } => "ramp",
            Self::Trace => "trace",
        }
    }
}

/// What ends a load. Whatever comes first of those named.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Stop {
    /// Every planned request was sent.
    Count,
    /// The time is over; planned requests that were not sent by then are never sent.
    CountOrTime {
        /// Seconds from the first intended send.
        seconds: f64,
    },
}

impl Stop {
    /// The time limit, if there is one.
    pub fn after(self) -> Option<Duration> {
        match self {
            Self::Count => None,
            Self::CountOrTime { seconds } => Some(span_of_seconds(seconds)),
        }
    }
}

/// How long each step of a request may take, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeouts {
    /// To set up a connection.
    pub connect_s: f64,
    /// From the write of the request to its first token.
    pub first_token_s: f64,
    /// From the write of the request to the end of its answer.
    pub total_s: f64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_s: 10.0,
            first_token_s: 600.0,
            total_s: 1800.0,
        }
    }
}

/// When requests are sent, how long they may take, and when the load ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    /// When requests are sent.
    pub arrival: Arrival,
    /// What ends the load.
    pub stop: Stop,
    /// Limits for each request.
    pub timeouts: Timeouts,
    /// How long requests in flight may still take once the load was ended early, seconds.
    pub drain_s: f64,
}

impl Default for LoadSpec {
    fn default() -> Self {
        Self {
            arrival: Arrival::Closed,
            stop: Stop::Count,
            timeouts: Timeouts::default(),
            drain_s: 30.0,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum ArrivalName {
    Closed,
    Constant,
    Poisson,
    Gamma,
    Ramp,
    Trace,
}

const ARRIVALS: [(&str, ArrivalName); 6] = [
    ("closed", ArrivalName::Closed),
    ("constant", ArrivalName::Constant),
    ("poisson", ArrivalName::Poisson),
    ("gamma", ArrivalName::Gamma),
    ("ramp", ArrivalName::Ramp),
    ("trace", ArrivalName::Trace),
];

impl LoadSpec {
    /// Reads `[load]`; what is absent has its default.
    pub fn read(table: &TableReader<'_>) -> Self {
        let default = Self::default();
        let limit = |key: &str, otherwise: f64| {
            table
                .read(key, seconds)
                .map_or(otherwise, |located| located.value)
        };
        let arrival = match table.choice("arrival", &ARRIVALS).map(|name| name.value) {
            Some(name) => read_arrival(name, table),
            None => default.arrival,
        };
        let stop = match table.read("for_s", seconds) {
            Some(Located { value, .. }) => Stop::CountOrTime { seconds: value },
            None => Stop::Count,
        };
        let timeouts = Timeouts {
            connect_s: limit("connect_timeout_s", default.timeouts.connect_s),
            first_token_s: limit("first_token_timeout_s", default.timeouts.first_token_s),
            total_s: limit("total_timeout_s", default.timeouts.total_s),
        };
        let drain_s = table
            .read("drain_s", seconds_or_none)
            .map_or(default.drain_s, |located| located.value);
        table.finish();
        Self {
            arrival,
            stop,
            timeouts,
            drain_s,
        }
    }
}

fn read_arrival(name: ArrivalName, table: &TableReader<'_>) -> Arrival {
    // A missing rate is a reported problem; 1 only keeps the reader going to find the others.
    let rate = |key: &str| table.require(key, rate).map_or(1.0, |rate| rate.value);
    match name {
        ArrivalName::Closed => Arrival::Closed,
        ArrivalName::Constant => Arrival::Constant {
            rate_rps: rate("rate_rps"),
        },
        ArrivalName::Poisson => Arrival::Poisson {
            rate_rps: rate("rate_rps"),
        },
        ArrivalName::Gamma => Arrival::Gamma {
            rate_rps: rate("rate_rps"),
            burstiness: rate("burstiness"),
        },
        ArrivalName::Ramp => Arrival::Ramp {
            from_rps: rate("from_rps"),
            to_rps: rate("to_rps"),
            over_s: table
                .require("over_s", seconds)
                .map_or(1.0, |over| over.value),
        },
        ArrivalName::Trace => Arrival::Trace,
    }
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;
    use crate::plan::reader::Problems;

    fn read(text: &str) -> (LoadSpec, Vec<String>) {
        let document = DeTable::parse(text).unwrap();
        let problems = Problems::default();
        let table = TableReader::new("load", document.get_ref(), document.span(), &problems);
        let spec = LoadSpec::read(&table);
        (
            spec,
            problems
                .into_sorted()
                .into_iter()
                .map(|p| p.message)
                .collect(),
        )
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let (spec, problems) = read("");
        assert_eq!(spec, LoadSpec::default());
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn open_loops_need_their_rates() {
        let (spec, problems) = read("arrival = \"gamma\"\nrate_rps = 4\nburstiness = 0.5");
        assert_eq!(problems, [""; 0]);
        assert_eq!(
            spec.arrival,
            Arrival::Gamma {
                rate_rps: 4.0,
                burstiness: 0.5
            }
        );
        let (_, problems) = read("arrival = \"poisson\"");
        assert_eq!(problems, ["`rate_rps` is missing in [load]"]);
        let (_, problems) = read("rate_rps = 3");
        assert!(
            problems[0].contains("unknown key `rate_rps`"),
            "{problems:?}"
        );
    }

    #[test]
    fn numbers_that_no_clock_can_count_are_refused() {
        for (key, text) in [
            ("drain_s", "drain_s = 1e300"),
            ("drain_s", "drain_s = inf"),
            ("for_s", "for_s = 1e300"),
            ("total_timeout_s", "total_timeout_s = 1e10"),
            ("rate_rps", "arrival = \"poisson\"\nrate_rps = 1e-300"),
            ("rate_rps", "arrival = \"constant\"\nrate_rps = 1e300"),
        ] {
            let (_, problems) = read(text);
            let problem = format!("`{key}` in [load] must be");
            assert!(problems[0].starts_with(&problem), "{text}: {problems:?}");
        }
    }

    #[test]
    fn a_time_limit_ends_the_load() {
        let (spec, _) = read("for_s = 2.5\ndrain_s = 0");
        assert_eq!(spec.stop.after(), Some(Duration::from_millis(2500)));
        assert!(spec.drain_s.abs() < f64::EPSILON);
    }
}
