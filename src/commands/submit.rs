//! `labrun submit --slurm`: one plan on a cluster, a shard a task, joined at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::launcher::Machine;
use super::merge::join;
use super::plan::check_rendering;
use super::plan_source::{Loaded, Source};
use super::{ExitStatus, say};
use crate::cli::{ChangeArgs, SubmitArgs};
use crate::cluster::{Folder, Job, Submission, watch};
use crate::config::{Config, Settings, Slurm};
use crate::recorder::writer::write_synced;
use crate::units::WallClock;

/// Submits a plan and watches it, or watches what was submitted.
pub(super) fn submit(args: &SubmitArgs) -> Result<ExitStatus> {
    ensure!(args.slurm, "say where to: --slurm");
    if args.resume {
        let folder = Folder::new(args.plan.clone());
        let submission = folder.read()?;
        return run_to_end(args, &folder, submission);
    }
    let config = Config::load(args.config.as_deref())?;
    let source = Source::read(&args.plan)?;
    // The machine that submits is not the one that runs: a plan for a cluster names its launcher.
    let unknown = |_: &Settings| Machine::default();
    let Loaded { plan, matrix, .. } =
        source.load(&ChangeArgs::default(), &config.settings, unknown)?;
    check_rendering(&matrix, &config.settings)?;
    let cells = matrix.cells.len();
    let Some(shards) = args
        .shards
        .filter(|&shards| 0 < shards && shards as usize <= cells)
    else {
        bail!("into how many shards? --shards 1 to {cells}, the number of cells");
    };
    let started = WallClock::now();
    let id = started.run_id(&plan.text);
    let default = || config.settings.paths.results.join(&plan.name).join(id);
    let folder = Folder::new(std::path::absolute(
        args.out.clone().unwrap_or_else(default),
    )?);
    ensure!(
        !folder.submit().exists(),
        "`{}` was submitted already; watch it with {}",
        folder.path().display(),
        folder.resume_hint()
    );
    for path in [folder.submit(), folder.shards()] {
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
        shards_folder: folder.shards(),
        shards,
    };
    let script = job.script(&asked(args, &config.settings.slurm));
    write_synced(&folder.submit().join("job.sh"), script.as_bytes())?;
    folder.write(&submission)?;
    run_to_end(args, &folder, submission)
}

/// Watches a submission until every shard ran, then joins the shards.
fn run_to_end(args: &SubmitArgs, folder: &Folder, submission: Submission) -> Result<ExitStatus> {
    let config = Config::load(submission.config.as_deref())?;
    let poll = Duration::from_secs_f64(args.poll_s.clamp(0.1, 3600.0));
    let resubmit = config.settings.slurm.resubmit;
    let shards = watch(folder, submission, resubmit, poll, &mut say)?;
    join(folder.path(), &shards, false, true)
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
