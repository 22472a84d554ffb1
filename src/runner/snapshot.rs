//! Counters of a session at one instant, and how far they grew.

use std::time::Duration;

use super::log_marks::LogMarks;
use super::session::Session;
use crate::load::RequestRecord;
use crate::server::prom::{Fallen, Scrape};
use crate::server::redis::RedisInfo;
use crate::telemetry::host::tcp::{PortGrowth, PortTotals};
use crate::telemetry::proc_io::GroupIo;
use crate::units::thousands;
use crate::verdict::account::{self, EngineAccount};
use crate::verdict::answers::Answers;
use crate::verdict::causes::Failures;
use crate::verdict::log_counts::LogCounts;
use crate::verdict::{BySource, TierAccount};

/// Prompt tokens by where they came from.
const BY_SOURCE: &str = "vllm:prompt_tokens_by_source_total";
/// Prompt tokens of requests whose prompt was read.
pub(super) const PROMPT_TOKENS: &str = "vllm:prompt_tokens_total";
/// Tokens that were generated.
pub(super) const OUTPUT_TOKENS: &str = "vllm:generation_tokens_total";

/// The engine's counters that evidence rests on.
const COUNTERS: [&str; 3] = [BY_SOURCE, PROMPT_TOKENS, OUTPUT_TOKENS];
/// The counters of an LMCache server that evidence rests on.
const LMCACHE_COUNTERS: [&str; 7] = [
    "lmcache_mp_lookup_hit_l1_tokens_total",
    "lmcache_mp_lookup_hit_l2_tokens_total",
    "lmcache_mp_l1_read_chunks_total",
    "lmcache_mp_l1_write_chunks_total",
    "lmcache_mp_l2_prefetch_load_completed_chunks_total",
    "lmcache_mp_l2_store_completed_objects_chunks_total",
    "lmcache_mp_num_chunks_loaded_total",
];

/// How long the engine's counters may take to tell of an answer that has arrived.
pub(super) const COUNTED_LIMIT: Duration = Duration::from_secs(2);

/// Counters at one instant.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) engine: Option<Scrape>,
    /// Why `engine` is unknown, where `/metrics` was asked for.
    refused: Option<String>,
    lmcache: Option<Scrape>,
    /// What a connector's tier is watched by, where that is another exposition than the engine's.
    tier: Option<Scrape>,
    /// The counter of what a connector's tier stored.
    stored_bytes: Option<String>,
    pub(super) io: GroupIo,
    pub(super) redis: Option<RedisInfo>,
    redis_keys: Option<u64>,
    /// Bytes over the port that a connector's tier is watched by, or why they are unknown.
    port: Option<Result<PortTotals, String>>,
    pub(super) logs: LogMarks,
}

impl Snapshot {
    /// Reads every counter that the session has. One that does not answer is not known.
    pub(super) async fn take(session: &Session) -> Self {
        let (engine, refused) = match session.control.metrics().await {
            Ok(scrape) => (Some(scrape), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let lmcache = match session.server.lmcache_url() {
            Some(url) => session.control.scrape(&format!("{url}/metrics")).await.ok(),
            None => None,
        };
        let watched = session.server.watched();
        let tier = match watched.and_then(|it| it.metrics.as_deref()) {
            Some(url) => session.control.scrape(url).await.ok(),
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
            refused,
            lmcache,
            tier,
            stored_bytes: watched.and_then(|it| it.counters.stored_bytes.clone()),
            io: GroupIo::read(&leaders),
            redis,
            redis_keys,
            port: session.read_port().await,
            logs: LogMarks::take(session.logs()),
        }
    }

    /// Like [`Self::take`]; the engine's counters are read again until they tell of the `answers`,
    /// which they may do a moment later.
    pub(super) async fn take_after(
        session: &Session,
        before: &Self,
        answers: &Answers<'_>,
    ) -> Self {
        let mut taken = Self::take(session).await;
        let prompts = answers
            .total_of(RequestRecord::prompt_tokens)
            .unwrap_or(0.0);
        let output = answers
            .total_of(RequestRecord::output_tokens)
            .unwrap_or(0.0);
        let is_behind = |taken: &Self, name, answered: f64| {
            let counted = taken.engine_growth(before, name, None);
            counted.is_some_and(|counted| counted + 0.5 < answered)
        };
        let began = tokio::time::Instant::now();
        while (is_behind(&taken, PROMPT_TOKENS, prompts)
            || is_behind(&taken, OUTPUT_TOKENS, output))
            && began.elapsed() < COUNTED_LIMIT
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
            match session.control.metrics().await {
                Ok(scrape) => taken.engine = Some(scrape),
                Err(_) => break,
            }
        }
        taken
    }

    /// Sums that grow as long as a tier still stores what earlier requests left.
    pub(super) fn store_progress(&self) -> Vec<Option<f64>> {
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
            engine(account::OFFLOAD_STORED),
            engine("vllm:kv_offload_tiering_write_bytes_total"),
            engine("labrun_sim_disk_write_bytes_total"),
            engine("labrun_sim_redis_write_bytes_total"),
            lmcache("lmcache_mp_l1_write_chunks_total"),
            lmcache("lmcache_mp_l2_store_submitted_objects_chunks_total"),
            lmcache("lmcache_mp_l2_store_completed_objects_chunks_total"),
            self.redis_keys.map(|keys| keys as f64),
            self.port
                .as_ref()
                .and_then(|port| Some(port.as_ref().ok()?.sent_mib() as f64)),
            self.stored_bytes
                .as_ref()
                .and_then(|name| self.tier_counters()?.sum(name, None)),
        ]
    }

