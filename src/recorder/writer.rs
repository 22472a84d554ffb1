//! Writes a run's folder. A cell is written aside, synced and renamed: a folder under `cells/`
//! with its final name is complete, and nothing else marks completion.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::lock::Lock;
use super::phase_csv::write_phase_csv;
use super::rows::request_rows;
use super::telemetry_csv::{write_disk_csv, write_pcie_csv};
use super::telemetry_parquet::write_telemetry;
use crate::bounded;
use crate::record::frame::write_parquet;
use crate::record::hashes::{self, CELL_FILE, REQUESTS_FILE, Seal, TELEMETRY_FILE};
use crate::record::lab_csv::{cell_file_stem, lab_csv_name, write_lab_csv};
use crate::record::manifest::{Ended, MANIFEST_FILE, Manifest};
use crate::record::reader::{CELL_WRITTEN, EVENTS_FILE, read_record};
use crate::record::redact;
use crate::record::schema::{CellRecord, Phase};
use crate::runner::event::Event;
use crate::runner::result::{CellResult, LogPart, PhaseStretch};
use crate::secret::lines;
use crate::server::CONTAINER_STATS;
use crate::server::command_line::SERVER_SCRIPT;
use crate::verdict::basis::{Basis, FACTS_FILE};

/// A run's folder, open for writing by this process alone.
#[derive(Debug)]
pub(crate) struct RunFolder {
    pub(super) path: PathBuf,
    pub(super) events: File,
    pub(super) attempt: Attempt,
    /// Whether the events so far were removed, those of cells that are here among them.
    pub(super) forgot_events: bool,
    /// Locked until the folder is closed.
    pub(super) _lock: Lock,
}

/// Which attempt at the run this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it began, RFC 3339.
    pub started_at: String,
}

impl RunFolder {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Which attempt at the run this is, from 1.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt.number
    }

    /// Appends one event to `events.jsonl`; what is not recorded there is passed over.
    pub(crate) fn append(&mut self, elapsed_s: f64, event: &Event<'_>) -> Result<()> {
        let Some(mut line) = event_line(elapsed_s, event) else {
            return Ok(());
        };
        if let Event::RunStarted { .. } = event {
            line["attempt"] = json!(self.attempt.number);
            line["started_at"] = json!(self.attempt.started_at);
        }
        // One write a line, so that only the last can be torn.
        let line = format!("{line}\n");
        let written = self.events.write_all(line.as_bytes());
        written.context("appending to `events.jsonl`")
    }

    /// Adds to the manifest how the attempt ended.
    pub(crate) fn end(&mut self, mut ended: Ended) -> Result<()> {
        let events = self.path.join(EVENTS_FILE);
        let hash = hashes::of_file(&events);
        ended.events = Some(hash.with_context(|| format!("hashing `{}`", events.display()))?);
        self.change_manifest(|manifest| manifest.ended = Some(ended))
    }

    /// Puts into the manifest what was learned of the software once it ran.
    pub(crate) fn note_software(&mut self, facts: &BTreeMap<String, String>) -> Result<()> {
        let facts = facts.clone();
        self.change_manifest(|manifest| manifest.software.extend(facts))
    }

    /// Writes the manifest again where `change` changes it.
    fn change_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let before = Manifest::read(&self.path)?;
        let before = before.with_context(|| {
            let path = self.path.display();
            format!("`{path}` has lost its `{MANIFEST_FILE}`")
        })?;
        let mut manifest = before.clone();
        change(&mut manifest);
        if manifest == before {
            return Ok(());
        }
        write_manifest(&self.path, &manifest)
    }

    /// Writes a cell, whole.
    pub(crate) fn write_cell(&self, result: &CellResult) -> Result<PathBuf> {
        let record = &result.record;
        let id = &record.id;
        let cells = self.path.join("cells");
        // Where the folder was removed meanwhile, nothing is made up in its place.
        if !cells.is_dir() {
            bail!(
                "the run's folder `{}` is gone: somebody removed it",
                self.path.display()
            );
        }
        write_whole(&cells, id, |aside| {
            write_into(aside, result)?;
            let digest = write_record(aside, record)?;
            self.note_written(id, &digest)
        })
    }

    /// Appends to the events which record the cell `id` has: it is an event before it has its name, so
    /// that no complete cell lacks one.
    fn note_written(&self, id: &str, digest: &str) -> Result<()> {
        let event = json!({"event": CELL_WRITTEN, "cell": id, "digest": digest});
        let written = (&self.events).write_all(format!("{event}\n").as_bytes());
        written.context("appending to `events.jsonl`")
    }

    /// Copies a complete cell of another run folder, whole, and notes in it that it came from `part`.
    /// One that is here already stays.
    pub(crate) fn adopt(&self, cell: &Path, part: &str) -> Result<()> {
        let name = cell.file_name().unwrap_or_default();
        let cells = self.path.join("cells");
        let whole = cells.join(name);
        let name = name.to_string_lossy();
        if whole.exists() {
            if self.forgot_events
                && let (_, Seal::Whole(digest)) = read_record(&whole)?
            {
                self.note_written(&name, &digest)?;
            }
            return Ok(());
        }
        write_whole(&cells, &name, |aside| {
            copy_files(cell, aside)?;
            match note_part(&aside.join(CELL_FILE), part)? {
                Some(digest) => self.note_written(&name, &digest),
                None => Ok(()),
            }
        })?;
        Ok(())
    }

    /// Forgets the events so far: a merge that was cut short begins anew.
    pub(crate) fn forget_events(&mut self) -> Result<()> {
        let emptied = self.events.set_len(0).and_then(|()| self.events.rewind());
        emptied.context("emptying `events.jsonl`")?;
        self.forgot_events = true;
        Ok(())
    }

    /// Appends the events of another run folder, each with the name of that part.
    pub(crate) fn append_events_of(&mut self, folder: &Path, part: &str) -> Result<()> {
        let path = folder.join("events.jsonl");
        let mut text = String::new();
        bounded::open(&path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .with_context(|| format!("reading `{}`", path.display()))?;
        let mut lines = String::new();
        for line in text.lines() {
            // The last may be torn.
            if let Ok(mut event) = serde_json::from_str::<Value>(line) {
                // What was merged before has them.
                if event["part"].is_null() {
                    event["part"] = json!(part);
                }
                lines.push_str(&format!("{event}\n"));
            }
        }
        let written = self.events.write_all(lines.as_bytes());
        written.context("appending to `events.jsonl`")
    }
}

