//! Live results to what is kept of them. The only place that knows both.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::load::{Outcome, RequestRecord};
use crate::matrix::Cell;
use crate::record::redact;
use crate::record::schema::{
    Bottleneck, CellOutcome, CellRecord, ContainerRecord, Counts, FORMAT, LedgerRow, MetricSummary,
    PassRecord, RequestOutcome, RequestRow, ServerRecord, Source, Verdict, VerdictStatus,
};
use crate::runner::identity;
use crate::runner::result::{self, CellResult, Pass, PassTelemetry};
use crate::series;
use crate::server::docker::container::ContainerFacts;
use crate::telemetry::sample::SeriesKey;
use crate::verdict::moved::whole_total;
use crate::verdict::{self, Status, ledger};

/// Simulated where the server's version says so.
pub fn source_of_version(version: Option<&str>) -> Source {
    match version {
        Some(version) if version.contains("labrun-sim") => Source::Simulated,
        _ => Source::Measured,
    }
}

/// Whether the numbers of `cell` are simulated. An external simulator is recognised by what it
/// answers to `/version`.
pub fn source_of(cell: &Cell, version: Option<&str>) -> Source {
    if cell.resolved.server.is_simulated() {
        Source::Simulated
    } else {
        source_of_version(version)
    }
}

/// `cell.json` of a result.
pub fn cell_record(result: &CellResult) -> CellRecord {
    let cell = &result.cell;
    let version = result.server.version.as_deref();
    CellRecord {
        format: FORMAT,
        id: cell.id.clone(),
        position: result.position,
        part: None,
        coordinates: cell.coordinates.clone(),
        identity: identity(result),
        machine: result.machine.clone(),
        source: source_of(cell, version),
        model: cell.resolved.model.clone(),
        outcome: outcome(&result.outcome),
        server: ServerRecord {
            launcher: cell.resolved.server.launcher.name().to_owned(),
            version: result.server.version.clone(),
            lmcache: if cell.tier.kind.uses_lmcache() {
                cell.resolved.server.lmcache.name().to_owned()
            } else {
                "none".to_owned()
            },
            ready_s: result.server.ready.map(|ready| ready.as_secs_f64()),
            stopped: result.server.stopped.clone(),
            reused: result.server.reused,
            containers: result
                .server
                .containers
                .iter()
                .map(container_record)
                .collect(),
        },
        passes: result.passes.iter().map(pass_record).collect(),
        warnings: result.warnings.clone(),
    }
}

fn container_record(facts: &ContainerFacts) -> ContainerRecord {
    ContainerRecord {
        role: facts.role.to_owned(),
        image: facts.image.clone(),
        image_id: facts.image_id.clone(),
        digest: facts.digest.clone(),
        started_at: facts.started_at.clone(),
        finished_at: facts.finished_at.clone(),
        exit_code: facts.exit_code,
        oom_killed: facts.oom_killed,
        restart_count: facts.restart_count,
    }
}

/// What was known before its server started, what the server said, and one hash of it all.
fn identity(result: &CellResult) -> BTreeMap<String, String> {
    let mut identity = result.identity.clone();
    identity.insert("format".to_owned(), FORMAT.to_string());
    if let Some(version) = &result.server.version {
        identity.insert("version.server".to_owned(), version.clone());
    }
    redact::table(&mut identity);
    let hash = identity::hash(&identity);
    identity.insert("hash".to_owned(), hash);
    identity
}

fn outcome(outcome: &result::CellOutcome) -> CellOutcome {
    match outcome {
        result::CellOutcome::Completed => CellOutcome::Completed,
        result::CellOutcome::Failed {
            phase,
            error,
            log_tail,
        } => CellOutcome::Failed {
            phase: phase.name().to_owned(),
            error: redact::text(error),
            log_tail: log_tail.iter().map(|line| redact::text(line)).collect(),
        },
        result::CellOutcome::Aborted => CellOutcome::Aborted {
            reason: "the run was interrupted".to_owned(),
        },
    }
}

