//! Which series of `/metrics` are recorded, and under which names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::series::{Series, Source};
use crate::server::prom::Scrape;
use crate::telemetry::sample::{Batch, Growth};

/// How a series of `/metrics` becomes one of ours.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// As it is, times a factor; of several engines their sum.
    Level(f64),
    /// As it is, times a factor; of several engines the largest: each has a share of its own.
    Largest(f64),
    /// The growth of a counter; one that fell restarted at zero.
    Growth,
}

/// Name and label there, series here.
pub(super) type Row = (&'static str, Option<&'static str>, Series, Shape);

const GROWTH: Shape = Shape::Growth;
const LEVEL: Shape = Shape::Level(1.0);

/// Of the engine (vLLM's names; in-process LMCache exposes its own beside them).
pub(super) const ENGINE: [Row; 19] = [
    (
        "vllm:num_requests_running",
        None,
        Series::EngineRunning,
        LEVEL,
    ),
    (
        "vllm:num_requests_waiting",
        None,
        Series::EngineWaiting,
        LEVEL,
    ),
    (
        "vllm:kv_cache_usage_perc",
        None,
        Series::EngineKvCacheUsage,
        Shape::Largest(100.0),
    ),
    (
        "vllm:num_preemptions_total",
        None,
        Series::EnginePreemptions,
        GROWTH,
    ),
    (
        "vllm:prompt_tokens_total",
        None,
        Series::EnginePromptTokens,
        GROWTH,
    ),
    (
        "vllm:generation_tokens_total",
        None,
        Series::EngineOutputTokens,
        GROWTH,
    ),
    (
        "vllm:prompt_tokens_by_source_total",
        Some("source=\"local_compute\""),
        Series::EngineComputedTokens,
        GROWTH,
    ),
    (
        "vllm:prompt_tokens_by_source_total",
        Some("source=\"local_cache_hit\""),
        Series::EngineGpuHitTokens,
        GROWTH,
    ),
    (
        "vllm:prompt_tokens_by_source_total",
        Some("source=\"external_kv_transfer\""),
        Series::EngineTierHitTokens,
        GROWTH,
    ),
    (
        "vllm:kv_offload_load_bytes_total",
        None,
        Series::EngineOffloadLoad,
        GROWTH,
    ),
    (
        "vllm:kv_offload_store_bytes_total",
        None,
        Series::EngineOffloadStore,
        GROWTH,
    ),
    // LMCache updates these every ten seconds. With a model split over GPUs, each worker counts the
    // same tokens, and its own bytes.
    (
        "lmcache:num_hit_tokens_total",
        Some("worker_id=\"0\""),
        Series::EngineLmcacheHitTokens,
        GROWTH,
    ),
    (
        "lmcache:num_stored_tokens_total",
        Some("worker_id=\"0\""),
        Series::EngineLmcacheStoredTokens,
        GROWTH,
    ),
    (
        "lmcache:num_remote_read_bytes_total",
        None,
        Series::EngineLmcacheRemoteRead,
        GROWTH,
    ),
    (
        "lmcache:num_remote_write_bytes_total",
        None,
        Series::EngineLmcacheRemoteWrite,
        GROWTH,
    ),
    (
        "lmcache:local_cache_usage",
        None,
        Series::EngineLmcacheRam,
        LEVEL,
    ),
    (
        "lmcache:local_storage_usage",
        None,
        Series::EngineLmcacheDisk,
        LEVEL,
    ),
    (
        "lmcache:remote_cache_usage",
        None,
        Series::EngineLmcacheRemote,
        LEVEL,
    ),
    (
        "lmcache:remote_put_task_num",
        None,
        Series::EngineLmcacheRemotePuts,
        LEVEL,
    ),
];

