//! What a run's files hold. These types are the bridge between measuring and reading: separate
//! from the live types, versioned, and read by every later labrun.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::matrix::Coordinates;
use crate::plan::server::{Launcher, LmcacheMode};
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::record::hashes::FileHashes;

/// Version of the folder's format. Raised when an older reader would misread a newer folder.
pub const FORMAT: u32 = 1;

/// Reads named figures; `null` means unknown, like an absent one.
fn known<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let figures = BTreeMap::<String, Option<f64>>::deserialize(from)?;
    Ok(figures
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect())
}

/// Reads a figure that may be `null`: NaN is written so.
fn null_is_unknown<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Option::<f64>::deserialize(from).map(|value| value.unwrap_or(f64::NAN))
}

/// Writes named figures, without those that are not finite: JSON cannot express them.
fn finite<S: Serializer>(figures: &BTreeMap<String, f64>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(figures.iter().filter(|(_, value)| value.is_finite()))
}

/// Whether a real server or the simulator produced a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A real server on real hardware.
    Measured,
    /// The built-in simulator. Shown wherever the number is.
    Simulated,
}

impl Source {
    /// The word used in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Simulated => "simulated",
        }
    }

    /// The source called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Measured, Self::Simulated]
            .into_iter()
            .find(|source| source.name() == name)
    }
}

/// What a cell is doing. A failure names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Rendering files and starting processes.
    Launch,
    /// Waiting for the first real token.
    Ready,
    /// Unmeasured requests: warm-up, fill, waiting for stores, clearing caches.
    Warm,
    /// Measured requests.
    Load,
    /// Reading counters and asking canaries.
    Verify,
    /// Stopping the server.
    Stop,
}

impl Phase {
    /// The word in messages and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Ready => "ready",
            Self::Warm => "warm",
            Self::Load => "load",
            Self::Verify => "verify",
            Self::Stop => "stop",
        }
    }
}

/// How one cell ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum CellOutcome {
    /// Every pass ran to its end. Requests may still have failed, and the verdict may be invalid.
    Completed,
    /// The cell could not be measured to its end.
    Failed {
        /// The phase that failed.
        phase: Phase,
        /// The error, with causes.
        error: String,
        /// The last lines of the server's log, oldest first.
        log_tail: Vec<String>,
    },
    /// The run was interrupted while this cell ran.
    Aborted {
        /// Why it ended.
        reason: String,
    },
}

impl CellOutcome {
    /// Why the cell was not measured to its end, in one sentence; `None` where it was.
    pub fn failure(&self) -> Option<String> {
        match self {
            Self::Completed => None,
            Self::Failed { phase, error, .. } => {
                Some(format!("failed in {}: {error}", phase.name()))
            }
            Self::Aborted { reason } => Some(format!("aborted: {reason}")),
        }
    }
}

/// Whether the evidence shows that the declared tier served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictStatus {
    /// The evidence shows that the declared tier served.
    Valid,
    /// The evidence does not settle it.
    Inconclusive,
    /// The evidence shows that it did not.
    Invalid,
}

impl VerdictStatus {
    /// The word used in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Inconclusive => "inconclusive",
            Self::Invalid => "invalid",
        }
    }
}

/// A verdict with its reasons in plain words. `valid` has reasons too: the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The word: the worst that any reason demands.
    pub status: VerdictStatus,
    /// Why, one sentence each, the worst first.
    pub reasons: Vec<String>,
    /// What each witness shows alone; absent of one that shows nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub witnesses: BTreeMap<Witness, VerdictStatus>,
}

/// One independent kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Witness {
    /// The engine's counters: where tokens came from.
    Counters,
    /// Bytes, or an account of tokens, on the legs of the tier's way.
    Bytes,
    /// The canaries' answers.
    Text,
    /// What the client sent and got against what the servers counted.
    Clients,
    /// Probes, stores and the page cache: whether the cache state was reached.
    State,
    /// Failures in logs and counters.
    Logs,
    /// Loads that no link could have carried.
    Limits,
}

/// Sent = ok + failed + unfinished, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that were begun (a connection was tried).
    pub sent: u64,
    /// Requests whose whole answer arrived.
    pub ok: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// Requests still in flight when the pass was ended.
    pub unfinished: u64,
}

