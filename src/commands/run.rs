//! `labrun run`: a plan in, tables and figures out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::externals::Externals;
use super::plan::dry_run;
use super::preflight;
use super::report::write_report;
use super::same_failure::SameFailure;
use super::target::target;
use super::{ExitStatus, INTERRUPTED, as_argument, clean, complain, print, say, width};
use crate::cli::RunArgs;
use crate::config::Settings;
use crate::load::open_files;
use crate::matrix::{Cell, Matrix};
use crate::plan::load_spec::Arrival;
use crate::preflight::lint;
use crate::progress::{Progress, Verbosity};
use crate::record::manifest::Ended;
use crate::record::schema::{CellOutcome, CellRecord, PassRecord};
use crate::recorder::manifest::{Target, manifest, software};
use crate::recorder::open::Opened;
use crate::recorder::resume::{self, Outcomes, Resumption};
use crate::recorder::writer::RunFolder;
use crate::runner;
use crate::runner::event::Event;
use crate::runner::host::too_little_room;
use crate::runner::identity::{Identities, Identity};
use crate::runner::nvtx::RunRanges;
use crate::runner::record::TELEMETRY_SHARE;
use crate::runner::repeats::Medians;
use crate::runner::result::{CellResult, Work};
use crate::runner::scope::{RunScope, Warned};
use crate::runner::stop::Stop;
use crate::server::alive::Alive;
use crate::server::leftovers::{self, Leftover, Mark};
use crate::units::WallClock;

/// Runs a plan, or its missing cells.
pub(super) fn run(args: &RunArgs, runtime: &Runtime) -> Result<ExitStatus> {
    if args.dry_run {
        return dry_run(args);
    }
    let started = WallClock::now();
    let target = target(args, started)?;
    measure(args, &target, started, (runtime, Ending::Shown))
}

/// What is shown at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its last screen, or its folder.
    Shown,
    /// Nothing: the caller shows what came of it.
    Silent,
}

/// Measures `target` and sums it up in its folder.
pub(super) fn measure(
    args: &RunArgs,
    target: &Target,
    started: WallClock,
    (runtime, ending): (&Runtime, Ending),
) -> Result<ExitStatus> {
    let settings = &target.config.settings;
    let progress = Progress::new(Verbosity::of_stderr(args.quiet));
    let signals = Signals::heed(&progress, runtime)?;
    let externals = Externals::ask(&target.matrix, runtime);
    preflight::check(target, &externals, args, runtime)?;
    open_files::check(most_streams(&target.matrix))?;
    let opened = Opened::open(&target.folder, args.resume)?;
    clean::before_run(&target.matrix, runtime);
    remove_leftovers(settings)?;
    opened.notes.iter().for_each(|note| say(note));
    check_room(target)?;
    let plan_folder = target.plan_folder();
    let identities = Identities::new(settings, &plan_folder, runtime.handle().clone());
    let identity_of = |cell: &Cell| externals.identity(cell, &identities);
    let resumption = resumption(args, target, &opened, identity_of)?;
    if !resumption.finished.is_empty() {
        externals.doubts().for_each(|doubt| say(&doubt));
    }
    if !args.force {
        let todo = resumption.todo.iter();
        externals.refuse_unreachable(todo.filter_map(|at| target.matrix.cells.get(*at)))?;
    }
    let identity = target.matrix.cells.first().as_ref().map(identity_of);
    let identity = with_known_software(identity.transpose()?.unwrap_or_default(), &resumption);
    let manifest = manifest(target, &identity, started)?;
    let medians = medians(target, opened.path(), &resumption)?;
    let folder = opened.begin(manifest, &target.plan.text)?;
    let mut watched = Watched {
        folder,
        progress,
        ranges: RunRanges::default(),
        corpora: resumption.finished.iter().map(corpora).collect(),
        outcomes: resumption.outcomes(),
        has_noted_software: false,
        samplers_percent: None,
        failures_left: match args.max_failures {
            _ if args.fail_fast => Some(0),
            most => most,
        },
        startup: (!args.keep_going).then(SameFailure::default),
        left: resumption.todo.len(),
        stop: signals.stop.clone(),
        torn: None,
    };
    let header = header(target, &resumption, watched.folder.path());
    watched.progress.say(&header);
    let running = Running {
        target,
        resumption: &resumption,
        identities: &identities,
        medians,
        foretold: foretold(args, target),
    };
    signals.has_begun.store(true, Ordering::Relaxed);
    let ran = runtime.block_on(running.run(&mut watched));
    signals.task.abort();
    // Stored cells are summed up, also when the run broke.
    let finished = finish(args, &mut watched, ran.is_err(), ending);
    Ok(ended(watched.folder.path(), ran, finished))
}

