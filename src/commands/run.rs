//! `labrun run`: a plan in, tables and figures out.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;
use tokio::time::Instant;

use super::manifest::{WallClock, manifest};
use super::plan::{check_rendering, distinct_servers};
use super::report::write_report;
use super::target::{Target, target};
use super::{ExitStatus, complain, print, runtime, say, width};
use crate::cli::RunArgs;
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::Plan;
use crate::progress::{Progress, Verbosity};
use crate::record::convert::cell_record;
use crate::record::open::Opened;
use crate::record::resume::{self, Ends, Resumption};
use crate::record::writer::RunFolder;
use crate::runner::event::Event;
use crate::runner::identity::Identities;
use crate::runner::lint::{self, Severity};
use crate::runner::ranges::RunRanges;
use crate::runner::stop::Stop;
use crate::runner::{CellOutcome, CellResult, RunScope, Work};
use crate::server::leftovers::{self, Mark};
use crate::{runner, server};

/// Runs a plan, or what is missing of it.
pub fn run(args: &RunArgs) -> Result<ExitStatus> {
    let started = WallClock::now();
    let target = target(args, started)?;
    let settings = &target.config.settings;
    check_rendering(&target.matrix, settings)?;
    for cell in distinct_servers(&target.matrix) {
        server::check_programs(cell, settings)?;
    }
    for one in lint::lint(&target.matrix, settings) {
        if one.severity == Severity::Problem {
            say(&format!("problem: {}", one.said));
        }
    }
    let opened = Opened::open(&target.folder, args.resume)?;
    remove_leftovers(settings)?;
    opened.notes.iter().for_each(|note| say(note));
    let plan_folder = plan_folder(&target.plan);
    let identities = Identities::new(settings, &plan_folder);
    let resumption = resumption(args, &target, &opened, &identities)?;
    let manifest = manifest(&target, started)?;
    let folder = opened.begin(&manifest, &target.plan.text)?;
    let runtime = runtime()?;
    let mut watched = Watched {
        folder,
        progress: Progress::new(Verbosity::of_stderr(args.quiet)),
        ranges: RunRanges::default(),
        ends: resumption.ends(),
        torn: None,
    };
    let ran = runtime.block_on(run_matrix(&target, &resumption, &identities, &mut watched));
    let (interrupted, broken) = match ran {
        Ok(interrupted) => (interrupted, None),
        Err(error) => (false, Some(error)),
    };
    // Whatever was kept is summed up, also when the run broke.
    let status = finish(args, &mut watched, interrupted)?;
    match broken {
        None => Ok(status),
        Some(error) => {
            complain(&error.context("the run ended early; finished cells are kept"));
            say(&how_to_go_on(watched.folder.path()));
            Ok(ExitStatus::CellsFailed)
        }
    }
}

fn plan_folder(plan: &Plan) -> PathBuf {
    let parent = Path::new(&plan.file).parent();
    parent.unwrap_or_else(|| Path::new(".")).to_owned()
}