/// One line of a pass's ledger: bytes that had to move for what was counted, against bytes that
/// did move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The name of its way (`record::way`): `pcie-rx`, `disk-read`, `redis-write`, ...
    pub path: String,
    /// Tokens that went this way by the counters; not a number where that is unknown.
    #[serde(deserialize_with = "null_is_unknown")]
    pub tokens: f64,
    /// Tokens x KV bytes a token; absent where these bytes are not known.
    pub expected_bytes: Option<f64>,
    /// Bytes that were seen to move; absent where nothing could see them.
    pub moved_bytes: Option<f64>,
    /// The method that saw them: `gpm`, `nvml-counters`, `gpm+nvml-counters`, `proc-io`, `diskstats`,
    /// `redis-info`, `tcp-info`, `interface` (everything on the way to Redis, headers included),
    /// `lmcache-account`, `simulated`.
    pub method: String,
}

/// One telemetry metric over one pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary {
    /// The sampler: `gpu`, `disk`, `cpu`, `redis`, `engine`, ...
    pub source: String,
    /// The device; empty where there is only one.
    pub device: String,
    /// The series: `pcie_rx`, `power`, `utilization`, ...
    pub metric: String,
    /// Its unit: `bytes/s`, `W`, `%`, ...
    pub unit: String,
    /// Samples within the pass.
    pub samples: u64,
    /// Mean time between two of them, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_s: Option<f64>,
    /// Those that were read after a longer time than was set, to stay within the samplers' budget.
    #[serde(default)]
    pub slowed: u64,
    /// Time-weighted mean.
    pub mean: Option<f64>,
    /// Largest sample.
    pub max: Option<f64>,
    /// Integral over the pass (bytes of a rate, joules of a power); absent where a sum has no meaning.
    pub total: Option<f64>,
}

/// What limited a pass, with the numbers behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bottleneck {
    /// `compute`, `pcie`, `disk`, `redis`, `network`, `queue`, `client`, `nothing busy` or
    /// `too short to tell`; labrun 0.1 wrote `unknown` for the last two.
    pub name: String,
    /// Why, one sentence each, with numbers.
    pub reasons: Vec<String>,
}

/// One measured pass: the load of one cell in one cache state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassRecord {
    /// The cache state that the pass was to run in.
    pub state: CacheState,
    /// When its clock started, seconds since the run began.
    pub started_s: f64,
    /// From its first intended send to its last arrival, seconds.
    pub duration_s: f64,
    /// BLAKE3 over its requests: the same hash, the same prompts in the same order.
    #[serde(default)]
    pub corpus: String,
    /// What became of its requests.
    pub counts: Counts,
    /// Failed requests by kind of error.
    pub errors: BTreeMap<String, u64>,
    /// Whether the declared tier served.
    pub verdict: Verdict,
    /// Named figures that the verdict rests on (counter deltas, expected and seen token counts);
    /// the unit is last in each name.
    #[serde(deserialize_with = "known", serialize_with = "finite")]
    pub evidence: BTreeMap<String, f64>,
    /// The client's measures of itself (`lateness_p99_ms`, `client_cpu_share_percent`, ...).
    #[serde(deserialize_with = "known", serialize_with = "finite")]
    pub client: BTreeMap<String, f64>,
    /// Bytes that had to move against bytes that did.
    #[serde(default)]
    pub ledger: Vec<LedgerRow>,
    /// Telemetry over the pass, one row a metric and device.
    #[serde(default)]
    pub telemetry: Vec<MetricSummary>,
    /// What limited it; absent where telemetry was not judged.
    #[serde(default)]
    pub bottleneck: Option<Bottleneck>,
}

/// What is known of the server of one cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// How it was started; `None`, written as `imported`, for an imported cell.
    #[serde(with = "launcher_text")]
    pub launcher: Option<Launcher>,
    /// What `/version` answered.
    pub version: Option<String>,
    /// Where LMCache was; `None`, written as `none`, for tiers without LMCache.
    #[serde(with = "lmcache_text")]
    pub lmcache: Option<LmcacheMode>,
    /// From the start of its process to its first real token, seconds; absent for external ones
    /// and for cells that found it running.
    pub ready_s: Option<f64>,
    /// How it ended: `exited 0`, `terminated`, `killed after 10 s`; absent while it is shared.
    pub stopped: Option<String>,
    /// Whether this cell started it, or found it running from the cell before (`reuse = "server"`).
    pub reused: bool,
    /// Its containers, the server's own last; empty for other launchers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerRecord>,
}

/// The launcher of a cell that another tool measured.
const IMPORTED: &str = "imported";