/// Heeds signals. Those that come before the run has begun end labrun: it may wait for a server or a
/// daemon then, and nothing is measured that could be lost.
struct Signals {
    stop: Stop,
    has_begun: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Signals {
    fn heed(progress: &Progress, runtime: &Runtime) -> Result<Self> {
        let (stop, has_begun) = (Stop::default(), Arc::new(AtomicBool::new(false)));
        let (report, begun) = (progress.speaker(), Arc::clone(&has_begun));
        let _in_runtime = runtime.enter();
        let task = stop.on_signals(move |step| {
            if begun.load(Ordering::Relaxed) {
                report(step);
            } else {
                say("interrupted before the run began: no cell was measured");
                end_now();
            }
        })?;
        Ok(Self {
            stop,
            has_begun,
            task,
        })
    }
}

/// Ends labrun as a signal does.
#[expect(
    clippy::exit,
    reason = "the thread that would return may wait for a server"
)]
fn end_now() {
    std::process::exit(INTERRUPTED.into());
}

/// `24 cells, about 1 min, writing to FOLDER`.
fn header(target: &Target, resumption: &Resumption, folder: &Path) -> String {
    let todo = resumption.todo.len();
    let mut text = format!("{todo} {}", if todo == 1 { "cell" } else { "cells" });
    if todo == target.matrix.cells.len() {
        let about = lint::about(&target.matrix, &target.files);
        text.push_str(&format!(", about {about}"));
    }
    format!("{text}, writing to {}", folder.display())
}

/// Prints how the run ended and whether its results could be summed up.
fn ended(folder: &Path, ran: Result<()>, finished: Result<ExitStatus>) -> ExitStatus {
    if !folder.join("cells").is_dir() {
        say(&format!(
            "error: the run's folder `{}` is gone: somebody removed it while the run went on, and \
             what was measured with it",
            folder.display()
        ));
        return ExitStatus::CellsFailed;
    }
    match (ran, finished) {
        (Ok(()), Ok(status)) => status,
        (Ok(()), Err(error)) => {
            complain(&error.context("the cells are measured and stored, but their report is not"));
            say(&format!(
                "fix that, then run: labrun report {}",
                as_argument(folder)
            ));
            ExitStatus::CellsFailed
        }
        (Err(error), finished) => {
            complain(&error.context("the run ended early; finished cells are saved"));
            if let Err(error) = finished {
                complain(&error.context("and they could not be summed up"));
            }
            say(&resume_hint(folder));
            ExitStatus::CellsFailed
        }
    }
}

/// `identity` with the software of the retained cells: the rest of the run uses the same, and some
/// of it is unknown before a server runs.
fn with_known_software(mut identity: Identity, resumption: &Resumption) -> Identity {
    let record = resumption.finished.first();
    identity.extend(record.into_iter().flat_map(|it| software(&it.identity)));
    identity
}

/// Fails if there is no room for a single cell.
fn check_room(target: &Target) -> Result<()> {
    let settings = &target.config.settings;
    let folders = [target.folder.as_path(), &settings.paths.scratch];
    match too_little_room(folders, settings.limits.min_free_mib) {
        Some(why) => bail!("{why}; make room, or lower it"),
        None => Ok(()),
    }
}

