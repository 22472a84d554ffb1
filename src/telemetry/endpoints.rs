//! What servers tell of themselves: the engine's and LMCache's `/metrics`, and Redis' `INFO`.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::sample::{Batch, Growth, Unit};
use super::thread::{Ended, Sampler};
use crate::server::control::{Control, Endpoint};
use crate::server::prom::Scrape;
use crate::server::redis::{Redis, RedisInfo, shown};

/// Longest wait for one answer: a busy engine answers late, a dead one never.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How a series of `/metrics` becomes one of ours.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// As it is, times a factor.
    Level(Unit, f64),
    /// What it grew by; a counter that fell began anew.
    Growth(Unit),
}

/// Name and label there, metric here.
type Row = (&'static str, Option<&'static str>, &'static str, Shape);

const PER_S: Shape = Shape::Growth(Unit::PerSecond);
const BYTES_PER_S: Shape = Shape::Growth(Unit::BytesPerSecond);
const COUNT: Shape = Shape::Level(Unit::Count, 1.0);
const BYTES: Shape = Shape::Level(Unit::Bytes, 1.0);

/// Of the engine (vLLM's names; in-process LMCache exposes its own beside them).
const ENGINE: [Row; 17] = [
    ("vllm:num_requests_running", None, "running", COUNT),
    ("vllm:num_requests_waiting", None, "waiting", COUNT),
    (
        "vllm:kv_cache_usage_perc",
        None,
        "kv_cache_usage",
        Shape::Level(Unit::Percent, 100.0),
    ),
    ("vllm:num_preemptions_total", None, "preemptions", PER_S),
    ("vllm:prompt_tokens_total", None, "prompt_tokens", PER_S),
    ("vllm:generation_tokens_total", None, "output_tokens", PER_S),
    (
        "vllm:prompt_tokens_by_source_total",
        Some("source=\"local_compute\""),
        "computed_tokens",
        PER_S,
    ),
    (
        "vllm:prompt_tokens_by_source_total",
        Some("source=\"local_cache_hit\""),
        "gpu_hit_tokens",
        PER_S,
    ),
    (
        "vllm:prompt_tokens_by_source_total",
        Some("source=\"external_kv_transfer\""),
        "tier_hit_tokens",
        PER_S,
    ),
    // LMCache tells of these every ten seconds. Each worker of a model that is split over GPUs counts
    // the same tokens, and its own bytes.
    (
        "lmcache:num_hit_tokens_total",
        Some("worker_id=\"0\""),
        "lmcache_hit_tokens",
        PER_S,
    ),
    (
        "lmcache:num_stored_tokens_total",
        Some("worker_id=\"0\""),
        "lmcache_stored_tokens",
        PER_S,
    ),
    (
        "lmcache:num_remote_read_bytes_total",
        None,
        "lmcache_remote_read",
        BYTES_PER_S,
    ),
    (
        "lmcache:num_remote_write_bytes_total",
        None,
        "lmcache_remote_write",
        BYTES_PER_S,
    ),
    ("lmcache:local_cache_usage", None, "lmcache_ram", BYTES),
    ("lmcache:local_storage_usage", None, "lmcache_disk", BYTES),
    ("lmcache:remote_cache_usage", None, "lmcache_remote", BYTES),
    (
        "lmcache:remote_put_task_num",
        None,
        "lmcache_remote_puts",
        COUNT,
    ),
];

/// Of an LMCache server of its own.
const LMCACHE: [Row; 5] = [
    (
        "lmcache_mp_lookup_hit_l1_tokens_total",
        None,
        "ram_hit_tokens",
        PER_S,
    ),
    (
        "lmcache_mp_lookup_hit_l2_tokens_total",
        None,
        "second_hit_tokens",
        PER_S,
    ),
    (
        "lmcache_mp_l1_write_chunks_total",
        None,
        "ram_stored_chunks",
        PER_S,
    ),
    (
        "lmcache_mp_l2_store_submitted_objects_chunks_total",
        None,
        "second_submitted_chunks",
        PER_S,
    ),
    (
        "lmcache_mp_l2_store_completed_objects_chunks_total",
        None,
        "second_stored_chunks",
        PER_S,
    ),
];

/// Of the simulator: what it pretends to move. Its source and the method say that it is simulated.
const SIMULATED: [Row; 6] = [
    (
        "labrun_sim_pcie_rx_bytes_total",
        None,
        "pcie_rx_simulated",
        BYTES_PER_S,
    ),
    (
        "labrun_sim_pcie_tx_bytes_total",
        None,
        "pcie_tx_simulated",
        BYTES_PER_S,
    ),
    (
        "labrun_sim_disk_read_bytes_total",
        None,
        "disk_read",
        BYTES_PER_S,
    ),
    (
        "labrun_sim_disk_write_bytes_total",
        None,
        "disk_write",
        BYTES_PER_S,
    ),
    (
        "labrun_sim_redis_read_bytes_total",
        None,
        "redis_read",
        BYTES_PER_S,
    ),
    (
        "labrun_sim_redis_write_bytes_total",
        None,
        "redis_write",
        BYTES_PER_S,
    ),
];

/// A runtime that is driven only while something is asked.
fn runtime() -> Result<Runtime, Ended> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Ended(format!("starting a sampler's runtime: {error}")))
}

