//! `manifest.json`: what was run, where, with which settings.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::target::Target;
use crate::plan::Plan;

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

/// The manifest of a run.
pub fn manifest(target: &Target, started: WallClock) -> Result<Value> {
    let Target {
        plan,
        matrix,
        config,
        id,
        ..
    } = target;
    let cells: Vec<&str> = matrix.cells.iter().map(|cell| cell.id.as_str()).collect();
    let launcher = matrix
        .cells
        .first()
        .map(|cell| cell.resolved.server.launcher.name());
    Ok(json!({
        "run": id,
        "started_at": started.rfc3339(),
        "labrun": { "version": env!("CARGO_PKG_VERSION") },
        "plan": {
            "name": plan.name,
            "file": plan.file,
            "folder": plan_folder(plan),
            "blake3": blake3::hash(plan.text.as_bytes()).to_hex().as_str(),
            "commit": commit_of_working_folder(),
        },
        "launcher": launcher,
        "host": host(),
        "client_floor": super::floor::of_this_machine(&config.settings.paths.results),
        "config_file": target.config_file.as_ref().and_then(|file| std::path::absolute(file).ok()),
        "settings": serde_json::to_value(&config.settings)?,
        "settings_from": config.origins,
        "cells": cells,
    }))
}

/// Where files that the plan names are looked up, wherever the run is continued from.
fn plan_folder(plan: &Plan) -> Option<PathBuf> {
    let file = std::path::absolute(&plan.file).ok()?;
    file.parent().map(Path::to_owned)
}

/// The commit that the working folder is at, with `-dirty` where it has changes.
fn commit_of_working_folder() -> Option<String> {
    let git = |args: &[&str]| -> Option<String> {
        let output = Command::new("git").args(args).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() {
        commit
    } else {
        format!("{commit}-dirty")
    })
}

/// The machine, as manifests name it.
pub fn host() -> Value {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .ok()
    };
    let cpu = read("/proc/cpuinfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let memory_kib = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    json!({
        "name": read("/proc/sys/kernel/hostname"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": cpu,
        "cpus": std::thread::available_parallelism().map(usize::from).ok(),
        "memory_kib": memory_kib,
    })
}
