//! The Prometheus text format.

use std::fmt::Write as _;

use crate::sim::stats::Histogram;

/// A page of the Prometheus text format, as Python's client writes it.
pub(super) struct Page {
    pub(super) text: String,
    labels: Vec<String>,
    created_s: f64,
}

impl Page {
    /// An empty page; `labels` go with every sample.
    pub(super) fn new(labels: &[(&str, &str)], created_s: f64) -> Self {
        let text = String::with_capacity(32_768);
        let mut page = Self {
            text,
            labels: Vec::new(),
            created_s,
        };
        page.set_labels(labels);
        page
    }

    pub(super) fn set_labels(&mut self, labels: &[(&str, &str)]) {
        self.labels = labels
            .iter()
            .map(|(key, of)| format!(r#"{key}="{of}""#))
            .collect();
    }

    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, name: &str, label: Option<(&str, &str)>, value: f64) {
        let mut labels: Vec<String> = self.labels.clone();
        labels.extend(label.map(|(key, of)| format!(r#"{key}="{of}""#)));
        labels.sort(); // the client sorts them by name
        let value = number(value);
        let labels = labels.join(",");
        let _ = if labels.is_empty() {
            writeln!(self.text, "{name} {value}")
        } else {
            writeln!(self.text, "{name}{{{labels}}} {value}")
        };
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        self.sample(name, None, value);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        let total = format!("{name}_total");
        self.head(&total, "counter", help);
        self.sample(&total, None, value as f64);
        let created = format!("{name}_created");
        self.head(&created, "gauge", help);
        self.sample(&created, None, self.created_s);
    }

    pub(super) fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        let total = format!("{name}_total");
        self.head(&total, "counter", help);
        for (of, value) in values {
            self.sample(&total, Some((label, of)), *value as f64);
        }
        let created = format!("{name}_created");
        self.head(&created, "gauge", help);
        for (of, _) in values {
            self.sample(&created, Some((label, of)), self.created_s);
        }
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bounds = histogram.bounds.iter().map(|bound| number(*bound));
        let mut total = 0;
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&histogram.counts) {
            total += count;
            self.sample(
                &format!("{name}_bucket"),
                Some(("le", &bound)),
                total as f64,
            );
        }
        self.sample(&format!("{name}_count"), None, total as f64);
        self.sample(&format!("{name}_sum"), None, histogram.sum);
        let created = format!("{name}_created");
        self.head(&created, "gauge", help);
        self.sample(&created, None, self.created_s);
    }
}

/// A float as Python's client prints it: `repr`, and an exponent from a million on.
pub(super) fn number(value: f64) -> String {
    if value > 0.0 && value < 1e-4 {
        let text = format!("{value:e}");
        let (digits, power) = text.split_once("e-").unwrap_or((&text, "0"));
        return format!("{digits}e-{power:0>2}");
    }
    let text = format!("{value:?}");
    match text.find('.') {
        Some(dot) if dot > 6 && value > 0.0 => {
            let (whole, fraction) = (&text[..dot], &text[dot + 1..]);
            let mantissa = format!("{}.{}{fraction}", &whole[..1], &whole[1..]);
            let mantissa = mantissa.trim_end_matches(['0', '.']);
            format!("{mantissa}e+0{}", dot - 1)
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_like_pythons() {
        assert_eq!(number(0.0), "0.0");
        assert_eq!(number(11_307.0), "11307.0");
        assert_eq!(number(0.000_035_67), "3.567e-05");
        assert_eq!(number(3_145_728.0), "3.145728e+06");
        assert_eq!(number(1_000_000.0), "1e+06");
        assert_eq!(number(123_456.0), "123456.0");
        assert_eq!(number(12_345_678_901.5), "1.23456789015e+010");
    }

    #[test]
    fn labels_are_sorted_by_name() {
        let mut page = Page::new(&[("engine", "0"), ("model_name", "m")], 1.0);
        page.sample("a_bucket", Some(("le", "+Inf")), 2.0);
        assert_eq!(
            page.text,
            "a_bucket{engine=\"0\",le=\"+Inf\",model_name=\"m\"} 2.0\n"
        );
    }
}