fn ask<T>(runtime: &Runtime, question: impl Future<Output = anyhow::Result<T>>) -> Option<T> {
    let answer = runtime.block_on(async { tokio::time::timeout(ANSWER_LIMIT, question).await });
    answer.ok()?.ok()
}

/// Rows of tables to series, with what the counters stood at.
#[derive(Debug, Default)]
struct Rows {
    /// With whether it was ever shown.
    growth: BTreeMap<(&'static str, &'static str), (Growth, bool)>,
}

impl Rows {
    fn keep(&mut self, source: &'static str, rows: &[Row], scrape: &Scrape, batch: &mut Batch) {
        // Where a file names devices only, it still says so.
        let device: Arc<str> = if source == "simulated" { source } else { "" }.into();
        for &(name, label, metric, shape) in rows {
            match (shape, scrape.sum(name, label)) {
                (Shape::Level(unit, factor), Some(value)) => {
                    batch.level((source, &device, metric), unit, value * factor);
                }
                (Shape::Level(..), None) => {}
                (Shape::Growth(unit), value) => {
                    let (growth, was_shown) = self.growth.entry((source, metric)).or_default();
                    // A counter may be shown only once it counts: until then it is zero.
                    let Some(value) = value else {
                        if !*was_shown {
                            growth.of(batch.at, 0.0);
                        }
                        continue;
                    };
                    *was_shown = true;
                    if let Some((grown, span)) = growth.of(batch.at, value) {
                        batch.rate((source, &device, metric), unit, grown, span);
                    }
                }
            }
        }
    }
}

/// Reads `/metrics` of the engine, and of an LMCache server beside it.
pub struct EngineSampler {
    runtime: Runtime,
    control: Control,
    lmcache: Option<String>,
    interval: Duration,
    rows: Rows,
}

impl EngineSampler {
    /// Reads the engine at `endpoint`, and the LMCache server whose admin address is `lmcache`.
    pub fn new(
        endpoint: Endpoint,
        lmcache: Option<String>,
        interval: Duration,
    ) -> Result<Self, Ended> {
        let control = Control::new(endpoint).map_err(|error| Ended(format!("{error:#}")))?;
        Ok(Self {
            runtime: runtime()?,
            control,
            lmcache,
            interval,
            rows: Rows::default(),
        })
    }
}

impl Sampler for EngineSampler {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        // One that does not answer now is asked again: it may be busy, or going.
        if let Some(scrape) = ask(&self.runtime, self.control.metrics()) {
            batch.answered();
            self.rows.keep("engine", &ENGINE, &scrape, batch);
            self.rows.keep("simulated", &SIMULATED, &scrape, batch);
        }
        if let Some(url) = &self.lmcache {
            let url = format!("{url}/metrics");
            if let Some(scrape) = ask(&self.runtime, self.control.scrape(&url)) {
                batch.answered();
                self.rows.keep("lmcache", &LMCACHE, &scrape, batch);
            }
        }
        Ok(())
    }
}

/// Reads a Redis.
pub struct RedisSampler {
    runtime: Runtime,
    url: String,
    /// The connection; none since it broke.
    redis: Option<Redis>,
    device: Arc<str>,
    interval: Duration,
    growth: BTreeMap<&'static str, Growth>,
}

impl RedisSampler {
    /// Connects to the Redis at `url`.
    pub fn new(url: &str, interval: Duration) -> Result<Self, Ended> {
        let runtime = runtime()?;
        let connected = runtime.block_on(Redis::connect(url));
        let redis =
            connected.map_err(|error| Ended(format!("no telemetry of Redis: {error:#}")))?;
        Ok(Self {
            runtime,
            url: url.to_owned(),
            redis: Some(redis),
            device: shown(url).into(),
            interval,
            growth: BTreeMap::new(),
        })
    }
}

impl RedisSampler {
    /// What it says now. A connection that broke is made again at the next reading.
    fn info(&mut self) -> Option<RedisInfo> {
        if self.redis.is_none() {
            self.redis = ask(&self.runtime, Redis::connect(&self.url));
        }
        let info = ask(&self.runtime, self.redis.as_ref()?.info());
        if info.is_none() {
            self.redis = None;
        }
        info
    }
}