impl ServerRecord {
    /// The word in tables and files for how it was started.
    pub fn launcher_name(&self) -> &'static str {
        self.launcher.map_or(IMPORTED, Launcher::name)
    }
}

mod launcher_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::plan::server::Launcher;

    #[allow(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "serde's signature"
    )]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<Launcher>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.map_or(super::IMPORTED, Launcher::name))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Launcher>, D::Error> {
        let text = String::deserialize(from)?;
        match text.as_str() {
            "" | super::IMPORTED => Ok(None),
            name => {
                Launcher::deserialize(de::value::StrDeserializer::<D::Error>::new(name)).map(Some)
            }
        }
    }
}

mod lmcache_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::plan::server::LmcacheMode;

    #[allow(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "serde's signature"
    )]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<LmcacheMode>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.map_or("none", LmcacheMode::name))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<LmcacheMode>, D::Error> {
        let text = String::deserialize(from)?;
        match text.as_str() {
            "" | "none" => Ok(None),
            name => LmcacheMode::deserialize(de::value::StrDeserializer::<D::Error>::new(name))
                .map(Some),
        }
    }
}

/// Docker's facts about one container of a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// `vllm`, `sim`, `lmcache` or `redis`.
    pub role: String,
    /// The image, as the plan names it.
    pub image: String,
    /// The id of its content on that machine.
    pub image_id: String,
    /// The registry's digest of it; absent for an image that was made on the machine.
    pub digest: Option<String>,
    /// When it started, RFC 3339.
    pub started_at: Option<String>,
    /// When it ended; absent while the next cell shares it.
    pub finished_at: Option<String>,
    /// What it ended with.
    pub exit_code: Option<i64>,
    /// Whether the kernel killed it for its memory.
    pub oom_killed: bool,
    /// How often Docker restarted it.
    pub restart_count: i64,
}

/// `cell.json`: one cell, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// The format that this file was written in.
    pub format: u32,
    /// The cell's id, also its folder's name.
    pub id: String,
    /// Which cell of the run this was, from 1, in the order that they ran.
    pub position: u32,
    /// The part of a merged run that `position` counts in: its shard (`2/8`), else the folder that it
    /// came from. Absent where the run is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Where it lies in the matrix.
    pub coordinates: Coordinates,
    /// What its tier is made of; absent where nobody recorded it ([`Self::kind_of_tier`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier_kind: Option<TierKind>,
    /// Everything that decides its result, by name: plan values, rendered files, versions, image
    /// digest, model revision. Two cells with equal identities may stand for each other.
    #[serde(default)]
    pub identity: BTreeMap<String, String>,
    /// The machine's state when the cell began, the unit last in each name (`gpu0_temperature_c`).
    #[serde(default, deserialize_with = "known", serialize_with = "finite")]
    pub machine: BTreeMap<String, f64>,
    /// Simulated or measured.
    pub source: Source,
    /// The model that was asked for.
    pub model: String,
    /// How it ended.
    pub outcome: CellOutcome,
    /// Its server.
    pub server: ServerRecord,
    /// Its passes, in order.
    pub passes: Vec<PassRecord>,
    /// What a reader should know besides.
    pub warnings: Vec<String>,
    /// The other files of its folder; empty where labrun 0.1 wrote it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: FileHashes,
}

/// Begins a warning of a cell that names a problem which labrun saw before the start.
pub(crate) const FORETOLD: &str = "foretold before the start: ";

impl CellRecord {
    /// Why a pass of it is what its verdict says, first what was seen. An invalid pass names the problem
    /// that foretold it too.
    pub(crate) fn reason(&self, verdict: &Verdict) -> Option<String> {
        let seen = verdict.reasons.first()?;
        let mut warnings = self.warnings.iter();
        let foretold = warnings.find(|warning| warning.starts_with(FORETOLD));
        Some(match foretold {
            Some(foretold) if verdict.status == VerdictStatus::Invalid => {
                format!("{seen}; {foretold}")
            }
            _ => seen.clone(),
        })
    }

    /// What its tier is made of. Version 0.1 recorded that in the identity alone; an imported cell
    /// has nothing but the tier's name, which names the kind where the tier is built in.
    pub fn kind_of_tier(&self) -> Option<TierKind> {
        let in_identity = || {
            let kind = self.identity.get("plan.tier.kind")?;
            serde_json::from_value(kind.as_str().into()).ok()
        };
        self.tier_kind
            .or_else(in_identity)
            .or_else(|| TierKind::built_in(&self.coordinates.tier))
    }
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestOutcome {
    /// The whole answer arrived.
    Ok,
    /// It ended with an error.
    Failed,
    /// It was in flight when the pass was ended.
    Unfinished,
}

impl RequestOutcome {
    /// The word used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unfinished => "unfinished",
        }
    }
}