/// Copies the files of a cell. A link is refused: it would bring in what is no part of the run.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let from = entry?.path();
        refuse_link(&from)?;
        // A pipe would never end.
        drop(bounded::open(&from).with_context(|| format!("reading `{}`", from.display()))?);
        let to = to.join(from.file_name().unwrap_or_default());
        fs::copy(&from, &to)
            .with_context(|| format!("copying `{}` to `{}`", from.display(), to.display()))?;
    }
    Ok(())
}

/// Notes in a cell's record which part its position counts in. All else stays as it was written, also
/// what this version does not know. Returns the record's digest, where it has one.
fn note_part(path: &Path, part: &str) -> Result<Option<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading `{}`", path.display()))?;
    let mut record: Value = serde_json::from_str(&text)?;
    let seal = hashes::seal_of(&text, &record);
    if let Value::Object(fields) = &mut record
        && !fields.contains_key("part")
    {
        let after = fields.keys().position(|name| name == "position");
        let at = after.map_or(fields.len(), |position| position + 1);
        fields.shift_insert(at, "part".to_owned(), json!(part));
        if seal == Seal::Absent {
            write(path, &pretty(&record)?)?;
            return Ok(None);
        }
        let (text, digest) = hashes::sealed(record)?;
        write(path, &text)?;
        return Ok(Some(digest));
    }
    Ok(match seal {
        Seal::Whole(digest) => Some(digest),
        Seal::Absent | Seal::Broken => None,
    })
}

/// Writes the cell `id` aside with `write`, syncs it and gives it its name in `cells`.
pub(super) fn write_whole(
    cells: &Path,
    id: &str,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let (aside, whole) = (cells.join(format!(".tmp-{id}")), cells.join(id));
    if aside.exists() {
        fs::remove_dir_all(&aside)
            .with_context(|| format!("removing the torn cell `{}`", aside.display()))?;
    }
    fs::create_dir(&aside).with_context(|| format!("making `{}`", aside.display()))?;
    write(&aside).with_context(|| format!("writing the cell `{id}`"))?;
    put_in_place(&aside, &whole)?;
    Ok(whole)
}

