//! The record of a cell, made once: what readers see, the event log and the terminal have from it.

use std::collections::BTreeMap;

use super::identity::{self, Identity};
use super::result::{Pass, PassTelemetry, ServerFacts};
use crate::load::Outcome;
use crate::matrix::Cell;
use crate::record::redact;
use crate::record::schema::{
    CellOutcome, CellRecord, FORMAT, MetricSummary, PassRecord, ServerRecord, Source,
};
use crate::series;
use crate::telemetry::sample::SeriesKey;
use crate::verdict::moved::whole_total;

/// Simulated where the server's version names the simulator.
pub(crate) fn source_of_version(version: Option<&str>) -> Source {
    match version {
        Some(version) if version.contains("labrun-sim") => Source::Simulated,
        _ => Source::Measured,
    }
}

/// Whether the numbers of `cell` are simulated. An external simulator is recognised by what it
/// answers to `/version`.
pub(crate) fn source_of(cell: &Cell, version: Option<&str>) -> Source {
    if cell.resolved.server.is_simulated() {
        Source::Simulated
    } else {
        source_of_version(version)
    }
}

/// What a cell's record is made of.
pub(super) struct Parts<'a> {
    pub cell: &'a Cell,
    pub position: u32,
    /// What was known before its server started, and the image that ran.
    pub identity: Identity,
    pub machine: BTreeMap<String, f64>,
    pub outcome: CellOutcome,
    pub server: &'a ServerFacts,
    pub passes: &'a [Pass],
    pub warnings: Vec<String>,
}

impl Parts<'_> {
    /// The record, without secrets.
    pub(super) fn record(self) -> CellRecord {
        let Self { cell, server, .. } = self;
        let version = server.version.as_deref();
        let spec = &cell.resolved.server;
        CellRecord {
            format: FORMAT,
            id: cell.id.clone(),
            position: self.position,
            part: None,
            coordinates: cell.coordinates.clone(),
            tier_kind: Some(cell.tier.kind),
            identity: completed(self.identity, version),
            machine: self.machine,
            source: source_of(cell, version),
            model: cell.resolved.model.clone(),
            outcome: without_secrets(self.outcome),
            server: ServerRecord {
                launcher: Some(spec.launcher),
                version: server.version.clone(),
                lmcache: cell.tier.kind.uses_lmcache().then_some(spec.lmcache),
                ready_s: server.ready.map(|ready| ready.as_secs_f64()),
                stopped: server.stopped.clone(),
                reused: server.reused,
                containers: server.containers.clone(),
            },
            passes: self.passes.iter().map(pass_record).collect(),
            warnings: self.warnings,
            // Known once they are written.
            files: BTreeMap::new(),
        }
    }
}

/// `identity` with what the server reported, and one hash of it all.
fn completed(mut identity: Identity, version: Option<&str>) -> Identity {
    identity.insert("format".to_owned(), FORMAT.to_string());
    if let Some(version) = version {
        identity.insert("version.server".to_owned(), version.to_owned());
    }
    redact::table(&mut identity);
    let hash = identity::hash(&identity);
    identity.insert("hash".to_owned(), hash);
    identity
}

fn without_secrets(outcome: CellOutcome) -> CellOutcome {
    match outcome {
        CellOutcome::Failed {
            phase,
            error,
            log_tail,
        } => CellOutcome::Failed {
            phase,
            error: redact::text(&error),
            log_tail: log_tail.iter().map(|line| redact::text(line)).collect(),
        },
        CellOutcome::Completed | CellOutcome::Aborted { .. } => outcome,
    }
}

/// What is recorded of one pass besides its requests.
pub(crate) fn pass_record(pass: &Pass) -> PassRecord {
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
        counts: pass.load.counts(),
        errors,
        verdict: pass.verdict.clone(),
        evidence: evidence(pass),
        client: client_figures(pass),
        ledger: pass.ledger.clone(),
        telemetry: metric_summaries(&pass.telemetry),
        bottleneck: pass.telemetry.bottleneck.clone(),
    }
}

/// The evidence by its names.
fn evidence(pass: &Pass) -> BTreeMap<String, f64> {
    let all = pass.evidence.iter();
    all.map(|(evidence, value)| (evidence.name().to_owned(), *value))
        .collect()
}

/// The figure of a pass for what the samplers used beside the load, percent of one core.
pub(crate) const TELEMETRY_SHARE: &str = "telemetry_cpu_share_percent";

/// What the client used, and the samplers beside it.
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