/// One row of `requests.parquet`: one request of one pass. Times in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestRow {
    /// The pass that it belongs to.
    pub state: CacheState,
    /// Its index in the pass, from 0, in the planned order.
    pub request: u32,
    /// When it was to be sent, since the pass began.
    pub intended_ms: f64,
    /// When the request was written, since the pass began.
    pub sent_ms: f64,
    /// From intended to real send, with connection set-up taken out.
    pub lateness_ms: f64,
    /// Connection set-up before the send; absent where a connection was reused.
    pub connect_ms: Option<f64>,
    /// From the write of the request to its first token.
    pub ttft_ms: Option<f64>,
    /// From the write of the request to its last token.
    pub e2e_ms: Option<f64>,
    /// (E2E - TTFT) / (output tokens - 1).
    pub tpot_ms: Option<f64>,
    /// Time between the arrivals of successive frames that carried tokens.
    pub gaps_ms: Vec<f64>,
    /// The plan's prompt length, tokens.
    pub prompt_len: u32,
    /// The plan's generation length, tokens.
    pub gen_len: u32,
    /// Prompt tokens as the server counted them.
    pub prompt_tokens: Option<u32>,
    /// Prompt tokens that the server reported as cached.
    pub cached_tokens: Option<u32>,
    /// Output tokens as the server counted them.
    pub output_tokens: Option<u32>,
    /// Body frames that carried at least one event.
    pub frames: u32,
    /// Frames that carried more than one token event; their tokens share one arrival time.
    pub coalesced_frames: u32,
    /// Events that carried tokens; absent in files of before they were recorded.
    pub token_events: Option<u32>,
    /// How it ended.
    pub outcome: RequestOutcome,
    /// The kind of error, kebab-case (`connect`, `http-500`, `timeout-first-token`, `cut-stream`).
    pub error: Option<String>,
    /// The HTTP status; absent where no answer came.
    pub http_status: Option<u16>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Figures {
        #[serde(deserialize_with = "known", serialize_with = "finite")]
        all: BTreeMap<String, f64>,
    }

    #[test]
    fn a_figure_that_is_null_is_unknown() {
        let read: Figures = serde_json::from_str("{\"all\": {\"a\": null, \"b\": 1}}").unwrap();
        assert_eq!(read.all, BTreeMap::from([("b".to_owned(), 1.0)]));
        let row = "{\"path\": \"pcie-rx\", \"tokens\": null, \"expected_bytes\": null, \
                   \"moved_bytes\": null, \"method\": \"gpm\"}";
        let row: LedgerRow = serde_json::from_str(row).unwrap();
        assert!(row.tokens.is_nan());
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_again(
            all in proptest::collection::btree_map(
                "[a-c]{1,3}",
                any::<i32>().prop_map(|eighths| f64::from(eighths) / 8.0),
                0..6
            ),
            unknown in proptest::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
        ) {
            let written = Figures { all };
            let mut with = Figures { all: written.all.clone() };
            with.all.insert("unknown".to_owned(), unknown);
            let text = serde_json::to_string(&with).unwrap();
            let read: Figures = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read, written);
        }
    }

    #[test]
    fn a_server_is_written_as_version_0_1_wrote_it() {
        let text = |launcher, lmcache| {
            let server = ServerRecord {
                launcher,
                lmcache,
                ..ServerRecord::default()
            };
            let value = serde_json::to_value(&server).unwrap();
            assert_eq!(
                serde_json::from_value::<ServerRecord>(value.clone()).unwrap(),
                server
            );
            let word = |name: &str| value[name].as_str().unwrap().to_owned();
            (word("launcher"), word("lmcache"))
        };
        let words = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(text(None, None), words("imported", "none"));
        let both = text(Some(Launcher::Docker), Some(LmcacheMode::MultiProcess));
        assert_eq!(both, words("docker", "multi-process"));
        let imported = r#"{"launcher": "imported", "lmcache": "", "reused": false}"#;
        let imported: ServerRecord = serde_json::from_str(imported).unwrap();
        assert_eq!(imported, ServerRecord::default());
        let unknown = r#"{"launcher": "rocket", "lmcache": "", "reused": false}"#;
        assert!(serde_json::from_str::<ServerRecord>(unknown).is_err());
    }
}
