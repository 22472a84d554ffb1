//! What a run works on and what it measured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::load::LoadOutcome;
use crate::matrix::Matrix;
use crate::plan::state::CacheState;
use crate::record::schema::{Bottleneck, CellRecord, ContainerRecord, LedgerRow, Phase, Verdict};
use crate::server::render::Rendered;
use crate::telemetry::collector::Recorded;
use crate::telemetry::summary::{Summary, Window};
use crate::verdict::basis::{Basis, Stretch};
use crate::workload::Schedule;

/// One phase of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PhaseStretch {
    /// Which.
    pub phase: Phase,
    /// The cache state that it served, where there was one.
    pub state: Option<CacheState>,
    /// From when to when, from the run's epoch.
    pub window: Window,
}

/// What telemetry saw of one pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PassTelemetry {
    /// The time between the readings at its edges.
    pub window: Window,
    /// The same with what was read around it.
    pub stretch: Stretch,
    /// Every series over the pass.
    pub summaries: Vec<Summary>,
    /// CPU time of the samplers beside the load, percent of one core; absent where nothing was watched.
    pub cpu_share_percent: Option<f64>,
    /// What limited the pass; absent where nothing was watched.
    pub bottleneck: Option<Bottleneck>,
}

/// The part of a log that was written since the last cell took its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogPart {
    /// The log's file name.
    pub name: String,
    /// The log itself.
    pub path: PathBuf,
    /// First byte of the part.
    pub from: u64,
    /// One past its last byte.
    pub to: u64,
}

/// One measured pass.
#[derive(Debug)]
pub(crate) struct Pass {
    /// The cache state that it ran in.
    pub state: CacheState,
    /// When it began, from the run's epoch.
    pub started: Duration,
    /// What was sent.
    pub schedule: Arc<Schedule>,
    /// What came back.
    pub load: LoadOutcome,
    /// Whether the declared tier served.
    pub verdict: Verdict,
    /// What it was judged by; absent where nothing was to be proven.
    pub basis: Option<Basis>,
    /// The measures that the verdict rests on, by name.
    pub evidence: BTreeMap<Evidence, f64>,
    /// Bytes that had to move against bytes that did.
    pub ledger: Vec<LedgerRow>,
    /// What the machine did meanwhile.
    pub telemetry: PassTelemetry,
}

/// What is known of a cell's server.
#[derive(Debug, Default)]
pub(crate) struct ServerFacts {
    /// What `/version` answered.
    pub version: Option<String>,
    /// From its start to its first real token.
    pub ready: Option<Duration>,
    /// How it ended; absent while the next cell shares it.
    pub stopped: Option<String>,
    /// Its containers, where it runs in some.
    pub containers: Vec<ContainerRecord>,
    /// Whether the cell found it running.
    pub reused: bool,
    /// Its rendered LMCache configuration.
    pub rendered: Option<Rendered>,
    /// A script that starts it by hand.
    pub script: Option<String>,
    /// Its logs' parts of this cell.
    pub logs: Vec<LogPart>,
}

/// One cell, measured: its record, and what is written beside that.
#[derive(Debug)]
pub(crate) struct CellResult {
    /// What is recorded of it.
    pub record: CellRecord,
    /// From its start to its end.
    pub elapsed: Duration,
    /// Its rendered LMCache configuration.
    pub rendered: Option<Rendered>,
    /// A script that starts its server by hand.
    pub script: Option<String>,
    /// The logs' parts of this cell.
    pub logs: Vec<LogPart>,
    /// Its passes, in order, request by request.
    pub passes: Vec<Pass>,
    /// What the machine did from its ready server to its end.
    pub telemetry: Recorded,
    /// When its phases were.
    pub phases: Vec<PhaseStretch>,
}

/// Which cells are run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    /// All cells.
    pub matrix: &'a Matrix,
    /// Indices of those to run, in order.
    pub todo: &'a [usize],
    /// The position of the first of them: those before it ran earlier.
    pub first_position: u32,
    /// Which attempt at the run this is, from 1.
    pub attempt: u32,
}
