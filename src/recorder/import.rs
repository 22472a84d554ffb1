//! Results of other tools as a run folder. Nothing proves that a tier served, so every cell is
//! inconclusive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::writer::{sync_folder, write_record, write_synced, write_whole};
use super::{requests_csv, vllm_bench};
use crate::matrix::Coordinates;
use crate::plan::state::CacheState;
use crate::record::frame::write_parquet;
use crate::record::hashes::{self, REQUESTS_FILE};
use crate::record::reader::{CELL_WRITTEN, EVENTS_FILE};
use crate::record::schema::{
    CellOutcome, CellRecord, Counts, FORMAT, PassRecord, RequestOutcome, RequestRow, ServerRecord,
    Source, Verdict, VerdictStatus,
};
use crate::text_file;
use crate::units::Repeat;

/// Why an imported cell is inconclusive.
pub(crate) const NO_EVIDENCE: &str = "imported: no evidence";

/// What a file may leave out, stated by the user.
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    /// The tier.
    pub tier: String,
    /// The workload's label.
    pub label: String,
    /// The model.
    pub model: Option<String>,
    /// The cache state.
    pub state: CacheState,
    /// Requests in flight.
    pub concurrency: Option<u32>,
    /// Simulated or measured.
    pub source: Source,
    /// Tokens that each prompt was to have, where a JSON result has only their mean.
    pub prompt_len: Option<u32>,
    /// Tokens that each answer was to have, where a JSON result has only their mean.
    pub gen_len: Option<u32>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            tier: "baseline".to_owned(),
            label: "imported".to_owned(),
            model: None,
            state: CacheState::Cold,
            concurrency: None,
            source: Source::Measured,
            prompt_len: None,
            gen_len: None,
        }
    }
}

/// The name of a cache state in a file.
pub(super) fn state_named(name: &str) -> Option<CacheState> {
    CacheState::from_name(name.trim())
}

/// The names of all cache states, for errors.
pub(super) fn state_names() -> String {
    CacheState::ALL.map(CacheState::name).join(", ")
}

/// One pass that was read, before it has a repeat of its own.
#[derive(Clone, Debug)]
pub(crate) struct Imported {
    /// Its coordinates.
    pub at: Coordinates,
    /// Whether the file states its requests in flight or the user did.
    pub is_concurrency_known: bool,
    /// Its cache state; absent where the file does not state it.
    pub state: Option<CacheState>,
    /// Simulated or measured; absent where the file does not state it.
    pub source: Option<Source>,
    /// The model; absent where nobody stated it.
    pub model: Option<String>,
    /// From first to last, seconds; zero where it is not known.
    pub duration_s: f64,
    /// Its requests.
    pub rows: Vec<RequestRow>,
    /// The file's own statistics.
    pub evidence: BTreeMap<String, f64>,
    /// What a reader should know of it.
    pub warnings: Vec<String>,
}

/// Reads the results in `files`: JSON of `vllm bench serve`, or a CSV of single requests.
pub(crate) fn read(files: &[PathBuf], defaults: &Defaults) -> Result<Vec<Imported>> {
    let mut all = Vec::new();
    for path in files {
        let text = text_file::read(path)?;
        let begin = text.trim_start().chars().next();
        let passes = match begin {
            Some('{' | '[') => vllm_bench::import(&text, defaults),
            _ => requests_csv::import(&text, defaults),
        };
        all.extend(passes.with_context(|| format!("cannot import `{}`", path.display()))?);
    }
    Ok(all)
}

/// Reads `files` and writes them as a run into `folder`, which must be empty. Results of
/// equal coordinates become repeats. Returns how many cells there are.
pub(crate) fn import(files: &[PathBuf], defaults: &Defaults, folder: &Path) -> Result<usize> {
    let passes = read(files, defaults)?;
    let models: BTreeSet<&str> = passes.iter().filter_map(|p| p.model.as_deref()).collect();
    ensure!(
        models.len() <= 1,
        "the results are of several models (`{}`): import each model's into a folder of its own",
        models.into_iter().collect::<Vec<_>>().join("`, `")
    );
    let cells = cells(passes, defaults);
    let names: Vec<String> = files.iter().map(|p| p.display().to_string()).collect();
    let ids: Vec<&str> = cells.iter().map(|(cell, _)| cell.id.as_str()).collect();
    let manifest = json!({
        "format": FORMAT, "imported_from": names, "plan": {"name": "imported"}, "cells": ids,
        "ended": {"how": "imported", "completed": ids.len(), "failed": 0},
    });
    write_aside(folder, &hashes::sealed(manifest)?.0, &cells)?;
    Ok(cells.len())
}

