//! What is read before and after a pass, and the facts that follow from the difference.

use std::collections::BTreeMap;
use std::path::Path;

use super::Pass;
use super::figures;
use super::log_counts::{LogCounts, LogMarks};
use super::moved::PcieBytes;
use super::session::Session;
use super::verdict::{BySource, Canaries, Facts, PageCache, Probe, Stores, TierAccount};
use crate::config::Settings;
use crate::load::{LoadOutcome, Outcome, RequestRecord};
use crate::matrix::Cell;
use crate::plan::server::{Launcher, LmcacheMode};
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::server::geometry;
use crate::server::prom::Scrape;
use crate::server::redis::RedisInfo;
use crate::telemetry::proc_io::GroupIo;
use crate::workload::{PlannedRequest, Schedule};

/// Largest block of a GPU prefix cache; hits there are counted in whole blocks.
const GPU_BLOCK_TOKENS: u32 = 128;

/// Counters at one instant.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    engine: Option<Scrape>,
    lmcache: Option<Scrape>,
    io: GroupIo,
    redis: Option<RedisInfo>,
    redis_keys: Option<u64>,
    logs: LogMarks,
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

    fn engine_growth(&self, before: &Self, name: &str, label: Option<&str>) -> Option<f64> {
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

    fn lmcache_growth(&self, before: &Self, name: &str) -> Option<f64> {
        self.lmcache
            .as_ref()?
            .growth(before.lmcache.as_ref()?, name, None)
    }

    fn redis_growth(
        &self,
        before: &Self,
        field: impl Fn(&RedisInfo) -> Option<f64>,
    ) -> Option<f64> {
        let (now, then) = (field(self.redis.as_ref()?)?, field(before.redis.as_ref()?)?);
        // A counter that fell was reset by a restart of Redis.
        Some(if now < then { now } else { now - then })
    }

    fn account(&self, before: &Self) -> Option<TierAccount> {
        let now = self.lmcache.as_ref()?;
        let of = |name| now.growth(before.lmcache.as_ref()?, name, None);
        Some(TierAccount {
            ram_tokens: of("lmcache_mp_lookup_hit_l1_tokens_total")?,
            second_tokens: of("lmcache_mp_lookup_hit_l2_tokens_total").unwrap_or(0.0),
        })
    }
}

/// The facts of one pass.
pub struct PassFacts<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// The machine's settings.
    pub settings: &'a Settings,
    /// The cache state.
    pub state: CacheState,
    /// What was sent.
    pub schedule: &'a Schedule,
    /// What came back.
    pub load: &'a LoadOutcome,
    /// Counters before.
    pub before: &'a Snapshot,
    /// Counters after.
    pub after: &'a Snapshot,
    /// Bytes over PCIe, where telemetry knows them for the whole pass.
    pub pcie: Option<PcieBytes>,
    /// Counters once the tier had stored what the pass left; the ones after where nothing waited.
    pub settled: &'a Snapshot,
    /// What the probe of the state found.
    pub probe: Option<Probe>,
    /// How the page cache was kept out of it.
    pub page_cache: Option<PageCache>,
    /// Whether the tier's stores ended in time.
    pub stores: Stores,
    /// Whether LMCache said at its start that it runs without its engine.
    pub degraded: bool,
    /// Canaries asked in this state.
    pub canaries: Option<Canaries>,
}

