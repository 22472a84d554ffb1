//! Reads Prometheus text. Only what a benchmark asks: sums of series by name and label.

use std::collections::BTreeMap;

/// One scrape: series by their whole name, labels included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    series: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads an exposition. Lines that are no series are passed over.
    pub fn parse(text: &str) -> Self {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            // Label values may hold spaces, so the name ends at the brace where there is one.
            let at = line
                .rfind('}')
                .map_or_else(|| line.find(' '), |brace| Some(brace + 1));
            let Some(at) = at.filter(|at| *at < line.len()) else {
                continue;
            };
            let (name, rest) = line.split_at(at);
            let value = rest
                .split_whitespace()
                .next()
                .and_then(|value| value.parse().ok());
            if let Some(value) = value {
                series.insert(name.to_owned(), value);
            }
        }
        Self { series }
    }

    /// Sum over all series called `name` whose labels include `label` (`key="value"`); `None` where
    /// no such series is exposed, which is not the same as zero.
    pub fn sum(&self, name: &str, label: Option<&str>) -> Option<f64> {
        let mut total = None;
        for (series, value) in self.series.range(name.to_owned()..) {
            if !series.starts_with(name) {
                break;
            }
            let rest = &series[name.len()..];
            let same = rest.is_empty() || rest.starts_with('{');
            if same && label.is_none_or(|label| rest.contains(label)) {
                *total.get_or_insert(0.0) += value;
            }
        }
        total
    }

    /// How much the sum grew since `before`, by [`growth`]. A series that appears only now began at
    /// zero.
    pub fn growth(&self, before: &Scrape, name: &str, label: Option<&str>) -> Option<f64> {
        let now = self.sum(name, label)?;
        let then = before.sum(name, label).unwrap_or(0.0);
        Some(growth(then, now))
    }
}

/// How much a counter grew from `before` to `now`. One that fell began anew at zero, as a restarted
/// server's does: its whole value is growth.
pub fn growth(before: f64, now: f64) -> f64 {
    if now < before { now } else { now - before }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            scrape.sum(by_source, Some("source=\"local_compute\"")),
            Some(4.0)
        );
        assert_eq!(scrape.sum("up", None), Some(1.0));
        assert_eq!(
            scrape.sum("vllm:prompt", None),
            None,
            "a prefix is not a name"
        );
    }

    #[test]
    fn growth_survives_a_restart_and_a_late_series() {
        let before = Scrape::parse("a 10\n");
        assert_eq!(
            Scrape::parse("a 12\n").growth(&before, "a", None),
            Some(2.0)
        );
        assert_eq!(Scrape::parse("a 3\n").growth(&before, "a", None), Some(3.0));
        assert_eq!(Scrape::parse("b 3\n").growth(&before, "b", None), Some(3.0));
        assert_eq!(Scrape::parse("b 3\n").growth(&before, "a", None), None);
    }
}
