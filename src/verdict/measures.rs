//! The figures of a pass by name, the unit last, as records keep them.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::log_counts::Moved;
use crate::server::prom::Scrape;
use crate::telemetry::summary::Summary;

/// The figures that the verdict rests on, and what the logs tell of the tier's cost.
pub fn of_facts(facts: &Facts) -> BTreeMap<String, f64> {
    let sources = facts.by_source;
    let probed = facts.probe;
    let logs = &facts.logs;
    let count = |number: u64| Some(number as f64);
    let mean = |moved: Moved| (moved.lines > 0).then(|| moved.cost_ms / moved.lines as f64);
    let hits = sources.map(|s| s.gpu_tokens + s.external_tokens);
    let named = [
        ("computed_tokens", sources.map(|s| s.computed_tokens)),
        ("gpu_cache_tokens", sources.map(|s| s.gpu_tokens)),
        ("external_tokens", sources.map(|s| s.external_tokens)),
        ("expected_hit_tokens", Some(facts.expected_hit_tokens)),
        (
            "hits_per_request_tokens",
            hits.filter(|_| facts.ok > 0)
                .map(|hits| hits / facts.ok as f64),
        ),
        ("shared_tokens", Some(facts.shared_tokens)),
        ("repeated_tokens", Some(facts.repeated_tokens)),
        ("lmcache_ram_tokens", facts.account.map(|a| a.ram_tokens)),
        (
            "lmcache_second_layer_tokens",
            facts.account.map(|a| a.second_tokens),
        ),
        ("stored_tokens", facts.stored_tokens),
        ("probe_expected_tokens", probed.map(|p| p.expected_tokens)),
        ("probe_gpu_tokens", probed.map(|p| p.sources.gpu_tokens)),
        (
            "probe_external_tokens",
            probed.map(|p| p.sources.external_tokens),
        ),
        ("kv_bytes_per_token", facts.kv_bytes_per_token),
        ("pcie_rx_bytes", facts.pcie_rx_bytes),
        ("pcie_tx_bytes", facts.pcie_tx_bytes),
        ("disk_read_bytes", facts.disk_read_bytes),
        ("disk_write_bytes", facts.disk_write_bytes),
        ("redis_read_bytes", facts.redis_read_bytes),
        ("redis_write_bytes", facts.redis_write_bytes),
        ("canaries_asked", facts.canaries.map(|c| f64::from(c.asked))),
        ("canaries_same", facts.canaries.map(|c| f64::from(c.same))),
        (
            "log_stored_tokens",
            Some(logs.stored.tokens).filter(|t| *t > 0.0),
        ),
        (
            "log_retrieved_tokens",
            Some(logs.retrieved.tokens).filter(|t| *t > 0.0),
        ),
        ("tier_load_mean_ms", mean(logs.retrieved)),
        ("tier_store_mean_ms", mean(logs.stored)),
        ("lookup_timeouts", count(logs.lookup_timeouts)),
        ("remote_errors", count(logs.remote_errors)),
        ("allocation_failures", count(logs.allocation_failures)),
    ];
    named
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// What the engine's own counters say of a pass besides where its tokens came from.
pub fn of_engine(now: &Scrape, before: &Scrape) -> BTreeMap<String, f64> {
    let grown = |name: &str| now.growth(before, name, None);
    let mean_ms = |name: &str| {
        let count = grown(&format!("{name}_count")).filter(|count| *count > 0.0)?;
        Some(1e3 * grown(&format!("{name}_sum"))? / count)
    };
    let named = [
        // Multi-process LMCache looks up and loads while a request waits in the queue.
        (
            "queue_time_mean_ms",
            mean_ms("vllm:request_queue_time_seconds"),
        ),
        (
            "prefill_time_mean_ms",
            mean_ms("vllm:request_prefill_time_seconds"),
        ),
        ("preemptions", grown("vllm:num_preemptions_total")),
        (
            "kv_usage_end_percent",
            // Of several engines the fullest: each has a cache of its own.
            now.largest("vllm:kv_cache_usage_perc", None)
                .map(|share| 100.0 * share),
        ),
    ];
    named
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// What was sampled of the engine during a pass: its queue, and how full its KV cache was. A queue
/// that comes and goes within a pass is in no counter before or after it.
pub fn of_samples(summaries: &[Summary]) -> BTreeMap<String, f64> {
    let most = |metric| engine(summaries, metric).and_then(|summary| summary.max);
    let mean = |metric| engine(summaries, metric).and_then(|summary| summary.mean);
    let named = [
        ("kv_usage_max_percent", most("kv_cache_usage")),
        ("running_max_requests", running_max(summaries)),
        ("waiting_max_requests", most("waiting")),
        ("waiting_mean_requests", mean("waiting")),
    ];
    named
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// Most requests that the engine was seen to run at once.
pub fn running_max(summaries: &[Summary]) -> Option<f64> {
    engine(summaries, "running").and_then(|summary| summary.max)
}

fn engine<'s>(summaries: &'s [Summary], metric: &str) -> Option<&'s Summary> {
    let mut all = summaries.iter();
    all.find(|summary| summary.key.source == "engine" && summary.key.metric == metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::sample::{SeriesKey, Unit};

    #[test]
    fn the_most_that_was_sampled_of_queue_and_cache_is_told() {
        let summary = |source, metric, unit, mean, max| Summary {
            key: SeriesKey {
                source,
                device: "".into(),
                metric,
            },
            unit,
            samples: 9,
            late: 0,
            slowed: 0,
            every_s: Some(1.0),
            mean: Some(mean),
            max: Some(max),
            near_max: 0.1,
            total: None,
            covered: 1.0,
        };
        let figures = of_samples(&[
            summary("engine", "waiting", Unit::Count, 0.5, 7.0),
            summary("engine", "kv_cache_usage", Unit::Percent, 40.0, 99.5),
            summary("gpu", "running", Unit::Count, 1.0, 1.0),
        ]);
        let expected = [
            ("kv_usage_max_percent", 99.5),
            ("waiting_max_requests", 7.0),
            ("waiting_mean_requests", 0.5),
        ];
        assert_eq!(
            figures,
            expected
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        );
    }

    #[test]
    fn means_come_from_sums_and_counts_that_grew() {
        let text = |sum, count| {
            Scrape::parse(&format!(
                "vllm:request_queue_time_seconds_sum{{e=\"0\"}} {sum}\n\
                 vllm:request_queue_time_seconds_count{{e=\"0\"}} {count}\n\
                 vllm:num_preemptions_total{{e=\"0\"}} 3\n\
                 vllm:kv_cache_usage_perc{{e=\"0\"}} 0.9\n\
                 vllm:kv_cache_usage_perc{{e=\"1\"}} 0.7\n"
            ))
        };
        let figures = of_engine(&text(1.5, 12), &text(1.0, 2));
        assert!((figures["queue_time_mean_ms"] - 50.0).abs() < 1e-9);
        assert!(figures["preemptions"].abs() < 1e-9);
        assert!(!figures.contains_key("prefill_time_mean_ms"), "not exposed");
        let usage = figures["kv_usage_end_percent"];
        assert!(
            (usage - 90.0).abs() < 1e-9,
            "the fullest of two engines: {usage}"
        );
    }
}