/// What is kept of one pass besides its requests.
pub fn pass_record(pass: &Pass) -> PassRecord {
    let tally = pass.load.tally();
    let mut errors = BTreeMap::new();
    for record in &pass.load.records {
        if let Outcome::Failed(failure) = &record.outcome {
            *errors.entry(failure.kind.name().into_owned()).or_default() += 1;
        }
    }
    PassRecord {
        state: pass.state,
        started_s: pass.started.as_secs_f64(),
        duration_s: pass.load.window.duration.as_secs_f64(),
        corpus: pass.schedule.corpus.to_hex().to_string(),
        counts: Counts {
            sent: tally.sent,
            ok: tally.ok,
            failed: tally.failed,
            unfinished: tally.unfinished,
        },
        errors,
        verdict: verdict_record(&pass.verdict),
        evidence: evidence(pass),
        client: client_figures(pass),
        ledger: pass.ledger.iter().map(ledger_row).collect(),
        telemetry: metric_summaries(&pass.telemetry),
        bottleneck: pass.telemetry.bottleneck.as_ref().map(|found| Bottleneck {
            name: found.name.to_owned(),
            reasons: found.reasons.clone(),
        }),
    }
}

/// The evidence by its names.
fn evidence(pass: &Pass) -> BTreeMap<String, f64> {
    let all = pass.evidence.iter();
    all.map(|(evidence, value)| (evidence.name().to_owned(), *value))
        .collect()
}

/// The figure of a pass that tells what the samplers used beside the load, percent of one core.
pub const TELEMETRY_SHARE: &str = "telemetry_cpu_share_percent";

/// What the client says of itself, and of the samplers beside it.
fn client_figures(pass: &Pass) -> BTreeMap<String, f64> {
    let mut figures = pass.load.audit.figures();
    if let Some(share) = pass.telemetry.cpu_share_percent {
        figures.insert(TELEMETRY_SHARE.to_owned(), share);
    }
    figures
}

/// One row a series; single cores are left to `telemetry.parquet`.
fn metric_summaries(telemetry: &PassTelemetry) -> Vec<MetricSummary> {
    let is_core =
        |key: &SeriesKey| key.series.source() == series::Source::Cpu && &*key.device != "all";
    let rows = telemetry.summaries.iter();
    rows.filter(|summary| !is_core(&summary.key))
        .map(|summary| MetricSummary {
            source: summary.key.series.source().name().to_owned(),
            device: summary.key.device.to_string(),
            metric: summary.key.series.name().to_owned(),
            unit: summary.key.series.unit().name().to_owned(),
            samples: summary.samples,
            every_s: summary.every_s,
            slowed: summary.slowed,
            mean: summary.mean,
            max: summary.max,
            total: whole_total(summary),
        })
        .collect()
}

fn ledger_row(row: &ledger::Row) -> LedgerRow {
    LedgerRow {
        path: row.path.to_owned(),
        tokens: row.tokens,
        expected_bytes: row.expected_bytes,
        moved_bytes: row.moved_bytes,
        method: row.method.to_owned(),
    }
}

fn verdict_record(verdict: &verdict::Verdict) -> Verdict {
    let status = match verdict.status {
        Status::Valid => VerdictStatus::Valid,
        Status::Inconclusive => VerdictStatus::Inconclusive,
        Status::Invalid => VerdictStatus::Invalid,
    };
    Verdict {
        status,
        reasons: verdict.reasons.clone(),
    }
}

/// The rows of one pass, in planned order.
pub fn request_rows(pass: &Pass) -> Vec<RequestRow> {
    pass.load
        .records
        .iter()
        .map(|record| request_row(pass, record))
        .collect()
}

fn request_row(pass: &Pass, record: &RequestRecord) -> RequestRow {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let planned = &pass.schedule.requests[record.index as usize];
    let (outcome, error) = match &record.outcome {
        Outcome::Ok => (RequestOutcome::Ok, None),
        Outcome::Failed(failure) => (
            RequestOutcome::Failed,
            Some(failure.kind.name().into_owned()),
        ),
        Outcome::Unfinished => (RequestOutcome::Unfinished, None),
    };
    RequestRow {
        state: pass.state,
        request: record.index,
        intended_ms: ms(record.intended),
        sent_ms: ms(record.sent.unwrap_or(record.began)),
        lateness_ms: record.lateness().map_or(0.0, ms),
        connect_ms: record.connect.map(ms),
        ttft_ms: record.ttft().map(ms),
        e2e_ms: record.e2e().map(ms),
        tpot_ms: record.tpot().map(ms),
        gaps_ms: record.gaps().map(ms).collect(),
        prompt_len: planned
            .prompt_tokens
            .or(record.prompt_tokens())
            .unwrap_or(0),
        gen_len: planned.gen_len,
        prompt_tokens: record.prompt_tokens(),
        cached_tokens: record.cached_tokens(),
        output_tokens: record.output_tokens(),
        frames: record.frames,
        coalesced_frames: record.coalesced_frames,
        outcome,
        error,
        http_status: record.http_status,
    }
}
