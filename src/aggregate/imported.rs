//! Summaries by another tool that did not store single requests, such as `vllm bench serve` without
//! `--save-detailed`. They stand in where a pass has no values of its own: under the same rule for
//! percentiles, and without an interval.

use crate::aggregate::samples::Samples;
use crate::metric::Metric;
use crate::record::schema::PassRecord;
use crate::stats::{Percentile, Summary};

const LATENCIES: [Metric; 4] = [Metric::Ttft, Metric::Itl, Metric::Tpot, Metric::E2e];

/// Completes `samples` with the summaries that their pass was imported with.
pub(super) fn complete(samples: &mut Samples, pass: &PassRecord) {
    let mut names = pass.evidence.keys();
    if !names.any(|name| name.starts_with("imported_")) {
        return;
    }
    samples.lacks_requests = samples.counts.ok > 0 && samples.ttft.is_empty();
    for metric in LATENCIES {
        if samples.own(metric) == 0 {
            let imported = summary(metric, pass).map(|summary| (metric, summary));
            samples.imported.extend(imported);
        }
    }
    let count = |metric: Metric| {
        let rate = pass.evidence.get(&name(metric.spec().column))?;
        Some((rate * pass.duration_s).round() as u64)
    };
    let (output, total) = (
        count(Metric::OutputThroughput),
        count(Metric::TotalThroughput),
    );
    samples.output_tokens = samples.output_tokens.or(output);
    let input = total
        .zip(output)
        .and_then(|(total, output)| total.checked_sub(output));
    samples.prompt_tokens = samples.prompt_tokens.or(input);
    let ok = samples.counts.ok as f64;
    let mean = input.filter(|_| ok > 0.0).map(|input| input as f64 / ok);
    samples.prompt_tokens_mean = samples.prompt_tokens_mean.or(mean);
}

fn name(column: &str) -> String {
    format!("imported_{column}")
}

/// The summary of a latency that a pass was imported with.
fn summary(metric: Metric, pass: &PassRecord) -> Option<Summary> {
    let value = |name: &str| pass.evidence.get(name).copied();
    let of = |statistic: &str| value(&name(&metric.column_of(statistic)));
    // Files that were imported without their counts: each answer has one value at least.
    let stem = metric.spec().column.trim_end_matches("_ms");
    let n = value(&name(&format!("{stem}_n"))).map_or(pass.counts.ok, |n| n as u64) as usize;
    let shown = |percentile: Percentile| of(percentile.name()).filter(|_| n >= percentile.need());
    let summary = Summary {
        metric,
        n,
        mean: of("mean"),
        p10: None,
        p50: shown(Percentile::P50),
        p90: shown(Percentile::P90),
        p95: shown(Percentile::P95),
        p99: shown(Percentile::P99),
        max: None,
        median_interval: None,
    };
    (n > 0 && (summary.mean.is_some() || summary.p50.is_some())).then_some(summary)
}

#[cfg(test)]
mod tests;
