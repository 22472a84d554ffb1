//! What a verdict rests on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::account::EngineAccount;
use super::causes::Causes;
use super::log_counts::LogCounts;
use super::moved::PcieMethod;
use super::text::Canaries;
use super::witnesses::Counted;
use crate::plan::serializer::Serializer;
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::plan::verdict_spec::VerdictSpec;
use crate::record::way::Way;
use crate::server::kv_size::KvBytes;
use crate::units::Bounds;

/// Prompt tokens of a pass by where the engine's counters put their origin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the unit is part of the names")]
pub(crate) struct BySource {
    /// Computed.
    pub computed_tokens: f64,
    /// Found in the GPU prefix cache.
    pub gpu_tokens: f64,
    /// Loaded through the connector.
    pub external_tokens: f64,
}

impl BySource {
    /// All of them.
    pub(crate) fn total(self) -> f64 {
        self.computed_tokens + self.gpu_tokens + self.external_tokens
    }
}

/// What the tier served by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TierAccount {
    /// Tokens found in its RAM layer.
    pub ram_tokens: f64,
    /// Tokens found in its second layer (files or Redis).
    pub second_tokens: f64,
}

/// A counter that a plan names, over a pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CounterGrowth {
    /// Its name.
    pub name: String,
    /// How much it grew; absent where it is not exposed, or fell.
    pub grew: Option<f64>,
}

/// Bytes over the connections to a TCP port.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortBytes {
    /// Those that were counted.
    pub bytes: f64,
    /// Whether there may have been more: the last bytes of a connection were lost.
    pub is_at_least: bool,
}

/// What the TCP port of a connector's store carried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortFacts {
    /// Bytes from it.
    pub received: Option<PortBytes>,
    /// Bytes to it, until the tier had stored what the pass left.
    pub sent: Option<PortBytes>,
    /// Why `received` is unknown, where it is.
    pub unread: String,
}

/// What a plan names to watch of a connector that labrun does not know. Each of it is to have carried
/// all that the connector loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConnectorFacts {
    /// The connector's name.
    pub name: String,
    /// Whether its files are read from disk.
    pub disk: bool,
    /// Whether it is served by a Redis.
    pub redis: bool,
    /// The TCP port of its store; absent where none is named, and in older files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortFacts>,
    /// Whether it is RAM of this machine.
    pub pcie: bool,
    /// Its counter of bytes that it loaded.
    pub loaded_bytes: Option<CounterGrowth>,
    /// Its counter of bytes that it stored, until it had stored what the pass left.
    pub stored_bytes: Option<CounterGrowth>,
    /// Its counter of tokens that it found.
    pub hit_tokens: Option<CounterGrowth>,
}

impl ConnectorFacts {
    /// The ways that prove its loads, each with what it means that it could not be read.
    pub(super) fn ways(&self) -> Vec<(Way, String)> {
        let mut ways = Vec::new();
        if self.disk {
            let unread =
                "no byte counter of the disk reads of vLLM and its side processes could be read";
            ways.push((Way::DiskRead, unread.to_owned()));
        }
        if self.redis {
            let unread = "no byte counter of its Redis could be read";
            ways.push((Way::RedisRead, unread.to_owned()));
        }
        if let Some(port) = &self.port {
            ways.push((Way::PortRead, port.unread.clone()));
        }
        if self.pcie {
            let unread = "no PCIe byte counter covers the whole pass";
            ways.push((Way::PcieRx, unread.to_owned()));
        }
        if let Some(counter) = &self.loaded_bytes {
            let unread = format!("the counter `{}` is not exposed, or fell", counter.name);
            ways.push((Way::ConnectorLoad, unread));
        }
        ways
    }
}

/// What a probe found: a prompt that was asked before, and again before the clock started.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// Its tokens that a cache should have.
    pub expected_tokens: f64,
    /// Where they came from.
    pub sources: BySource,
}

