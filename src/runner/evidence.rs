//! The facts that follow from what was counted before and after a pass.

use std::collections::BTreeMap;
use std::time::Duration;

use super::log_marks::LogMarks;
use super::snapshot::{OUTPUT_TOKENS, PROMPT_TOKENS, Snapshot};
use crate::config::Settings;
use crate::evidence::Evidence;
use crate::load::{LoadOutcome, Outcome, RequestRecord};
use crate::matrix::Cell;
use crate::plan::server::{Launcher, LmcacheMode};
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::server::kv_size::{self, KvSize, Statement};
use crate::units::Bounds;
use crate::verdict::answers::{Answers, first_failure};
use crate::verdict::log_counts::LogCounts;
use crate::verdict::moved::PcieBytes;
use crate::verdict::{
    Canaries, Causes, ConnectorFacts, Counted, CounterGrowth, Facts, LinkLimit, PageCache,
    PortBytes, PortFacts, Probe, Stores, TierAccount, measures,
};
use crate::workload::Schedule;

/// The facts of one pass.
pub(super) struct PassFacts<'a> {
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
    /// Counters when the cell began, before anything was sent.
    pub begun: &'a Snapshot,
    /// What came back for the canaries within the load.
    pub in_load: &'a [RequestRecord],
    /// Counters before.
    pub before: &'a Snapshot,
    /// Counters after.
    pub after: &'a Snapshot,
    /// Bytes over PCIe, where telemetry knows them for the whole pass.
    pub pcie: Option<PcieBytes>,
    /// Most requests that the server was seen to run at once.
    pub running_max: Option<f64>,
    /// Counters once the tier had stored what the pass left; the ones after where nothing waited.
    pub settled: &'a Snapshot,
    /// What the probe of the state found.
    pub probe: Option<Probe>,
    /// How the page cache was excluded.
    pub page_cache: Option<PageCache>,
    /// Whether the tier's stores ended in time.
    pub stores: Stores,
    /// What LMCache's log of its start shows.
    pub start_log: &'a LogCounts,
    /// Canaries asked in this state.
    pub canaries: Option<Canaries>,
    /// Canaries asked within the load.
    pub canaries_in_load: Option<Canaries>,
    /// KV bytes per token by the engine's start log.
    pub engine_kv: Option<Statement>,
    /// What the link between host and GPU can carry.
    pub host_link: Option<LinkLimit>,
    /// What the link to the tier's disk or Redis can carry.
    pub tier_link: Option<LinkLimit>,
    /// KV bytes per token in the files of a tier that stores with a loss.
    pub serialized: Option<Bounds>,
}

