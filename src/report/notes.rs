//! Footnotes: each distinct text once, numbered in the order of first use.

use std::collections::BTreeMap;

use crate::stats::{Percentile, Warning};

/// The notes under one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    texts: Vec<String>,
    unnumbered: Vec<String>,
}

impl Notes {
    /// The sign for `text`, such as `[1]`.
    pub(crate) fn refer(&mut self, text: String) -> String {
        let at = self
            .texts
            .iter()
            .position(|known| *known == text)
            .unwrap_or_else(|| {
                self.texts.push(text);
                self.texts.len() - 1
            });
        format!("[{}]", at + 1)
    }

    /// A note on the whole table.
    pub(crate) fn add(&mut self, text: String) {
        self.unnumbered.push(text);
    }

    /// Notes why percentiles are missing, once a percentile for all rows.
    pub(crate) fn add_missing(&mut self, warnings: &[Warning]) {
        let mut by_percentile: BTreeMap<Percentile, (Vec<&str>, usize, usize)> = BTreeMap::new();
        for Warning::TooFewSamples {
            metric,
            percentile,
            have,
        } in warnings
        {
            let (metrics, low, high) =
                by_percentile
                    .entry(*percentile)
                    .or_insert((vec![], *have, *have));
            let name = metric.spec().short;
            if !metrics.contains(&name) {
                metrics.push(name);
            }
            (*low, *high) = ((*low).min(*have), (*high).max(*have));
        }
        for (percentile, (metrics, low, high)) in by_percentile {
            let have = if low == high {
                low.to_string()
            } else {
                format!("{low} to {high}")
            };
            self.add(format!(
                "`-` for {} of {}: too few samples, needs {}, has {have}",
                percentile.name(),
                metrics.join(", "),
                percentile.need()
            ));
        }
    }

    /// One line a note, first those on the whole table.
    pub(crate) fn lines(&self) -> Vec<String> {
        let numbered = (1..)
            .zip(&self.texts)
            .map(|(at, text): (usize, _)| format!("[{at}] {text}"));
        self.unnumbered.iter().cloned().chain(numbered).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;

    #[test]
    fn a_text_has_one_number() {
        let mut notes = Notes::default();
        assert_eq!(notes.refer("a".to_owned()), "[1]");
        assert_eq!(notes.refer("b".to_owned()), "[2]");
        assert_eq!(notes.refer("a".to_owned()), "[1]");
        notes.add("all".to_owned());
        assert_eq!(notes.lines(), ["all", "[1] a", "[2] b"]);
    }

    #[test]
    fn missing_percentiles_are_noted_once() {
        let missing = |metric, percentile, have| Warning::TooFewSamples {
            metric,
            percentile,
            have,
        };
        let mut notes = Notes::default();
        notes.add_missing(&[
            missing(Metric::Ttft, Percentile::P99, 24),
            missing(Metric::E2e, Percentile::P99, 72),
            missing(Metric::Ttft, Percentile::P90, 9),
        ]);
        assert_eq!(
            notes.lines(),
            [
                "`-` for p90 of TTFT: too few samples, needs 10, has 9",
                "`-` for p99 of TTFT, E2E: too few samples, needs 100, has 24 to 72",
            ]
        );
    }
}
