//! A run judged again from its files alone: whether they are those that were recorded, whether its
//! numbers follow from them, and whether the rules of this labrun come to the same verdicts.

mod answers;
mod cell;
mod engine_kv;
mod legacy;
mod pass;
mod readings;
mod run;
mod show;
mod tables;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use self::engine_kv::EngineKv;
use crate::plan::state::CacheState;
use crate::record::hashes::CELL_FILE;
use crate::record::reader::Written;
use crate::record::schema::{CellRecord, Verdict, VerdictStatus};

/// What was found of a run, or of a single cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// The folder.
    pub path: PathBuf,
    /// Cells that labrun 0.1 wrote, without hashes: only their numbers are checked.
    pub without_hashes: usize,
    /// What differs of the run besides its cells.
    pub differences: Vec<String>,
    /// What a reader should know and is no difference.
    pub notes: Vec<String>,
    /// The cells, in the order of their folders.
    pub cells: Vec<CellCheck>,
    /// Whether anything differs.
    pub differs: bool,
}

/// What was found of one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellCheck {
    /// Its folder's name.
    pub cell: String,
    /// What differs from the record.
    pub differences: Vec<String>,
    /// What a reader should know and is no difference.
    pub notes: Vec<String>,
    /// Its passes.
    pub passes: Vec<PassCheck>,
}

/// What was found of one pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PassCheck {
    /// The cache state.
    pub state: CacheState,
    /// The verdict in the record.
    pub recorded: VerdictStatus,
    /// The verdict by today's rules, from the files; absent where there is nothing to judge by.
    pub judged: Option<Verdict>,
    /// What differs from the record.
    pub differences: Vec<String>,
    /// What a reader should know and is no difference.
    pub notes: Vec<String>,
}

impl CellCheck {
    fn differs(&self) -> bool {
        let of_pass = self.passes.iter().any(|pass| !pass.differences.is_empty());
        of_pass || !self.differences.is_empty()
    }
}

/// Checks the run in `folder`, or the cell where it is the folder of one.
///
/// # Errors
/// Where it is neither.
pub fn verify(folder: &Path) -> Result<Verification> {
    let mut found = Verification {
        path: folder.to_owned(),
        without_hashes: 0,
        differences: Vec::new(),
        notes: Vec::new(),
        cells: Vec::new(),
        differs: false,
    };
    if folder.join("cells").is_dir() {
        run::check(folder, &mut found)?;
    } else if folder.join(CELL_FILE).exists() {
        let engine_kv = EngineKv::of(&[folder.to_owned()]);
        let (checked, _) = cell::check(folder, None, engine_kv.of_cell(folder));
        found.add(checked);
    } else {
        bail!(
            "`{}` is neither a run folder nor a cell folder: it has no `cells` and no `{CELL_FILE}`",
            folder.display()
        );
    }
    if found.without_hashes > 0 {
        found.notes.push(format!(
            "{} of {} cells have no hashes, as labrun 0.1 wrote them: what was changed in them is found \
             only where their numbers contradict each other",
            found.without_hashes,
            found.cells.len()
        ));
    }
    found.differs = !found.differences.is_empty() || found.cells.iter().any(CellCheck::differs);
    Ok(found)
}

impl Verification {
    /// Gives the passes of `cells` the verdicts of today's rules, where the files allow one.
    pub(crate) fn judge_again(&self, cells: &mut [CellRecord]) {
        let checks: HashMap<&str, &CellCheck> = self
            .cells
            .iter()
            .map(|check| (check.cell.as_str(), check))
            .collect();
        for cell in cells {
            let Some(check) = checks.get(cell.id.as_str()) else {
                continue;
            };
            for (pass, found) in cell.passes.iter_mut().zip(&check.passes) {
                if let Some(judged) = &found.judged {
                    pass.verdict = judged.clone();
                }
            }
        }
    }

    fn add(&mut self, (check, has_hashes): (CellCheck, bool)) {
        self.without_hashes += usize::from(!has_hashes);
        self.cells.push(check);
    }
}