impl PassFacts<'_> {
    /// Everything that the verdict rests on.
    pub(super) fn facts(&self) -> Facts {
        let (before, after, settled) = (self.before, self.after, self.settled);
        let simulated = |name| after.engine_growth(before, name, None);
        let stored = |name| settled.engine_growth(before, name, None);
        let server = &self.cell.resolved.server;
        let is_sim = server.is_simulated();
        let logs = self.logs();
        let answers = self.answers();
        let by_source = after.by_source(before);
        let external = by_source.map_or(0.0, |sources| sources.external_tokens);
        let real = |sim: Option<f64>, real: Option<f64>| if is_sim { sim } else { real };
        Facts {
            limits: self.cell.resolved.verdict,
            simulated: is_sim,
            state: self.state,
            tier: self.cell.tier.kind,
            survives_restart: self.cell.tier.survives_restart(server.lmcache),
            probe: self.probe,
            page_cache: self.page_cache,
            stores: self.stores,
            stored_tokens: self.stored_tokens(),
            ok: self.load.counts().ok,
            failed: self.load.counts().failed,
            first_failure: first_failure(self.load),
            by_source,
            sources_unknown: after.sources_unknown(before),
            counted: self.counted(),
            expected_hit_tokens: answers.expected_hit_tokens(self.cell, self.state),
            shared_tokens: answers.sum_of(|planned| planned.shared_tokens),
            repeated_tokens: answers.sum_of(|planned| planned.repeated_tokens),
            wrong_prompt_length: answers.wrong_prompt_length(),
            account: self.account(&logs),
            connector: self.connector(),
            engine: after.engine_account(before, settled, self.cell.tier.chunk_tokens()),
            causes: self.causes(),
            kv: self.kv_size().bytes(),
            serializer: self.cell.tier.serializer(server.lmcache),
            serialized: self.serialized,
            pcie_rx_bytes: self.pcie_bytes(simulated("labrun_sim_pcie_rx_bytes_total"), |pcie| {
                pcie.rx_bytes
            }),
            pcie_tx_bytes: self.pcie_bytes(stored("labrun_sim_pcie_tx_bytes_total"), |pcie| {
                pcie.tx_bytes
            }),
            pcie_method: self.pcie.map(|pcie| pcie.method),
            fastest_load: answers.fastest_load(&logs, external),
            fastest_answer: answers.fastest_answer(external),
            host_link: self.host_link(),
            tier_link: self.tier_link(),
            disk_read_bytes: real(
                simulated("labrun_sim_disk_read_bytes_total"),
                after.io.read_since(&before.io).map(|bytes| bytes as f64),
            ),
            disk_write_bytes: real(
                stored("labrun_sim_disk_write_bytes_total"),
                settled.io.written_since(&before.io).map(|it| it as f64),
            ),
            redis_read_bytes: real(
                simulated("labrun_sim_redis_read_bytes_total"),
                after.redis_growth(before, |info| info.net_output_bytes),
            ),
            redis_write_bytes: real(
                stored("labrun_sim_redis_write_bytes_total"),
                settled.redis_growth(before, |info| info.net_input_bytes),
            ),
            canaries: self.canaries,
            canaries_in_load: self.canaries_in_load,
            in_load: self.in_load.len() as u64,
            counted_in_load: (!self.in_load.is_empty()).then(|| answers.counted_in_load()),
            logs,
        }
    }

    /// What the link between host and GPU carries: the simulator's own, or what telemetry read.
    fn host_link(&self) -> Option<LinkLimit> {
        let server = &self.cell.resolved.server;
        if !server.is_simulated() {
            return self.host_link.clone();
        }
        Some(LinkLimit {
            bytes_per_s: 1e9 * server.sim.pcie_load_gb_per_s,
            source: "`pcie_load_gb_per_s` of the simulator".to_owned(),
        })
    }

    /// What the way to the tier carries; unknown where a serializer makes KV smaller on it.
    fn tier_link(&self) -> Option<LinkLimit> {
        let mode = self.cell.resolved.server.lmcache;
        let is_smaller = self.cell.tier.stores_with_loss(mode);
        self.tier_link.clone().filter(|_| !is_smaller)
    }

    /// The log lines of the pass, with the failures to load that its servers counted. What a cold
    /// pass's stores met behind its last answer belongs to it.
    fn logs(&self) -> LogCounts {
        let until = if self.state == CacheState::Cold {
            self.settled
        } else {
            self.after
        };
        let mut logs = LogCounts::of(&until.logs.text_since(&self.before.logs));
        logs.inherit(self.start_log);
        let counted = self.after.counted_failures(self.before).into_iter();
        for (failure, count) in counted.filter(|(failure, _)| failure.hits_loads()) {
            let known = logs.failures.entry(failure).or_default();
            *known = count.max(*known);
        }
        logs
    }

    /// What explains a shortfall.
    fn causes(&self) -> Causes {
        let tier = &self.cell.tier;
        let share = self.cell.resolved.verdict.served_share;
        Causes {
            fill: self.before.failures(self.begun),
            ram_gib: (tier.template.is_none() && tier.connector.is_none()).then(|| tier.ram_gib()),
            documents: self.answers().documents(self.cell, self.state, share),
        }
    }

    /// What this load and the server counted.
    fn counted(&self) -> Counted {
        let (before, after) = (self.before, self.after);
        Counted {
            server_prompt_tokens: after.engine_growth(before, PROMPT_TOKENS, None),
            server_output_tokens: after.engine_growth(before, OUTPUT_TOKENS, None),
            running_max: self.running_max,
            fallen: after.fallen(before),
            ..self.answers().counted()
        }
    }

    /// Bytes over PCIe: the simulator's own, or what telemetry read. A server that is not labrun's
    /// simulator proves nothing by the simulator's counters.
    fn pcie_bytes(
        &self,
        simulated: Option<f64>,
        way: impl Fn(PcieBytes) -> Bounds,
    ) -> Option<Bounds> {
        if self.cell.resolved.server.is_simulated() {
            simulated.map(Bounds::exact)
        } else {
            self.pcie.map(way)
        }
    }

    /// KV bytes per token, from everything that states them.
    fn kv_size(&self) -> KvSize {
        let text = self.settled.logs.text_since(&self.before.logs);
        let logged = [self.engine_kv, kv_size::logs::lmcache(&text)];
        kv_size::of_cell(self.cell, self.settings).with(logged.into_iter().flatten())
    }

    /// The tier's own account: of an LMCache server its counters; in-process, for RAM alone, the
    /// lines that it writes for what it did load (a hit that loads nothing has none).
    fn account(&self, logs: &LogCounts) -> Option<TierAccount> {
        let server = &self.cell.resolved.server;
        if server.lmcache == LmcacheMode::MultiProcess {
            let chunk_tokens = self.cell.tier.chunk_tokens();
            return self.after.account(self.before, chunk_tokens);
        }
        let logged = server.launcher != Launcher::External
            && self.cell.tier.kind == TierKind::Cpu
            && reports_tokens(&self.after.logs, logs);
        logged.then_some(TierAccount {
            ram_tokens: logs.retrieved.tokens,
            second_tokens: 0.0,
        })
    }

    /// What the plan names to watch of a connector's tier, and its counters' growth.
    fn connector(&self) -> Option<ConnectorFacts> {
        let spec = self.cell.tier.connector.as_ref()?;
        let (watch, before) = (&spec.watch, self.before);
        let counter = |name: &Option<String>, until: &Snapshot| {
            name.as_ref().map(|name| CounterGrowth {
                name: name.clone(),
                grew: until.tier_growth(before, name),
            })
        };
        Some(ConnectorFacts {
            name: spec.name().to_owned(),
            disk: watch.disk.is_some(),
            redis: watch.redis.is_some(),
            port: watch.port.as_ref().map(|_| self.port()),
            pcie: watch.pcie,
            loaded_bytes: counter(&watch.counters.loaded_bytes, self.after),
            stored_bytes: counter(&watch.counters.stored_bytes, self.settled),
            hit_tokens: counter(&watch.counters.hit_tokens, self.after),
        })
    }

    /// What the port that the plan names carried.
    fn port(&self) -> PortFacts {
        let received = self.after.port_growth(self.before);
        let sent = self.settled.port_growth(self.before).ok();
        let of = |bytes: u64, is_at_least| PortBytes {
            bytes: bytes as f64,
            is_at_least,
        };
        PortFacts {
            sent: sent.map(|it| of(it.sent_bytes, it.is_at_least)),
            unread: received.as_ref().err().cloned().unwrap_or_default(),
            received: received
                .ok()
                .map(|it| of(it.received_bytes, it.is_at_least)),
        }
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
        if !self.cell.tier.kind.uses_lmcache() {
            return None;
        }
        let logs = LogCounts::of(&settled.logs.text_since(&before.logs));
        reports_tokens(&settled.logs, &logs).then_some(logs.stored.tokens)
    }

    fn answers(&self) -> Answers<'_> {
        Answers {
            schedule: self.schedule,
            load: self.load,
            canaries: self.in_load,
        }
    }

    /// The measures of `facts`, and what else the servers and the answers count.
    pub(super) fn measures(&self, facts: &Facts) -> BTreeMap<Evidence, f64> {
        let mut all = measures::of_facts(facts);
        all.extend(measures::of_transfers(&facts.logs));
        all.extend(self.engine_measures());
        all.extend(self.token_counts());
        all.extend(self.client_ttft());
        all
    }

    /// What the engine's counters say of the pass besides where its tokens came from.
    fn engine_measures(&self) -> BTreeMap<Evidence, f64> {
        match (&self.after.engine, &self.before.engine) {
            (Some(now), Some(before)) => measures::of_engine(now, before),
            _ => BTreeMap::new(),
        }
    }

    /// The mean time to the first token of all that the engine answered.
    fn client_ttft(&self) -> BTreeMap<Evidence, f64> {
        let answered = self
            .answers()
            .records()
            .filter(|record| record.outcome == Outcome::Ok);
        let times: Vec<Duration> = answered.filter_map(RequestRecord::ttft).collect();
        let sum: Duration = times.iter().sum();
        let mean = (!times.is_empty()).then(|| 1e3 * sum.as_secs_f64() / times.len() as f64);
        measures::known([(Evidence::ClientTtftMeanMs, mean)])
    }

    /// Tokens of the pass as the answers' usage has them. The server's counters have as many where every
    /// request was answered in full and nobody else asked.
    fn token_counts(&self) -> BTreeMap<Evidence, f64> {
        let answers = |count: fn(&RequestRecord) -> Option<u32>| {
            let tokens = self.answers().records().filter_map(count).map(f64::from);
            Some(tokens.sum())
        };
        measures::known([
            (
                Evidence::UsagePromptTokens,
                answers(RequestRecord::prompt_tokens),
            ),
            (
                Evidence::UsageOutputTokens,
                answers(RequestRecord::output_tokens),
            ),
        ])
    }
}

/// Whether LMCache's log reports the tokens that it stores and loads: in `part` of the logs, or ever
/// before. Without that, what is not in it is unknown.
fn reports_tokens(logs: &LogMarks, part: &LogCounts) -> bool {
    part.reports_tokens() || LogCounts::of(&logs.text_since(&LogMarks::default())).reports_tokens()
}
