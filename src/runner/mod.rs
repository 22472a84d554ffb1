//! Takes cells through their phases, in order, cancellably. A failed cell is data, not an error.

pub mod bottleneck;
pub mod event;
pub mod evidence;
pub mod figures;
pub mod host;
pub mod identity;
pub mod ledger;
mod limits;
pub mod lint;
pub mod log_counts;
mod measure;
pub mod moved;
pub mod nvtx;
pub mod page_cache;
pub mod phases;
mod profile;
pub mod repeats;
mod requests;
pub mod session;
pub mod stop;
pub mod verdict;
pub mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::Instant;

use crate::config::Settings;
use crate::load::LoadOutcome;
use crate::matrix::{Cell, Matrix, shares_server};
use crate::plan::state::CacheState;
use crate::server;
use crate::server::docker::container::ContainerFacts;
use crate::server::leftovers::Mark;
use crate::server::render::Rendered;
use crate::telemetry::collector::Recorded;
use crate::workload::Schedule;
use event::{Event, Phase};
use host::Cooled;
use identity::{Identities, Identity};
use limits::CellLimit;
use phases::{PhaseStretch, Phases};
use repeats::Medians;
use session::{EndedSession, Failure, LogPart, Session};
use stop::Stop;
use verdict::Verdict;
use watch::PassTelemetry;

/// What a run may use.
#[derive(Clone, Copy, Debug)]
pub struct RunScope<'a> {
    /// The machine's settings.
    pub settings: &'a Settings,
    /// The mark that started processes carry.
    pub mark: &'a Mark,
    /// The run's folder; servers keep their logs under it while they live.
    pub folder: &'a Path,
    /// The plan's folder; files that it names are looked up there.
    pub plan_folder: &'a Path,
    /// What decides the results of its cells.
    pub identities: &'a Identities<'a>,
    /// How the run is told to stop.
    pub stop: &'a Stop,
    /// When the run began, which all offsets are told from.
    pub epoch: Instant,
    /// Warnings of telemetry that were made already.
    pub said: &'a watch::Said,
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
    /// The figures that the verdict rests on, by name.
    pub evidence: BTreeMap<String, f64>,
    /// Bytes that had to move against bytes that did.
    pub ledger: Vec<ledger::Row>,
    /// What the machine did meanwhile.
    pub telemetry: PassTelemetry,
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