impl PassFacts<'_> {
    /// Everything that the verdict rests on.
    pub fn facts(&self) -> Facts {
        let (before, after) = (self.before, self.after);
        let simulated = |name| after.engine_growth(before, name, None);
        let stored = |name| self.settled.engine_growth(before, name, None);
        let server = &self.cell.resolved.server;
        let is_sim = server.is_simulated();
        let mut logs = LogCounts::of(&after.logs.text_since(&before.logs));
        logs.degraded |= self.degraded;
        let real = |sim: Option<f64>, real: Option<f64>| if is_sim { sim } else { real };
        Facts {
            limits: self.cell.resolved.verdict,
            simulated: is_sim,
            state: self.state,
            tier: self.cell.tier.kind,
            survives_restart: self.cell.tier.kind.survives_restart(server.lmcache),
            probe: self.probe,
            page_cache: self.page_cache,
            stores: self.stores,
            stored_tokens: self.stored_tokens(),
            ok: self.load.tally().ok,
            failed: self.load.tally().failed,
            first_failure: first_failure(self.load),
            by_source: after.by_source(before),
            expected_hit_tokens: self.expected_hit_tokens(),
            shared_tokens: self.sum_of(|planned| planned.shared_tokens),
            repeated_tokens: self.sum_of(|planned| planned.repeated_tokens),
            wrong_prompt_length: self.wrong_prompt_length(),
            account: self.account(&logs),
            logs,
            kv_bytes_per_token: kv_bytes_per_token(self.cell, self.settings),
            pcie_rx_bytes: real(
                simulated("labrun_sim_pcie_rx_bytes_total"),
                self.pcie.map(|pcie| pcie.rx_bytes),
            ),
            pcie_tx_bytes: real(
                stored("labrun_sim_pcie_tx_bytes_total"),
                self.pcie.map(|pcie| pcie.tx_bytes),
            ),
            pcie_method: self.pcie.map(|pcie| pcie.method),
            disk_read_bytes: real(
                simulated("labrun_sim_disk_read_bytes_total"),
                after.io.read_since(&before.io).map(|bytes| bytes as f64),
            ),
            disk_write_bytes: real(
                stored("labrun_sim_disk_write_bytes_total"),
                self.settled
                    .io
                    .written_since(&before.io)
                    .map(|bytes| bytes as f64),
            ),
            redis_read_bytes: real(
                simulated("labrun_sim_redis_read_bytes_total"),
                after.redis_growth(before, |info| info.net_output_bytes),
            ),
            redis_write_bytes: real(
                stored("labrun_sim_redis_write_bytes_total"),
                self.settled
                    .redis_growth(before, |info| info.net_input_bytes),
            ),
            canaries: self.canaries,
        }
    }

    /// The tier's own account: of an LMCache server its counters; in-process, for RAM alone, the
    /// lines that it writes for what it did load (a hit that loads nothing has none).
    fn account(&self, logs: &LogCounts) -> Option<TierAccount> {
        let server = &self.cell.resolved.server;
        if server.lmcache == LmcacheMode::MultiProcess {
            return self.after.account(self.before);
        }
        let logged = server.launcher != Launcher::External && self.after.logs.exist();
        (logged && self.cell.tier.kind == TierKind::Cpu).then_some(TierAccount {
            ram_tokens: logs.retrieved.tokens,
            second_tokens: 0.0,
        })
    }

    /// Tokens that the tier stored: what its second layer says it completed where it has one.
    fn stored_tokens(&self) -> Option<f64> {
        let (before, settled) = (self.before, self.settled);
        let server = &self.cell.resolved.server;
        if server.lmcache == LmcacheMode::MultiProcess {
            let chunks = match self.cell.tier.kind {
                TierKind::Cpu => "lmcache_mp_l1_write_chunks_total",
                _ => "lmcache_mp_l2_store_completed_objects_chunks_total",
            };
            let chunks = settled.lmcache_growth(before, chunks)?;
            return Some(chunks * f64::from(self.cell.tier.chunk_tokens()));
        }
        if !self.cell.tier.kind.uses_lmcache() || !settled.logs.exist() {
            return None;
        }
        let logs = LogCounts::of(&settled.logs.text_since(&before.logs));
        Some(logs.stored.tokens)
    }

    /// What the engine's counters say of the pass besides where its tokens came from.
    pub fn engine_figures(&self) -> BTreeMap<String, f64> {
        match (&self.after.engine, &self.before.engine) {
            (Some(now), Some(before)) => figures::of_engine(now, before),
            _ => BTreeMap::new(),
        }
    }

    /// Tokens of the pass as the server's counters tell them and as the answers' usage does, by
    /// name. They are equal where every request was answered in full and nobody else asked.
    pub fn token_counts(&self) -> BTreeMap<String, f64> {
        let server = |name| self.after.engine_growth(self.before, name, None);
        let answers = |count: fn(&RequestRecord) -> Option<u32>| {
            let tokens = self.load.records.iter().filter_map(count).map(f64::from);
            Some(tokens.sum())
        };
        let counts = [
            ("server_prompt_tokens", server("vllm:prompt_tokens_total")),
            (
                "server_output_tokens",
                server("vllm:generation_tokens_total"),
            ),
            ("usage_prompt_tokens", answers(RequestRecord::prompt_tokens)),
            ("usage_output_tokens", answers(RequestRecord::output_tokens)),
        ];
        let known = counts
            .into_iter()
            .filter_map(|(name, count)| Some((name.to_owned(), count?)));
        known.collect()
    }

    /// Tokens that a cache should have held before the pass, over all requests that succeeded: the
    /// shared front of each prompt, less what the pass repeats itself, rounded down to what the
    /// cache holds whole.
    fn expected_hit_tokens(&self) -> f64 {
        if self.state == CacheState::Cold {
            return 0.0;
        }
        let unit = cache_unit(self.cell, self.state);
        let expected = self
            .answered()
            .map(|(planned, _)| f64::from(whole_units(planned, unit)));
        expected.sum()
    }

    fn sum_of(&self, tokens: impl Fn(&PlannedRequest) -> u32) -> f64 {
        self.answered()
            .map(|(planned, _)| f64::from(tokens(planned)))
            .sum()
    }

    fn wrong_prompt_length(&self) -> u64 {
        let wrong = self.answered().filter(|(planned, counted)| {
            matches!((planned.prompt_tokens, counted), (Some(p), Some(c)) if p != *c)
        });
        wrong.count() as u64
    }

    /// Planned requests that succeeded, with the server's count of prompt tokens.
    fn answered(&self) -> impl Iterator<Item = (&PlannedRequest, Option<u32>)> {
        self.load
            .records
            .iter()
            .filter(|record| record.outcome == Outcome::Ok)
            .filter_map(|record| {
                let planned = self.schedule.requests.get(record.index as usize)?;
                Some((planned, record.prompt_tokens()))
            })
    }
}

