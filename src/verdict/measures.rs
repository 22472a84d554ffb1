//! The measures of a pass by name, the unit last, as records have them.

use std::collections::BTreeMap;

use super::account::EngineAccount;
use super::causes::Causes;
use super::facts::Facts;
use super::failures::Failure;
use super::log_counts::{LogCounts, Moved};
use super::text::Canaries;
use super::witnesses::Counted;
use crate::evidence::Evidence;
use crate::series::Series;
use crate::server::prom::Scrape;
use crate::telemetry::summary::Summary;
use crate::units::Bounds;

/// The measures that the verdict rests on, and the tier's cost by the logs.
pub(crate) fn of_facts(facts: &Facts) -> BTreeMap<Evidence, f64> {
    let sources = facts.by_source;
    let probed = facts.probe;
    let port = facts.connector.as_ref().and_then(|it| it.port.as_ref());
    let hits = sources.map(|s| s.gpu_tokens + s.external_tokens);
    let mut all = known([
        (Evidence::ComputedTokens, sources.map(|s| s.computed_tokens)),
        (Evidence::GpuCacheTokens, sources.map(|s| s.gpu_tokens)),
        (Evidence::ExternalTokens, sources.map(|s| s.external_tokens)),
        (Evidence::ExpectedHitTokens, Some(facts.expected_hit_tokens)),
        (
            Evidence::HitsPerRequestTokens,
            hits.filter(|_| facts.ok > 0)
                .map(|hits| hits / facts.ok as f64),
        ),
        (Evidence::SharedTokens, Some(facts.shared_tokens)),
        (Evidence::RepeatedTokens, Some(facts.repeated_tokens)),
        (
            Evidence::LmcacheRamTokens,
            facts.account.map(|a| a.ram_tokens),
        ),
        (
            Evidence::LmcacheSecondLayerTokens,
            facts.account.map(|a| a.second_tokens),
        ),
        (Evidence::StoredTokens, facts.stored_tokens),
        (
            Evidence::ProbeExpectedTokens,
            probed.map(|p| p.expected_tokens),
        ),
        (
            Evidence::ProbeGpuTokens,
            probed.map(|p| p.sources.gpu_tokens),
        ),
        (
            Evidence::ProbeExternalTokens,
            probed.map(|p| p.sources.external_tokens),
        ),
        (
            Evidence::KvBytesPerToken,
            facts.kv.stored.or(facts.kv.device).map(Bounds::middle),
        ),
        (
            Evidence::PcieRxBytes,
            facts.pcie_rx_bytes.map(Bounds::middle),
        ),
        (
            Evidence::PcieTxBytes,
            facts.pcie_tx_bytes.map(Bounds::middle),
        ),
        (Evidence::DiskReadBytes, facts.disk_read_bytes),
        (Evidence::DiskWriteBytes, facts.disk_write_bytes),
        (Evidence::RedisReadBytes, facts.redis_read_bytes),
        (Evidence::RedisWriteBytes, facts.redis_write_bytes),
        (
            Evidence::PortReadBytes,
            port.and_then(|it| it.received).map(|it| it.bytes),
        ),
        (
            Evidence::PortWriteBytes,
            port.and_then(|it| it.sent).map(|it| it.bytes),
        ),
    ]);
    all.extend(facts.canaries.map(of_canaries).unwrap_or_default());
    let within = facts.canaries_in_load.map(of_canaries_in_load);
    all.extend(within.unwrap_or_default());
    all.extend(of_logs(facts));
    all.extend(of_engine_account(&facts.engine));
    all.extend(of_counted(&facts.counted));
    all.extend(of_causes(&facts.causes));
    all
}

/// The engine's own account, and that of LMCache's server.
fn of_engine_account(engine: &EngineAccount) -> BTreeMap<Evidence, f64> {
    let cached = engine.cached;
    known([
        (Evidence::LmcacheLoadedTokens, engine.loaded_tokens),
        (Evidence::LmcacheStagedBytes, engine.staged_bytes),
        (Evidence::OffloadLoadBytes, engine.load_bytes),
        (Evidence::OffloadStoreBytes, engine.store_bytes),
        (Evidence::OffloadSecondReadBytes, engine.second_read_bytes),
        (Evidence::OffloadSecondWriteBytes, engine.second_write_bytes),
        (Evidence::CachedRamTokens, cached.map(|c| c.ram_tokens)),
        (
            Evidence::CachedBehindTokens,
            cached.map(|c| c.behind_tokens),
        ),
        (
            Evidence::CachedUnnamedTokens,
            cached.map(|c| c.unnamed_tokens),
        ),
    ])
}