/// What of the folder is kept. Says what is not and why, and puts it aside.
fn resumption(
    args: &RunArgs,
    target: &Target,
    opened: &Opened,
    identities: &Identities<'_>,
) -> Result<Resumption> {
    let wanted = target.matrix.cells.iter().enumerate();
    let identity_of = |cell: &Cell| identities.of(cell);
    let resumption = resume::decide(opened.path(), wanted, identity_of, args.retry)?;
    for (path, reason) in &resumption.aside {
        let to = resume::put_aside(opened.path(), path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        say(&format!("{name}: {reason}; kept in `{}`", to.display()));
    }
    if opened.manifest.is_some() {
        say(&format!(
            "continuing {}: {} of {} cells are finished, {} to run",
            opened.path().display(),
            resumption.kept.len(),
            target.matrix.cells.len(),
            resumption.todo.len()
        ));
    }
    Ok(resumption)
}

/// Servers of killed runs would take the GPU, the ports and the caches of this one.
fn remove_leftovers(settings: &Settings) -> Result<()> {
    let found = leftovers::find(&settings.paths.scratch)?;
    leftovers::remove(&found);
    for left in &found {
        say(&format!("removed {left}"));
    }
    Ok(())
}

/// The consumers of a run's events.
struct Watched {
    folder: RunFolder,
    progress: Progress,
    ranges: RunRanges,
    ends: Ends,
    /// Why the event log could not be written, once.
    torn: Option<anyhow::Error>,
}

impl Watched {
    fn on_event(&mut self, epoch: Instant, event: &Event<'_>) {
        // To both first: a broken terminal must not cost the record, nor the other way round.
        self.progress.on_event(event);
        self.ranges.see(event);
        let kept = self.folder.append(epoch.elapsed().as_secs_f64(), event);
        if let Err(error) = kept {
            self.torn.get_or_insert(error);
        }
    }

    fn on_cell(&mut self, result: &CellResult) -> Result<()> {
        if matches!(result.outcome, CellOutcome::Aborted) {
            return Ok(());
        }
        self.ends.count(&cell_record(result));
        // The cell first: what was measured is worth more than the log of it.
        self.folder.write_cell(result)?;
        self.torn.take().map_or(Ok(()), Err)
    }
}

async fn run_matrix(
    target: &Target,
    resumption: &Resumption,
    identities: &Identities<'_>,
    watched: &mut Watched,
) -> Result<bool> {
    let stop = Stop::default();
    let signals = stop.on_signals(watched.progress.speaker())?;
    let mark = Mark::of_this_process(&target.id);
    let path: PathBuf = watched.folder.path().to_owned();
    let plan_folder = plan_folder(&target.plan);
    let scope = RunScope {
        settings: &target.config.settings,
        mark: &mark,
        folder: &path,
        plan_folder: &plan_folder,
        identities,
        stop: &stop,
        epoch: Instant::now(),
    };
    let work = Work {
        matrix: &target.matrix,
        todo: &resumption.todo,
        first_position: resumption.next_position(),
    };
    let watched = std::cell::RefCell::new(watched);
    let ran = runner::run(
        work,
        &scope,
        &mut |event| watched.borrow_mut().on_event(scope.epoch, &event),
        &mut |result| watched.borrow_mut().on_cell(result),
    )
    .await;
    signals.abort();
    let _absent = std::fs::remove_dir_all(path.join("servers"));
    ran.map(|()| stop.requested())
}

fn finish(args: &RunArgs, watched: &mut Watched, interrupted: bool) -> Result<ExitStatus> {
    let folder = watched.folder.path().to_owned();
    let ends = watched.ends;
    // Before the report, which shows the manifest.
    let how = if interrupted {
        "interrupted"
    } else {
        "finished"
    };
    watched.folder.end(json!({
        "how": how,
        "at": WallClock::now().rfc3339(),
        "completed": ends.completed,
        "failed": ends.failed,
        "invalid": ends.invalid,
    }))?;
    if ends.completed + ends.failed > 0 {
        let report = write_report(&folder)?;
        if !args.quiet {
            print(&report.terminal(width()))?;
        }
    }
    if !args.quiet {
        say(&format!("\nwritten to {}", folder.display()));
    }
    if interrupted {
        say("interrupted: finished cells are kept, the one that ran is not");
        say(&how_to_go_on(&folder));
        return Ok(ExitStatus::Interrupted);
    }
    if ends.failed > 0 || ends.invalid > 0 {
        say(&format!(
            "{} of {} cells failed, {} have an invalid pass",
            ends.failed,
            ends.completed + ends.failed,
            ends.invalid
        ));
        if ends.failed > 0 {
            say(&how_to_go_on(&folder));
        }
        return Ok(ExitStatus::CellsFailed);
    }
    Ok(ExitStatus::Success)
}

/// What to type to run what is missing.
fn how_to_go_on(folder: &Path) -> String {
    format!("go on with: labrun run --resume {}", folder.display())
}
