//! A run: its manifest, its plan, its events, its tables and the cells that they name.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Result;

use super::engine_kv::EngineKv;
use super::{Verification, cell, tables};
use crate::bounded;
use crate::record::hashes::{FileHash, Seal};
use crate::record::manifest::{MANIFEST_FILE, Manifest};
use crate::record::reader::{EVENTS_FILE, Written, cell_folders, manifest_seal, read_run};
use crate::record::schema::CellRecord;
use crate::record::whole;
use crate::report::Report;

/// The most bytes of a plan or a table.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// Checks the run in `folder`.
pub(super) fn check(folder: &Path, found: &mut Verification) -> Result<()> {
    let written = Written::read(folder);
    let mut records = Vec::new();
    let cells = cell_folders(&folder.join("cells"))?;
    let engine_kv = EngineKv::of(&cells);
    for path in cells {
        let (checked, record) = cell::check(&path, Some(&written), engine_kv.of_cell(&path));
        found.add(checked);
        records.extend(record);
    }
    check_manifest(folder, &written, found);
    check_lack(folder, found);
    check_twice(&records, found);
    check_tables(folder, found);
    Ok(())
}

fn check_manifest(folder: &Path, written: &Written, found: &mut Verification) {
    let manifest = match Manifest::read(folder) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => {
            found
                .differences
                .push(format!("`{MANIFEST_FILE}` is missing"));
            return;
        }
        Err(error) => {
            found.differences.push(format!("{error:#}"));
            return;
        }
    };
    if manifest_seal(folder) == Some(Seal::Absent) && !written.is_empty() {
        found.differences.push(format!(
            "`{MANIFEST_FILE}` was changed after labrun wrote it: the digest in it is gone"
        ));
    }
    if let Some(recorded) = &manifest.plan.blake3 {
        check_plan(folder, recorded, found);
    }
    let events = manifest
        .ended
        .as_ref()
        .and_then(|ended| ended.events.as_ref());
    if let Some(recorded) = events {
        check_events(folder, recorded, found);
    }
}

fn check_plan(folder: &Path, recorded: &str, found: &mut Verification) {
    match bounded::read(&folder.join("plan.toml"), MAX_TEXT_BYTES) {
        Err(error) => found
            .differences
            .push(format!("`plan.toml` cannot be read: {error}")),
        Ok(text) if blake3::hash(text.as_bytes()).to_hex().as_str() != recorded => {
            found.differences.push(
                "`plan.toml` is not the plan that was run: its hash is not the manifest's"
                    .to_owned(),
            );
        }
        Ok(_) => {}
    }
}

/// The events up to the run's end; a run that was continued has more.
fn check_events(folder: &Path, recorded: &FileHash, found: &mut Verification) {
    let path = folder.join(EVENTS_FILE);
    let hash_of = |file: File| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file.take(recorded.bytes))?;
        Ok::<_, std::io::Error>((hasher.count(), hasher.finalize().to_hex().to_string()))
    };
    match bounded::open(&path).and_then(hash_of) {
        Err(error) => found
            .differences
            .push(format!("`{EVENTS_FILE}` cannot be read: {error}")),
        Ok((bytes, _)) if bytes < recorded.bytes => found.differences.push(format!(
            "`{EVENTS_FILE}` has {bytes} bytes and had {} when the run ended",
            recorded.bytes
        )),
        Ok((_, hash)) if hash != recorded.blake3 => found.differences.push(format!(
            "`{EVENTS_FILE}` was changed after the run ended: its hash differs"
        )),
        Ok(_) => {}
    }
}

/// A run that was killed says so; cells that are gone from one that ended are a difference.
fn check_lack(folder: &Path, found: &mut Verification) {
    if let Some(lack) = whole::lack(folder) {
        // A manifest that cannot be used has been named.
        if lack.ends_with("were removed") {
            found.differences.push(lack);
        } else if !lack.ends_with("is unknown") {
            found.notes.push(lack);
        }
    }
}

/// Two folders of one place in the matrix would count as repeats.
fn check_twice(records: &[CellRecord], found: &mut Verification) {
    let mut seen = HashMap::new();
    for record in records {
        let place = (&record.coordinates, &record.model);
        if let Some(other) = seen.insert(place, record) {
            found.differences.push(format!(
                "the cells `{}` and `{}` have the same place in the matrix",
                other.id, record.id
            ));
        }
    }
}

/// The tables, where every cell can be used.
fn check_tables(folder: &Path, found: &mut Verification) {
    let is_sound = |run: &crate::record::reader::RunData| run.unreadable.is_empty();
    let Some(run) = read_run(folder).ok().filter(is_sound) else {
        found
            .notes
            .push("the tables are not compared: not every cell can be used".to_owned());
        return;
    };
    let report = match Report::of(&run, "verify") {
        Ok(report) => report,
        Err(error) => {
            found
                .differences
                .push(format!("no table can be made of its cells: {error:#}"));
            return;
        }
    };
    for (name, made) in [
        ("summary.csv", report.summary_csv()),
        ("comparison.csv", report.comparison_csv()),
    ] {
        match bounded::read(&folder.join(name), MAX_TEXT_BYTES) {
            Ok(stored) => found
                .differences
                .extend(tables::differences(name, &stored, &made)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                found.notes.push(format!("there is no `{name}`"));
            }
            Err(error) => found
                .differences
                .push(format!("`{name}` cannot be read: {error}")),
        }
    }
}