/// What the server counted of the pass.
fn of_counted(counted: &Counted) -> BTreeMap<Evidence, f64> {
    known([
        (Evidence::ServerPromptTokens, counted.server_prompt_tokens),
        (Evidence::ServerOutputTokens, counted.server_output_tokens),
        (Evidence::RunningMaxRequests, counted.running_max),
    ])
}

/// What the comparison of canary answers rests on.
fn of_canaries(canaries: Canaries) -> BTreeMap<Evidence, f64> {
    let count = |number: u32| Some(f64::from(number));
    let Canaries {
        asked,
        answered,
        same,
        from_cache,
        scored,
        distance,
        sight,
    } = canaries;
    known([
        (Evidence::CanariesAsked, count(asked)),
        (Evidence::CanariesAnswered, count(answered)),
        (Evidence::CanariesFromCache, count(from_cache)),
        (Evidence::CanariesSame, count(same)),
        (Evidence::CanariesScored, count(scored)),
        (Evidence::CanariesAltered, count(sight.altered)),
        (
            Evidence::CanariesAlteredChanged,
            count(sight.altered_changed),
        ),
        (Evidence::CanaryDistanceNats, finite(distance)),
        (Evidence::CanaryToleranceNats, finite(sight.tolerance)),
    ])
}

/// The same of those within the load.
fn of_canaries_in_load(canaries: Canaries) -> BTreeMap<Evidence, f64> {
    let count = |number: u32| Some(f64::from(number));
    known([
        (Evidence::InLoadCanaries, count(canaries.asked)),
        (Evidence::InLoadCanariesAnswered, count(canaries.answered)),
        (Evidence::InLoadCanariesSame, count(canaries.same)),
        (
            Evidence::InLoadToleranceNats,
            finite(canaries.sight.tolerance),
        ),
    ])
}

fn finite(number: f64) -> Option<f64> {
    Some(number).filter(|number| number.is_finite())
}

/// What explains a shortfall.
fn of_causes(causes: &Causes) -> BTreeMap<Evidence, f64> {
    let of_stores = causes.fill.iter().filter(|(one, _)| one.hits_stores());
    let fill: u64 = of_stores.map(|(_, count)| *count).sum();
    let documents = causes.documents;
    known([
        (Evidence::FillFailures, Some(fill as f64)),
        (Evidence::Documents, documents.map(|d| f64::from(d.of))),
        (
            Evidence::DocumentsMissed,
            documents.map(|d| f64::from(d.missed)),
        ),
    ])
}

/// The pass by LMCache's log.
fn of_logs(facts: &Facts) -> BTreeMap<Evidence, f64> {
    let logs = &facts.logs;
    let count = |failure| Some(logs.count(failure) as f64);
    let mean = |moved: Moved| (moved.lines > 0).then(|| moved.cost_ms / moved.lines as f64);
    known([
        (
            Evidence::LogStoredTokens,
            Some(logs.stored.tokens).filter(|t| *t > 0.0),
        ),
        (
            Evidence::LogRetrievedTokens,
            Some(logs.retrieved.tokens).filter(|t| *t > 0.0),
        ),
        (
            Evidence::TierLoadMeanMs,
            mean(logs.retrieved).filter(|_| facts.log_times_loads()),
        ),
        (Evidence::TierStoreMeanMs, mean(logs.stored)),
        (Evidence::LookupTimeouts, count(Failure::LookupTimedOut)),
        (Evidence::RemoteErrors, count(Failure::RemoteFailed)),
        (Evidence::AllocationFailures, count(Failure::BufferFull)),
        (Evidence::StoreFailures, count(Failure::StoreFailed)),
        (Evidence::LoadFailures, count(Failure::LoadFailed)),
        (Evidence::FileErrors, count(Failure::FileFailed)),
    ])
}

/// How many loads and stores the means of [`of_facts`] are of.
pub(crate) fn of_transfers(logs: &LogCounts) -> BTreeMap<Evidence, f64> {
    let count = |moved: Moved| (moved.lines > 0).then_some(moved.lines as f64);
    known([
        (Evidence::TierLoads, count(logs.retrieved)),
        (Evidence::TierStores, count(logs.stored)),
    ])
}

