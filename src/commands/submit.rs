//! `labrun submit --slurm`: one plan on a cluster, a shard a task, joined at the end.

mod fate;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::manifest::{WallClock, short_hash};
use super::plan::check_rendering;
use super::slurm::Job;
use super::target::read_manifest;
use super::{ExitStatus, load_plan};
use crate::cli::SubmitArgs;
use crate::config::{Config, Slurm};
use crate::record::writer::write_synced;
use fate::Traces;
use watch::watch;

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

    /// What the folder itself says of a shard.
    fn traces(&self, shard: u32) -> Traces {
        let code = std::fs::read_to_string(self.exit_file(shard));
        let manifest = read_manifest(&self.shard(shard)).unwrap_or_default();
        Traces {
            exit_code: code.ok().and_then(|text| text.trim().parse().ok()),
            finished: manifest["ended"]["how"] == "finished",
        }
    }

    /// What to type to watch it again.
    fn how_to_go_on(&self) -> String {
        format!("`labrun submit --slurm --resume {}`", self.0.display())
    }
}

/// Submits a plan and watches it, or watches what was submitted.
pub fn submit(args: &SubmitArgs) -> Result<ExitStatus> {
    ensure!(args.slurm, "say where to: --slurm");
    if args.resume {
        let folder = Folder(args.plan.clone());
        let submission = folder.read()?;
        return watch(args, folder, submission);
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
        "`{}` was submitted already; watch it with {}",
        folder.0.display(),
        folder.how_to_go_on()
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
    watch(args, folder, submission)
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