/// Runs every cell of `work`, or all that come before the run is told to stop. `on_cell` keeps what
/// was measured; if it cannot, the run ends, since measuring what cannot be kept is waste. `medians`
/// holds what earlier repeats measured.
pub async fn run(
    work: Work<'_>,
    mut medians: Medians,
    scope: &RunScope<'_>,
    on_event: &mut dyn FnMut(Event<'_>),
    on_cell: &mut dyn FnMut(&CellResult) -> Result<()>,
) -> Result<()> {
    on_event(Event::RunStarted { work });
    let mut session = None;
    let kept = run_cells(work, &mut medians, scope, &mut session, on_event, on_cell).await;
    if let Some(session) = session {
        session.stop(scope.stop).await;
    }
    if scope.stop.requested() {
        on_event(Event::Stopped);
    }
    on_event(Event::RunFinished {
        elapsed: scope.epoch.elapsed(),
    });
    kept
}

async fn run_cells(
    work: Work<'_>,
    medians: &mut Medians,
    scope: &RunScope<'_>,
    session: &mut Option<Session>,
    on_event: &mut dyn FnMut(Event<'_>),
    on_cell: &mut dyn FnMut(&CellResult) -> Result<()>,
) -> Result<()> {
    let mut position = work.first_position;
    let mut before: Option<&Cell> = None;
    let cell_at = |place: usize| work.matrix.cells.get(*work.todo.get(place)?);
    for place in 0..work.todo.len() {
        let Some(cell) = cell_at(place).filter(|_| !scope.stop.requested()) else {
            return Ok(());
        };
        let auto = cell.resolved.run.pace.auto;
        let elapsed = scope.epoch.elapsed();
        if auto.is_some_and(|auto| !medians.wants(&cell.coordinates, &auto, elapsed)) {
            on_event(Event::CellSkipped { cell });
            continue;
        }
        if let Some(why) = too_little_room(scope) {
            scope.stop.request(why);
            return Ok(());
        }
        // A cell that was skipped may have been the one that the server was kept for.
        let shared = before.is_some_and(|before| shares_server(before, cell));
        if let Some(other) = session.take_if(|_| !shared) {
            other.stop(scope.stop).await;
        }
        let next = cell_at(place + 1);
        on_event(Event::CellStarted { cell, position });
        let (mut result, ended) = run_cell(cell, next, position, scope, session, on_event).await;
        let attempt = f64::from(work.attempt);
        result.machine.insert("run_attempt".to_owned(), attempt);
        if let Some(auto) = auto {
            for pass in &result.passes {
                medians.add_pass(&cell.coordinates, auto.metric, pass);
            }
        }
        position += 1;
        before = Some(cell);
        on_event(Event::CellFinished { result: &result });
        on_cell(&result)?;
        if let Some(ended) = ended {
            // Its logs are in the cells' folders by now.
            let _absent = std::fs::remove_dir_all(ended.folder());
        }
    }
    Ok(())
}

/// Runs one cell. Always returns: a failure is an outcome, and a server that the next cell does not
/// share is stopped on every path.
async fn run_cell(
    cell: &Cell,
    next: Option<&Cell>,
    position: u32,
    scope: &RunScope<'_>,
    slot: &mut Option<Session>,
    on_event: &mut dyn FnMut(Event<'_>),
) -> (CellResult, Option<EndedSession>) {
    let mut phases = Phases::default();
    let on_event = &mut |event: Event<'_>| {
        phases.see(&event, scope.epoch.elapsed());
        on_event(event);
    };
    let (cooled, mut warnings) = cool_down(cell, scope).await;
    let mut machine = host::state();
    machine.extend(cooled);
    let began = Instant::now();
    // A file that cannot be read fails the cell where it is read for its requests.
    let mut identity = scope.identities.of(cell).unwrap_or_default();
    let mut facts = ServerFacts {
        reused: slot.is_some(),
        ..ServerFacts::default()
    };
    let mut passes = Vec::new();
    let mut telemetry = Recorded::default();
    let mut kept = measure::Kept {
        passes: &mut passes,
        warnings: &mut warnings,
        telemetry: &mut telemetry,
    };
    let measured = measure_in_time(cell, position, scope, slot, &mut kept, on_event).await;
    let outcome = outcome_of(measured, slot.as_ref(), scope);
    if let Some(session) = slot.as_ref() {
        facts.version.clone_from(&session.version);
        facts.ready = session.ready.filter(|_| !facts.reused);
        facts.rendered.clone_from(&session.rendered);
        facts.containers = session.server.containers();
    }
    let shared = matches!(outcome, CellOutcome::Completed)
        && next.is_some_and(|next| shares_server(cell, next))
        && !scope.stop.requested();
    let mut ended = None;
    if shared {
        facts.logs = slot
            .as_mut()
            .map(Session::take_log_parts)
            .unwrap_or_default();
    } else if let Some(session) = slot.take() {
        on_event(Event::PhaseStarted {
            phase: Phase::Stop,
            state: None,
        });
        let (stopped, mut left) = session.stop(scope.stop).await;
        facts.stopped = Some(stopped.how);
        facts.containers = stopped.containers;
        warnings.extend(stopped.warnings);
        facts.logs = left.take_log_parts();
        ended = Some(left);
    }
    // What ran outdoes what would run: an image may have been pulled for this very cell.
    identity.extend(server::facts::of_containers(&facts.containers));
    let (cell, elapsed) = (cell.clone(), began.elapsed());
    let result = CellResult {
        cell,
        position,
        identity,
        machine,
        elapsed,
        outcome,
        server: facts,
        passes,
        telemetry,
        phases: phases.finish(scope.epoch.elapsed()),
        warnings,
    };
    (result, ended)
}

/// Starts a server where none is shared and measures the cell, within the plan's limit for a cell.
async fn measure_in_time(
    cell: &Cell,
    position: u32,
    scope: &RunScope<'_>,
    slot: &mut Option<Session>,
    kept: &mut measure::Kept<'_>,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<(), Failure> {
    let limit = cell.resolved.run.pace.cell_time_limit;
    let clock = CellLimit::start(scope.stop, limit);
    let scope = &RunScope {
        stop: &clock.stop,
        ..*scope
    };
    let mut phase = Phase::Launch;
    let mut on_event = |event: Event<'_>| {
        if let Event::PhaseStarted { phase: entered, .. } = &event {
            phase = *entered;
        }
        on_event(event);
    };
    let ready = session::ensure(slot, cell, position, scope, &mut on_event).await;
    let measured = match (ready, slot.as_mut()) {
        (Ok(()), Some(session)) => {
            measure::measure(cell, session, scope, kept, &mut on_event).await
        }
        (ready, _) => ready,
    };
    match limit {
        Some(limit) if clock.is_over() => Err(over_time(phase, limit)),
        _ => measured,
    }
}

fn over_time(phase: Phase, limit: Duration) -> Failure {
    let limit_s = limit.as_secs_f64();
    let error = anyhow!("it took longer than the plan's `cell_time_limit_s` of {limit_s} s");
    Failure { phase, error }
}

/// Why no further cell can be kept, if so.
fn too_little_room(scope: &RunScope<'_>) -> Option<String> {
    let settings = scope.settings;
    let folders = [scope.folder, settings.paths.scratch.as_path()];
    host::too_little_room(folders, settings.limits.min_free_mib)
}

/// Waits until the GPU is as cool as the plan asks. Returns what the record keeps of it, and what a
/// reader should know.
async fn cool_down(cell: &Cell, scope: &RunScope<'_>) -> (Option<(String, f64)>, Vec<String>) {
    let pace = &cell.resolved.run.pace;
    let Some(below_c) = pace.cooldown_below_c else {
        return (None, Vec::new());
    };
    let limit = pace.cooldown_limit;
    let stop = &scope.stop.polite;
    match host::cool_down(host::hottest_gpu_c, below_c, limit, stop).await {
        Cooled::After(waited) => {
            let waited_s = waited.as_secs_f64();
            (Some(("cooldown_s".to_owned(), waited_s)), Vec::new())
        }
        Cooled::StillHot(now_c) => (
            None,
            vec![format!(
                "it began at {now_c} degrees Celsius: {} s were not enough to come below {below_c}",
                limit.as_secs()
            )],
        ),
        Cooled::Unknown => (
            None,
            vec!["no GPU's temperature is known here, so none was waited for".to_owned()],
        ),
    }
}

fn outcome_of(
    measured: Result<(), Failure>,
    session: Option<&Session>,
    scope: &RunScope<'_>,
) -> CellOutcome {
    match measured {
        // Whatever broke after the run was told to stop broke because of that.
        _ if scope.stop.requested() => CellOutcome::Aborted,
        Ok(()) => CellOutcome::Completed,
        Err(Failure { phase, error }) => CellOutcome::Failed {
            phase,
            error: format!("{error:#}"),
            log_tail: session.map(Session::log_tail).unwrap_or_default(),
        },
    }
}