    /// Whether no store is under way, as far as the engine and an LMCache server count them.
    pub(super) fn stores_ended(&self) -> bool {
        let lmcache = self.lmcache.as_ref().is_some_and(account::lmcache_stores);
        let engine = self.engine.as_ref().is_some_and(account::engine_stores);
        !lmcache && !engine
    }

    /// Whether the engine counts what its own offloading stores.
    pub(super) fn counts_stores(&self) -> bool {
        let engine = self.engine.as_ref();
        engine.is_some_and(|scrape| scrape.exposes(account::OFFLOAD_STORED, None))
    }

    /// Failures since `before`, by the logs and by the counters of engine and LMCache server. Where
    /// both have one, the larger count stands.
    pub(super) fn failures(&self, before: &Self) -> Failures {
        let mut all = LogCounts::of(&self.logs.text_since(&before.logs)).failures;
        for (failure, count) in self.counted_failures(before) {
            let known = all.entry(failure).or_default();
            *known = count.max(*known);
        }
        all
    }

    /// The same by the counters alone.
    pub(super) fn counted_failures(&self, before: &Self) -> Failures {
        let mut all = Failures::new();
        if let (Some(now), Some(before)) = (&self.engine, &before.engine) {
            all.append(&mut account::engine_failures(now, before));
        }
        if let (Some(now), Some(before)) = (&self.lmcache, &before.lmcache) {
            for (failure, count) in account::lmcache_failures(now, before) {
                *all.entry(failure).or_default() += count;
            }
        }
        all
    }

