//! `/metrics` in the Prometheus text format, under vLLM's and LMCache's names.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    driver::{OwnTier, Snapshot},
    prometheus::{Page, number},
    series::{ENGINE_COUNTERS, ENGINE_HISTOGRAMS, TIER_COUNTERS, TIER_HISTOGRAMS},
};
use crate::sim::lmcache_config::Connector;
use crate::sim::stats::{EngineStats, PhysicalBytes, TierStats};

/// vLLM's label of the files behind its RAM.
const FILES: &str = "1:fs";

/// Labels and constants of one server.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) model: String,
    pub(super) served_model: String,
    /// Labels of `vllm:cache_config_info`.
    pub(super) cache_config: String,
    /// Start of the process, seconds since 1970.
    pub(super) created_s: f64,
    /// KV bytes of a token, and tokens of a GPU block.
    pub(super) kv_bytes_per_token: u64,
    pub(super) block_tokens: u64,
    pub(super) healthy: bool,
    /// What `/version` answers.
    pub(super) version: String,
}

/// Finished HTTP requests by (handler, method, status class).
pub(super) type HttpCounts = BTreeMap<(String, String, String), u64>;

pub(super) fn page(identity: &Identity, snapshot: &Snapshot, http: &HttpCounts) -> String {
    let model = &identity.served_model;
    let mut page = Page::new(
        &[("engine", "0"), ("model_name", model)],
        identity.created_s,
    );
    page.engine_gauges(&snapshot.engine);
    page.engine_counters(&snapshot.engine, snapshot.own.is_some());
    if let Some(own) = &snapshot.own {
        page.own_tier(own, identity);
    }
    page.engine_histograms(&snapshot.engine);
    let name = "vllm:cache_config_info";
    page.head(name, "gauge", "Information of the LLMEngine CacheConfig");
    let _ = writeln!(page.text, "{name}{{{}}} 1.0", identity.cache_config);
    if let Some(tiers) = &snapshot.tiers {
        page.set_labels(&[
            ("model_name", &identity.model),
            ("role", "worker"),
            ("served_model_name", model),
            ("worker_id", "0"),
        ]);
        page.tier_counters(tiers);
        page.tier_gauges(tiers, identity);
        page.tier_histograms(tiers);
    }
    page.http(http);
    page.set_labels(&[]);
    page.physical(snapshot.physical);
    page.text
}

impl Page {
    fn engine_gauges(&mut self, stats: &EngineStats) {
        self.gauge(
            "vllm:num_requests_running",
            "Number of requests in model execution batches.",
            stats.running as f64,
        );
        self.gauge(
            "vllm:num_requests_waiting",
            "Number of requests waiting to be processed.",
            stats.waiting as f64,
        );
        let name = "vllm:num_requests_waiting_by_reason";
        self.head(name, "gauge", "Number of waiting requests by reason.");
        self.sample(name, Some(("reason", "capacity")), stats.waiting as f64);
        self.sample(name, Some(("reason", "deferred")), 0.0);
        let name = "vllm:engine_sleep_state";
        self.head(
            name,
            "gauge",
            "Engine sleep state; awake = 1 means engine is awake.",
        );
        for (state, value) in [
            ("awake", 1.0),
            ("weights_offloaded", 0.0),
            ("discard_all", 0.0),
        ] {
            self.sample(name, Some(("sleep_state", state)), value);
        }
        let help = "KV-cache usage. 1 means 100 percent usage.";
        self.gauge("vllm:kv_cache_usage_perc", help, stats.kv_usage);
    }

    /// A connector of vLLM's own names the tiers that it loads from.
    fn engine_counters(&mut self, stats: &EngineStats, names_tiers: bool) {
        for (name, help, value) in ENGINE_COUNTERS {
            self.counter(name, help, value(stats));
        }
        let sources = [
            ("local_compute", stats.local_compute),
            ("local_cache_hit", stats.local_cache_hit),
            ("external_kv_transfer", stats.external_transfer),
        ];
        let help = "Number of prompt tokens by source.";
        self.counters("vllm:prompt_tokens_by_source", help, "source", &sources);
        let (all, behind) = (stats.external_transfer, stats.external_behind);
        let (host, disk, unspecified) = if names_tiers {
            (all - behind, behind, 0)
        } else {
            (0, 0, all)
        };
        let sources = [
            ("device", stats.local_cache_hit),
            ("host", host),
            ("p2p", 0),
            ("disk", disk),
            ("external_unspecified", unspecified),
        ];
        let help = "Prefix-cache hit tokens by the cache tier that supplied them.";
        self.counters(
            "vllm:prompt_tokens_cached_by_source",
            help,
            "source",
            &sources,
        );
        let reasons = [
            ("stop", stats.finished_stop),
            ("length", stats.finished_length),
            ("abort", 0), // as measured: aborts are not counted
            ("error", 0),
            ("repetition", 0),
        ];
        let help = "Count of successfully processed requests.";
        self.counters("vllm:request_success", help, "finished_reason", &reasons);
    }

