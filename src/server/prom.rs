//! Reads Prometheus text: what a benchmark asks of it, which is sums of series by name and label.
//!
//! `NaN` and infinities are values of that format. Here they are unknown: no sum holds one.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape: series by their whole name, labels included.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scrape {
    series: BTreeMap<String, f64>,
}

/// A counter that fell: its server was started again, or another server answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fallen {
    /// The series, labels included.
    pub series: String,
    /// Value of the earlier scrape.
    pub before: f64,
    /// Value of the later scrape; `None` where it no longer has the series.
    pub now: Option<f64>,
}

impl Scrape {
    /// Reads an exposition. Skips lines that are not series.
    pub(crate) fn parse(text: &str) -> Self {
        let series = text.lines().filter_map(|line| {
            let line = line.trim_start();
            let (name, rest) = line.split_at(name_end(line)?);
            // A time stamp or an exemplar may follow.
            let value = rest.split_whitespace().next()?.parse().ok()?;
            Some((name.to_owned(), value))
        });
        Self {
            series: series.collect(),
        }
    }

    /// Whether it holds no series at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Every series called `name` whose labels hold `label` (`key="value"`), with its labels.
    fn matching<'s>(
        &'s self,
        name: &'s str,
        label: Option<&'s str>,
    ) -> impl Iterator<Item = (&'s str, f64)> {
        self.series
            .range(name.to_owned()..)
            .map(|(series, value)| (series.as_str(), *value))
            .take_while(move |(series, _)| series.starts_with(name))
            .filter(move |(series, _)| {
                let labels = &series[name.len()..];
                (labels.is_empty() || labels.starts_with('{'))
                    && label.is_none_or(|label| has_label(labels, label))
            })
    }

    /// Folds the values of the series `name` with `label`; `None` where no such series is exposed
    /// or one of them is not a number, which is not the same as zero.
    fn fold(&self, name: &str, label: Option<&str>, fold: fn(f64, f64) -> f64) -> Option<f64> {
        let all = self.matching(name, label).map(|(_, value)| value);
        all.reduce(|a, b| {
            // `f64::max` passes over a NaN.
            if a.is_finite() && b.is_finite() {
                fold(a, b)
            } else {
                f64::NAN
            }
        })
        .filter(|total| total.is_finite())
    }

    /// Sum over all series called `name` whose labels hold `label` (`key="value"`): what counters of
    /// several engines count together. `None` where it is unknown.
    pub(crate) fn sum(&self, name: &str, label: Option<&str>) -> Option<f64> {
        self.fold(name, label, |a, b| a + b)
    }

    /// The largest of these series: what a share that each engine has of its own comes to. `None`
    /// where it is unknown.
    pub(crate) fn largest(&self, name: &str, label: Option<&str>) -> Option<f64> {
        self.fold(name, label, f64::max)
    }

    /// Whether any such series is exposed, whatever its value.
    pub(crate) fn exposes(&self, name: &str, label: Option<&str>) -> bool {
        self.matching(name, label).next().is_some()
    }

    /// The first of these series whose value is not a number, and that value.
    pub(crate) fn not_a_number<'s>(&'s self, name: &'s str) -> Option<(&'s str, f64)> {
        self.matching(name, None)
            .find(|(_, value)| !value.is_finite())
    }

    /// How much the sum grew since `before`. A series that appears only now began at zero. `None`
    /// where that is unknown, also where a counter fell.
    pub(crate) fn growth(&self, before: &Scrape, name: &str, label: Option<&str>) -> Option<f64> {
        if before
            .matching(name, label)
            .any(|(_, then)| !then.is_finite())
            || self.fallen(before, name, label).is_some()
        {
            return None;
        }
        let then = before.sum(name, label).unwrap_or(0.0);
        Some(self.sum(name, label)? - then)
    }

    /// The same over the series that have all of `labels`.
    pub(crate) fn growth_where(&self, before: &Scrape, name: &str, labels: &[&str]) -> Option<f64> {
        let only = |scrape: &Scrape| {
            let all = scrape.matching(name, None);
            let own = all.filter(|(series, _)| {
                let found = &series[name.len()..];
                labels.iter().all(|label| has_label(found, label))
            });
            let series = own.map(|(series, value)| (series.to_owned(), value));
            Self {
                series: series.collect(),
            }
        };
        only(self).growth(&only(before), name, None)
    }

    /// The values that the label `key` has in the series called `name`.
    pub(crate) fn label_values<'s>(&'s self, name: &'s str, key: &str) -> BTreeSet<&'s str> {
        let start = format!("{key}=\"");
        let all = self.matching(name, None);
        all.filter_map(|(series, _)| {
            let labels = &series[name.len()..];
            let mut found = labels.match_indices(&start);
            let (at, _) = found.find(|(at, _)| is_label_start(labels, *at))?;
            labels[at + start.len()..].split('"').next()
        })
        .collect()
    }

    /// The first of these counters that is below what it was.
    pub(crate) fn fallen(
        &self,
        before: &Scrape,
        name: &str,
        label: Option<&str>,
    ) -> Option<Fallen> {
        before.matching(name, label).find_map(|(series, before)| {
            let now = self.series.get(series).copied();
            let fell = now.is_none_or(|now| now < before);
            fell.then(|| Fallen {
                series: series.to_owned(),
                before,
                now,
            })
        })
    }
}

