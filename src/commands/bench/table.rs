//! The table of one load: a row a latency, then what was sent and how fast.

use crate::aggregate::SummaryRow;
use crate::metric::Metric;
use crate::report::axes::banner;
use crate::report::number::Scale;
use crate::report::table::{Column, Keep, Table};
use crate::units::grouped;

const LATENCIES: [Metric; 5] = [
    Metric::Ttft,
    Metric::Itl,
    Metric::Tpot,
    Metric::E2e,
    Metric::Lateness,
];

/// One load, for a terminal of `width` columns. `heading` says what was sent.
pub(super) fn text(row: &SummaryRow, heading: &str, width: u16) -> String {
    let mut text = String::new();
    for line in banner([row.source]).into_iter().chain([heading]) {
        text.push_str(&format!("{line}\n"));
    }
    text.push('\n');
    text.push_str(&latencies(row).terminal(width));
    text.push('\n');
    let answered = format!("{}/{} answered", row.counts.ok, row.counts.sent);
    let took = format!("{answered} in {:.2} s", row.duration_s);
    let rates = [
        (Metric::RequestThroughput, row.requests_per_s),
        (Metric::InputThroughput, row.input_tokens_per_s),
        (Metric::OutputThroughput, row.output_tokens_per_s),
        (Metric::TotalThroughput, row.total_tokens_per_s),
        (Metric::PromptTokens, row.prompt_tokens_mean),
        (Metric::CachedTokens, row.cached_tokens_mean),
    ];
    let rates = rates.map(|(metric, value)| {
        let spec = metric.spec();
        let scale = Scale::of(spec.unit, [value]);
        let value = scale.text(value);
        (spec.title, format!("{value} {}", spec.unit.sign()))
    });
    for (name, value) in [("Requests", took)].into_iter().chain(rates) {
        text.push_str(&format!("{name:<24} {value}\n"));
    }
    text
}

fn latencies(row: &SummaryRow) -> Table {
    let summaries: Vec<_> = LATENCIES
        .iter()
        .filter_map(|metric| row.latency(*metric))
        .filter(|summary| summary.n > 0)
        .collect();
    let scales = summaries.iter().map(|summary| {
        let ends = [summary.p50, summary.mean, summary.max];
        Scale::of(summary.metric.spec().unit, ends)
    });
    let scales: Vec<Scale> = scales.collect();
    let each = |pick: fn(&crate::stats::Summary) -> Option<f64>| -> Vec<String> {
        let rows = summaries.iter().zip(&scales);
        rows.map(|(summary, scale)| scale.text(pick(summary)))
            .collect()
    };
    let names = summaries.iter().zip(&scales).map(|(summary, scale)| {
        let spec = summary.metric.spec();
        format!("{} {}", spec.short, scale.sign)
    });
    let counts = summaries.iter().map(|summary| grouped(summary.n));
    Table {
        columns: vec![
            Column::words("latency", Keep::Always, names.collect()),
            Column::numbers(&["mean"], Keep::Always, each(|summary| summary.mean)),
            Column::numbers(&["p50"], Keep::Always, each(|summary| summary.p50)),
            Column::numbers(&["p90"], Keep::Always, each(|summary| summary.p90)),
            Column::numbers(&["p99"], Keep::Always, each(|summary| summary.p99)),
            Column::numbers(&["max"], Keep::Always, each(|summary| summary.max)),
            Column::numbers(&["n"], Keep::Always, counts.collect()),
        ],
    }
}
