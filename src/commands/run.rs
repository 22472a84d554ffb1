//! `labrun run`: a plan in, tables and figures out.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use tokio::time::Instant;

use super::manifest::{WallClock, manifest, short_hash};
use super::plan::{check_rendering, distinct_servers};
use super::report::write_report;
use super::{ExitStatus, complain, load_plan, print, runtime, say, width};
use crate::cli::RunArgs;
use crate::config::{Config, Settings};
use crate::matrix::Matrix;
use crate::plan::Plan;
use crate::progress::{Progress, Verbosity};
use crate::record::writer::RunFolder;
use crate::runner::event::Event;
use crate::runner::lint::{self, Severity};
use crate::runner::stop::Stop;
use crate::runner::verdict::Status;
use crate::runner::{CellOutcome, CellResult, RunScope};
use crate::server::leftovers::{self, Mark};
use crate::{runner, server};

/// Runs a plan.
pub fn run(args: &RunArgs) -> Result<ExitStatus> {
    let Some(path) = &args.plan else {
        bail!("no plan: name a TOML file, such as `labrun plans/quickstart.toml`");
    };
    let (plan, matrix) = load_plan(path)?;
    let config = Config::load(args.config.as_deref())?;
    check_rendering(&matrix, &config.settings)?;
    for cell in distinct_servers(&matrix) {
        server::check_programs(cell, &config.settings)?;
    }
    for one in lint::lint(&matrix, &config.settings) {
        if one.severity == Severity::Problem {
            say(&format!("problem: {}", one.said));
        }
    }
    remove_leftovers(&config.settings)?;
    let started = WallClock::now();
    let id = format!("{}-{}", started.compact(), short_hash(&plan, started));
    let folder = match &args.out {
        Some(out) => out.clone(),
        None => config.settings.paths.results.join(&plan.name).join(&id),
    };
    let manifest = manifest(&plan, &matrix, &config, &id, started)?;
    let folder = RunFolder::create(&folder, &manifest, &plan.text)?;
    let runtime = runtime()?;
    let progress = Progress::new(Verbosity::of_stderr(args.quiet));
    let mut watched = Watched {
        folder,
        progress,
        ends: Ends::default(),
        torn: None,
    };
    let ran = runtime.block_on(run_matrix(&plan, &matrix, &config, &id, &mut watched));
    let (interrupted, broken) = match ran {
        Ok(interrupted) => (interrupted, None),
        Err(error) => (false, Some(error)),
    };
    // Whatever was kept is summed up, also when the run broke.
    let status = finish(args, &watched, interrupted)?;
    match broken {
        None => Ok(status),
        Some(error) => {
            complain(&error.context("the run ended early; finished cells are kept"));
            Ok(ExitStatus::CellsFailed)
        }
    }
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

/// How the cells ended.
#[derive(Debug, Default)]
struct Ends {
    completed: u32,
    failed: u32,
    invalid: u32,
}

/// The consumers of a run's events.
struct Watched {
    folder: RunFolder,
    progress: Progress,
    ends: Ends,
    /// Why the event log could not be written, once.
    torn: Option<anyhow::Error>,
}

impl Watched {
    fn on_event(&mut self, epoch: Instant, event: &Event<'_>) {
        // To both first: a broken terminal must not cost the record, nor the other way round.
        self.progress.on_event(event);
        let kept = self.folder.append(epoch.elapsed().as_secs_f64(), event);
        if let Err(error) = kept {
            self.torn.get_or_insert(error);
        }
    }

    fn on_cell(&mut self, result: &CellResult) -> Result<()> {
        match &result.outcome {
            CellOutcome::Aborted => return Ok(()),
            CellOutcome::Completed => self.ends.completed += 1,
            CellOutcome::Failed { .. } => self.ends.failed += 1,
        }
        let invalid = |pass: &runner::Pass| pass.verdict.status == Status::Invalid;
        if result.passes.iter().any(invalid) {
            self.ends.invalid += 1;
        }
        // The cell first: what was measured is worth more than the log of it.
        self.folder.write_cell(result)?;
        self.torn.take().map_or(Ok(()), Err)
    }
}

async fn run_matrix(
    plan: &Plan,
    matrix: &Matrix,
    config: &Config,
    id: &str,
    watched: &mut Watched,
) -> Result<bool> {
    let stop = Stop::default();
    let signals = stop.on_signals(watched.progress.speaker())?;
    let mark = Mark::of_this_process(id);
    let path: PathBuf = watched.folder.path().to_owned();
    let plan_folder = Path::new(&plan.file)
        .parent()
        .unwrap_or_else(|| Path::new("."));
    let scope = RunScope {
        settings: &config.settings,
        mark: &mark,
        folder: &path,
        plan_folder,
        stop: &stop,
        epoch: Instant::now(),
    };
    let watched = std::cell::RefCell::new(watched);
    let ran = runner::run(
        matrix,
        &scope,
        &mut |event| watched.borrow_mut().on_event(scope.epoch, &event),
        &mut |result| watched.borrow_mut().on_cell(result),
    )
    .await;
    signals.abort();
    let _absent = std::fs::remove_dir_all(path.join("servers"));
    ran.map(|()| stop.requested())
}

fn finish(args: &RunArgs, watched: &Watched, interrupted: bool) -> Result<ExitStatus> {
    let folder = watched.folder.path();
    let ends = &watched.ends;
    if ends.completed + ends.failed > 0 {
        let report = write_report(folder)?;
        if !args.quiet {
            print(&report.terminal(width()))?;
        }
    }
    if !args.quiet {
        say(&format!("\nwritten to {}", folder.display()));
    }
    if interrupted {
        say("interrupted: finished cells are kept, the one that ran is not");
        return Ok(ExitStatus::Interrupted);
    }
    if ends.failed > 0 || ends.invalid > 0 {
        say(&format!(
            "{} of {} cells failed, {} have an invalid pass",
            ends.failed,
            ends.completed + ends.failed,
            ends.invalid
        ));
        return Ok(ExitStatus::CellsFailed);
    }
    Ok(ExitStatus::Success)
}
