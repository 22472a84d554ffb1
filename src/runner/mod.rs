//! Takes cells through their phases, in order, cancellably. A failed cell is data, not an error.

pub(crate) mod event;
mod evidence;
pub(crate) mod host;
pub(crate) mod identity;
mod limits;
mod log_marks;
mod measure;
pub(crate) mod nvtx;
pub(crate) mod page_cache;
pub(crate) mod phases;
mod profile;
pub(crate) mod record;
pub(crate) mod repeats;
mod requests;
pub(crate) mod result;
pub(crate) mod scope;
pub(crate) mod serialized;
mod session;
mod snapshot;
pub(crate) mod stop;
pub(crate) mod watch;

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::Instant;

use crate::matrix::{Cell, shares_server};
use crate::record::schema::{CellOutcome, FORETOLD, Phase, VerdictStatus};
use crate::server;
use crate::telemetry::collector::Recorded;
use event::Event;
use host::Cooled;
use limits::CellLimit;
use phases::Phases;
use record::Parts;
use repeats::Medians;
use result::{CellResult, Pass, ServerFacts, Work};
use scope::RunScope;
use session::{EndedSession, Failure, Session};

/// Runs every cell of `work`, or all that come before the run is stopped. `on_cell` stores what
/// was measured; if it cannot, the run ends, since measuring what cannot be stored is waste. `medians`
/// holds what earlier repeats measured.
pub(crate) async fn run(
    work: Work<'_>,
    mut medians: Medians,
    scope: &RunScope<'_>,
    on_event: &mut dyn FnMut(Event<'_>),
    on_cell: &mut dyn FnMut(&CellResult) -> Result<()>,
) -> Result<()> {
    on_event(Event::RunStarted { work });
    let mut session = None;
    let ran = run_cells(work, &mut medians, scope, &mut session, on_event, on_cell).await;
    if let Some(session) = session {
        session.stop(scope.stop).await;
    }
    if scope.stop.requested() {
        on_event(Event::Stopped);
    }
    on_event(Event::RunFinished {
        elapsed: scope.epoch.elapsed(),
    });
    ran
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
    let mut before: Option<Cell> = None;
    let cell_at = |place: usize| work.matrix.cells.get(*work.todo.get(place)?);
    for place in 0..work.todo.len() {
        let Some(cell) = cell_at(place).filter(|_| !scope.stop.requested()) else {
            return Ok(());
        };
        let auto = cell.resolved.run.pace.auto;
        let elapsed = scope.epoch.elapsed();
        if auto.is_some_and(|auto| !medians.wants(&cell.coordinates, &auto, elapsed)) {
            on_event(Event::CellSkipped { cell: &cell });
            continue;
        }
        if let Some(why) = too_little_room(scope) {
            scope.stop.request(why);
            return Ok(());
        }
        // A cell that was skipped may have been the one that the server was to be shared with.
        let shared = before.is_some_and(|before| shares_server(&before, &cell));
        if let Some(other) = session.take_if(|_| !shared) {
            other.stop(scope.stop).await;
        }
        let next = cell_at(place + 1);
        let (cell, next) = (&cell, next.as_ref());
        on_event(Event::CellStarted { cell, position });
        let (mut result, ended) = run_cell(cell, next, position, scope, session, on_event).await;
        let attempt = f64::from(work.attempt);
        result
            .record
            .machine
            .insert("run_attempt".to_owned(), attempt);
        if let Some(auto) = auto {
            for pass in &result.passes {
                medians.add_pass(&cell.coordinates, auto.metric, pass);
            }
        }
        position += 1;
        before = Some(cell.clone());
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
    let mut results = measure::Results {
        passes: &mut passes,
        warnings: &mut warnings,
        telemetry: &mut telemetry,
    };
    let measured = measure_in_time(cell, position, scope, slot, &mut results, on_event).await;
    let outcome = outcome_of(measured, slot.as_ref(), scope);
    if let Some(session) = slot.as_ref() {
        note_server(&mut facts, session);
    }
    let shared = matches!(outcome, CellOutcome::Completed)
        && next.is_some_and(|next| shares_server(cell, next))
        && !scope.stop.requested();
    let mut ended = None;
    if shared {
        let logs = slot.as_mut().map(Session::take_log_parts);
        facts.logs = logs.unwrap_or_default();
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
    warnings.extend(foretold(cell, &passes, scope));
    // What ran outdoes what would run: an image may have been pulled for this very cell.
    identity.extend(server::facts::of_containers(&facts.containers));
    let record = Parts {
        cell,
        position,
        identity,
        machine,
        outcome,
        server: &facts,
        passes: &passes,
        warnings,
    };
    let result = CellResult {
        record: record.record(),
        elapsed: began.elapsed(),
        rendered: facts.rendered,
        script: facts.script,
        logs: facts.logs,
        passes,
        telemetry,
        phases: phases.finish(scope.epoch.elapsed()),
    };
    (result, ended)
}

/// The problems of `cell` that were seen before the start, where one of its passes is invalid.
fn foretold(cell: &Cell, passes: &[Pass], scope: &RunScope<'_>) -> Vec<String> {
    let is_invalid = |pass: &Pass| pass.verdict.status == VerdictStatus::Invalid;
    if !passes.iter().any(is_invalid) {
        return Vec::new();
    }
    let problems = scope.foretold.get(&cell.id).into_iter().flatten();
    problems
        .map(|problem| format!("{FORETOLD}{problem}"))
        .collect()
}

/// Notes what is known of the server of `session`.
fn note_server(facts: &mut ServerFacts, session: &Session) {
    facts.version.clone_from(&session.version);
    facts.ready = session.ready.filter(|_| !facts.reused);
    facts.rendered.clone_from(&session.rendered);
    facts.script = session.script();
    facts.containers = session.server.containers();
}

/// Starts a server where none is shared and measures the cell, within the plan's limit for a cell.
async fn measure_in_time(
    cell: &Cell,
    position: u32,
    scope: &RunScope<'_>,
    slot: &mut Option<Session>,
    results: &mut measure::Results<'_>,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<(), Failure> {
    let limit = cell.resolved.run.pace.cell_time_limit;
    let clock = CellLimit::start(scope.stop, limit);
    let at_once = &scope.stop.at_once;
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
    let measuring = async {
        session::ensure(slot, cell, position, scope, &mut on_event).await?;
        match slot.as_mut() {
            Some(session) => measure::measure(cell, session, scope, results, &mut on_event).await,
            None => Ok(()),
        }
    };
    // A server that hangs answers no control route either: none is waited for, and the cell, which is
    // not stored, ends here. What `ensure` has started and not handed over ends with its future.
    let measured = tokio::select! {
        measured = measuring => measured,
        () = at_once.cancelled() => return Ok(()),
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

/// Why no further cell can be stored, if so.
fn too_little_room(scope: &RunScope<'_>) -> Option<String> {
    let settings = scope.settings;
    let folders = [scope.folder, settings.paths.scratch.as_path()];
    host::too_little_room(folders, settings.limits.min_free_mib)
}

/// Waits until the GPU is as cool as the plan asks. Returns what is recorded of it, and what a
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
        // Whatever broke after the run was stopped broke because of that.
        _ if scope.stop.requested() => CellOutcome::Aborted {
            reason: "the run was interrupted".to_owned(),
        },
        Ok(()) => CellOutcome::Completed,
        Err(Failure { phase, error }) => CellOutcome::Failed {
            phase,
            error: format!("{error:#}"),
            log_tail: session.map(Session::log_tail).unwrap_or_default(),
        },
    }
}