/// Where the name of a series ends, labels included. Label values may hold spaces and braces.
fn name_end(line: &str) -> Option<usize> {
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    if line.starts_with('#') || end == 0 {
        return None;
    }
    if !line[end..].starts_with('{') {
        return Some(end);
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line[end..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(end + at + 1),
            _ => {}
        }
    }
    None
}

/// Whether `labels` (`{a="b",c="d"}`) hold `label` as a whole.
fn has_label(labels: &str, label: &str) -> bool {
    labels
        .match_indices(label)
        .any(|(at, _)| is_label_start(labels, at))
}

/// Whether a label can begin at `at`.
fn is_label_start(labels: &str, at: usize) -> bool {
    matches!(labels[..at].chars().next_back(), Some('{' | ',' | ' '))
}

/// How much a counter grew from `before` to `now`. One that fell restarted at zero with its server: its
/// whole value is growth.
pub(crate) fn growth(before: f64, now: f64) -> f64 {
    if now < before { now } else { now - before }
}

/// The entry point of a fuzzer: any exposition, whose sums are numbers or unknown, and which did not
/// change since it was read.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let scrape = Scrape::parse(&String::from_utf8_lossy(data));
    for series in scrape.series.keys() {
        let name = &series[..series.find('{').unwrap_or(series.len())];
        assert!(scrape.exposes(name, None));
        assert!(scrape.sum(name, None).is_none_or(f64::is_finite));
        assert!(
            scrape
                .growth(&scrape, name, None)
                .is_none_or(|grown| grown.abs() < 1e-9)
        );
        assert_eq!(scrape.fallen(&scrape, name, None), None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "# HELP x y\n\
        vllm:prompt_tokens_total{model_name=\"a b\"} 10.0\n\
        vllm:prompt_tokens_by_source_total{source=\"local_compute\"} 4.0\n\
        vllm:prompt_tokens_by_source_total{source=\"external_kv_transfer\"} 6.0\n\
        up 1\n\
        broken\n";

    #[test]
    fn sums_by_name_and_label() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.sum("vllm:prompt_tokens_total", None), Some(10.0));
        let by_source = "vllm:prompt_tokens_by_source_total";
        assert_eq!(scrape.sum(by_source, None), Some(10.0));
        let computed = Some("source=\"local_compute\"");
        assert_eq!(scrape.sum(by_source, computed), Some(4.0));
        assert_eq!(scrape.sum("up", None), Some(1.0));
        let prefix = scrape.sum("vllm:prompt", None);
        assert_eq!(prefix, None, "a prefix is not a name");
    }

    #[test]
    fn lines_as_exporters_write_them() {
        for (line, name, expected) in [
            ("a 1", "a", Some(1.0)),
            ("a\t1e+06", "a", Some(1e6)),
            ("  a 1 1700000000000", "a", Some(1.0)),
            ("a{m=\"x}y {z\"} 2", "a", Some(2.0)),
            ("a{m=\"q\\\"}\"} 3", "a", Some(3.0)),
            ("a{m=\"x\"} 4 # {trace_id=\"t\"} 0.5 1.0", "a", Some(4.0)),
            ("a{} 5", "a", Some(5.0)),
            ("a NaN", "a", None),
            ("a +Inf", "a", None),
            ("a -inf", "a", None),
            ("a", "a", None),
            ("a{m=\"x\" 1", "a", None),
            ("a one", "a", None),
            ("# a 1", "a", None),
            ("", "a", None),
        ] {
            assert_eq!(Scrape::parse(line).sum(name, None), expected, "{line}");
        }
    }

    #[test]
    fn a_label_is_asked_for_as_a_whole() {
        let scrape = Scrape::parse("a{data_source=\"x\"} 1\na{b=\"c\",source=\"x\"} 2\n");
        assert_eq!(scrape.sum("a", Some("source=\"x\"")), Some(2.0));
    }

    #[test]
    fn several_labels_and_the_values_of_one_are_read() {
        let scrape = |c: u32| {
            Scrape::parse(&format!(
                "a{{d=\"h2d\",p=\"s\"}} {c}\na{{d=\"h2d\",p=\"k\"}} 5\na{{xd=\"9\",d=\"d2h\",p=\"s\"}} 7\nab{{d=\"z\"}} 1\n"
            ))
        };
        let (before, after) = (scrape(1), scrape(4));
        let grown = |labels: &[&str]| after.growth_where(&before, "a", labels);
        assert_eq!(grown(&["d=\"h2d\"", "p=\"s\""]), Some(3.0));
        assert_eq!(grown(&["d=\"d2h\"", "p=\"s\""]), Some(0.0));
        assert_eq!(grown(&["d=\"none\""]), None);
        let values: Vec<&str> = after.label_values("a", "d").into_iter().collect();
        assert_eq!(values, ["d2h", "h2d"]);
        assert!(after.label_values("a", "q").is_empty());
    }

    #[test]
    fn what_is_not_a_number_is_unknown_and_named() {
        let text = "a{e=\"0\"} 5\na{e=\"1\"} NaN\nb +Inf\n";
        let scrape = Scrape::parse(text);
        assert_eq!(scrape.sum("a", None), None);
        assert_eq!(scrape.largest("a", None), None);
        assert_eq!(scrape.sum("a", Some("e=\"0\"")), Some(5.0));
        assert!(scrape.exposes("a", None) && !scrape.exposes("c", None));
        assert_eq!(scrape.not_a_number("a").unwrap().0, "a{e=\"1\"}");
        assert_eq!(scrape.not_a_number("c"), None);
        let before = Scrape::parse("a{e=\"0\"} 1\na{e=\"1\"} NaN\nb 1\n");
        let after = Scrape::parse("a{e=\"0\"} 2\na{e=\"1\"} 3\nb 2\n");
        assert_eq!(after.growth(&before, "a", None), None);
        assert_eq!(scrape.growth(&before, "b", None), None);
    }

    #[test]
    fn the_share_of_several_engines_is_the_largest() {
        let text = "usage{engine=\"0\"} 0.9\nusage{engine=\"1\"} 0.7\n";
        assert_eq!(Scrape::parse(text).largest("usage", None), Some(0.9));
    }

    #[test]
    fn a_late_series_began_at_zero_and_one_that_fell_is_unknown() {
        let before = Scrape::parse("a{e=\"0\"} 10\na{e=\"1\"} 10\n");
        let growth = |text: &str| Scrape::parse(text).growth(&before, "a", None);
        assert_eq!(growth("a{e=\"0\"} 12\na{e=\"1\"} 10\n"), Some(2.0));
        // The sum grew; one of the engines was started again all the same.
        let restarted = "a{e=\"0\"} 30\na{e=\"1\"} 3\n";
        assert_eq!(growth(restarted), None);
        let fallen = Scrape::parse(restarted).fallen(&before, "a", None).unwrap();
        assert_eq!((fallen.before, fallen.now), (10.0, Some(3.0)));
        assert_eq!(growth("a{e=\"0\"} 30\n"), None, "one is gone");
        let late = Scrape::parse("b 3\n");
        assert_eq!(late.growth(&before, "b", None), Some(3.0));
        assert_eq!(late.growth(&before, "c", None), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic_and_no_sum_is_not_a_number(text in "\\PC*") {
            let scrape = Scrape::parse(&text);
            for series in scrape.series.keys() {
                let name = &series[..series.find('{').unwrap_or(series.len())];
                prop_assert!(scrape.sum(name, None).is_none_or(f64::is_finite));
            }
        }

        #[test]
        fn series_are_read_as_they_were_written(
            values in proptest::collection::btree_map("[a-z_:]{1,8}", "[^\\\\\"\n]{0,8}", 1..8)
                .prop_flat_map(|names| {
                    let count = names.len();
                    (Just(names), proptest::collection::vec(-1e12f64..1e12, count))
                })
        ) {
            let (names, numbers) = values;
            let mut lines = String::new();
            for ((name, label), number) in names.iter().zip(&numbers) {
                lines.push_str(&format!("{name}{{l=\"{label}\"}} {number}\n"));
            }
            let scrape = Scrape::parse(&lines);
            for ((name, label), number) in names.iter().zip(&numbers) {
                let label = format!("l=\"{label}\"");
                prop_assert_eq!(scrape.sum(name, Some(&label)), Some(*number));
            }
        }
    }
}