/// Of an LMCache server of its own.
pub(super) const LMCACHE: [Row; 6] = [
    (
        "lmcache_mp_lookup_hit_l1_tokens_total",
        None,
        Series::LmcacheRamHitTokens,
        GROWTH,
    ),
    (
        "lmcache_mp_lookup_hit_l2_tokens_total",
        None,
        Series::LmcacheSecondHitTokens,
        GROWTH,
    ),
    (
        "lmcache_mp_num_chunks_loaded_total",
        None,
        Series::LmcacheLoadedChunks,
        GROWTH,
    ),
    (
        "lmcache_mp_l1_write_chunks_total",
        None,
        Series::LmcacheRamStoredChunks,
        GROWTH,
    ),
    (
        "lmcache_mp_l2_store_submitted_objects_chunks_total",
        None,
        Series::LmcacheSecondSubmittedChunks,
        GROWTH,
    ),
    (
        "lmcache_mp_l2_store_completed_objects_chunks_total",
        None,
        Series::LmcacheSecondStoredChunks,
        GROWTH,
    ),
];

/// Of the simulator: bytes that it pretends to move. Source and method mark them as simulated.
pub(super) const SIMULATED: [Row; 6] = [
    (
        "labrun_sim_pcie_rx_bytes_total",
        None,
        Series::SimulatedPcieRx,
        GROWTH,
    ),
    (
        "labrun_sim_pcie_tx_bytes_total",
        None,
        Series::SimulatedPcieTx,
        GROWTH,
    ),
    (
        "labrun_sim_disk_read_bytes_total",
        None,
        Series::SimulatedDiskRead,
        GROWTH,
    ),
    (
        "labrun_sim_disk_write_bytes_total",
        None,
        Series::SimulatedDiskWrite,
        GROWTH,
    ),
    (
        "labrun_sim_redis_read_bytes_total",
        None,
        Series::SimulatedRedisRead,
        GROWTH,
    ),
    (
        "labrun_sim_redis_write_bytes_total",
        None,
        Series::SimulatedRedisWrite,
        GROWTH,
    ),
];

/// Rows of tables to series, with what the counters stood at.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// With whether it was ever shown.
    growth: BTreeMap<Series, (Growth, bool)>,
}

