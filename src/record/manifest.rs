//! `manifest.json`: what was run, where, with which settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::hashes::{self, FileHash, Seal};
use super::reader::MAX_RECORD_BYTES;
use super::schema::FORMAT;
use crate::bounded;
use crate::matrix::shard::Shard;
use crate::plan::server::Launcher;
use crate::units::Seed;

/// The manifest of a run. What a run did not record is absent; fields that this version does not
/// know stay in `other` and are written again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// The run's id.
    pub run: Option<String>,
    /// When the attempt began, RFC 3339.
    pub started_at: Option<String>,
    /// The version of labrun that made it.
    pub labrun: Option<Labrun>,
    /// The plan, its file and its git revision.
    pub plan: PlanFacts,
    /// The part of the matrix that was run; absent for all of it.
    pub shard: Option<Shard>,
    /// Whether it names no person and no machine.
    pub anonymous: bool,
    /// How servers were started.
    pub launcher: Option<Launcher>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The random seed.
    pub seed: Option<Seed>,
    /// Versions, revisions and images, by name of the identity.
    pub software: BTreeMap<String, String>,
    /// Hardware and operating system.
    pub host: Host,
    /// What `bench --calibrate` measured on this machine.
    pub client_floor: Value,
    /// The file of settings that was named.
    pub config_file: Option<PathBuf>,
    /// The machine's settings.
    pub settings: Value,
    /// Where each setting came from.
    pub settings_from: Value,
    /// Ids of the cells that were asked for.
    pub cells: Vec<String>,
    /// The format of the run folder.
    pub format: u32,
    /// Which attempt at the run this is, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The manifests of the attempts before this one, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier_attempts: Vec<Value>,
    /// The manifests of the runs that this one was joined from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub merged_from: Vec<Value>,
    /// The files of other tools that this run was made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub imported_from: Vec<String>,
    /// How the attempt ended; absent while it runs, and where it was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The version of labrun that made a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Labrun {
    /// Its version.
    pub version: Option<String>,
    /// The commit that it was built from.
    pub commit: Option<String>,
    /// Whether it was built without optimizations.
    pub debug_build: bool,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The plan of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanFacts {
    /// Its name.
    pub name: Option<String>,
    /// Its file, as it was named.
    pub file: Option<String>,
    /// Where files that it names are looked up.
    pub folder: Option<PathBuf>,
    /// The flags that changed it, as they were typed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// A hash of its text.
    pub blake3: Option<String>,
    /// The git repository that it is in.
    pub repository: Option<Repository>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The state of a git repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Repository {
    /// The commit that was checked out.
    pub commit: String,
    /// Whether tracked files differed from it.
    pub dirty: bool,
    /// A hash of what differed.
    pub dirty_patch_blake3: Option<String>,
}

/// The machine of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Its name.
    pub name: Option<String>,
    /// The release of its kernel.
    pub kernel: Option<String>,
    /// The model of its CPU.
    pub cpu: Option<String>,
    /// CPUs that this process may use.
    pub cpus: Option<usize>,
    /// RAM, KiB.
    pub memory_kib: Option<u64>,
    /// The frequency governor of its first CPU.
    pub governor: Option<String>,
    /// The limits of the control group.
    pub container: Option<Container>,
    /// Its GPUs; absent without NVML.
    pub gpu: Option<Gpus>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The limits of the control group that a run was in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Whether it was that of a container.
    pub in_container: bool,
    /// CPU time, as the kernel writes it.
    pub cpu_max: Option<String>,
    /// Memory, as the kernel writes it: bytes, or `max`.
    pub memory_max_bytes: Option<String>,
    /// CPUs, as the kernel writes them.
    pub cpuset: Option<String>,
}

/// The GPUs of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpus {
    /// The version of the driver.
    pub driver: Option<String>,
    /// The newest CUDA that the driver serves.
    pub cuda_of_driver: Option<String>,
    /// The GPUs, in NVML's order.
    pub devices: Vec<Gpu>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// NVML's index.
    pub index: u32,
    /// Its product name.
    pub name: Option<String>,
    /// Its memory, bytes.
    pub memory_bytes: Option<u64>,
    /// The limit of its power, mW.
    pub power_limit_mw: Option<u32>,
}

/// How an attempt at a run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// `finished`, `merged`, `broken`, `interrupted`, or why it was stopped.
    pub how: String,
    /// Time of the end, RFC 3339.
    pub at: String,
    /// Cells that were measured to their end.
    pub completed: u32,
    /// Cells that failed before their end.
    pub failed: u32,
    /// Cells with an invalid pass.
    pub invalid: u32,
    /// A hash of the prompts of all cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corpus: Option<String>,
    /// The events up to then; more may follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<FileHash>,
    /// Cells of the plan that no part of a merge had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<usize>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The file's name in a run folder.
