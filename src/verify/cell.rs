//! One cell: its record, its files, its passes.

use std::collections::BTreeMap;
use std::path::Path;

use super::pass::{self, Sources};
use super::{CellCheck, Written, readings};
use crate::bounded;
use crate::plan::state::CacheState;
use crate::record::frame::read_parquet;
use crate::record::hashes::{self, CELL_FILE, Difference, REQUESTS_FILE, Seal, TELEMETRY_FILE};
use crate::record::reader::read_record;
use crate::record::schema::{CellRecord, RequestRow};
use crate::units::Bounds;
use crate::verdict::basis::{Basis, FACTS_FILE};
use crate::verdict::log_counts::LogCounts;

/// The most bytes of a `facts.json`.
const MAX_FACTS_BYTES: u64 = 64 << 20;

/// The most bytes of a log that is counted.
pub(super) const MAX_LOG_BYTES: u64 = 256 << 20;

/// Files that labrun reads: one that was not recorded would count.
const KNOWN: [&str; 3] = [REQUESTS_FILE, TELEMETRY_FILE, FACTS_FILE];

/// What was found of the cell in `folder`, and whether it has hashes. Of a cell in a run, `written` is
/// what the run's events name. `engine_kv` is what the start log of its server states of a token's
/// bytes. The record comes along where it can be read.
pub(super) fn check(
    folder: &Path,
    written: Option<&Written>,
    engine_kv: Option<Bounds>,
) -> ((CellCheck, bool), Option<CellRecord>) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut found = CellCheck {
        cell: name.into_owned(),
        differences: Vec::new(),
        notes: Vec::new(),
        passes: Vec::new(),
    };
    let (record, seal) = match read_record(folder) {
        Ok(read) => read,
        Err(error) => {
            found.differences.push(format!("{error:#}"));
            // Whatever wrote it: nothing can be judged.
            return ((found, true), None);
        }
    };
    if seal == Seal::Broken {
        found.differences.push(format!(
            "`{CELL_FILE}` was changed after labrun wrote it: the digest in it differs"
        ));
    }
    if let Some(written) = written {
        check_place(written, folder, &record, &seal, &mut found);
    }
    check_files(folder, &record, &mut found);
    let own = Files::read(folder, &mut found);
    own.check_logs(&mut found);
    for (at, recorded) in record.passes.iter().enumerate() {
        let sources = Sources {
            record: &record,
            has_hashes: seal != Seal::Absent,
            basis: own.basis(at, recorded.state),
            rows: own.rows_of(recorded.state),
            points: own.points.as_ref(),
            engine_kv,
        };
        found.passes.push(pass::check(recorded, &sources));
    }
    ((found, seal != Seal::Absent), Some(record))
}

fn check_place(
    written: &Written,
    folder: &Path,
    record: &CellRecord,
    seal: &Seal,
    found: &mut CellCheck,
) {
    if let Some(why) = written.misplaced(folder, record, seal) {
        found.differences.push(why);
    } else if matches!(seal, Seal::Whole(_)) && !written.has(&record.id) {
        found.differences.push(
            "the run's `events.jsonl` does not name it: it was brought here, or the events were cut"
                .to_owned(),
        );
    }
}

fn check_files(folder: &Path, record: &CellRecord, found: &mut CellCheck) {
    if record.files.is_empty() {
        found.differences.extend(hashes::unusable(folder, record));
        return;
    }
    match hashes::differences(folder, &record.files) {
        Err(error) => found.differences.push(format!("{error:#}")),
        Ok(all) => {
            for (name, difference) in all {
                let text = format!("`{name}` {}", difference.describe());
                if difference == Difference::Unrecorded && !KNOWN.contains(&name.as_str()) {
                    found.notes.push(text);
                } else {
                    found.differences.push(text);
                }
            }
        }
    }
}

/// Picks a count of tokens.
type Count = fn(&LogCounts) -> f64;

/// What stands beside a record.
struct Files {
    rows: Option<Vec<RequestRow>>,
    bases: Vec<Basis>,
    points: Option<readings::Points>,
    logs: Option<LogCounts>,
}

impl Files {
    /// Reads what is there; what is missing is named by whoever compares the files.
    fn read(folder: &Path, found: &mut CellCheck) -> Self {
        let mut failed = |what: &str, error: &anyhow::Error| {
            found
                .differences
                .push(format!("`{what}` cannot be read: {error:#}"));
        };
        let has = |name: &str| folder.join(name).exists();
        let rows = has(REQUESTS_FILE).then(|| read_parquet(&folder.join(REQUESTS_FILE)));
        let rows =
            rows.and_then(|read| read.inspect_err(|error| failed(REQUESTS_FILE, error)).ok());
        let points = if has(TELEMETRY_FILE) {
            Some(readings::read(&folder.join(TELEMETRY_FILE)))
        } else {
            pcie_csv(folder).map(|text| readings::read_pcie_csv(&text))
        };
        let points =
            points.and_then(|read| read.inspect_err(|error| failed(TELEMETRY_FILE, error)).ok());
        let bases = has(FACTS_FILE).then(|| read_bases(folder));
        let bases = bases.and_then(|read| read.inspect_err(|error| failed(FACTS_FILE, error)).ok());
        Self {
            rows,
            bases: bases.unwrap_or_default(),
            points,
            logs: read_logs(folder),
        }
    }

    fn basis(&self, at: usize, state: CacheState) -> Option<&Basis> {
        let basis = self.bases.get(at)?;
        (basis.facts.state == state).then_some(basis)
    }

    fn rows_of(&self, state: CacheState) -> Option<Vec<&RequestRow>> {
        let rows = self.rows.as_ref()?;
        Some(rows.iter().filter(|row| row.state == state).collect())
    }

    /// The logs have all lines of the cell, those between its passes too.
    fn check_logs(&self, found: &mut CellCheck) {
        let Some(logs) = &self.logs else { return };
        let sum =
            |pick: Count| -> f64 { self.bases.iter().map(|basis| pick(&basis.facts.logs)).sum() };
        let named: [(&str, Count); 2] = [
            ("loaded", |logs| logs.retrieved.tokens),
            ("stored", |logs| logs.stored.tokens),
        ];
        for (what, pick) in named {
            let (passes, all) = (sum(pick), pick(logs));
            if passes > all + 0.5 {
                found.differences.push(format!(
                    "`{FACTS_FILE}` counts {passes:.0} {what} tokens in the logs of its passes, its logs \
                     have {all:.0}"
                ));
            }
        }
    }
}

/// The text of the cell's `pcie_stats_*.csv`, where it has one.
fn pcie_csv(folder: &Path) -> Option<String> {
    let mut entries = std::fs::read_dir(folder).ok()?.flatten();
    let is_pcie = |name: &str| name.starts_with("pcie_stats_");
    let found = entries.find(|entry| is_pcie(&entry.file_name().to_string_lossy()))?;
    bounded::read(&found.path(), MAX_LOG_BYTES).ok()
}

fn read_bases(folder: &Path) -> anyhow::Result<Vec<Basis>> {
    let text = bounded::read(&folder.join(FACTS_FILE), MAX_FACTS_BYTES)?;
    Ok(serde_json::from_str(&text)?)
}

/// LMCache's lines in the logs of the cell; `None` where it has no log, or one that cannot be read.
fn read_logs(folder: &Path) -> Option<LogCounts> {
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "log") {
            texts.insert(path.clone(), bounded::read(&path, MAX_LOG_BYTES).ok()?);
        }
    }
    let all: Vec<String> = texts.into_values().collect();
    (!all.is_empty()).then(|| LogCounts::of(&all.join("\n")))
}
