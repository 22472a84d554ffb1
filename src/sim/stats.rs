//! What the engine counts, under no particular wire format.

/// A cumulative histogram.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    pub(crate) bounds: &'static [f64],
    /// Per bucket, not cumulative; one more than `bounds`.
    pub(crate) counts: Vec<u64>,
    pub(crate) sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
        }
    }

    pub(crate) fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    pub(crate) fn observe_us(&mut self, us: u64) {
        self.observe(us as f64 / 1e6);
    }
}

const TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0,
];
const ITERATION: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0,
];
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const GAP: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const LATENCY: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
const COPIES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
const PREEMPTIONS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];
const TIER_TIME: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];
const TIER_SPEED: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0,
    32768.0, 65536.0, 131_072.0, 262_144.0, 524_288.0,
];

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FinishReason {
    /// The model produced its end token.
    Stop,
    /// `max_tokens` or the context length was reached.
    Length,
}

/// vLLM's counters and histograms.
#[derive(Clone, Debug)]
pub(crate) struct EngineStats {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) kv_usage: f64,
    pub(crate) prefix_queries: u64,
    pub(crate) prefix_hits: u64,
    pub(crate) external_queries: u64,
    pub(crate) external_hits: u64,
    pub(crate) preemptions: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) local_compute: u64,
    pub(crate) local_cache_hit: u64,
    pub(crate) external_transfer: u64,
    /// Of these, tokens from behind host memory.
    pub(crate) external_behind: u64,
    pub(crate) generation_tokens: u64,
    pub(crate) finished_stop: u64,
    pub(crate) finished_length: u64,
    pub(crate) request_prompt_tokens: Histogram,
    pub(crate) request_generation_tokens: Histogram,
    pub(crate) iteration_tokens: Histogram,
    pub(crate) max_generation_tokens: Histogram,
    pub(crate) params_n: Histogram,
    pub(crate) params_max_tokens: Histogram,
    pub(crate) ttft: Histogram,
    pub(crate) itl: Histogram,
    pub(crate) tpot: Histogram,
    pub(crate) e2e: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) inference: Histogram,
    pub(crate) prefill: Histogram,
    pub(crate) decode: Histogram,
    pub(crate) request_preemptions: Histogram,
    pub(crate) prefill_computed: Histogram,
}

impl EngineStats {
    pub(crate) fn new() -> Self {
        Self {
            running: 0,
            waiting: 0,
            kv_usage: 0.0,
            prefix_queries: 0,
            prefix_hits: 0,
            external_queries: 0,
            external_hits: 0,
            preemptions: 0,
            prompt_tokens: 0,
            local_compute: 0,
            local_cache_hit: 0,
            external_transfer: 0,
            external_behind: 0,
            generation_tokens: 0,
            finished_stop: 0,
            finished_length: 0,
            request_prompt_tokens: Histogram::new(TOKENS),
            request_generation_tokens: Histogram::new(TOKENS),
            iteration_tokens: Histogram::new(ITERATION),
            max_generation_tokens: Histogram::new(TOKENS),
            params_n: Histogram::new(COPIES),
            params_max_tokens: Histogram::new(TOKENS),
            ttft: Histogram::new(FIRST_TOKEN),
            itl: Histogram::new(GAP),
            tpot: Histogram::new(GAP),
            e2e: Histogram::new(LATENCY),
            queue: Histogram::new(LATENCY),
            inference: Histogram::new(LATENCY),
            prefill: Histogram::new(LATENCY),
            decode: Histogram::new(LATENCY),
            request_preemptions: Histogram::new(PREEMPTIONS),
            prefill_computed: Histogram::new(TOKENS),
        }
    }
}

/// LMCache's counters, gauges and histograms.
#[derive(Clone, Debug)]
pub(crate) struct TierStats {
    pub(crate) retrieve_requests: u64,
    pub(crate) store_requests: u64,
    pub(crate) lookup_requests: u64,
    pub(crate) requested_tokens: u64,
    pub(crate) hit_tokens: u64,
    pub(crate) stored_tokens: u64,
    pub(crate) lookup_tokens: u64,
    pub(crate) lookup_hits: u64,
    pub(crate) lookup_without_hit: u64,
    pub(crate) vllm_hit_tokens: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) remote_reads: u64,
    pub(crate) remote_read_bytes: u64,
    pub(crate) remote_writes: u64,
    pub(crate) remote_write_bytes: u64,
    pub(crate) cpu_evictions: u64,
    pub(crate) cpu_evicted_keys: u64,
    pub(crate) cpu_evictions_failed: u64,
    pub(crate) cpu_bytes: u64,
    pub(crate) cpu_chunks: usize,
    pub(crate) disk_bytes: u64,
    /// Bytes that were read from files, and written to them, whoever's RAM they went through.
    pub(crate) file_read_bytes: u64,
    pub(crate) file_write_bytes: u64,
    pub(crate) file_puts_pending: usize,
    pub(crate) remote_bytes: u64,
    pub(crate) remote_puts_pending: usize,
    pub(crate) time_to_retrieve: Histogram,
    pub(crate) time_to_store: Histogram,
    pub(crate) time_to_lookup: Histogram,
    /// Speed of loads, tokens a second.
    pub(crate) retrieve_speed: Histogram,
    /// Speed of stores, tokens a second.
    pub(crate) store_speed: Histogram,
}

impl TierStats {
    pub(crate) fn new() -> Self {
        Self {
            retrieve_requests: 0,
            store_requests: 0,
            lookup_requests: 0,
            requested_tokens: 0,
            hit_tokens: 0,
            stored_tokens: 0,
            lookup_tokens: 0,
            lookup_hits: 0,
            lookup_without_hit: 0,
            vllm_hit_tokens: 0,
            prompt_tokens: 0,
            remote_reads: 0,
            remote_read_bytes: 0,
            remote_writes: 0,
            remote_write_bytes: 0,
            cpu_evictions: 0,
            cpu_evicted_keys: 0,
            cpu_evictions_failed: 0,
            cpu_bytes: 0,
            cpu_chunks: 0,
            disk_bytes: 0,
            file_read_bytes: 0,
            file_write_bytes: 0,
            file_puts_pending: 0,
            remote_bytes: 0,
            remote_puts_pending: 0,
            time_to_retrieve: Histogram::new(TIER_TIME),
            time_to_store: Histogram::new(TIER_TIME),
            time_to_lookup: Histogram::new(TIER_TIME),
            retrieve_speed: Histogram::new(TIER_SPEED),
            store_speed: Histogram::new(TIER_SPEED),
        }
    }
}

/// Bytes that really moved: what NVML, diskstats and Redis INFO show on a real machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PhysicalBytes {
    /// Host to device, bytes.
    pub pcie_rx: u64,
    /// Device to host, bytes.
    pub pcie_tx: u64,
    /// Read from the disk, bytes.
    pub disk_read: u64,
    /// Written to the disk, bytes.
    pub disk_write: u64,
    /// Sent by Redis, bytes.
    pub redis_read: u64,
    /// Received by Redis, bytes.
    pub redis_write: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_is_below_it() {
        let mut histogram = Histogram::new(COPIES);
        for value in [1.0, 1.5, 2.0, 100.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.counts, [1, 2, 0, 0, 0, 1]);
        assert!((histogram.sum - 104.5).abs() < 1e-9);
    }
}
