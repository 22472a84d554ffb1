//! The facts of a pass of labrun 0.1, which stored no `facts.json`: from the evidence in its record, its
//! requests and its telemetry. What 0.1 did not record stays unknown.

use std::time::Duration;

use super::pass::{Sources, about};
use super::{answers, readings};
use crate::evidence::Evidence;
use crate::plan::server::LmcacheMode;
use crate::plan::verdict_spec::VerdictSpec;
use crate::record::schema::{CellRecord, PassRecord, RequestRow, Source};
use crate::server::kv_size::KvBytes;
use crate::units::Bounds;
use crate::verdict::account::EngineAccount;
use crate::verdict::causes::Causes;
use crate::verdict::failures::Failure;
use crate::verdict::log_counts::{LogCounts, Moved as Lines};
use crate::verdict::moved::{Moved, PcieMethod};
use crate::verdict::text::{self, Sight};
use crate::verdict::{BySource, Canaries, Counted, Facts, PageCache, Probe, Stores, TierAccount};

/// By how much the bytes over PCIe err that labrun 0.1 recorded: it split the reading at the edge of a
/// pass by time.
const RECORDED_PCIE_ERROR: f64 = 0.1;

/// The figures of a record by name.
struct Recorded<'a>(&'a PassRecord);

impl Recorded<'_> {
    fn get(&self, evidence: Evidence) -> Option<f64> {
        self.0.evidence.get(evidence.name()).copied()
    }

    fn sources(&self) -> Option<BySource> {
        Some(BySource {
            computed_tokens: self.get(Evidence::ComputedTokens)?,
            gpu_tokens: self.get(Evidence::GpuCacheTokens)?,
            external_tokens: self.get(Evidence::ExternalTokens)?,
        })
    }

    fn probe(&self) -> Option<Probe> {
        let expected_tokens = self.get(Evidence::ProbeExpectedTokens)?;
        let (gpu_tokens, external_tokens) = (
            self.get(Evidence::ProbeGpuTokens)?,
            self.get(Evidence::ProbeExternalTokens)?,
        );
        Some(Probe {
            expected_tokens,
            sources: BySource {
                computed_tokens: (expected_tokens - gpu_tokens - external_tokens).max(0.0),
                gpu_tokens,
                external_tokens,
            },
        })
    }

    fn logs(&self) -> LogCounts {
        let count = |evidence| self.get(evidence).unwrap_or(0.0) as u64;
        // How many lines there were, and so the time of all of them, was not recorded.
        let lines = |tokens| {
            let tokens = self.get(tokens);
            Lines {
                lines: u64::from(tokens.is_some()),
                tokens: tokens.unwrap_or(0.0),
                cost_ms: 0.0,
            }
        };
        LogCounts {
            stored: lines(Evidence::LogStoredTokens),
            retrieved: lines(Evidence::LogRetrievedTokens),
            failures: [
                (Failure::BufferFull, Evidence::AllocationFailures),
                (Failure::LookupTimedOut, Evidence::LookupTimeouts),
                (Failure::RemoteFailed, Evidence::RemoteErrors),
            ]
            .map(|(failure, evidence)| (failure, count(evidence)))
            .into(),
            degraded: self.says("degraded mode"),
            ..LogCounts::default()
        }
    }

    /// Whether a reason of the recorded verdict has `words`: some facts are nowhere else.
    fn says(&self, words: &str) -> bool {
        let mut reasons = self.0.verdict.reasons.iter();
        reasons.any(|reason| reason.contains(words))
    }

    fn page_cache(&self) -> Option<PageCache> {
        self.says("O_DIRECT").then_some(PageCache::Direct)
    }

    fn stores(&self) -> Stores {
        if self.says("still storing") {
            // How long that was waited for is in the recorded reason.
            let waited = Duration::ZERO;
            return Stores::Unfinished { waited };
        }
        Stores::Finished
    }

    /// Those of 0.1 did not show that they can fail; the simulator's answers follow from the prompt.
    fn canaries(&self, source: Source) -> Option<Canaries> {
        let count = |evidence| Some(self.get(evidence)? as u32);
        let (asked, same) = (
            count(Evidence::CanariesAsked)?,
            count(Evidence::CanariesSame)?,
        );
        let is_sighted = source == Source::Simulated;
        let unanswered = self.says("canaries were not answered");
        let computed = self.says("canaries were computed again");
        Some(Canaries {
            asked,
            answered: if unanswered { same } else { asked },
            same,
            from_cache: if computed { 0 } else { asked },
            scored: 0,
            distance: 0.0,
            sight: Sight {
                tolerance: text::MIN_TOLERANCE,
                altered: if is_sighted { asked } else { 0 },
                altered_changed: if is_sighted { asked } else { 0 },
            },
        })
    }

    /// The tier's own account.
    fn account(&self) -> Option<TierAccount> {
        Some(TierAccount {
            ram_tokens: self.get(Evidence::LmcacheRamTokens)?,
            second_tokens: self.get(Evidence::LmcacheSecondLayerTokens).unwrap_or(0.0),
        })
    }
}