/// The most connections at once of any cell; an open loop has no known number.
fn most_streams(matrix: &Matrix) -> u32 {
    let closed = matrix
        .cells
        .iter()
        .filter(|cell| cell.resolved.load.arrival == Arrival::Closed);
    let streams = closed.map(|cell| {
        let concurrency = cell.coordinates.concurrency.get();
        concurrency.min(cell.resolved.run.requests.get())
    });
    streams.max().unwrap_or(0)
}

/// The measurements of earlier attempts, if the number of repeats depends on them.
fn medians(target: &Target, folder: &Path, resumption: &Resumption) -> Result<Medians> {
    let mut medians = Medians::default();
    let first = target.matrix.cells.first();
    let Some(auto) = first.and_then(|cell| cell.resolved.run.pace.auto) else {
        return Ok(medians);
    };
    for record in &resumption.finished {
        let cell = folder.join("cells").join(&record.id);
        for (state, values_ms) in resume::values_ms(&cell, record, auto.metric)? {
            medians.add(&record.coordinates, state, values_ms);
        }
    }
    Ok(medians)
}

/// The prompts of a cell: its id, and the hashes of its passes' requests.
fn corpora(record: &CellRecord) -> (String, Vec<String>) {
    let passes = record.passes.iter().map(|pass| pass.corpus.clone());
    (record.id.clone(), passes.collect())
}

