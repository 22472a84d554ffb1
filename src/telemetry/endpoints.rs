//! Metrics that servers report: the engine's and LMCache's `/metrics`, and Redis' `INFO`.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::sample::{Batch, Growth};
use super::thread::{Ended, Sampler};
use crate::series::Series;
use crate::server::control::{Control, Endpoint};
use crate::server::redis::{Redis, RedisInfo, shown};
use rows::{ENGINE, LMCACHE, Rows, SIMULATED};

mod rows;

/// Longest wait for one answer: a busy engine answers late, a dead one never.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A runtime that is driven only while something is asked.
fn runtime() -> Result<Runtime, Ended> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Ended(format!("starting a sampler's runtime: {error}")))
}

fn ask<T>(runtime: &Runtime, question: impl Future<Output = anyhow::Result<T>>) -> Option<T> {
    let answer = runtime.block_on(async { tokio::time::timeout(ANSWER_LIMIT, question).await });
    answer.ok()?.ok()
}

/// Reads `/metrics` of the engine, and of an LMCache server beside it.
pub(crate) struct EngineSampler {
    runtime: Runtime,
    control: Control,
    lmcache: Option<String>,
    interval: Duration,
    rows: Rows,
}

impl EngineSampler {
    /// Reads the engine at `endpoint`, and the LMCache server whose admin address is `lmcache`.
    pub(crate) fn new(
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
        // One that does not answer now is asked again: it may be busy, or stopping.
        if let Some(scrape) = ask(&self.runtime, self.control.metrics()) {
            batch.answered();
            self.rows.keep(&ENGINE, &scrape, batch);
            self.rows.keep(&SIMULATED, &scrape, batch);
        }
        if let Some(url) = &self.lmcache {
            let url = format!("{url}/metrics");
            if let Some(scrape) = ask(&self.runtime, self.control.scrape(&url)) {
                batch.answered();
                self.rows.keep(&LMCACHE, &scrape, batch);
            }
        }
        Ok(())
    }
}

/// Reads `INFO` of a Redis.
pub struct RedisSampler {
    runtime: Runtime,
    url: String,
    /// The connection; none since it broke.
    redis: Option<Redis>,
    device: Arc<str>,
    interval: Duration,
    growth: BTreeMap<Series, Growth>,
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
    /// Asks for `INFO`. A connection that broke is made again at the next reading.
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
        for (series, value) in [
            (Series::RedisRead, info.net_output_bytes),
            (Series::RedisWrite, info.net_input_bytes),
            (Series::RedisCommands, info.commands),
            (Series::RedisKeyHits, info.keyspace_hits),
            (Series::RedisKeyMisses, info.keyspace_misses),
            (Series::RedisEvictedKeys, info.evicted_keys),
            // Seconds of CPU in a second: a hundredth of them is a percent of a core.
            (Series::RedisCpu, info.cpu_s.map(|seconds| seconds * 100.0)),
        ] {
            let Some(value) = value else { continue };
            let growth = self.growth.entry(series).or_default();
            if let Some((grown, span)) = growth.of(batch.at, value) {
                batch.rate(series, &self.device, grown, span);
            }
        }
        for (series, value) in [
            (Series::RedisUsedMemory, info.used_memory_bytes),
            (Series::RedisClients, info.clients),
        ] {
            if let Some(value) = value {
                batch.level(series, &self.device, value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    #[test]
    fn a_missing_redis_is_reported_without_its_password() {
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