/// Writes a whole run aside and gives it its name: a run that is there is complete.
fn write_aside(
    folder: &Path,
    manifest: &[u8],
    cells: &[(CellRecord, Vec<RequestRow>)],
) -> Result<()> {
    let folder =
        std::path::absolute(folder).with_context(|| format!("resolving `{}`", folder.display()))?;
    let shown = folder.display();
    let is_taken = fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    let problem = if folder.join("cells").exists() {
        "has a run already"
    } else {
        "exists and is not empty"
    };
    ensure!(
        !is_taken,
        "`{shown}` {problem}; name another folder with --out"
    );
    let aside = aside_of(&folder);
    let written = write_run(&aside, manifest, cells)
        .and_then(|()| fs::rename(&aside, &folder).with_context(|| format!("making `{shown}`")));
    if written.is_err() {
        let _absent = fs::remove_dir_all(&aside);
    }
    written?;
    folder.parent().map_or(Ok(()), sync_folder)
}

/// A folder beside `folder` for this process; those of imports that were killed go.
fn aside_of(folder: &Path) -> PathBuf {
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let parent = folder.parent().unwrap_or(folder);
    let prefix = format!(".{name}.import-");
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        let pid = found
            .strip_prefix(&prefix)
            .and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _absent = fs::remove_dir_all(entry.path());
        }
    }
    parent.join(format!("{prefix}{}", std::process::id()))
}

fn write_run(
    folder: &Path,
    manifest: &[u8],
    cells: &[(CellRecord, Vec<RequestRow>)],
) -> Result<()> {
    let into = folder.join("cells");
    fs::create_dir_all(&into).with_context(|| format!("making `{}`", into.display()))?;
    let mut events = String::new();
    for (cell, rows) in cells {
        write_whole(&into, &cell.id, |aside| {
            write_parquet(rows, &aside.join(REQUESTS_FILE))?;
            let digest = write_record(aside, cell)?;
            let event = json!({"event": CELL_WRITTEN, "cell": cell.id, "digest": digest});
            events.push_str(&format!("{event}\n"));
            Ok(())
        })?;
    }
    write_synced(&folder.join(EVENTS_FILE), events.as_bytes())?;
    write_synced(&folder.join("manifest.json"), manifest)?;
    sync_folder(folder)
}

/// Passes to cells: those of equal coordinates in different states are one cell, those in the same
/// state are repeats.
fn cells(passes: Vec<Imported>, defaults: &Defaults) -> Vec<(CellRecord, Vec<RequestRow>)> {
    let mut cells: BTreeMap<Coordinates, (CellRecord, Vec<RequestRow>)> = BTreeMap::new();
    for mut pass in passes {
        let state = pass.state.unwrap_or(defaults.state);
        let taken = |at: &Coordinates| {
            let cell = cells.get(at).map(|(cell, _)| cell);
            cell.is_some_and(|cell| cell.passes.iter().any(|p| p.state == state))
        };
        while taken(&pass.at) {
            let Some(next) = Repeat::new(pass.at.repeat.get() + 1) else {
                break;
            };
            pass.at.repeat = next;
        }
        if pass.source.is_none() {
            let name = defaults.source.name();
            pass.warnings.push(format!(
                "the file does not state whether it is measured or simulated: imported as {name}"
            ));
        }
        let source = pass.source.unwrap_or(defaults.source);
        let position = cells.len() as u32 + 1;
        let (cell, rows) = cells
            .entry(pass.at.clone())
            .or_insert_with(|| (empty_cell(&pass, position, source), Vec::new()));
        cell.source = cell.source.max(source);
        cell.warnings.append(&mut pass.warnings);
        cell.passes.push(record(&pass, state));
        rows.append(&mut pass.rows);
    }
    cells.into_values().collect()
}

fn empty_cell(pass: &Imported, position: u32, source: Source) -> CellRecord {
    CellRecord {
        format: FORMAT,
        id: format!("{}-imported-{position}", pass.at.slug()),
        position,
        part: None,
        coordinates: pass.at.clone(),
        tier_kind: None,
        identity: BTreeMap::new(),
        machine: BTreeMap::new(),
        source,
        model: pass.model.clone().unwrap_or_else(|| "unknown".to_owned()),
        outcome: CellOutcome::Completed,
        server: ServerRecord::default(),
        passes: Vec::new(),
        warnings: Vec::new(),
        files: BTreeMap::new(),
    }
}

fn record(pass: &Imported, state: CacheState) -> PassRecord {
    let count = |outcome| {
        pass.rows
            .iter()
            .filter(|row| row.outcome == outcome)
            .count() as u64
    };
    let mut errors = BTreeMap::new();
    for error in pass.rows.iter().filter_map(|row| row.error.clone()) {
        *errors.entry(error).or_default() += 1;
    }
    PassRecord {
        state,
        started_s: 0.0,
        duration_s: pass.duration_s,
        corpus: String::new(),
        counts: Counts {
            sent: pass.rows.len() as u64,
            ok: count(RequestOutcome::Ok),
            failed: count(RequestOutcome::Failed),
            unfinished: count(RequestOutcome::Unfinished),
        },
        errors,
        verdict: Verdict {
            status: VerdictStatus::Inconclusive,
            reasons: vec![NO_EVIDENCE.to_owned()],
            witnesses: BTreeMap::new(),
        },
        evidence: pass.evidence.clone(),
        client: BTreeMap::new(),
        ledger: Vec::new(),
        telemetry: Vec::new(),
        bottleneck: None,
    }
}

#[cfg(test)]
mod tests;
