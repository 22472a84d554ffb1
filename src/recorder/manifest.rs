//! `manifest.json`: what was run, where, with which settings.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::{client_floor, provenance};
use crate::config::Config;
use crate::matrix::shard::Shard;
use crate::matrix::{Cell, Matrix};
use crate::plan::Plan;
use crate::runner::identity::Identity;
use crate::units::WallClock;

/// What a run is made of before anything is written.
#[derive(Debug)]
pub struct Target {
    /// The plan.
    pub plan: Plan,
    /// Its cells.
    pub matrix: Matrix,
    /// The machine's settings.
    pub config: Config,
    /// The file of settings that was named.
    pub config_file: Option<PathBuf>,
    /// The part of the matrix that is run.
    pub shard: Option<Shard>,
    /// Whether the manifest names no person and no machine.
    pub anonymous: bool,
    /// The run's id, if it is a new one.
    pub id: String,
    /// The run's folder.
    pub folder: PathBuf,
}

impl Target {
    /// The cells that are run, with their indices in the matrix.
    pub fn cells(&self) -> impl Iterator<Item = (usize, Cell)> {
        let own = match self.shard {
            Some(shard) => self.matrix.cells_of(shard),
            None => (0..self.matrix.cells.len()).collect(),
        };
        let cell_at = |index| Some((index, self.matrix.cells.get(index)?));
        own.into_iter().filter_map(cell_at)
    }

    /// The plan's folder, where files that it names are looked up.
    pub fn plan_folder(&self) -> PathBuf {
        let parent = Path::new(&self.plan.file).parent();
        parent.unwrap_or_else(|| Path::new(".")).to_owned()
    }
}

/// The id of a new run, its folder's name.
pub fn run_id(plan: &Plan, shard: Option<Shard>, started: WallClock) -> String {
    let id = started.run_id(&plan.text);
    match shard {
        Some(Shard { index, of }) => format!("{id}-shard{index}of{of}"),
        None => id,
    }
}

/// The manifest of a run. `identity` is that of one of its cells, for the versions in it.
pub fn manifest(target: &Target, identity: &Identity, started: WallClock) -> Result<Value> {
    let Target {
        plan,
        matrix,
        config,
        ..
    } = target;
    let cells: Vec<String> = target.cells().map(|(_, cell)| cell.id).collect();
    let first = matrix.cells.first();
    let mut manifest = json!({
        "run": target.id,
        "started_at": started.rfc3339(),
        "labrun": provenance::labrun(),
        "plan": {
            "name": plan.name,
            "file": plan.file,
            "folder": plan_folder(plan),
            "blake3": blake3::hash(plan.text.as_bytes()).to_hex().as_str(),
            "repository": provenance::repository(&plan_folder(plan).unwrap_or_default()),
        },
        "shard": target.shard,
        "anonymous": target.anonymous,
        "launcher": first.as_ref().map(|cell| cell.resolved.server.launcher.name()),
        "model": first.as_ref().map(|cell| cell.resolved.model.as_str()),
        "seed": first.as_ref().map(|cell| cell.resolved.run.seed),
        "software": software(identity),
        "host": provenance::host(),
        "client_floor": client_floor::of_this_machine(&config.settings.paths.results),
        "config_file": target.config_file.as_ref().and_then(|file| std::path::absolute(file).ok()),
        "settings": serde_json::to_value(&config.settings)?,
        "settings_from": config.origins,
        "cells": cells,
    });
    if target.anonymous {
        manifest["host"]["name"] = Value::Null;
        manifest["plan"]["folder"] = Value::Null;
        provenance::anonymize(&mut manifest);
    }
    Ok(manifest)
}

/// What of a cell's identity tells of the software that ran it.
pub fn software(identity: &Identity) -> Identity {
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
