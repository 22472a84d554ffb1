//! `manifest.json`: what was run, where, with which settings.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::provenance;
use super::target::Target;
use crate::plan::Plan;
use crate::runner::identity::Identity;
use crate::units::WallClock;

/// The manifest of a run. `identity` is that of one of its cells, for the versions in it.
pub fn manifest(target: &Target, identity: &Identity, started: WallClock) -> Result<Value> {
    let Target {
        plan,
        matrix,
        config,
        ..
    } = target;
    let cells: Vec<&str> = target.cells().map(|(_, cell)| cell.id.as_str()).collect();
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
        "launcher": first.map(|cell| cell.resolved.server.launcher.name()),
        "model": first.map(|cell| cell.resolved.model.as_str()),
        "seed": first.map(|cell| cell.resolved.run.seed),
        "software": software(identity),
        "host": provenance::host(),
        "client_floor": super::client_floor::of_this_machine(&config.settings.paths.results),
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