/// Decides which cells of the folder are retained. Puts the others aside and prints why.
fn resumption(
    args: &RunArgs,
    target: &Target,
    opened: &Opened,
    identity_of: impl Fn(&Cell) -> Result<Identity>,
) -> Result<Resumption> {
    if let Some(manifest) = &opened.manifest
        && manifest.shard != target.shard
    {
        let path = opened.path().display();
        bail!("`{path}` holds another part of the matrix; name another folder with --out");
    }
    let resumption = resume::decide(opened.path(), target.cells(), identity_of, args.retry)?;
    for (path, reason) in &resumption.aside {
        let to = resume::put_aside(opened.path(), path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        say(&format!("{name}: {reason}; moved to `{}`", to.display()));
    }
    // After that: a cell may return to the place of another.
    for (path, id) in &resumption.back {
        resume::bring_back(opened.path(), path, id)?;
        say(&format!(
            "{id}: its values are again those of `{}`, which is brought back",
            path.display()
        ));
    }
    if opened.manifest.is_some() {
        say(&format!(
            "continuing {}: {} of {} cells are finished, {} to run",
            opened.path().display(),
            resumption.finished.len(),
            target.cells().count(),
            resumption.todo.len()
        ));
    }
    Ok(resumption)
}

/// Servers of killed runs would take the GPU, the ports and the caches of this one.
fn remove_leftovers(settings: &Settings) -> Result<()> {
    let mut leftovers = leftovers::find(&settings.paths.scratch)?;
    // What may be somebody else's is left to `clean`, which asks.
    leftovers.retain(|left| match left {
        Leftover::Doubtful { of, .. } => {
            if matches!(**of, Leftover::Process { .. }) {
                say(&format!(
                    "left {left}; `labrun clean` asks whether it may end it"
                ));
            }
            false
        }
        _ => true,
    });
    leftovers::remove(&leftovers);
    for left in &leftovers {
        say(&format!("removed {left}"));
    }
    Ok(())
}

/// The consumers of a run's events.
struct Watched {
    folder: RunFolder,
    progress: Progress,
    ranges: RunRanges,
    /// The prompts of the stored cells, by id.
    corpora: BTreeMap<String, Vec<String>>,
    outcomes: Outcomes,
    /// Whether the manifest names the software that ran.
    has_noted_software: bool,
    /// Most that the samplers used beside the load of a pass, percent of a core.
    samplers_percent: Option<f64>,
    /// How many more cells may fail; absent: all.
    failures_left: Option<u32>,
    /// The last failure of a server to start; absent where the run goes on whatever fails.
    startup: Option<SameFailure>,
    /// Cells that are still to run.
    left: usize,
    stop: Stop,
    /// Why the event log could not be written, once.
    torn: Option<anyhow::Error>,
}

impl Watched {
    fn on_event(&mut self, epoch: Instant, event: &Event<'_>) {
        // To both first: a broken terminal must not cost the record, nor the other way round.
        self.progress.on_event(event);
        self.ranges.see(event);
        let logged = self.folder.append(epoch.elapsed().as_secs_f64(), event);
        if let Err(error) = logged {
            self.torn.get_or_insert(error);
        }
    }

    fn count_failure(&mut self) {
        match &mut self.failures_left {
            Some(0) => self.stop.request(
                "as many cells failed or are invalid as --fail-fast or --max-failures allows"
                    .to_owned(),
            ),
            Some(left) => *left -= 1,
            None => {}
        }
    }

    fn on_cell(&mut self, result: &CellResult) -> Result<()> {
        if matches!(result.record.outcome, CellOutcome::Aborted { .. }) {
            return Ok(());
        }
        let record = &result.record;
        self.left = self.left.saturating_sub(1);
        if self.left > 0
            && let Some(why) = self.startup.as_mut().and_then(|last| last.repeats(record))
        {
            self.stop.request(format!(
                "the same failure twice: {why}; {} not run (--keep-going goes on)",
                counted(self.left, "cell was", "cells were")
            ));
        }
        self.outcomes.count(record);
        self.corpora.extend([corpora(record)]);
        let shares = record.passes.iter().filter_map(samplers_percent);
        self.samplers_percent = shares.chain(self.samplers_percent).reduce(f64::max);
        let mut own = Outcomes::default();
        own.count(record);
        if own.failed + own.invalid > 0 {
            self.count_failure();
        }
        // The cell first: the measurement is worth more than the log.
        self.folder.write_cell(result)?;
        if record.outcome == CellOutcome::Completed && !self.has_noted_software {
            self.folder.note_software(&software(&record.identity))?;
            self.has_noted_software = true;
        }
        self.torn.take().map_or(Ok(()), Err)
    }
}

/// `1 cell was`, `2 cells were`.
fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// A run, ready to be begun.
struct Running<'a> {
    target: &'a Target,
    resumption: &'a Resumption,
    identities: &'a Identities<'a>,
    medians: Medians,
    foretold: BTreeMap<String, Vec<String>>,
}

/// The problems that the run goes on in spite of, by the cells' ids. Without --force it has none: they
/// would have ended it.
fn foretold(args: &RunArgs, target: &Target) -> BTreeMap<String, Vec<String>> {
    if args.force {
        lint::by_cell(&target.matrix, &target.config.settings)
    } else {
        BTreeMap::new()
    }
}

impl Running<'_> {
    async fn run(self, watched: &mut Watched) -> Result<()> {
        let Self {
            target,
            resumption,
            identities,
            medians,
            foretold,
        } = self;
        let stop = watched.stop.clone();
        let mark = Mark::of_this_process(&target.id);
        let _alive = Alive::begin(&mark);
        let path: PathBuf = watched.folder.path().to_owned();
        let plan_folder = target.plan_folder();
        let timer = time_limit(target, &stop);
        let warned = Warned::default();
        let scope = RunScope {
            settings: &target.config.settings,
            mark: &mark,
            folder: &path,
            plan_folder: &plan_folder,
            identities,
            stop: &stop,
            epoch: Instant::now(),
            foretold: &foretold,
            warned: &warned,
        };
        let work = Work {
            matrix: &target.matrix,
            todo: &resumption.todo,
            first_position: resumption.next_position(),
            attempt: watched.folder.attempt(),
        };
        let watched = std::cell::RefCell::new(watched);
        let ran = runner::run(
            work,
            medians,
            &scope,
            &mut |event| watched.borrow_mut().on_event(scope.epoch, &event),
            &mut |result| watched.borrow_mut().on_cell(result),
        )
        .await;
        if let Some(timer) = timer {
            timer.abort();
        }
        clean::after_run(&target.matrix, &mark).await;
        let _absent = std::fs::remove_dir_all(path.join("servers"));
        ran
    }
}

