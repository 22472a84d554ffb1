//! Results of other tools as a run folder. Nothing proves that a tier served, so every cell is
//! inconclusive.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::vllm_bench;
use super::writer::write_synced;
use crate::matrix::Coordinates;
use crate::plan::state::CacheState;
use crate::record::csv::read_rows;
use crate::record::frame::write_parquet;
use crate::record::schema::{
    CellOutcome, CellRecord, Counts, FORMAT, PassRecord, RequestOutcome, RequestRow, ServerRecord,
    Source, Verdict, VerdictStatus,
};
use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

/// Why an imported cell is inconclusive.
pub const NO_EVIDENCE: &str = "imported: no evidence";

/// What a file may not say of itself, said by the user.
#[derive(Clone, Debug)]
pub struct Defaults {
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
}

/// One pass that was read, before it has a repeat.
struct Found {
    at: Coordinates,
    state: CacheState,
    source: Source,
    model: String,
    duration_s: f64,
    rows: Vec<RequestRow>,
    evidence: BTreeMap<String, f64>,
    warnings: Vec<String>,
}

/// Reads `files`, each a JSON result of `vllm bench serve` or a CSV of the earlier lab or ours, and
/// writes them as a run into `folder`. Files of equal coordinates become repeats. Returns how many
/// cells there are.
pub fn import(files: &[&Path], defaults: &Defaults, folder: &Path) -> Result<usize> {
    let mut found = Vec::new();
    for path in files {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading `{}`", path.display()))?;
        let passes = if text.trim_start().starts_with('{') {
            of_bench(&text, defaults).map(|pass| vec![pass])
        } else {
            of_csv(&text, defaults)
        };
        let passes = passes.with_context(|| format!("cannot import `{}`", path.display()))?;
        found.extend(passes);
    }
    let cells = cells(found);
    let names: Vec<String> = files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    // Written aside as a whole: a run that is there is complete.
    let aside = aside_of(folder)?;
    fs::create_dir_all(aside.join("cells"))
        .with_context(|| format!("making `{}`", aside.display()))?;
    let written = write_run(&aside, &names, &cells);
    let placed = written.and_then(|()| {
        fs::rename(&aside, folder).with_context(|| {
            format!(
                "`{}` exists and is not empty; name another folder with --out",
                folder.display()
            )
        })
    });
    if placed.is_err() {
        let _absent = fs::remove_dir_all(&aside);
    }
    placed?;
    Ok(cells.len())
}

/// A folder beside `folder` for this process; those of imports that were killed go.
fn aside_of(folder: &Path) -> Result<PathBuf> {
    let folder =
        std::path::absolute(folder).with_context(|| format!("resolving `{}`", folder.display()))?;
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let parent = folder.parent().unwrap_or(&folder);
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
    Ok(parent.join(format!("{prefix}{}", std::process::id())))
}

fn write_run(
    folder: &Path,
    names: &[String],
    cells: &[(CellRecord, Vec<RequestRow>)],
) -> Result<()> {
    for (cell, rows) in cells {
        let path = folder.join("cells").join(&cell.id);
        fs::create_dir(&path).with_context(|| format!("making `{}`", path.display()))?;
        write_synced(&path.join("cell.json"), &pretty(cell)?)?;
        write_parquet(rows, &path.join("requests.parquet"))?;
    }
    let ids: Vec<&str> = cells.iter().map(|(cell, _)| cell.id.as_str()).collect();
    let manifest = json!({
        "format": FORMAT, "imported_from": names, "plan": {"name": "imported"}, "cells": ids,
        "ended": {"how": "imported", "completed": ids.len(), "failed": 0},
    });
    write_synced(&folder.join("manifest.json"), &pretty(&manifest)?)
}

