//! What a run is made of, and the manifest that records it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{client_floor, provenance};
use crate::config::Config;
use crate::matrix::shard::Shard;
use crate::matrix::{Cell, Matrix};
use crate::plan::Plan;
use crate::record::manifest::{Manifest, PlanFacts};
use crate::runner::identity::Identity;
use crate::units::WallClock;
use crate::workload::files::Files;

/// What a run is made of before anything is written.
#[derive(Debug)]
pub(crate) struct Target {
    /// The plan.
    pub plan: Plan,
    /// Its cells.
    pub matrix: Matrix,
    /// What is known of the files that its workloads name.
    pub files: Files,
    /// The machine's settings.
    pub config: Config,
    /// The file of settings that was named.
    pub config_file: Option<PathBuf>,
    /// The part of the matrix that is run.
    pub shard: Option<Shard>,
    /// Whether the manifest names no person and no machine.
    pub anonymous: bool,
    /// The flags that changed the plan, as they were typed.
    pub flags: Vec<String>,
    /// The run's id, if it is a new one.
    pub id: String,
    /// The run's folder.
    pub folder: PathBuf,
}

impl Target {
    /// The cells that are run, with their indices in the matrix.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (usize, Cell)> {
        let own = match self.shard {
            Some(shard) => self.matrix.cells_of(shard),
            None => (0..self.matrix.cells.len()).collect(),
        };
        let cell_at = |index| Some((index, self.matrix.cells.get(index)?));
        own.into_iter().filter_map(cell_at)
    }

    /// The plan's folder, where files that it names are looked up.
    pub(crate) fn plan_folder(&self) -> PathBuf {
        self.plan.folder().to_owned()
    }
}

/// The id of a new run, its folder's name.
pub(crate) fn run_id(plan: &Plan, shard: Option<Shard>, started: WallClock) -> String {
    let id = started.run_id(&plan.text);
    match shard {
        Some(Shard { index, of }) => format!("{id}-shard{index}of{of}"),
        None => id,
    }
}

/// The manifest of a run that begins. `identity` is that of one of its cells, for the versions in
/// it.
pub(crate) fn manifest(
    target: &Target,
    identity: &Identity,
    started: WallClock,
) -> Result<Manifest> {
    let Target { plan, config, .. } = target;
    let first = target.matrix.cells.first();
    let first = first.as_ref();
    let folder = plan_folder(plan);
    let config_file = target.config_file.as_ref();
    let manifest = Manifest {
        run: Some(target.id.clone()),
        started_at: Some(started.rfc3339()),
        labrun: Some(provenance::labrun()),
        plan: PlanFacts {
            name: Some(plan.name.clone()),
            file: Some(plan.file.clone()),
            flags: target.flags.clone(),
            blake3: Some(blake3::hash(plan.text.as_bytes()).to_hex().to_string()),
            repository: provenance::repository(folder.as_deref().unwrap_or(Path::new(""))),
            folder,
            ..PlanFacts::default()
        },
        shard: target.shard,
        anonymous: target.anonymous,
        launcher: first.map(|cell| cell.resolved.server.launcher),
        model: first.map(|cell| cell.resolved.model.clone()),
        seed: first.map(|cell| cell.resolved.run.seed),
        software: software(identity),
        host: provenance::host(),
        client_floor: client_floor::of_this_machine(&config.settings.paths.results)
            .unwrap_or_default(),
        config_file: config_file.and_then(|file| std::path::absolute(file).ok()),
        settings: serde_json::to_value(&config.settings)?,
        settings_from: serde_json::to_value(&config.origins)?,
        cells: target.cells().map(|(_, cell)| cell.id).collect(),
        ..Manifest::default()
    };
    if target.anonymous {
        return provenance::anonymous(manifest);
    }
    Ok(manifest)
}

/// The part of a cell's identity that names the software that ran it.
pub(crate) fn software(identity: &Identity) -> Identity {
    let known = ["version.", "model.", "image."];
    let is_software = |name: &str| known.iter().any(|known| name.starts_with(known));
    let found = identity
        .iter()
        .filter(|(name, value)| is_software(name) && !value.is_empty());
    found
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Where files that the plan names are looked up, wherever the run is continued from.
fn plan_folder(plan: &Plan) -> Option<PathBuf> {
    let file = std::path::absolute(&plan.file).ok()?;
    file.parent().map(Path::to_owned)
}