impl Sampler for RedisSampler {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        let Some(info) = self.info() else {
            return Ok(());
        };
        batch.answered();
        for (metric, unit, value) in [
            ("read", Unit::BytesPerSecond, info.net_output_bytes),
            ("write", Unit::BytesPerSecond, info.net_input_bytes),
            ("commands", Unit::PerSecond, info.commands),
            ("key_hits", Unit::PerSecond, info.keyspace_hits),
            ("key_misses", Unit::PerSecond, info.keyspace_misses),
            ("evicted_keys", Unit::PerSecond, info.evicted_keys),
            // Seconds of CPU in a second: a hundredth of them is a percent of a core.
            (
                "cpu",
                Unit::Percent,
                info.cpu_s.map(|seconds| seconds * 100.0),
            ),
        ] {
            let Some(value) = value else { continue };
            let growth = self.growth.entry(metric).or_default();
            if let Some((grown, span)) = growth.of(batch.at, value) {
                batch.rate(("redis", &self.device, metric), unit, grown, span);
            }
        }
        for (metric, unit, value) in [
            ("used_memory", Unit::Bytes, info.used_memory_bytes),
            ("clients", Unit::Count, info.clients),
        ] {
            if let Some(value) = value {
                batch.level(("redis", &self.device, metric), unit, value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(text: &str) -> Scrape {
        Scrape::parse(text)
    }

    fn seconds(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    #[test]
    fn counters_become_rates_also_over_a_restart() {
        let mut rows = Rows::default();
        let texts = [
            "vllm:prompt_tokens_total 100\nvllm:num_requests_waiting 3\n",
            "vllm:prompt_tokens_total 300\nvllm:num_requests_waiting 5\n",
            // The engine was started again: it counts from zero.
            "vllm:prompt_tokens_total 50\nvllm:num_requests_waiting 0\n",
        ];
        let mut seen = Vec::new();
        for (at, text) in texts.into_iter().enumerate() {
            let mut batch = Batch::new(seconds(at as u64 * 2), false);
            rows.keep("engine", &ENGINE, &scrape(text), &mut batch);
            let points = batch.points().iter();
            seen.extend(points.map(|(key, _, point)| (key.metric, point.value)));
        }
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
        let mut rows = Rows::default();
        let texts = [
            "lmcache_mp_l1_write_chunks_total 4\n",
            "lmcache_mp_l1_write_chunks_total 4\nlmcache_mp_lookup_hit_l1_tokens_total{m=\"x\"} 2048\n",
            // An answer that lacks one says nothing of it.
            "lmcache_mp_l1_write_chunks_total 4\n",
            "lmcache_mp_l1_write_chunks_total 4\nlmcache_mp_lookup_hit_l1_tokens_total{m=\"x\"} 2048\n",
        ];
        let mut seen = Vec::new();
        for (at, text) in texts.into_iter().enumerate() {
            let mut batch = Batch::new(seconds(at as u64 * 2), false);
            rows.keep("lmcache", &LMCACHE, &scrape(text), &mut batch);
            let points = batch.points().iter();
            seen.extend(points.map(|(key, _, point)| (key.metric, point.value)));
        }
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
            "engine",
            &ENGINE,
            &scrape(&of(0, 0)),
            &mut Batch::new(seconds(0), false),
        );
        let mut batch = Batch::new(seconds(1), false);
        rows.keep("engine", &ENGINE, &scrape(&of(256, 1000)), &mut batch);
        let points = batch.points().iter();
        let seen: Vec<_> = points
            .map(|(key, _, point)| (key.metric, point.value))
            .collect();
        let expected = [
            ("lmcache_hit_tokens", 256.0),
            ("lmcache_remote_read", 2000.0),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_redis_that_is_not_there_is_told_without_its_password() {
        let made = RedisSampler::new("redis://me:s3cret@127.0.0.1:1", seconds(1));
        let Err(Ended(why)) = made else {
            panic!("nothing listens on port 1");
        };
        assert!(
            why.starts_with("no telemetry of Redis") && !why.contains("s3cret"),
            "{why}"
        );
    }

    #[test]
    fn an_engine_that_does_not_answer_is_asked_again() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let endpoint = Endpoint::new("http://127.0.0.1:1", "m").unwrap();
        let mut sampler = EngineSampler::new(endpoint, None, seconds(1)).unwrap();
        for at in 0..2 {
            let mut batch = Batch::new(seconds(at), false);
            assert_eq!(sampler.sample(&mut batch), Ok(()));
            assert!(batch.points().is_empty());
        }
    }
}
