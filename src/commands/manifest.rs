//! `manifest.json`: what was run, where, with which settings.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::provenance;
use super::target::Target;
use crate::plan::Plan;
use crate::runner::identity::Identity;

/// Wall-clock time, read once a run: every other time is a distance from it.
#[derive(Clone, Copy, Debug)]
pub struct WallClock(SystemTime);

impl WallClock {
    /// Now.
    pub fn now() -> Self {
        Self(SystemTime::now())
    }

    /// `20261124T061500Z`, for folder names.
    pub fn compact(self) -> String {
        self.utc().format("%Y%m%dT%H%M%SZ").to_string()
    }

    /// RFC 3339, in UTC.
    pub fn rfc3339(self) -> String {
        self.utc().to_rfc3339()
    }

    fn utc(self) -> DateTime<Utc> {
        self.0.into()
    }

    fn since_epoch_nanos(self) -> u128 {
        self.0
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos())
    }
}

/// The short hash in a run folder's name: the plan's text and the time.
pub fn short_hash(plan: &Plan, started: WallClock) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(plan.text.as_bytes());
    hasher.update(&started.since_epoch_nanos().to_le_bytes());
    hasher.finalize().to_hex()[..6].to_owned()
}

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