/// Stops the run when the plan's time for it is over.
fn time_limit(target: &Target, stop: &Stop) -> Option<JoinHandle<()>> {
    let limit = target.matrix.cells.first()?.resolved.run.pace.time_limit?;
    let stop = stop.clone();
    Some(tokio::spawn(async move {
        tokio::time::sleep(limit).await;
        let limit_s = limit.as_secs_f64();
        stop.request(format!("the plan's `time_limit_s` of {limit_s} s is over"));
    }))
}

fn finish(
    args: &RunArgs,
    watched: &mut Watched,
    broken: bool,
    ending: Ending,
) -> Result<ExitStatus> {
    let folder = watched.folder.path().to_owned();
    let outcomes = watched.outcomes;
    // Before the report, which shows the manifest.
    let how = match (watched.stop.requested(), watched.stop.why()) {
        (false, _) if broken => "broken",
        (false, _) => "finished",
        (true, Some(why)) => why,
        (true, None) => "interrupted",
    };
    let corpus = blake3::hash(&serde_json::to_vec(&watched.corpora)?);
    watched.folder.end(Ended {
        how: how.to_owned(),
        at: WallClock::now().rfc3339(),
        completed: outcomes.completed,
        failed: outcomes.failed,
        invalid: outcomes.invalid,
        corpus: Some(corpus.to_hex().to_string()),
        ..Ended::default()
    })?;
    if outcomes.completed + outcomes.failed > 0 {
        let report = write_report(&folder, args.price_per_hour)?;
        if args.tables {
            print(&report.terminal(width()))?;
        }
        if !args.quiet && ending == Ending::Shown {
            print(&format!(
                "\n{}",
                report.screen(&as_argument(&folder), width())
            ))?;
        }
    }
    if args.quiet && ending == Ending::Shown {
        print(&format!("{}\n", folder.display()))?;
    }
    if let Some(percent) = watched.samplers_percent.filter(|percent| *percent > 1.0) {
        say(&format!(
            "telemetry used up to {percent:.1} % of one core beside the load of a pass"
        ));
    }
    if watched.stop.requested() {
        let why = watched.stop.why().unwrap_or("interrupted");
        say(&format!(
            "{why}: finished cells are saved, a cell in progress is discarded"
        ));
        say(&resume_hint(&folder));
        return Ok(match watched.stop.why() {
            None => ExitStatus::Interrupted,
            Some(_) => ExitStatus::CellsFailed,
        });
    }
    if outcomes.failed + outcomes.invalid > 0 && ending == Ending::Silent {
        return Ok(ExitStatus::CellsFailed);
    }
    if outcomes.failed > 0 || outcomes.invalid > 0 {
        say(&format!(
            "{} of {} cells failed, {} have an invalid pass",
            outcomes.failed,
            outcomes.completed + outcomes.failed,
            outcomes.invalid
        ));
        if outcomes.failed > 0 {
            say(&resume_hint(&folder));
        }
        return Ok(ExitStatus::CellsFailed);
    }
    Ok(ExitStatus::Success)
}

fn samplers_percent(pass: &PassRecord) -> Option<f64> {
    pass.client.get(TELEMETRY_SHARE).copied()
}

/// The command that runs what is missing.
fn resume_hint(folder: &Path) -> String {
    format!("go on with: labrun run --resume {}", as_argument(folder))
}