/// Makes what is in `aside` last, and gives it its name.
fn put_in_place(aside: &Path, whole: &Path) -> Result<()> {
    let paths = fs::read_dir(aside)?.map(|entry| Ok(entry?.path()));
    let paths = paths.collect::<std::io::Result<Vec<_>>>()?;
    // All at once: a journal commits them together, and the next cell waits for this.
    std::thread::scope(|scope| {
        let sync = |path| scope.spawn(move || File::open(path)?.sync_all());
        let syncing: Vec<_> = paths.iter().map(sync).collect();
        syncing.into_iter().try_for_each(|one| {
            let panicked = |_| Err(std::io::Error::other("a thread panicked"));
            one.join().unwrap_or_else(panicked)
        })
    })
    .with_context(|| format!("syncing the files of `{}`", aside.display()))?;
    sync_folder(aside)?;
    fs::rename(aside, whole)
        .with_context(|| format!("renaming `{}` to `{}`", aside.display(), whole.display()))?;
    whole.parent().map_or(Ok(()), sync_folder)
}

/// Writes the record of a cell whose other files are in `folder`, without secrets, and with the hashes of
/// those files. Returns its digest.
pub(super) fn write_record(folder: &Path, record: &CellRecord) -> Result<String> {
    let mut value = serde_json::to_value(record)?;
    redact::json(&mut value);
    value["files"] = serde_json::to_value(hashes::of_folder(folder)?)?;
    let (text, digest) = hashes::sealed(value)?;
    write(&folder.join(CELL_FILE), &text)?;
    Ok(digest)
}

fn write_into(folder: &Path, result: &CellResult) -> Result<()> {
    let record = &result.record;
    if let Some(rendered) = &result.rendered {
        write(
            &folder.join(rendered.file_name),
            redact::text(&rendered.text).as_bytes(),
        )?;
    }
    if let Some(script) = &result.script {
        let path = folder.join(SERVER_SCRIPT);
        write(&path, redact::text(script).as_bytes())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("letting `{}` be run", path.display()))?;
    }
    for part in &result.logs {
        copy_part(part, folder, record.server.reused)?;
    }
    let mut rows = Vec::new();
    for pass in &result.passes {
        let of_pass = request_rows(pass);
        let at = &result.record.coordinates;
        let csv = folder.join(lab_csv_name(at, pass.state));
        write_lab_csv(&of_pass, at, record.source, &csv)?;
        rows.extend(of_pass);
    }
    write_parquet(&rows, &folder.join(REQUESTS_FILE))?;
    write_facts(folder, result)?;
    write_telemetry_files(folder, result)
}

/// What each pass was judged by, without secrets.
fn write_facts(folder: &Path, result: &CellResult) -> Result<()> {
    let passes = result.passes.iter();
    let all: Vec<&Basis> = passes.filter_map(|pass| pass.basis.as_ref()).collect();
    if all.is_empty() {
        return Ok(());
    }
    let mut value = serde_json::to_value(all)?;
    redact::json(&mut value);
    write(&folder.join(FACTS_FILE), &pretty(&value)?)
}

/// What the machine did, in our own form and in the earlier lab's.
fn write_telemetry_files(folder: &Path, result: &CellResult) -> Result<()> {
    let watched = &result.telemetry;
    if watched.series.is_empty() {
        return Ok(());
    }
    let at = &result.record.coordinates;
    let named = |kind: &str| folder.join(format!("{}.csv", cell_file_stem(kind, at)));
    write_telemetry(&watched.series, &folder.join(TELEMETRY_FILE))?;
    let phases = folder.join("telemetry_phases.csv");
    let measured = |stretch: &PhaseStretch| {
        let mut passes = result.passes.iter();
        let pass = passes.find(|pass| Some(pass.state) == stretch.state)?;
        let own = (pass.telemetry.window, pass.telemetry.summaries.as_slice());
        (stretch.phase == Phase::Load).then_some(own)
    };
    write_phase_csv(&watched.series, &result.phases, measured, &phases)?;
    write_pcie_csv(&watched.series, &named("pcie_stats"))?;
    let disk = watched.tier_disk.as_deref();
    write_disk_csv(&watched.series, disk, &named("disk_io_stats"))
}