fn pretty(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn of_bench(text: &str, defaults: &Defaults) -> Result<Found> {
    let fields: Value = serde_json::from_str(text)?;
    let told = |name: &str| fields[name].as_str();
    let state = told("labrun_state").and_then(CacheState::from_name);
    let state = state.unwrap_or(defaults.state);
    let result = vllm_bench::from_json(text, state)?;
    let concurrency = result.concurrency.or(defaults.concurrency).context(
        "it does not bound its requests in flight (no `max_concurrency`); say with --concurrency \
         under what name to file it",
    )?;
    let tier = told("labrun_tier")
        .or(told("tier"))
        .unwrap_or(&defaults.tier);
    let label = result
        .label
        .clone()
        .unwrap_or_else(|| defaults.label.clone());
    let mut warnings = Vec::new();
    if result.rows.iter().all(|row| row.ttft_ms.is_none()) {
        warnings.push(
            "imported without --save-detailed: latencies are the file's own summary; repeats of it \
             are not pooled, and objectives on them cannot be told"
                .to_owned(),
        );
    }
    Ok(Found {
        at: coordinates(&label, tier, result.prompt_len, result.gen_len, concurrency)?,
        state,
        source: told("labrun_source")
            .and_then(Source::from_name)
            .unwrap_or(defaults.source),
        model: result.model,
        duration_s: result.duration_s,
        rows: result.rows,
        evidence: result.statistics,
        warnings,
    })
}

fn coordinates(
    label: &str,
    tier: &str,
    prompt: u32,
    generated: u32,
    concurrency: u32,
) -> Result<Coordinates> {
    let none = "a count of 0";
    Ok(Coordinates {
        label: label.to_owned(),
        tier: tier.to_owned(),
        prompt_len: PromptLen::new(prompt).context(none)?,
        gen_len: GenLen::new(generated).context(none)?,
        concurrency: Concurrency::new(concurrency).context(none)?,
        repeat: Repeat::new(1).context(none)?,
        extra: BTreeMap::new(),
    })
}

/// A row of a CSV, its fields by name.
struct Line<'a> {
    head: &'a [String],
    fields: &'a [String],
    number: usize,
}

impl Line<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let at = self.head.iter().position(|known| known == name)?;
        self.fields
            .get(at)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        let wrong = || format!("row {}: `{name}` is no number", self.number);
        self.get(name)
            .map(|text| text.parse().with_context(wrong))
            .transpose()
    }

    fn count(&self, name: &str) -> Result<Option<u32>> {
        Ok(self.number(name)?.map(|value| value.round() as u32))
    }

    fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.with_context(|| format!("row {} has no `{name}`", self.number))
    }
}

fn of_csv(text: &str, defaults: &Defaults) -> Result<Vec<Found>> {
    let rows = read_rows(text);
    let Some((head, rows)) = rows.split_first() else {
        bail!("it is empty");
    };
    for name in ["ttft", "e2e", "prompt_len", "gen_len", "tier", "label"] {
        if !head.iter().any(|known| known == name) {
            bail!("it is no result of `vllm bench serve`, and as a CSV it has no column `{name}`");
        }
    }
    let mut passes: BTreeMap<(Coordinates, CacheState), Found> = BTreeMap::new();
    for (number, fields) in (2..).zip(rows) {
        let line = Line {
            head,
            fields,
            number,
        };
        let state = line
            .get("state")
            .and_then(CacheState::from_name)
            .unwrap_or(defaults.state);
        let count = |name: &str| line.needed(name, line.count(name)?);
        let concurrency = line
            .count("concurrency")?
            .or(defaults.concurrency)
            .unwrap_or(1);
        let tier = line.needed("tier", line.get("tier"))?;
        let label = line.needed("label", line.get("label"))?;
        let mut at = coordinates(
            label,
            tier,
            count("prompt_len")?,
            count("gen_len")?,
            concurrency,
        )?;
        let axes = head.iter().filter(|name| name.contains('.'));
        at.extra = axes
            .filter_map(|name| Some((name.clone(), line.get(name)?.to_owned())))
            .collect();
        if let Some(repeat) = line.count("repeat")?.and_then(Repeat::new) {
            at.repeat = repeat;
        }
        let source = line.get("source").and_then(Source::from_name);
        let pass = passes.entry((at.clone(), state)).or_insert_with(|| Found {
            at,
            state,
            source: source.unwrap_or(defaults.source),
            model: defaults
                .model
                .clone()
                .unwrap_or_else(|| "unknown".to_owned()),
            duration_s: 0.0,
            rows: Vec::new(),
            evidence: BTreeMap::new(),
            warnings: match source {
                Some(_) => vec![],
                None => {
                    vec!["the file does not say whether it is measured or simulated".to_owned()]
                }
            },
        });
        let row = csv_row(&line, state, pass.rows.len() as u32)?;
        // The pass's length where the file says when its requests were sent; else it has no rates.
        if line.get("sent_ms").is_some() {
            let end_ms = row.sent_ms + row.e2e_ms.unwrap_or(0.0);
            pass.duration_s = pass.duration_s.max(end_ms / 1e3);
        }
        pass.rows.push(row);
    }
    Ok(passes.into_values().collect())
}