/// Tokens that a cache holds or misses together in `state`.
pub fn cache_unit(cell: &Cell, state: CacheState) -> u32 {
    match state {
        CacheState::Cold | CacheState::Gpu => GPU_BLOCK_TOKENS,
        CacheState::Tier | CacheState::Restart => cell.tier.chunk_tokens(),
    }
}

/// Tokens of a request that a cache can hold before the pass: what is shared, in whole units, less
/// what the pass repeats itself.
pub fn whole_units(planned: &PlannedRequest, unit: u32) -> u32 {
    let whole = planned.shared_tokens / unit * unit;
    whole.saturating_sub(planned.repeated_tokens)
}

/// KV bytes a token of `cell`'s model, from its `config.json` where that is at hand.
pub fn kv_bytes_per_token(cell: &Cell, settings: &Settings) -> Option<f64> {
    let server = &cell.resolved.server;
    if server.is_simulated() {
        return Some(server.sim.kv_bytes_per_token as f64);
    }
    let says = |name: &str| server.args.get(name).and_then(|value| value.as_str());
    let dtype = says("kv-cache-dtype")
        .filter(|dtype| *dtype != "auto")
        .or(says("dtype"));
    let models: &Path = &settings.paths.models;
    let bytes = geometry::kv_bytes_per_token(&models.join(&cell.resolved.model), dtype);
    bytes.map(|bytes| bytes as f64)
}

/// The first request that failed: its kind and the words that go with it.
pub fn first_failure(load: &LoadOutcome) -> Option<String> {
    load.records
        .iter()
        .find_map(|record| match &record.outcome {
            Outcome::Failed(failure) => {
                Some(format!("{}: {}", failure.kind.name(), failure.message))
            }
            Outcome::Ok | Outcome::Unfinished => None,
        })
}

/// What a summary line says of a pass: `state: 24 ok`, with failures where there are any.
pub fn counts_line(pass: &Pass) -> String {
    let tally = pass.load.tally();
    let mut line = format!("{} ok", tally.ok);
    if tally.failed > 0 {
        line.push_str(&format!(", {} failed", tally.failed));
    }
    if tally.unfinished > 0 {
        line.push_str(&format!(", {} unfinished", tally.unfinished));
    }
    line
}