impl Rows {
    /// Adds the series of `rows` that `scrape` has.
    pub(super) fn keep(&mut self, rows: &[Row], scrape: &Scrape, batch: &mut Batch) {
        // A file that names only devices marks simulated bytes by this one.
        let is_simulated = |row: &Row| row.2.source() == Source::Simulated;
        let device: Arc<str> = match rows.first().filter(|row| is_simulated(row)) {
            Some(_) => Source::Simulated.name().into(),
            None => "".into(),
        };
        for &(name, label, series, shape) in rows {
            let value = match shape {
                Shape::Largest(_) => scrape.largest(name, label),
                Shape::Level(_) | Shape::Growth => scrape.sum(name, label),
            };
            match (shape, value) {
                (Shape::Level(factor) | Shape::Largest(factor), Some(value)) => {
                    batch.level(series, &device, value * factor);
                }
                (Shape::Level(_) | Shape::Largest(_), None) => {}
                (Shape::Growth, value) => {
                    let (growth, was_shown) = self.growth.entry(series).or_default();
                    // A counter may be shown only once it counts: until then it is zero.
                    let Some(value) = value else {
                        if !*was_shown && !scrape.exposes(name, label) {
                            growth.of(batch.at, 0.0);
                        }
                        continue;
                    };
                    *was_shown = true;
                    if let Some((grown, span)) = growth.of(batch.at, value) {
                        batch.rate(series, &device, grown, span);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn scrape(text: &str) -> Scrape {
        Scrape::parse(text)
    }

    fn seconds(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    /// Points from answers two seconds apart.
    fn points_of(table: &[Row], texts: &[&str]) -> Vec<(&'static str, f64)> {
        let mut rows = Rows::default();
        let mut seen = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let mut batch = Batch::new(seconds(at as u64 * 2), false);
            rows.keep(table, &scrape(text), &mut batch);
            let points = batch.points().iter();
            seen.extend(points.map(|(key, point)| (key.series.name(), point.value)));
        }
        seen
    }

    #[test]
    fn counters_become_rates_also_over_a_restart() {
        let texts = [
            "vllm:prompt_tokens_total 100\nvllm:num_requests_waiting 3\n",
            "vllm:prompt_tokens_total 300\nvllm:num_requests_waiting 5\n",
            // The engine was started again: it counts from zero.
            "vllm:prompt_tokens_total 50\nvllm:num_requests_waiting 0\n",
        ];
        let seen = points_of(&ENGINE, &texts);
        assert_eq!(
            seen,
            [
                ("waiting", 3.0),
                ("waiting", 5.0),
                ("prompt_tokens", 100.0),
                ("waiting", 0.0),
                ("prompt_tokens", 25.0),
            ]
        );
    }

    #[test]
    fn a_counter_that_is_shown_once_it_counts_began_at_zero() {
        let texts = [
            "lmcache_mp_l1_write_chunks_total 4\n",
            "lmcache_mp_l1_write_chunks_total 4\nlmcache_mp_lookup_hit_l1_tokens_total{m=\"x\"} 2048\n",
            // A counter that an answer lacks gets no point.
            "lmcache_mp_l1_write_chunks_total 4\n",
            "lmcache_mp_l1_write_chunks_total 4\nlmcache_mp_lookup_hit_l1_tokens_total{m=\"x\"} 2048\n",
        ];
        let seen = points_of(&LMCACHE, &texts);
        let expected = [
            ("ram_hit_tokens", 1024.0),
            ("ram_stored_chunks", 0.0),
            ("ram_stored_chunks", 0.0),
            ("ram_hit_tokens", 0.0),
            ("ram_stored_chunks", 0.0),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_kv_cache_of_several_engines_is_as_full_as_the_fullest() {
        let texts = [
            "vllm:kv_cache_usage_perc{engine=\"0\"} 0.9\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.7\n\
             vllm:num_requests_running{engine=\"0\"} 2\nvllm:num_requests_running{engine=\"1\"} 1\n",
        ];
        let seen = points_of(&ENGINE, &texts);
        assert_eq!(seen, [("running", 3.0), ("kv_cache_usage", 90.0)]);
    }

    #[test]
    fn what_is_not_a_number_is_neither_a_point_nor_a_zero_to_count_from() {
        let texts = [
            "vllm:prompt_tokens_total NaN\nvllm:num_requests_waiting NaN\n",
            "vllm:prompt_tokens_total 500\nvllm:num_requests_waiting 1\n",
            "vllm:prompt_tokens_total +Inf\n",
            "vllm:prompt_tokens_total 700\n",
        ];
        let seen = points_of(&ENGINE, &texts);
        assert_eq!(seen, [("waiting", 1.0), ("prompt_tokens", 50.0)]);
    }

    #[test]
    fn tokens_of_lmcache_in_process_are_counted_once_and_bytes_by_each_worker() {
        let of = |tokens: u32, bytes: u32| {
            let labels = |worker| format!("{{role=\"worker\",worker_id=\"{worker}\"}}");
            let line = |name: &str, worker, value| {
                format!("lmcache:{name}_total{} {value}\n", labels(worker))
            };
            (0..2)
                .map(|worker| {
                    let bytes = line("num_remote_read_bytes", worker, bytes);
                    line("num_hit_tokens", worker, tokens) + &bytes
                })
                .collect::<String>()
        };
        let mut rows = Rows::default();
        rows.keep(
            &ENGINE,
            &scrape(&of(0, 0)),
            &mut Batch::new(seconds(0), false),
        );
        let mut batch = Batch::new(seconds(1), false);
        rows.keep(&ENGINE, &scrape(&of(256, 1000)), &mut batch);
        let points = batch.points().iter();
        let seen: Vec<_> = points
            .map(|(key, point)| (key.series.name(), point.value))
            .collect();
        let expected = [
            ("lmcache_hit_tokens", 256.0),
            ("lmcache_remote_read", 2000.0),
        ];
        assert_eq!(seen, expected);
    }
}
