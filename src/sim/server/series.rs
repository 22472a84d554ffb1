//! Names and help texts of the counters and histograms.

use crate::sim::stats::{EngineStats, Histogram, TierStats};

/// A counter: name, help text, and how to read its value.
type CounterRow<S> = (&'static str, &'static str, fn(&S) -> u64);
/// A histogram: name, help text, and how to read it.
type HistogramRow<S> = (&'static str, &'static str, fn(&S) -> &Histogram);

pub(super) const ENGINE_COUNTERS: [CounterRow<EngineStats>; 8] = [
    (
        "vllm:prefix_cache_queries",
        "Prefix cache queries, in terms of number of queried tokens.",
        |stats| stats.prefix_queries,
    ),
    (
        "vllm:prefix_cache_hits",
        "Prefix cache hits, in terms of number of cached tokens.",
        |stats| stats.prefix_hits,
    ),
    (
        "vllm:external_prefix_cache_queries",
        "External prefix cache queries from KV connector cross-instance cache sharing, \
                 in terms of number of queried tokens.",
        |stats| stats.external_queries,
    ),
    (
        "vllm:external_prefix_cache_hits",
        "External prefix cache hits from KV connector cross-instance cache sharing, in \
                 terms of number of cached tokens.",
        |stats| stats.external_hits,
    ),
    (
        "vllm:num_preemptions",
        "Cumulative number of preemption from the engine.",
        |stats| stats.preemptions,
    ),
    (
        "vllm:prompt_tokens",
        "Number of prefill tokens processed.",
        |stats| stats.prompt_tokens,
    ),
    (
        "vllm:prompt_tokens_cached",
        "Number of cached prompt tokens (local + external).",
        |stats| stats.local_cache_hit + stats.external_transfer,
    ),
    (
        "vllm:generation_tokens",
        "Number of generation tokens processed.",
        |stats| stats.generation_tokens,
    ),
];

pub(super) const ENGINE_HISTOGRAMS: [HistogramRow<EngineStats>; 16] = [
    (
        "request_prompt_tokens",
        "prefill tokens processed",
        |stats| &stats.request_prompt_tokens,
    ),
    (
        "request_generation_tokens",
        "generation tokens processed",
        |stats| &stats.request_generation_tokens,
    ),
    (
        "iteration_tokens_total",
        "number of tokens per engine_step",
        |stats| &stats.iteration_tokens,
    ),
    (
        "request_max_num_generation_tokens",
        "maximum number of requested generation tokens",
        |stats| &stats.max_generation_tokens,
    ),
    ("request_params_n", "the n request parameter", |stats| {
        &stats.params_n
    }),
    (
        "request_params_max_tokens",
        "the max_tokens request parameter",
        |stats| &stats.params_max_tokens,
    ),
    (
        "time_to_first_token_seconds",
        "time to first token in seconds",
        |stats| &stats.ttft,
    ),
    (
        "inter_token_latency_seconds",
        "inter-token latency in seconds",
        |stats| &stats.itl,
    ),
    (
        "request_time_per_output_token_seconds",
        "time_per_output_token_seconds per request",
        |stats| &stats.tpot,
    ),
    (
        "e2e_request_latency_seconds",
        "e2e request latency in seconds",
        |stats| &stats.e2e,
    ),
    (
        "request_queue_time_seconds",
        "time spent in WAITING phase for request",
        |stats| &stats.queue,
    ),
    (
        "request_inference_time_seconds",
        "time spent in RUNNING phase for request",
        |stats| &stats.inference,
    ),
    (
        "request_prefill_time_seconds",
        "time spent in PREFILL phase for request",
        |stats| &stats.prefill,
    ),
    (
        "request_decode_time_seconds",
        "time spent in DECODE phase for request",
        |stats| &stats.decode,
    ),
    (
        "request_num_preemptions",
        "the number of times a request was preempted",
        |stats| &stats.request_preemptions,
    ),
    (
        "request_prefill_kv_computed_tokens",
        "new KV tokens computed during prefill (excluding cached tokens)",
        |stats| &stats.prefill_computed,
    ),
];

pub(super) const TIER_COUNTERS: [CounterRow<TierStats>; 19] = [
    ("num_retrieve_requests", "retrieve requests", |stats| {
        stats.retrieve_requests
    }),
    ("num_store_requests", "store requests", |stats| {
        stats.store_requests
    }),
    ("num_lookup_requests", "lookup requests", |stats| {
        stats.lookup_requests
    }),
    (
        "num_requested_tokens",
        "tokens requested from lmcache",
        |stats| stats.requested_tokens,
    ),
    ("num_hit_tokens", "tokens hit in lmcache", |stats| {
        stats.hit_tokens
    }),
    ("num_stored_tokens", "tokens stored in lmcache", |stats| {
        stats.stored_tokens
    }),
    ("num_lookup_tokens", "tokens requested in lookup", |stats| {
        stats.lookup_tokens
    }),
    ("num_lookup_hits", "tokens hit in lookup", |stats| {
        stats.lookup_hits
    }),
    ("num_vllm_hit_tokens", "tokens hit in vllm", |stats| {
        stats.vllm_hit_tokens
    }),
    ("num_prompt_tokens", "prompt tokens", |stats| {
        stats.prompt_tokens
    }),
    (
        "num_remote_read_requests",
        "remote read requests",
        |stats| stats.remote_reads,
    ),
    ("num_remote_read_bytes", "bytes read from remote", |stats| {
        stats.remote_read_bytes
    }),
    (
        "num_remote_write_requests",
        "remote write requests",
        |stats| stats.remote_writes,
    ),
    (
        "num_remote_write_bytes",
        "bytes written to remote",
        |stats| stats.remote_write_bytes,
    ),
    ("local_cpu_evict_count", "local cpu evictions", |stats| {
        stats.cpu_evictions
    }),
    (
        "local_cpu_evict_keys_count",
        "evicted local cpu keys",
        |stats| stats.cpu_evicted_keys,
    ),
    (
        "local_cpu_evict_failed_count",
        "failed evictions",
        |stats| stats.cpu_evictions_failed,
    ),
    ("forced_unpin_count", "forced unpins", |_| 0),
    ("lookup_0_hit_requests", "lookups without a hit", |stats| {
        stats.lookup_without_hit
    }),
];

pub(super) const TIER_HISTOGRAMS: [HistogramRow<TierStats>; 5] = [
    (
        "time_to_retrieve",
        "Time to retrieve from lmcache (seconds)",
        |stats| &stats.time_to_retrieve,
    ),
    (
        "time_to_store",
        "Time to store to lmcache (seconds)",
        |stats| &stats.time_to_store,
    ),
    (
        "time_to_lookup",
        "Time to lookup in lmcache (seconds)",
        |stats| &stats.time_to_lookup,
    ),
    (
        "retrieve_speed",
        "Retrieve speed (tokens/second)",
        |stats| &stats.retrieve_speed,
    ),
    ("store_speed", "Store speed (tokens/second)", |stats| {
        &stats.store_speed
    }),
];