/// Why the page cache did not answer for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PageCache {
    /// The tier reads with `O_DIRECT`.
    Direct,
    /// Its files' pages were dropped before the pass.
    Dropped {
        /// How many files.
        files: u64,
    },
}

/// Whether a tier had what it was to have when that was needed: before a pass that it is to
/// serve, after a cold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stores {
    /// Nothing was on its way to it any more.
    Finished,
    /// It was still storing.
    Unfinished {
        /// How long that was waited for.
        waited: Duration,
    },
}

/// A load of KV to the GPU and the time that somebody claims for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadClaim {
    /// Tokens of KV.
    pub tokens: f64,
    /// Longest time that the load can have taken, seconds.
    pub seconds: f64,
    /// Who claims it.
    pub by: ClaimedBy,
}

/// Who claims a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClaimedBy {
    /// LMCache's own log.
    LmcacheLog,
    /// A request that was answered: its load was over before its first token.
    FirstToken,
    /// All answers of the pass together.
    WholePass,
}

impl ClaimedBy {
    /// The words in a reason.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LmcacheLog => "LMCache's log",
            Self::FirstToken => "a request's time to first token",
            Self::WholePass => "the pass as a whole",
        }
    }
}

/// The most that a link can carry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LinkLimit {
    /// Bytes per second one way.
    pub bytes_per_s: f64,
    /// Where the limit is from: `PCIe generation 5, 16 lanes`.
    pub source: String,
}

/// Everything a verdict rests on. `None` is "not known", never zero.
///
/// `facts.json` of a cell stores them, so that a pass can be judged again from its files. A field that
/// is added later needs `#[serde(default)]`, unless it is an `Option`: older files do not have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// How much evidence is enough.
    pub limits: VerdictSpec,
    /// Whether the numbers are simulated.
    pub simulated: bool,
    /// The cache state that the pass was to run in.
    pub state: CacheState,
    /// The declared tier.
    pub tier: TierKind,
    /// Whether what the tier stored outlives a restart of the server.
    pub survives_restart: bool,
    /// What the probe of this state found; absent where none could be asked.
    pub probe: Option<Probe>,
    /// LMCache's log lines of the pass.
    pub logs: LogCounts,
    /// Failures before it, and what else explains a shortfall.
    #[serde(default)]
    pub causes: Causes,
    /// Why the page cache did not answer for the disk.
    pub page_cache: Option<PageCache>,
    /// Whether the tier's stores ended in time.
    pub stores: Stores,
    /// Requests answered in full.
    pub ok: u64,
    /// Requests that failed or were not answered in time.
    pub failed: u64,
    /// The first failure, where there was one.
    pub first_failure: Option<String>,
    /// Prompt tokens by the engine's counters.
    pub by_source: Option<BySource>,
    /// Why `by_source` is unknown, where it is.
    pub sources_unknown: String,
    /// What this load sent and got, and what the server counted meanwhile.
    pub counted: Counted,
    /// Tokens that a cache should have had before the pass, chunk rounding counted in.
    pub expected_hit_tokens: f64,
    /// Tokens at the front of prompts that earlier requests, of this pass too, may have left.
    pub shared_tokens: f64,
    /// Of these, tokens that the pass repeats itself: the GPU cache may serve them in any state.
    pub repeated_tokens: f64,
    /// Requests whose prompt the server counted otherwise than planned.
    pub wrong_prompt_length: u64,
    /// The tier's own account.
    pub account: Option<TierAccount>,
    /// What is watched of a connector that labrun does not know; absent for other tiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<ConnectorFacts>,
    /// The engine's own account, and that of LMCache's server.
    #[serde(default)]
    pub engine: EngineAccount,
    /// KV bytes per token, on the GPU and in the tier.
    pub kv: KvBytes,
    /// What KV is stored with; absent where it is stored as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serializer: Option<Serializer>,
    /// KV bytes per token where the tier stores them, by its own files; only of one that stores with a loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serialized: Option<Bounds>,
    /// Bytes that came to the GPU over PCIe.
    pub pcie_rx_bytes: Option<Bounds>,
    /// Bytes that left the GPU over PCIe.
    pub pcie_tx_bytes: Option<Bounds>,
    /// The fastest load to the GPU that the pass claims.
    pub fastest_load: Option<LoadClaim>,
    /// The fastest load from the tier that its answers claim.
    pub fastest_answer: Option<LoadClaim>,
    /// What the link between host and GPU can carry.
    pub host_link: Option<LinkLimit>,
    /// What the link to the tier's disk or Redis can carry, where the machine states it.
    pub tier_link: Option<LinkLimit>,
    /// What saw the PCIe bytes.
    pub pcie_method: Option<PcieMethod>,
    /// Tokens that the tier stored in the pass.
    pub stored_tokens: Option<f64>,
    /// Bytes fetched from storage.
    pub disk_read_bytes: Option<f64>,
    /// Bytes sent to storage, until the tier had stored what the pass left.
    pub disk_write_bytes: Option<f64>,
    /// Bytes received from Redis.
    pub redis_read_bytes: Option<f64>,
    /// Bytes sent to Redis, until the tier had stored what the pass left.
    pub redis_write_bytes: Option<f64>,
    /// Canary prompts; absent where none were asked.
    pub canaries: Option<Canaries>,
    /// Canaries that were asked within the load; absent where none were, or nothing to compare with.
    pub canaries_in_load: Option<Canaries>,
    /// Canaries within the load, which are in the counts of tokens and in no row of the requests.
    #[serde(default)]
    pub in_load: u64,
    /// Their part of `counted`; absent where there are none, and in older files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_in_load: Option<Counted>,
}