    fn own_tier(&mut self, own: &OwnTier, identity: &Identity) {
        let (stats, bytes) = (&own.stats, identity.kv_bytes_per_token);
        if own.connector == Connector::Simple {
            let blocks = identity.block_tokens;
            let stored = stats.stored_tokens / blocks;
            let outcomes = [("stored", stored), ("dropped_cpu_full", 0)];
            let name = "vllm:simple_kv_offload_save_outcomes";
            let help = "Store admission decisions in SimpleCPUOffloadConnector, by outcome.";
            self.counters(name, help, "outcome", &outcomes);
            let help = "KV blocks restored to GPU from the offload pool.";
            let name = "vllm:simple_kv_offload_load_blocks";
            self.counter(name, help, stats.hit_tokens / blocks);
            let name = "vllm:simple_kv_offload_pending_store_blocks";
            let help = "Offload blocks in pending stores.";
            self.gauge(name, help, stats.file_puts_pending as f64);
            return;
        }
        let help = "Total bytes loaded from offload storage to GPU.";
        let loaded = stats.hit_tokens * bytes;
        self.counter("vllm:kv_offload_load_bytes", help, loaded);
        let help = "Total bytes stored from GPU to offload storage.";
        let stored = stats.stored_tokens * bytes;
        self.counter("vllm:kv_offload_store_bytes", help, stored);
        if !own.has_files {
            return;
        }
        for (name, help, value) in [
            ("read", "Bytes read from a tier.", stats.file_read_bytes),
            ("write", "Bytes written to a tier.", stats.file_write_bytes),
        ] {
            let name = format!("vllm:kv_offload_tiering_{name}_bytes");
            self.counters(&name, help, "tier", &[(FILES, value)]);
        }
        let name = "vllm:kv_offload_tiering_active_cascade_jobs";
        self.head(name, "gauge", "Number of active cascade jobs.");
        let pending = stats.file_puts_pending as f64;
        self.sample(name, Some(("tier", FILES)), pending);
    }

    fn engine_histograms(&mut self, stats: &EngineStats) {
        for (name, help, histogram) in ENGINE_HISTOGRAMS {
            self.histogram(
                &format!("vllm:{name}"),
                &format!("Histogram of {help}."),
                histogram(stats),
            );
        }
    }

    fn tier_counters(&mut self, stats: &TierStats) {
        for (name, help, value) in TIER_COUNTERS {
            self.counter(
                &format!("lmcache:{name}"),
                &format!("Total number of {help}"),
                value(stats),
            );
        }
    }

    fn tier_gauges(&mut self, stats: &TierStats, identity: &Identity) {
        let ratio = |part: u64, all: u64| part as f64 / all.max(1) as f64;
        let failed_lookups = if identity.healthy { 0.0 } else { 1.0 };
        for (name, help, value) in [
            (
                "retrieve_hit_rate",
                "Hit rate of retrieve requests",
                ratio(stats.hit_tokens, stats.requested_tokens),
            ),
            (
                "lookup_hit_rate",
                "Hit rate of lookup requests",
                ratio(stats.lookup_hits, stats.lookup_tokens),
            ),
            (
                "local_cache_usage",
                "Local cache usage (bytes)",
                stats.cpu_bytes as f64,
            ),
            (
                "remote_cache_usage",
                "Remote cache usage (bytes)",
                stats.remote_bytes as f64,
            ),
            (
                "local_storage_usage",
                "Local storage usage (bytes)",
                stats.disk_bytes as f64,
            ),
            (
                "local_cpu_hot_cache_count",
                "The size of the hot_cache",
                stats.cpu_chunks as f64,
            ),
            (
                "remote_put_task_num",
                "The number of remote put tasks",
                stats.remote_puts_pending as f64,
            ),
            (
                "lmcache_is_healthy",
                "The health status of LMCache (1=healthy, 0=unhealthy)",
                1.0 - failed_lookups,
            ),
        ] {
            self.gauge(&format!("lmcache:{name}"), help, value);
        }
    }

    fn tier_histograms(&mut self, stats: &TierStats) {
        for (name, help, histogram) in TIER_HISTOGRAMS {
            self.histogram(&format!("lmcache:{name}"), help, histogram(stats));
        }
    }

    fn http(&mut self, counts: &HttpCounts) {
        let help = "Total number of requests by method, status and handler.";
        self.head("http_requests_total", "counter", help);
        for ((handler, method, status), count) in counts {
            let labels = format!(r#"handler="{handler}",method="{method}",status="{status}""#);
            let count = number(*count as f64);
            let _ = writeln!(self.text, "http_requests_total{{{labels}}} {count}");
        }
    }

    fn physical(&mut self, bytes: PhysicalBytes) {
        for (name, help, value) in [
            (
                "pcie_rx_bytes",
                "Bytes copied from host to device",
                bytes.pcie_rx,
            ),
            (
                "pcie_tx_bytes",
                "Bytes copied from device to host",
                bytes.pcie_tx,
            ),
            (
                "disk_read_bytes",
                "Bytes read from the disk",
                bytes.disk_read,
            ),
            (
                "disk_write_bytes",
                "Bytes written to the disk",
                bytes.disk_write,
            ),
            ("redis_read_bytes", "Bytes sent by Redis", bytes.redis_read),
            (
                "redis_write_bytes",
                "Bytes received by Redis",
                bytes.redis_write,
            ),
        ] {
            let total = format!("labrun_sim_{name}_total");
            self.head(&total, "counter", &format!("{help} (simulated)."));
            self.sample(&total, None, value as f64);
        }
    }
}