pub const MANIFEST_FILE: &str = "manifest.json";

impl Manifest {
    /// How long the run took, seconds; `None` for one that did not end, or was continued.
    pub(crate) fn span_s(&self) -> Option<f64> {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).ok();
        let from = at(self.started_at.as_deref()?)?;
        let to = at(&self.ended.as_ref()?.at)?;
        let span = (to - from).to_std().ok()?;
        Some(span.as_secs_f64()).filter(|_| self.earlier_attempts.is_empty())
    }

    /// The manifest of the run in `folder`; `None` where it has none. A newer format is refused.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST_FILE);
        let name = path.display();
        let text = match bounded::read(&path, MAX_RECORD_BYTES) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("reading `{name}`"))?,
        };
        Self::parse(&text)
            .with_context(|| format!("`{name}` cannot be used"))
            .map(Some)
    }

    fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default)]
            format: u32,
        }
        // The format is read alone first: a newer file need not have the fields that we expect.
        let Versioned { format } = serde_json::from_str(text)?;
        if format > FORMAT {
            bail!("it has format {format}, and this labrun reads up to {FORMAT}; use a newer one");
        }
        let value: Value = serde_json::from_str(text)?;
        if hashes::seal_of(text, &value) == Seal::Broken {
            bail!(
                "it was changed after labrun wrote it: the digest in it differs; restore it from a copy"
            );
        }
        let mut manifest: Self = serde_json::from_value(value)?;
        // Each manifest that is written gets its own.
        manifest.other.remove(hashes::DIGEST);
        Ok(manifest)
    }

    /// The commit of the plan's repository.
    pub fn plan_commit(&self) -> Option<&str> {
        let repository = self.plan.repository.as_ref();
        let recorded = repository.map(|repository| repository.commit.as_str());
        // The oldest runs have it beside the plan's name, with a mark where there were changes.
        let beside = || self.plan.other.get("commit")?.as_str();
        let commit = recorded.or_else(beside)?;
        Some(commit.trim_end_matches("-dirty"))
    }

    /// The names of the GPUs, one a device.
    pub fn gpu_names(&self) -> Vec<&str> {
        let devices = self.host.gpu.iter().flat_map(|gpu| &gpu.devices);
        devices
            .filter_map(|device| device.name.as_deref())
            .collect()
    }

    /// What is known, as JSON: without fields that the run did not record.
    pub fn known(&self) -> Result<Value> {
        let mut known = serde_json::to_value(self)?;
        if let Value::Object(fields) = &mut known {
            fields.retain(|_, value| !value.is_null());
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Option<Manifest>> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join(MANIFEST_FILE), value.to_string())?;
        Manifest::read(folder.path())
    }

    #[test]
    fn fields_of_other_versions_survive() {
        let written = json!({
            "run": "r", "plan": {"name": "p", "colour": "blue"}, "host": {"cpus": 2, "moon": true},
            "ended": {"how": "finished", "mood": 1}, "unknown": {"a": [1]}, "format": 1,
        });
        let manifest = read(&written).unwrap().unwrap();
        let again = serde_json::to_value(&manifest).unwrap();
        for pointer in [
            "/plan/colour",
            "/host/moon",
            "/ended/mood",
            "/unknown",
            "/host/cpus",
        ] {
            assert_eq!(
                again.pointer(pointer),
                written.pointer(pointer),
                "{pointer}"
            );
        }
        let twice: Manifest = serde_json::from_value(again).unwrap();
        assert_eq!(twice, manifest);
    }

    #[test]
    fn the_commit_of_the_oldest_runs_is_known_too() {
        let old = read(&json!({"plan": {"commit": "abc-dirty"}}))
            .unwrap()
            .unwrap();
        assert_eq!(old.plan_commit(), Some("abc"));
        let new = json!({"plan": {"repository": {"commit": "def", "dirty": true}}});
        assert_eq!(read(&new).unwrap().unwrap().plan_commit(), Some("def"));
        assert_eq!(read(&json!({})).unwrap().unwrap().plan_commit(), None);
    }

    #[test]
    fn no_manifest_a_newer_one_and_a_broken_one_differ() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(empty.path()).unwrap(), None);
        let newer = format!("{:#}", read(&json!({"format": 2, "plan": 3})).unwrap_err());
        assert!(newer.ends_with("it has format 2, and this labrun reads up to 1; use a newer one"));
        let broken = format!("{:#}", read(&json!({"format": 1, "plan": 3})).unwrap_err());
        assert!(
            broken.contains("manifest.json` cannot be used: invalid type"),
            "{broken}"
        );
    }
}
