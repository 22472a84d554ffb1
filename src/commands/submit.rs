//! `labrun submit --slurm`: one plan on a cluster, a shard a task, joined at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::manifest::{WallClock, short_hash};
use super::merge::{merge_into, status};
use super::plan::check_rendering;
use super::report::write_report;
use super::slurm::{self, Job};
use super::target::read_manifest;
use super::{ExitStatus, load_plan, print, say, width};
use crate::cli::SubmitArgs;
use crate::config::{Config, Slurm};
use crate::record::lock::LOCK_FILE;
use crate::record::writer::write_synced;
use crate::server::log::tail;

/// Lines of a task's log that a failure quotes.
const TAIL_LINES: usize = 10;

/// What a later `submit --resume` must know.
#[derive(Debug, Serialize, Deserialize)]
struct Submission {
    plan: PathBuf,
    config: Option<PathBuf>,
    shards: u32,
    /// The job that each shard was submitted in last.
    jobs: BTreeMap<u32, String>,
    /// How often each was submitted.
    submitted: BTreeMap<u32, u32>,
}

/// The folder of a submission: the merged run, and `shards` and `submit` in it.
struct Folder(PathBuf);

impl Folder {
    fn submit(&self) -> PathBuf {
        self.0.join("submit")
    }

    fn shard(&self, shard: u32) -> PathBuf {
        self.0.join("shards").join(shard.to_string())
    }

    fn exit_file(&self, shard: u32) -> PathBuf {
        self.submit().join(format!("exit-{shard}"))
    }

    fn read(&self) -> Result<Submission> {
        let path = self.submit().join("submission.json");
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "`{}` was not submitted: no `{}`",
                self.0.display(),
                path.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("reading `{}`", path.display()))
    }

    fn write(&self, submission: &Submission) -> Result<()> {
        let text = serde_json::to_vec_pretty(submission)?;
        write_synced(&self.submit().join("submission.json"), &text)
    }

    /// What became of a shard that Slurm does not have any more.
    fn fate(&self, shard: u32) -> Fate {
        let code = std::fs::read_to_string(self.exit_file(shard));
        let code: Option<u32> = code.ok().and_then(|text| text.trim().parse().ok());
        let manifest = read_manifest(&self.shard(shard)).unwrap_or_default();
        match code {
            Some(2) => Fate::Refused,
            Some(_) if manifest["ended"]["how"] == "finished" => Fate::Finished,
            Some(code) => Fate::Lost(format!("it ended with exit code {code}")),
            None => Fate::Lost("it was killed".to_owned()),
        }
    }
}

/// What became of a shard.
enum Fate {
    /// All its cells ran, well or not.
    Finished,
    /// It cannot run at all.
    Refused,
    /// It ended before its cells had run.
    Lost(String),
}

/// Submits a plan and watches it, or watches what was submitted.
pub fn submit(args: &SubmitArgs) -> Result<ExitStatus> {
    ensure!(args.slurm, "say where to: --slurm");
    if args.resume {
        let folder = Folder(args.plan.clone());
        let submission = folder.read()?;
        return watch(args, &folder, submission);
    }
    let (plan, matrix) = load_plan(&args.plan)?;
    let config = Config::load(args.config.as_deref())?;
    check_rendering(&matrix, &config.settings)?;
    let cells = matrix.cells.len();
    let Some(shards) = args
        .shards
        .filter(|&shards| 0 < shards && shards as usize <= cells)
    else {
        bail!("into how many shards? --shards 1 to {cells}, the number of cells");
    };
    let started = WallClock::now();
    let id = format!("{}-{}", started.compact(), short_hash(&plan, started));
    let default = || config.settings.paths.results.join(&plan.name).join(id);
    let folder = Folder(std::path::absolute(
        args.out.clone().unwrap_or_else(default),
    )?);
    ensure!(
        !folder.submit().exists(),
        "`{0}` was submitted already; watch it with `labrun submit --slurm --resume {0}`",
        folder.0.display()
    );
    for path in [folder.submit(), folder.0.join("shards")] {
        std::fs::create_dir_all(&path).with_context(|| format!("making `{}`", path.display()))?;
    }
    let submission = Submission {
        plan: std::path::absolute(&args.plan)?,
        config: args.config.as_ref().map(std::path::absolute).transpose()?,
        shards,
        jobs: BTreeMap::new(),
        submitted: BTreeMap::new(),
    };
    let job = Job {
        name: &plan.name,
        labrun: std::env::current_exe().context("finding this program")?,
        plan: submission.plan.clone(),
        config: submission.config.clone(),
        working_folder: std::env::current_dir()?,
        folder: folder.submit(),
        shards_folder: folder.0.join("shards"),
        shards,
    };
    let script = job.script(&asked(args, &config.settings.slurm));
    write_synced(&folder.submit().join("job.sh"), script.as_bytes())?;
    folder.write(&submission)?;
    watch(args, &folder, submission)
}