/// Copies the part of a log that belongs to this cell.
fn copy_part(part: &LogPart, folder: &Path, reused: bool) -> Result<()> {
    let mut log = File::open(&part.path)
        .with_context(|| format!("opening the log `{}`", part.path.display()))?;
    log.seek(SeekFrom::Start(part.from))?;
    let path = folder.join(&part.name);
    let copy = File::create(&path).with_context(|| format!("making `{}`", path.display()))?;
    let mut copy = BufWriter::new(copy);
    // Lines of JSON have no comments.
    if reused && part.name != CONTAINER_STATS {
        writeln!(
            copy,
            "# labrun: this server was started by an earlier cell; its part follows"
        )?;
    }
    let mut lines = BufReader::new(log.take(part.to - part.from));
    lines::copy(&mut lines, &mut copy).with_context(|| format!("writing `{}`", path.display()))
}

fn event_line(elapsed_s: f64, event: &Event<'_>) -> Option<Value> {
    let mut line = match event {
        Event::RunStarted { work } => json!({
            "event": "run-started", "cells": work.matrix.cells.len(), "todo": work.todo.len(),
        }),
        Event::CellSkipped { cell } => json!({"event": "cell-skipped", "cell": cell.id}),
        Event::CellStarted { cell, position } => {
            json!({"event": "cell-started", "cell": cell.id, "position": position})
        }
        Event::PhaseStarted { phase, state } => {
            json!({"event": "phase-started", "phase": phase.name(), "state": state})
        }
        Event::LaunchProgress { line } => json!({"event": "launch-progress", "line": line}),
        // Progress is for the terminal.
        Event::LoadStarted { .. } => return None,
        Event::CellFinished { result } => {
            let record = &result.record;
            let verdicts: Vec<&str> = record
                .passes
                .iter()
                .map(|pass| pass.verdict.status.name())
                .collect();
            json!({
                "event": "cell-finished", "cell": record.id, "outcome": record.outcome,
                "verdicts": verdicts, "elapsed_s": result.elapsed.as_secs_f64(),
            })
        }
        Event::Stopped => json!({"event": "stopped"}),
        Event::RunFinished { elapsed } => {
            json!({"event": "run-finished", "elapsed_s": elapsed.as_secs_f64()})
        }
    };
    redact::json(&mut line);
    line["at_s"] = json!((elapsed_s * 1e6).round() / 1e6);
    Some(line)
}

/// Writes the manifest of the run in `folder`, without secrets.
pub(super) fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<()> {
    let mut value = serde_json::to_value(manifest)?;
    redact::json(&mut value);
    write_synced(&folder.join(MANIFEST_FILE), &hashes::sealed(value)?.0)
}

/// JSON as people read it.
pub(super) fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing `{}`", path.display()))
}

/// Writes a file of the run's root aside, syncs it and puts it in place.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let trouble = || format!("writing `{}`", path.display());
    let aside = aside(path);
    let written = write_aside(&aside, bytes).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _absent = fs::remove_file(&aside);
    }
    written.with_context(trouble)
}

fn write_aside(aside: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // A new file: what a link of that name leads to is not written to.
    let mut file = File::options().write(true).create_new(true).open(aside)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// What the names of files begin with that are not yet in place.
pub(super) const ASIDE: &str = ".tmp-";

/// A name beside `path` that no other process and no other thread uses.
fn aside(path: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let short: String = name.chars().take(100).collect();
    path.with_file_name(format!("{ASIDE}{}-{number}-{short}", std::process::id()))
}

/// Whether the file called `name`, which is not yet in place, may still be: the process that writes it lives.
pub(super) fn is_being_written(name: &str) -> bool {
    let pid = name
        .strip_prefix(ASIDE)
        .and_then(|rest| rest.split('-').next());
    let pid: Option<u32> = pid.and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists())
}

/// Makes `folder` in a run, where it is missing.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    refuse_link(folder)?;
    fs::create_dir_all(folder).with_context(|| format!("making the folder `{}`", folder.display()))
}

/// Fails where a link stands at `path`: it would lead files out of the run.
pub(crate) fn refuse_link(path: &Path) -> Result<()> {
    let is_link = path.symlink_metadata().is_ok_and(|it| it.is_symlink());
    ensure!(!is_link, "`{}` is a link; remove it", path.display());
    Ok(())
}

/// Makes the names in a folder last.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)?
        .sync_all()
        .with_context(|| format!("syncing `{}`", path.display()))
}
