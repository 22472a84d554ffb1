//! The folder of a submission, and what a later `labrun submit` must know of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::fate::Traces;
use crate::bounded;
use crate::record::manifest::Manifest;
use crate::recorder::writer::write_synced;

/// The most bytes of a file of a submission.
const MAX_SUBMISSION_BYTES: u64 = 16 << 20;

/// What a later `submit --resume` must know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Submission {
    /// Path of the plan.
    pub plan: PathBuf,
    /// Path of the settings file, where one was given.
    pub config: Option<PathBuf>,
    /// How many shards there are.
    pub shards: u32,
    /// The job that each shard was submitted in last.
    pub jobs: BTreeMap<u32, String>,
    /// How often each was submitted.
    pub submitted: BTreeMap<u32, u32>,
}

/// The folder of a submission: the merged run, and `shards` and `submit` in it.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The merged run's folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where scripts, logs and exit codes are.
    pub(crate) fn submit(&self) -> PathBuf {
        self.0.join("submit")
    }

    /// Where each shard has its run folder.
    pub(crate) fn shards(&self) -> PathBuf {
        self.0.join("shards")
    }

    /// The run folder of a shard.
    pub(crate) fn shard(&self, shard: u32) -> PathBuf {
        self.shards().join(shard.to_string())
    }

    /// Where the script of a shard writes its exit code.
    pub(super) fn exit_file(&self, shard: u32) -> PathBuf {
        self.submit().join(format!("exit-{shard}"))
    }

    /// Reads what was submitted.
    pub(crate) fn read(&self) -> Result<Submission> {
        let path = self.submit().join("submission.json");
        let text = bounded::read(&path, MAX_SUBMISSION_BYTES).with_context(|| {
            format!(
                "`{}` was not submitted: no `{}`",
                self.0.display(),
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("reading `{}`", path.display()))
    }

    /// Stores what was submitted.
    pub(crate) fn write(&self, submission: &Submission) -> Result<()> {
        let text = serde_json::to_vec_pretty(submission)?;
        write_synced(&self.submit().join("submission.json"), &text)
    }

    /// What a shard left in the folder.
    pub(super) fn traces(&self, shard: u32) -> Traces {
        let code = bounded::read(&self.exit_file(shard), MAX_SUBMISSION_BYTES);
        let manifest = Manifest::read(&self.shard(shard)).ok().flatten();
        let ended = manifest.and_then(|manifest| manifest.ended);
        Traces {
            exit_code: code.ok().and_then(|text| text.trim().parse().ok()),
            finished: ended.is_some_and(|ended| ended.how == "finished"),
        }
    }

    /// What to type to watch it again.
    pub(crate) fn resume_hint(&self) -> String {
        format!("`labrun submit --slurm --resume {}`", self.0.display())
    }
}