/// The settings, under the flags.
fn asked(args: &SubmitArgs, slurm: &Slurm) -> Slurm {
    let text = |flag: &Option<String>, set: &str| flag.clone().unwrap_or_else(|| set.to_owned());
    Slurm {
        partition: text(&args.partition, &slurm.partition),
        account: text(&args.account, &slurm.account),
        time: text(&args.time, &slurm.time),
        gpus: args.gpus.unwrap_or(slurm.gpus),
        ..slurm.clone()
    }
}

/// Submits what is not in the queue and not finished, until all is; then merges.
fn watch(args: &SubmitArgs, folder: &Folder, mut submission: Submission) -> Result<ExitStatus> {
    let config = Config::load(submission.config.as_deref())?;
    let most = 1 + config.settings.slurm.resubmit;
    say(&format!(
        "{} shards in {}; Ctrl-C leaves them running, and `labrun submit --slurm --resume {}` \
         watches again",
        submission.shards,
        folder.0.display(),
        folder.0.display()
    ));
    let mut finished = BTreeSet::new();
    let mut last_line = String::new();
    loop {
        let mut states: BTreeMap<u32, String> = BTreeMap::new();
        let mut unknown = false;
        for job in submission.jobs.values().collect::<BTreeSet<_>>() {
            match slurm::queue(job) {
                Some(queued) => states.extend(
                    queued
                        .into_iter()
                        .filter(|(shard, _)| submission.jobs.get(shard) == Some(job)),
                ),
                None => unknown = true,
            }
        }
        if !unknown {
            let gone: Vec<u32> = (1..=submission.shards)
                .filter(|shard| !states.contains_key(shard) && !finished.contains(shard))
                .collect();
            settle(folder, &mut submission, &gone, most, &mut finished)?;
        }
        let line = progress_line(&submission, &states, finished.len());
        if line != last_line {
            say(&line);
            last_line = line;
        }
        if finished.len() == submission.shards as usize {
            return join(folder, submission.shards);
        }
        std::thread::sleep(Duration::from_secs_f64(args.poll_s.clamp(0.1, 3600.0)));
    }
}

fn progress_line(
    submission: &Submission,
    states: &BTreeMap<u32, String>,
    finished: usize,
) -> String {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for state in states.values() {
        *counts.entry(state.as_str()).or_default() += 1;
    }
    let counts = counts
        .iter()
        .map(|(state, count)| format!(", {count} {}", state.to_lowercase()));
    format!(
        "{finished} of {} shards finished{}",
        submission.shards,
        counts.collect::<String>()
    )
}

/// Decides on shards that are in no queue: finished, or to be submitted (again).
fn settle(
    folder: &Folder,
    submission: &mut Submission,
    gone: &[u32],
    most: u32,
    finished: &mut BTreeSet<u32>,
) -> Result<()> {
    let mut again = Vec::new();
    for &shard in gone {
        let times = submission.submitted.get(&shard).copied().unwrap_or(0);
        let log = || {
            tail(
                &folder.submit().join(format!("shard-{shard}.log")),
                TAIL_LINES,
            )
        };
        match folder.fate(shard) {
            Fate::Finished => drop(finished.insert(shard)),
            _ if times == 0 => again.push(shard),
            Fate::Refused => bail!("shard {shard} cannot run:\n{}", log().join("\n")),
            Fate::Lost(how) => {
                let job = submission.jobs.get(&shard).map_or("", String::as_str);
                let said = slurm::account(job, shard);
                let said = said.map_or_else(String::new, |said| format!(" (Slurm: {said})"));
                ensure!(
                    times < most,
                    "shard {shard} was lost {times} times: {how}{said}\n{}",
                    log().join("\n")
                );
                say(&format!(
                    "shard {shard} was lost: {how}{said}; submitting it again"
                ));
                again.push(shard);
            }
        }
    }
    if again.is_empty() {
        return Ok(());
    }
    for &shard in &again {
        // Slurm says that the task is gone; on another machine its lock could not be judged.
        for stale in [folder.exit_file(shard), folder.shard(shard).join(LOCK_FILE)] {
            remove_if_there(&stale)?;
        }
    }
    let job = slurm::submit(&folder.submit().join("job.sh"), &again)?;
    for shard in again {
        submission.jobs.insert(shard, job.clone());
        *submission.submitted.entry(shard).or_default() += 1;
    }
    folder.write(submission)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

fn join(folder: &Folder, shards: u32) -> Result<ExitStatus> {
    let parts: Vec<PathBuf> = (1..=shards).map(|shard| folder.shard(shard)).collect();
    let ends = merge_into(&folder.0, &parts, false, true)?;
    let report = write_report(&folder.0)?;
    print(&report.terminal(width()))?;
    say(&format!("\nwritten to {}", folder.0.display()));
    Ok(status(ends))
}
