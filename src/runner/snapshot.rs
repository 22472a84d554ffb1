//! Counters of a session at one instant, and how far they grew.

use super::log_marks::LogMarks;
use super::session::Session;
use crate::server::prom::{Scrape, growth};
use crate::server::redis::RedisInfo;
use crate::telemetry::proc_io::GroupIo;
use crate::verdict::{BySource, TierAccount};

/// Counters at one instant.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) engine: Option<Scrape>,
    lmcache: Option<Scrape>,
    pub(super) io: GroupIo,
    pub(super) redis: Option<RedisInfo>,
    redis_keys: Option<u64>,
    pub(super) logs: LogMarks,
}

impl Snapshot {
    /// Reads every counter that the session has. One that does not answer is not known.
    pub async fn take(session: &Session) -> Self {
        let engine = session.control.metrics().await.ok();
        let lmcache = match session.server.lmcache_url() {
            Some(url) => session.control.scrape(&format!("{url}/metrics")).await.ok(),
            None => None,
        };
        let leaders: Vec<u32> = session
            .server
            .processes()
            .iter()
            .map(|(_, pid)| *pid)
            .collect();
        let (mut redis, mut redis_keys) = (None, None);
        if let Some(client) = &session.redis {
            redis = client.info().await.ok();
            redis_keys = client.keys().await.ok();
        }
        Self {
            engine,
            lmcache,
            io: GroupIo::read(&leaders),
            redis,
            redis_keys,
            logs: LogMarks::take(session.logs()),
        }
    }

    /// Sums that grow as long as a tier still stores what earlier requests left.
    pub fn store_progress(&self) -> Vec<Option<f64>> {
        let engine = |name| {
            self.engine
                .as_ref()
                .and_then(|scrape| scrape.sum(name, None))
        };
        let lmcache = |name| {
            self.lmcache
                .as_ref()
                .and_then(|scrape| scrape.sum(name, None))
        };
        vec![
            engine("lmcache:num_stored_tokens_total"),
            engine("lmcache:local_storage_usage"),
            engine("lmcache:remote_cache_usage"),
            engine("labrun_sim_disk_write_bytes_total"),
            engine("labrun_sim_redis_write_bytes_total"),
            lmcache("lmcache_mp_l1_write_chunks_total"),
            lmcache("lmcache_mp_l2_store_submitted_objects_chunks_total"),
            lmcache("lmcache_mp_l2_store_completed_objects_chunks_total"),
            self.redis_keys.map(|keys| keys as f64),
        ]
    }

    /// Whether an LMCache server has stored everything that was handed to its second layer.
    pub fn second_layer_stored(&self) -> bool {
        let Some(scrape) = &self.lmcache else {
            return true;
        };
        let sum = |name| scrape.sum(name, None).unwrap_or(0.0);
        sum("lmcache_mp_l2_store_submitted_objects_chunks_total")
            <= sum("lmcache_mp_l2_store_completed_objects_chunks_total")
    }

    pub(super) fn engine_growth(
        &self,
        before: &Self,
        name: &str,
        label: Option<&str>,
    ) -> Option<f64> {
        self.engine
            .as_ref()?
            .growth(before.engine.as_ref()?, name, label)
    }

    /// Prompt tokens since `before` by where the engine says they came from.
    pub fn by_source(&self, before: &Self) -> Option<BySource> {
        let of = |source: &str| {
            let label = format!("source=\"{source}\"");
            self.engine_growth(before, "vllm:prompt_tokens_by_source_total", Some(&label))
        };
        Some(BySource {
            computed_tokens: of("local_compute")?,
            gpu_tokens: of("local_cache_hit").unwrap_or(0.0),
            external_tokens: of("external_kv_transfer").unwrap_or(0.0),
        })
    }

    pub(super) fn lmcache_growth(&self, before: &Self, name: &str) -> Option<f64> {
        self.lmcache
            .as_ref()?
            .growth(before.lmcache.as_ref()?, name, None)
    }

    pub(super) fn redis_growth(
        &self,
        before: &Self,
        field: impl Fn(&RedisInfo) -> Option<f64>,
    ) -> Option<f64> {
        let (now, then) = (field(self.redis.as_ref()?)?, field(before.redis.as_ref()?)?);
        Some(growth(then, now))
    }

    pub(super) fn account(&self, before: &Self) -> Option<TierAccount> {
        let now = self.lmcache.as_ref()?;
        let of = |name| now.growth(before.lmcache.as_ref()?, name, None);
        Some(TierAccount {
            ram_tokens: of("lmcache_mp_lookup_hit_l1_tokens_total")?,
            second_tokens: of("lmcache_mp_lookup_hit_l2_tokens_total").unwrap_or(0.0),
        })
    }
}
