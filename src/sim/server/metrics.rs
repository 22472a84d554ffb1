//! `/metrics` in the Prometheus text format, under vLLM's and LMCache's names.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    driver::Snapshot,
    prometheus::{Page, number},
};
use crate::sim::stats::{EngineStats, PhysicalBytes, TierStats};

/// Labels and constants of one server.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) model: String,
    pub(super) served_model: String,
    /// Labels of `vllm:cache_config_info`.
    pub(super) cache_config: String,
    /// Start of the process, seconds since 1970.
    pub(super) created_s: f64,
    /// Source label of what the connector loads.
    pub(super) external_source: &'static str,
    pub(super) healthy: bool,
}

/// Finished HTTP requests by (handler, method, status class).
pub(super) type HttpCounts = BTreeMap<(String, String, String), u64>;

/// The whole page.
pub(super) fn page(identity: &Identity, snapshot: &Snapshot, http: &HttpCounts) -> String {
    let model = &identity.served_model;
    let mut page = Page::new(
        &[("engine", "0"), ("model_name", model)],
        identity.created_s,
    );
    page.engine_gauges(&snapshot.engine);
    page.engine_counters(&snapshot.engine, identity);
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

    fn engine_counters(&mut self, stats: &EngineStats, identity: &Identity) {
        let cached = stats.local_cache_hit + stats.external_transfer;
        for (name, help, value) in [
            (
                "vllm:prefix_cache_queries",
                "Prefix cache queries, in terms of number of queried tokens.",
                stats.prefix_queries,
            ),
            (
                "vllm:prefix_cache_hits",
                "Prefix cache hits, in terms of number of cached tokens.",
                stats.prefix_hits,
            ),
            (
                "vllm:external_prefix_cache_queries",
                "External prefix cache queries from KV connector cross-instance cache sharing, \
                 in terms of number of queried tokens.",
                stats.external_queries,
            ),
            (
                "vllm:external_prefix_cache_hits",
                "External prefix cache hits from KV connector cross-instance cache sharing, in \
                 terms of number of cached tokens.",
                stats.external_hits,
            ),
            (
                "vllm:num_preemptions",
                "Cumulative number of preemption from the engine.",
                stats.preemptions,
            ),
            (
                "vllm:prompt_tokens",
                "Number of prefill tokens processed.",
                stats.prompt_tokens,
            ),
            (
                "vllm:prompt_tokens_cached",
                "Number of cached prompt tokens (local + external).",
                cached,
            ),
            (
                "vllm:generation_tokens",
                "Number of generation tokens processed.",
                stats.generation_tokens,
            ),
        ] {
            self.counter(name, help, value);
        }
        let sources = [
            ("local_compute", stats.local_compute),
            ("local_cache_hit", stats.local_cache_hit),
            ("external_kv_transfer", stats.external_transfer),
        ];
        let help = "Number of prompt tokens by source.";
        self.counters("vllm:prompt_tokens_by_source", help, "source", &sources);
        let loaded = |source| match source == identity.external_source {
            true => stats.external_transfer,
            false => 0,
        };
        let others = ["host", "p2p", "disk", "external_unspecified"];
        let mut sources = vec![("device", stats.local_cache_hit)];
        sources.extend(others.map(|source| (source, loaded(source))));
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

    fn engine_histograms(&mut self, stats: &EngineStats) {
        for (name, help, histogram) in [
            (
                "request_prompt_tokens",
                "prefill tokens processed",
                &stats.request_prompt_tokens,
            ),
            (
                "request_generation_tokens",
                "generation tokens processed",
                &stats.request_generation_tokens,
            ),
            (
                "iteration_tokens_total",
                "number of tokens per engine_step",
                &stats.iteration_tokens,
            ),
            (
                "request_max_num_generation_tokens",
                "maximum number of requested generation tokens",
                &stats.max_generation_tokens,
            ),
            (
                "request_params_n",
                "the n request parameter",
                &stats.params_n,
            ),
            (
                "request_params_max_tokens",
                "the max_tokens request parameter",
                &stats.params_max_tokens,
            ),
            (
                "time_to_first_token_seconds",
                "time to first token in seconds",
                &stats.ttft,
            ),
            (
                "inter_token_latency_seconds",
                "inter-token latency in seconds",
                &stats.itl,
            ),
            (
                "request_time_per_output_token_seconds",
                "time_per_output_token_seconds per request",
                &stats.tpot,
            ),
            (
                "e2e_request_latency_seconds",
                "e2e request latency in seconds",
                &stats.e2e,
            ),
            (
                "request_queue_time_seconds",
                "time spent in WAITING phase for request",
                &stats.queue,
            ),
            (
                "request_inference_time_seconds",
                "time spent in RUNNING phase for request",
                &stats.inference,
            ),
            (
                "request_prefill_time_seconds",
                "time spent in PREFILL phase for request",
                &stats.prefill,
            ),
            (
                "request_decode_time_seconds",
                "time spent in DECODE phase for request",
                &stats.decode,
            ),
            (
                "request_num_preemptions",
                "the number of times a request was preempted",
                &stats.request_preemptions,
            ),
            (
                "request_prefill_kv_computed_tokens",
                "new KV tokens computed during prefill (excluding cached tokens)",
                &stats.prefill_computed,
            ),
        ] {
            self.histogram(
                &format!("vllm:{name}"),
                &format!("Histogram of {help}."),
                histogram,
            );
        }
    }

    fn tier_counters(&mut self, stats: &TierStats) {
        for (name, help, value) in [
            (
                "num_retrieve_requests",
                "retrieve requests",
                stats.retrieve_requests,
            ),
            ("num_store_requests", "store requests", stats.store_requests),
            (
                "num_lookup_requests",
                "lookup requests",
                stats.lookup_requests,
            ),
            (
                "num_requested_tokens",
                "tokens requested from lmcache",
                stats.requested_tokens,
            ),
            ("num_hit_tokens", "tokens hit in lmcache", stats.hit_tokens),
            (
                "num_stored_tokens",
                "tokens stored in lmcache",
                stats.stored_tokens,
            ),
            (
                "num_lookup_tokens",
                "tokens requested in lookup",
                stats.lookup_tokens,
            ),
            ("num_lookup_hits", "tokens hit in lookup", stats.lookup_hits),
            (
                "num_vllm_hit_tokens",
                "tokens hit in vllm",
                stats.vllm_hit_tokens,
            ),
            ("num_prompt_tokens", "prompt tokens", stats.prompt_tokens),
            (
                "num_remote_read_requests",
                "remote read requests",
                stats.remote_reads,
            ),
            (
                "num_remote_read_bytes",
                "bytes read from remote",
                stats.remote_read_bytes,
            ),
            (
                "num_remote_write_requests",
                "remote write requests",
                stats.remote_writes,
            ),
            (
                "num_remote_write_bytes",
                "bytes written to remote",
                stats.remote_write_bytes,
            ),
            (
                "local_cpu_evict_count",
                "local cpu evictions",
                stats.cpu_evictions,
            ),
            (
                "local_cpu_evict_keys_count",
                "evicted local cpu keys",
                stats.cpu_evicted_keys,
            ),
            (
                "local_cpu_evict_failed_count",
                "failed evictions",
                stats.cpu_evictions_failed,
            ),
            ("forced_unpin_count", "forced unpins", 0),
            (
                "lookup_0_hit_requests",
                "lookups without a hit",
                stats.lookup_without_hit,
            ),
        ] {
            self.counter(
                &format!("lmcache:{name}"),
                &format!("Total number of {help}"),
                value,
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
        for (name, help, histogram) in [
            (
                "time_to_retrieve",
                "Time to retrieve from lmcache (seconds)",
                &stats.time_to_retrieve,
            ),
            (
                "time_to_store",
                "Time to store to lmcache (seconds)",
                &stats.time_to_store,
            ),
            (
                "time_to_lookup",
                "Time to lookup in lmcache (seconds)",
                &stats.time_to_lookup,
            ),
            (
                "retrieve_speed",
                "Retrieve speed (tokens/second)",
                &stats.retrieve_speed,
            ),
            (
                "store_speed",
                "Store speed (tokens/second)",
                &stats.store_speed,
            ),
        ] {
            self.histogram(&format!("lmcache:{name}"), help, histogram);
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