/// The facts of `pass`; `None` where its record has no evidence, or does not name its tier.
pub(super) fn facts(pass: &PassRecord, sources: &Sources<'_>) -> Option<Facts> {
    let record = sources.record;
    let recorded = Recorded(pass);
    let has_evidence = !pass.evidence.is_empty();
    let tier = record.kind_of_tier().filter(|_| has_evidence)?;
    let watched = readings::watched(pass);
    let points = sources.points;
    let moved = points.map(|points| readings::moved(points, &watched));
    let rows = sources.rows.as_deref();
    let mode = record.server.lmcache.unwrap_or(LmcacheMode::InProcess);
    let kv = recorded.get(Evidence::KvBytesPerToken).map(Bounds::exact);
    let repeated_tokens = recorded.get(Evidence::RepeatedTokens).unwrap_or(0.0);
    let fastest_load = rows
        .filter(|_| repeated_tokens < 1.0)
        .and_then(answers::fastest_load);
    Some(Facts {
        limits: limits(record),
        simulated: record.source == Source::Simulated,
        state: pass.state,
        tier,
        survives_restart: tier.survives_restart(mode),
        probe: recorded.probe(),
        logs: recorded.logs(),
        causes: Causes::default(),
        page_cache: recorded.page_cache(),
        stores: recorded.stores(),
        ok: pass.counts.ok,
        failed: pass.counts.failed,
        first_failure: pass.errors.keys().next().cloned(),
        by_source: recorded.sources(),
        sources_unknown: "the record has no counters of where prompt tokens came from".to_owned(),
        counted: counted(&recorded, record, rows),
        expected_hit_tokens: recorded.get(Evidence::ExpectedHitTokens).unwrap_or(0.0),
        shared_tokens: recorded.get(Evidence::SharedTokens).unwrap_or(0.0),
        repeated_tokens,
        wrong_prompt_length: rows.map_or(0, answers::wrong_prompt_length),
        account: recorded.account(),
        connector: None,
        engine: EngineAccount::default(),
        kv: KvBytes {
            device: kv,
            stored: kv,
        },
        serializer: None,
        serialized: None,
        pcie_rx_bytes: received(&recorded, record, moved.as_ref()),
        pcie_tx_bytes: recorded
            .get(Evidence::PcieTxBytes)
            .map(|bytes| as_recorded(bytes, record)),
        fastest_load,
        fastest_answer: fastest_load,
        host_link: moved.and_then(|moved| moved.host_link),
        tier_link: None,
        pcie_method: pcie_method(pass),
        // Of a server of its own, labrun 0.1 counted chunks that were stored for earlier requests too.
        stored_tokens: recorded
            .get(Evidence::StoredTokens)
            .filter(|_| mode == LmcacheMode::InProcess),
        disk_read_bytes: recorded.get(Evidence::DiskReadBytes),
        disk_write_bytes: recorded.get(Evidence::DiskWriteBytes),
        redis_read_bytes: recorded.get(Evidence::RedisReadBytes),
        redis_write_bytes: recorded.get(Evidence::RedisWriteBytes),
        canaries: recorded.canaries(record.source),
        canaries_in_load: None,
        in_load: 0,
        counted_in_load: None,
    })
}

/// Bytes to the GPU: by the telemetry, or else as they were recorded.
fn received(recorded: &Recorded<'_>, record: &CellRecord, moved: Option<&Moved>) -> Option<Bounds> {
    let bytes = recorded.get(Evidence::PcieRxBytes)?;
    let counted = moved.and_then(|moved| moved.pcie);
    let counted = counted.filter(|_| record.source == Source::Measured);
    Some(counted.map_or_else(|| as_recorded(bytes, record), |pcie| pcie.rx_bytes))
}

fn as_recorded(bytes: f64, record: &CellRecord) -> Bounds {
    match record.source {
        Source::Simulated => Bounds::exact(bytes),
        Source::Measured => about(bytes, RECORDED_PCIE_ERROR),
    }
}

fn pcie_method(pass: &PassRecord) -> Option<PcieMethod> {
    let row = pass
        .ledger
        .iter()
        .find(|row| row.path.starts_with("pcie-"))?;
    let all = [PcieMethod::Gpm, PcieMethod::NvmlCounters, PcieMethod::Mixed];
    all.into_iter().find(|method| method.name() == row.method)
}

fn counted(recorded: &Recorded<'_>, record: &CellRecord, rows: Option<&[&RequestRow]>) -> Counted {
    let by_server = Counted {
        server_prompt_tokens: recorded.get(Evidence::ServerPromptTokens),
        server_output_tokens: recorded.get(Evidence::ServerOutputTokens),
        running_max: recorded.get(Evidence::RunningMaxRequests),
        in_flight: in_flight(recorded.0, record),
        ..Counted::default()
    };
    match rows {
        Some(rows) => answers::counted(rows, &by_server),
        // Cached tokens of the answers are not in the record.
        None => by_server,
    }
}

/// Most requests in flight, where the load was closed and none failed.
fn in_flight(pass: &PassRecord, record: &CellRecord) -> Option<u32> {
    let arrival = record.identity.get("plan.load.arrival.kind")?;
    let is_bounded = arrival == "closed" && pass.counts.failed == 0;
    is_bounded.then(|| record.coordinates.concurrency.get())
}

/// The thresholds of the plan, which the identity has.
fn limits(record: &CellRecord) -> VerdictSpec {
    let mut limits = VerdictSpec::default();
    for (name, limit) in [
        ("stray_share", &mut limits.stray_share),
        ("served_share", &mut limits.served_share),
        ("moved_share", &mut limits.moved_share),
        ("failed_share", &mut limits.failed_share),
    ] {
        let recorded = record.identity.get(&format!("plan.verdict.{name}"));
        if let Some(value) = recorded.and_then(|value| value.parse().ok()) {
            *limit = value;
        }
    }
    limits
}