    /// The engine's own account since `before`; stores until the tier had `settled`.
    pub(super) fn engine_account(
        &self,
        before: &Self,
        settled: &Self,
        chunk_tokens: u32,
    ) -> EngineAccount {
        let mut found = EngineAccount::default();
        if let (Some(now), Some(then)) = (&self.engine, &before.engine) {
            let settled = settled.engine.as_ref().unwrap_or(now);
            found = EngineAccount::of_engine(now, then, settled);
        }
        if let (Some(now), Some(then)) = (&self.lmcache, &before.lmcache) {
            found = found.with_lmcache(now, then, chunk_tokens);
        }
        found
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
    pub(super) fn by_source(&self, before: &Self) -> Option<BySource> {
        let of = |source: &str| {
            let label = format!("source=\"{source}\"");
            // A source that served nothing yet may not be exposed.
            let scrape = self.engine.as_ref()?;
            if source != "local_compute" && !scrape.exposes(BY_SOURCE, Some(&label)) {
                return Some(0.0);
            }
            self.engine_growth(before, BY_SOURCE, Some(&label))
        };
        Some(BySource {
            computed_tokens: of("local_compute")?,
            gpu_tokens: of("local_cache_hit")?,
            external_tokens: of("external_kv_transfer")?,
        })
    }

    /// Why nothing is known of where tokens came from since `before`.
    pub(super) fn sources_unknown(&self, before: &Self) -> String {
        let refused = self.refused.as_ref().or(before.refused.as_ref());
        if let Some(refused) = refused {
            return format!("where tokens came from is unknown: {refused}");
        }
        let scrapes = [&self.engine, &before.engine].into_iter().flatten();
        let mut not_numbers = scrapes.filter_map(|scrape| scrape.not_a_number(BY_SOURCE));
        if let Some((series, value)) = not_numbers.next() {
            return format!("where tokens came from is unknown: the server's {series} is {value}");
        }
        let is_there = |scrape: &Scrape| scrape.exposes(BY_SOURCE, None);
        if self.engine.as_ref().is_some_and(is_there) {
            return format!("where tokens came from is unknown: {BY_SOURCE} did not only grow");
        }
        format!(
            "the server exposes no {BY_SOURCE}: nothing of it can be proven; vLLM has it from 0.24 on, \
             or statistics are off (--disable-log-stats)"
        )
    }

    /// The first counter of the engine or of LMCache's server that fell since `before`, in words.
    pub(super) fn fallen(&self, before: &Self) -> Option<String> {
        let engine = COUNTERS
            .iter()
            .map(|name| (name, &self.engine, &before.engine));
        let lmcache = LMCACHE_COUNTERS
            .iter()
            .map(|name| (name, &self.lmcache, &before.lmcache));
        let fallen = engine
            .chain(lmcache)
            .find_map(|(name, now, before)| now.as_ref()?.fallen(before.as_ref()?, name, None));
        let (name, before, now) = match fallen {
            Some(Fallen {
                series,
                before,
                now,
            }) => (series, before, now),
            None => self.fallen_of_redis(before)?,
        };
        let now = now.map_or_else(|| "nothing".to_owned(), thousands);
        Some(format!("{name} fell from {} to {now}", thousands(before)))
    }

    fn fallen_of_redis(&self, before: &Self) -> Option<(String, f64, Option<f64>)> {
        let (now, before) = (self.redis.as_ref()?, before.redis.as_ref()?);
        let counters = [
            (
                "total_net_output_bytes",
                now.net_output_bytes,
                before.net_output_bytes,
            ),
            (
                "total_net_input_bytes",
                now.net_input_bytes,
                before.net_input_bytes,
            ),
        ];
        counters.into_iter().find_map(|(name, now, before)| {
            let fell = now? < before?;
            fell.then_some((format!("Redis's {name}"), before?, now))
        })
    }

    pub(super) fn lmcache_growth(&self, before: &Self, name: &str) -> Option<f64> {
        self.lmcache
            .as_ref()?
            .growth(before.lmcache.as_ref()?, name, None)
    }

    /// Where the counters of a connector's tier are.
    fn tier_counters(&self) -> Option<&Scrape> {
        self.tier.as_ref().or(self.engine.as_ref())
    }

    /// How much the counter `name` of a connector's tier grew since `before`.
    pub(super) fn tier_growth(&self, before: &Self, name: &str) -> Option<f64> {
        self.tier_counters()?
            .growth(before.tier_counters()?, name, None)
    }

    pub(super) fn redis_growth(
        &self,
        before: &Self,
        field: impl Fn(&RedisInfo) -> Option<f64>,
    ) -> Option<f64> {
        let (now, then) = (field(self.redis.as_ref()?)?, field(before.redis.as_ref()?)?);
        // `fallen` reports one that fell.
        (now >= then).then_some(now - then)
    }

    /// Bytes over the port that a connector's tier is watched by since `before`, or why they are unknown.
    pub(super) fn port_growth(&self, before: &Self) -> Result<PortGrowth, String> {
        let unread = || Err("no byte counter of its port was read".to_owned());
        let now = self.port.clone().unwrap_or_else(unread)?;
        let before = before.port.clone().unwrap_or_else(unread)?;
        if !now.is_seen {
            return Err(format!("no connection to port {} was seen", now.port));
        }
        Ok(now.since(&before))
    }

    pub(super) fn account(&self, before: &Self, chunk_tokens: u32) -> Option<TierAccount> {
        account::tier_account(
            self.lmcache.as_ref()?,
            before.lmcache.as_ref()?,
            chunk_tokens,
        )
    }
}
