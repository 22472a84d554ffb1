//! What a run works on and what it measured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::identity::Identity;
use crate::evidence::Evidence;
use crate::load::LoadOutcome;
use crate::matrix::{Cell, Matrix};
use crate::plan::state::CacheState;
use crate::server::docker::container::ContainerFacts;
use crate::server::render::Rendered;
use crate::telemetry::collector::Recorded;
use crate::telemetry::summary::{Summary, Window};
use crate::verdict::bottleneck::Bottleneck;
use crate::verdict::{Verdict, ledger};
use crate::workload::Schedule;

/// What a cell is doing. A failure names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// One phase of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseStretch {
    /// Which.
    pub phase: Phase,
    /// The cache state that it served, where there was one.
    pub state: Option<CacheState>,
    /// From when to when, from the run's epoch.
    pub window: Window,
}

/// What telemetry says of one pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassTelemetry {
    /// The time between the readings at its edges.
    pub window: Window,
    /// Every series over the pass.
    pub summaries: Vec<Summary>,
    /// CPU time of the samplers beside the load, percent of one core; absent where nothing was watched.
    pub cpu_share_percent: Option<f64>,
    /// What held the pass back; absent where nothing was watched.
    pub bottleneck: Option<Bottleneck>,
}

/// The part of a log that was written since the last cell took its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// The log's file name.
    pub name: &'static str,
    /// The log itself.
    pub path: PathBuf,
    /// First byte of the part.
    pub from: u64,
    /// One past its last byte.
    pub to: u64,
}

/// How a cell ended.
#[derive(Debug)]
pub enum CellOutcome {
    /// Every pass ran to its end.
    Completed,
    /// It could not be measured to its end.
    Failed {
        /// In which phase.
        phase: Phase,
        /// What happened, with causes.
        error: String,
        /// The last lines of the server's logs.
        log_tail: Vec<String>,
    },
    /// The run was told to stop while it ran.
    Aborted,
}

/// One measured pass.
#[derive(Debug)]
pub struct Pass {
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
    /// The measures that the verdict rests on, by name.
    pub evidence: BTreeMap<Evidence, f64>,
    /// Bytes that had to move against bytes that did.
    pub ledger: Vec<ledger::Row>,
    /// What the machine did meanwhile.
    pub telemetry: PassTelemetry,
}

impl Pass {
    /// How many requests were answered, with failures where there are any: `24 ok, 1 failed`.
    pub fn counts_line(&self) -> String {
        let tally = self.load.tally();
        let mut line = format!("{} ok", tally.ok);
        if tally.failed > 0 {
            line.push_str(&format!(", {} failed", tally.failed));
        }
        if tally.unfinished > 0 {
            line.push_str(&format!(", {} unfinished", tally.unfinished));
        }
        line
    }
}

/// What is known of a cell's server.
#[derive(Debug, Default)]
pub struct ServerFacts {
    /// What `/version` answered.
    pub version: Option<String>,
    /// From its start to its first real token.
    pub ready: Option<Duration>,
    /// How it ended; absent while the next cell shares it.
    pub stopped: Option<String>,
    /// Its containers, where it runs in some.
    pub containers: Vec<ContainerFacts>,
    /// Whether the cell found it running.
    pub reused: bool,
    /// Its rendered LMCache configuration.
    pub rendered: Option<Rendered>,
    /// Its logs' parts of this cell.
    pub logs: Vec<LogPart>,
}

/// All that is known of one cell.
#[derive(Debug)]
pub struct CellResult {
    /// The cell.
    pub cell: Cell,
    /// Its place in the order, from 1.
    pub position: u32,
    /// What decides its result: what is known before a server starts, and the image that ran.
    pub identity: Identity,
    /// The machine when it began, the unit last in each name.
    pub machine: BTreeMap<String, f64>,
    /// From its start to its end.
    pub elapsed: Duration,
    /// How it ended.
    pub outcome: CellOutcome,
    /// Its server.
    pub server: ServerFacts,
    /// Its passes, in order.
    pub passes: Vec<Pass>,
    /// What the machine did from its ready server to its end.
    pub telemetry: Recorded,
    /// When its phases were.
    pub phases: Vec<PhaseStretch>,
    /// What a reader should know besides.
    pub warnings: Vec<String>,
}

/// Which cells are run.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// All cells.
    pub matrix: &'a Matrix,
    /// Indices of those to run, in order.
    pub todo: &'a [usize],
    /// The position of the first of them: those before it ran earlier.
    pub first_position: u32,
    /// Which attempt at the run this is, from 1.
    pub attempt: u32,
}