/// The earlier lab's `avg_itl`, the mean gap of a request, stands for TPOT where there is none.
fn csv_row(line: &Line<'_>, state: CacheState, request: u32) -> Result<RequestRow> {
    let ms =
        |name: &str| -> Result<Option<f64>> { Ok(line.number(name)?.map(|seconds| seconds * 1e3)) };
    let (ttft_ms, e2e_ms) = (ms("ttft")?, ms("e2e")?);
    let outcome = match line.get("outcome") {
        Some("failed") => RequestOutcome::Failed,
        Some("unfinished") => RequestOutcome::Unfinished,
        _ if ttft_ms.is_none() || e2e_ms.is_none() => RequestOutcome::Failed,
        _ => RequestOutcome::Ok,
    };
    Ok(RequestRow {
        state,
        request,
        intended_ms: 0.0,
        sent_ms: line.number("sent_ms")?.unwrap_or(0.0),
        lateness_ms: line.number("lateness_ms")?.unwrap_or(0.0),
        connect_ms: line.number("connect_ms")?,
        ttft_ms,
        e2e_ms,
        tpot_ms: line.number("tpot_ms")?.or(ms("avg_itl")?),
        gaps_ms: Vec::new(),
        prompt_len: line.needed("prompt_len", line.count("prompt_len")?)?,
        gen_len: line.needed("gen_len", line.count("gen_len")?)?,
        prompt_tokens: line.count("prompt_tokens")?,
        cached_tokens: line.count("cached_tokens")?,
        output_tokens: line.count("output_tokens")?,
        frames: line.count("frames")?.unwrap_or(0),
        coalesced_frames: line.count("coalesced_frames")?.unwrap_or(0),
        outcome,
        error: line.get("error").map(str::to_owned),
        http_status: line.count("http_status")?.map(u16::try_from).transpose()?,
    })
}

/// Passes to cells: those of equal coordinates in different states are one cell, those in the same
/// state are repeats.
fn cells(found: Vec<Found>) -> Vec<(CellRecord, Vec<RequestRow>)> {
    let mut cells: BTreeMap<Coordinates, (CellRecord, Vec<RequestRow>)> = BTreeMap::new();
    for mut pass in found {
        let taken = |at: &Coordinates| {
            let cell = cells.get(at).map(|(cell, _)| cell);
            cell.is_some_and(|cell| cell.passes.iter().any(|p| p.state == pass.state))
        };
        while taken(&pass.at) {
            let Some(next) = Repeat::new(pass.at.repeat.get() + 1) else {
                break;
            };
            pass.at.repeat = next;
        }
        let position = cells.len() as u32 + 1;
        let (cell, rows) = cells
            .entry(pass.at.clone())
            .or_insert_with(|| (empty_cell(&pass, position), Vec::new()));
        cell.source = cell.source.max(pass.source);
        cell.warnings.append(&mut pass.warnings);
        cell.passes.push(record(&pass));
        rows.append(&mut pass.rows);
    }
    cells.into_values().collect()
}

fn empty_cell(pass: &Found, position: u32) -> CellRecord {
    CellRecord {
        format: FORMAT,
        id: format!("{}-imported-{position}", pass.at.slug()),
        position,
        part: None,
        coordinates: pass.at.clone(),
        identity: BTreeMap::new(),
        machine: BTreeMap::new(),
        source: pass.source,
        model: pass.model.clone(),
        outcome: CellOutcome::Completed,
        server: ServerRecord {
            launcher: "imported".to_owned(),
            ..ServerRecord::default()
        },
        passes: Vec::new(),
        warnings: Vec::new(),
    }
}

fn record(pass: &Found) -> PassRecord {
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
        state: pass.state,
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
        },
        evidence: pass.evidence.clone(),
        client: BTreeMap::new(),
        ledger: Vec::new(),
        telemetry: Vec::new(),
        bottleneck: None,
    }
}