impl Facts {
    /// Whether LMCache's log times its loads. A server of its own times how long it takes to hand the
    /// copies to the GPU, which makes them later: 8,192 tokens "in 0.010 seconds" over a link that needs 17 ms.
    pub(crate) fn log_times_loads(&self) -> bool {
        self.engine.loaded_tokens.is_none()
    }

    /// KV bytes per token where the tier stores them: fewer than on the GPU where it stores with a loss.
    pub(crate) fn storage_size(&self) -> Option<Bounds> {
        if self.stores_with_loss() {
            self.serialized
        } else {
            self.kv.stored
        }
    }

    /// Whether the tier stores KV with a loss.
    pub(super) fn stores_with_loss(&self) -> bool {
        self.serializer.as_ref().is_some_and(Serializer::is_lossy)
    }

    /// What KV is stored with, where answers of this pass may differ by design: the tier is to serve, and
    /// stores with a loss.
    pub(crate) fn loss(&self) -> Option<&Serializer> {
        let loads = matches!(self.state, CacheState::Tier | CacheState::Restart) && serves(self);
        let serializer = self.serializer.as_ref();
        serializer.filter(|serializer| loads && serializer.is_lossy())
    }

    /// Whether the tier keeps chunks in files of a folder.
    pub(super) fn uses_disk(&self) -> bool {
        let watched = self.connector.as_ref().is_some_and(|it| it.disk);
        watched || self.tier.uses_disk()
    }

    /// Whether the load of the tier stays unproven for want of bytes over PCIe.
    pub(crate) fn lacks_pcie(&self) -> bool {
        let loads = matches!(self.state, CacheState::Tier | CacheState::Restart) && serves(self);
        let by_pcie = match &self.connector {
            Some(connector) => connector.pcie,
            None => !self.tier.is_second_layer_alone(),
        };
        let has_account = self.account.is_some() || self.engine.load_bytes.is_some();
        loads && by_pcie && self.pcie_rx_bytes.is_none() && !has_account
    }
}

/// Whether the tier is to serve in this state: there is one, and what it stored is still there.
pub(super) fn serves(facts: &Facts) -> bool {
    facts.tier != TierKind::Baseline
        && (facts.state != CacheState::Restart || facts.survives_restart)
}