/// The engine's own counters of a pass besides those of where its tokens came from.
pub(crate) fn of_engine(now: &Scrape, before: &Scrape) -> BTreeMap<Evidence, f64> {
    let grown = |name: &str| now.growth(before, name, None);
    let mean_ms = |name: &str| {
        let count = grown(&format!("{name}_count")).filter(|count| *count > 0.0)?;
        Some(1e3 * grown(&format!("{name}_sum"))? / count)
    };
    let named = [
        (
            Evidence::ServerTtftMeanMs,
            mean_ms("vllm:time_to_first_token_seconds"),
        ),
        // Multi-process LMCache looks up and loads while a request waits in the queue.
        (
            Evidence::QueueTimeMeanMs,
            mean_ms("vllm:request_queue_time_seconds"),
        ),
        (
            Evidence::PrefillTimeMeanMs,
            mean_ms("vllm:request_prefill_time_seconds"),
        ),
        (Evidence::Preemptions, grown("vllm:num_preemptions_total")),
        (
            Evidence::KvUsageEndPercent,
            // Of several engines the fullest: each has a cache of its own.
            now.largest("vllm:kv_cache_usage_perc", None)
                .map(|share| 100.0 * share),
        ),
    ];
    known(named)
}

/// What was sampled of the engine during a pass: its queue, and how full its KV cache was. A queue
/// that comes and goes within a pass is in no counter before or after it.
pub(crate) fn of_samples(summaries: &[Summary]) -> BTreeMap<Evidence, f64> {
    let most = |series| of(summaries, series).and_then(|summary| summary.max);
    let mean = |series| of(summaries, series).and_then(|summary| summary.mean);
    let named = [
        (
            Evidence::KvUsageMaxPercent,
            most(Series::EngineKvCacheUsage),
        ),
        (Evidence::WaitingMaxRequests, most(Series::EngineWaiting)),
        (Evidence::WaitingMeanRequests, mean(Series::EngineWaiting)),
    ];
    known(named)
}

/// What is known of `named`: the rest is absent, not zero.
pub(crate) fn known<const N: usize>(
    named: [(Evidence, Option<f64>); N],
) -> BTreeMap<Evidence, f64> {
    let known = named.into_iter();
    known
        .filter_map(|(evidence, value)| Some((evidence, value?)))
        .collect()
}

/// Most requests that the engine was seen to run at once.
pub(crate) fn running_max(summaries: &[Summary]) -> Option<f64> {
    of(summaries, Series::EngineRunning).and_then(|summary| summary.max)
}

fn of(summaries: &[Summary], series: Series) -> Option<&Summary> {
    let mut all = summaries.iter();
    all.find(|summary| summary.key.series == series)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::sample::SeriesKey;

    #[test]
    fn the_most_that_was_sampled_of_queue_and_cache_is_reported() {
        let summary = |series, mean, max| Summary {
            key: SeriesKey {
                series,
                device: "".into(),
            },
            samples: 9,
            late: 0,
            slowed: 0,
            every_s: Some(1.0),
            mean: Some(mean),
            max: Some(max),
            near_max: 0.1,
            total: None,
            bounds: None,
            covered: 1.0,
        };
        let measures = of_samples(&[
            summary(Series::EngineWaiting, 0.5, 7.0),
            summary(Series::EngineKvCacheUsage, 40.0, 99.5),
            summary(Series::GpuProcesses, 1.0, 1.0),
        ]);
        let running = [summary(Series::EngineRunning, 1.5, 4.0)];
        assert_eq!(running_max(&running), Some(4.0));
        let expected = [
            (Evidence::KvUsageMaxPercent, 99.5),
            (Evidence::WaitingMaxRequests, 7.0),
            (Evidence::WaitingMeanRequests, 0.5),
        ];
        assert_eq!(measures, expected.into());
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
        let measures = of_engine(&text(1.5, 12), &text(1.0, 2));
        assert!((measures[&Evidence::QueueTimeMeanMs] - 50.0).abs() < 1e-9);
        assert!(measures[&Evidence::Preemptions].abs() < 1e-9);
        let of_one = of_engine(&text(1.5, 3), &text(1.0, 2));
        assert!((of_one[&Evidence::QueueTimeMeanMs] - 500.0).abs() < 1e-9);
        assert!(
            !measures.contains_key(&Evidence::PrefillTimeMeanMs),
            "not exposed"
        );
        let none = of_engine(&text(1.5, 12), &text(1.5, 12));
        assert!(
            !none.contains_key(&Evidence::QueueTimeMeanMs),
            "of no request"
        );
        let usage = measures[&Evidence::KvUsageEndPercent];
        assert!(
            (usage - 90.0).abs() < 1e-9,
            "the fullest of two engines: {usage}"
        );
    }
}
