//! Which finished cells a resumed run leaves in place, which it puts aside, and which it runs.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::writer::{make_folder, sync_folder};
use crate::matrix::file_name::file_name;
use crate::matrix::{Cell, Coordinates};
use crate::plan::pace::AutoMetric;
use crate::plan::state::CacheState;
use crate::record::frame::load_frame;
use crate::record::reader::{Written, cell_folders, may_be_sound, read_cell, read_cell_of};
use crate::record::redact;
use crate::record::schema::{CellOutcome, CellRecord, FORMAT, VerdictStatus};
use crate::runner::identity::{Identity, changes};

/// The folder of what does not count any more.
const SUPERSEDED: &str = "superseded";

/// Which finished cells a resumed run measures again, each all that the one before does. Missing ones always
/// are.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Retry {
    /// None.
    None,
    /// Those that failed.
    #[default]
    Failed,
    /// Those that failed, and those with an invalid pass.
    Invalid,
    /// Those that failed, and those with a pass that is not proven: invalid or inconclusive.
    Unproven,
}

/// How the cells of a run ended so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes {
    /// Measured to their end.
    pub completed: u32,
    /// Not measured to their end.
    pub failed: u32,
    /// With at least one invalid pass.
    pub invalid: u32,
}

impl Outcomes {
    /// Counts a cell.
    pub(crate) fn count(&mut self, record: &CellRecord) {
        match record.outcome {
            CellOutcome::Completed => self.completed += 1,
            CellOutcome::Failed { .. } | CellOutcome::Aborted { .. } => self.failed += 1,
        }
        self.invalid += u32::from(is_invalid(record));
    }
}

/// What a resumed run does.
#[derive(Debug, Default)]
pub(crate) struct Resumption {
    /// Indices in the matrix of the cells to run, in order.
    pub todo: Vec<usize>,
    /// The cells that stay: they stand for those that the plan asks for.
    pub finished: Vec<CellRecord>,
    /// Folders of cells that are not, each with the reason.
    pub aside: Vec<(PathBuf, String)>,
    /// Folders of cells that were put aside earlier and fit again, each with the cell's id.
    pub back: Vec<(PathBuf, String)>,
    /// The last position of all cells in the folder, those put aside too.
    last_position: u32,
}

impl Resumption {
    /// How the finished cells ended.
    pub(crate) fn outcomes(&self) -> Outcomes {
        let mut outcomes = Outcomes::default();
        self.finished
            .iter()
            .for_each(|record| outcomes.count(record));
        outcomes
    }

    /// The position of the next cell that runs. None is given twice: what was put aside may come
    /// back.
    pub(crate) fn next_position(&self) -> u32 {
        self.last_position + 1
    }
}

/// Compares the finished cells of the run in `folder` with those that the plan asks for, given with
/// their indices. Writes nothing.
pub(crate) fn decide(
    folder: &Path,
    wanted: impl Iterator<Item = (usize, Cell)>,
    identity_of: impl Fn(&Cell) -> Result<Identity>,
    retry: Retry,
) -> Result<Resumption> {
    let mut plan = Resumption::default();
    let written = Written::read(folder);
    let placed = |cell: &Path| read_cell_of(&written, cell);
    let (mut finished, unreadable) = read_cells(&folder.join("cells"), placed)?;
    plan.aside = unreadable;
    let superseded = folder.join(SUPERSEDED);
    let mut earlier = Found::new();
    if superseded.is_dir() {
        // What cannot be read there stays there.
        (earlier, _) = read_cells(&superseded, read_cell)?;
    }
    let all = finished.values().chain(earlier.values()).flatten();
    plan.last_position = all.map(|(_, record)| record.position).max().unwrap_or(0);
    for (index, cell) in wanted {
        let mut fit = None;
        for (path, record) in finished.remove(&cell.coordinates).unwrap_or_default() {
            match reason_against(&record, &cell, &identity_of, retry)? {
                None if fit.is_none() => fit = Some(record),
                None => plan.aside.push((path, "it is there twice".to_owned())),
                Some(reason) => plan.aside.push((path, reason)),
            }
        }
        if fit.is_none() {
            let candidates = earlier.remove(&cell.coordinates).unwrap_or_default();
            if let Some((path, record)) = fitting(candidates, &cell, &identity_of, retry)? {
                plan.back.push((path, record.id.clone()));
                fit = Some(record);
            }
        }
        match fit {
            Some(record) => plan.finished.push(record),
            None => {
                // It would stand in the way of the cell.
                let path = folder.join("cells").join(&cell.id);
                if path.is_dir() && !path.join("cell.json").exists() {
                    plan.aside.push((path, "it has no `cell.json`".to_owned()));
                }
                plan.todo.push(index);
            }
        }
    }
    let left = finished.into_values().flatten();
    let gone = "the plan does not ask for it any more";
    plan.aside
        .extend(left.map(|(path, _)| (path, gone.to_owned())));
    plan.aside.sort();
    Ok(plan)
}

/// Cells with their folders, by where they lie in the matrix.
type Found = HashMap<Coordinates, Vec<(PathBuf, CellRecord)>>;

/// The cells under `cells`; and the folders of those that are damaged, with the reason.
///
/// # Errors
/// Where a cell cannot be read and may be sound: it would be measured again for nothing.
fn read_cells(
    cells: &Path,
    read: impl Fn(&Path) -> Result<CellRecord>,
) -> Result<(Found, Vec<(PathBuf, String)>)> {
    let (mut found, mut unreadable) = (Found::new(), Vec::new());
    for path in cell_folders(cells)? {
        match read(&path) {
            Ok(record) => {
                let at = record.coordinates.clone();
                found.entry(at).or_default().push((path, record));
            }
            Err(error) if may_be_sound(&error) => {
                return Err(
                    error.context("the run cannot be continued, and nothing in it was changed")
                );
            }
            Err(error) => unreadable.push((path, format!("{error:#}"))),
        }
    }
    Ok((found, unreadable))
}

/// The latest of the cells that were put aside that can stand for `cell`: a good one, whose values
/// are again those that were changed.
fn fitting(
    mut candidates: Vec<(PathBuf, CellRecord)>,
    cell: &Cell,
    identity_of: impl Fn(&Cell) -> Result<Identity>,
    retry: Retry,
) -> Result<Option<(PathBuf, CellRecord)>> {
    let strictest = retry.max(Retry::Invalid);
    candidates.sort_by_key(|(_, record)| record.position);
    while let Some((path, record)) = candidates.pop() {
        if reason_against(&record, cell, &identity_of, strictest)?.is_none() {
            return Ok(Some((path, record)));
        }
    }
    Ok(None)
}

/// Why a finished cell cannot stand for `cell`, if so.
fn reason_against(
    record: &CellRecord,
    cell: &Cell,
    identity_of: impl Fn(&Cell) -> Result<Identity>,
    retry: Retry,
) -> Result<Option<String>> {
    let mut now = identity_of(cell)?;
    redact::table(&mut now);
    now.insert("format".to_owned(), FORMAT.to_string());
    // Earlier versions recorded no identity, and the id hashed the plan's values alone.
    if record.identity.is_empty() {
        if record.id != cell.id {
            return Ok(Some("its plan's values changed".to_owned()));
        }
    } else {
        let changed = changes(&record.identity, &now);
        if !changed.is_empty() {
            return Ok(Some(format!("changed: {}", shortened(&changed))));
        }
    }
    let failed = record.outcome.failure();
    Ok(match retry {
        Retry::None => None,
        Retry::Failed => failed,
        Retry::Invalid => {
            failed.or_else(|| is_invalid(record).then(|| "a pass is invalid".to_owned()))
        }
        Retry::Unproven => failed.or_else(|| {
            let is_unproven = any_pass(record, |status| status != VerdictStatus::Valid);
            is_unproven.then(|| "a pass is not proven".to_owned())
        }),
    })
}

fn is_invalid(record: &CellRecord) -> bool {
    any_pass(record, |status| status == VerdictStatus::Invalid)
}

fn any_pass(record: &CellRecord, is_meant: impl Fn(VerdictStatus) -> bool) -> bool {
    let mut passes = record.passes.iter();
    passes.any(|pass| is_meant(pass.verdict.status))
}

/// The first few of many.
fn shortened(changes: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = changes[..changes.len().min(SHOWN)].join("; ");
    if changes.len() > SHOWN {
        text.push_str(&format!("; and {} more", changes.len() - SHOWN));
    }
    text
}

/// What the good requests of a finished cell took, milliseconds, by state.
pub(crate) fn values_ms(
    folder: &Path,
    record: &CellRecord,
    metric: AutoMetric,
) -> Result<BTreeMap<CacheState, Vec<f64>>> {
    let mut values: BTreeMap<CacheState, Vec<f64>> = BTreeMap::new();
    if record.passes.is_empty() {
        return Ok(values);
    }
    let requests = load_frame(&folder.join("requests.parquet"))?;
    let column = format!("{}_ms", metric.name());
    let times = requests.column(&column)?.f64()?;
    let outcomes = requests.column("outcome")?.str()?;
    let states = requests.column("state")?.str()?;
    for ((time, outcome), state) in times.iter().zip(outcomes.iter()).zip(states.iter()) {
        if let (Some(time), Some("ok"), Some(state)) = (time, outcome, state)
            && let Some(state) = CacheState::from_name(state)
        {
            values.entry(state).or_default().push(time);
        }
    }
    Ok(values)
}

/// Moves the finished cell at `path` of the run in `folder` out of `cells`, where no report looks
/// for it. Nothing is removed.
pub(crate) fn put_aside(folder: &Path, path: &Path) -> Result<PathBuf> {
    let into = folder.join(SUPERSEDED);
    make_folder(&into)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let free = (1..).map(|number| into.join(format!("{name}.{number}")));
    let to = free
        .into_iter()
        .find(|to| !to.exists())
        .unwrap_or_else(|| into.join(&*name));
    fs::rename(path, &to)
        .with_context(|| format!("moving `{}` to `{}`", path.display(), to.display()))?;
    sync_folder(&into)?;
    Ok(to)
}

/// Moves the cell at `path`, which was put aside, to where the cells of the run in `folder` are.
pub(crate) fn bring_back(folder: &Path, path: &Path, id: &str) -> Result<()> {
    let cells = folder.join("cells");
    // The id was read from a file, which may say anything.
    let to = cells.join(file_name(id));
    fs::rename(path, &to)
        .with_context(|| format!("moving `{}` to `{}`", path.display(), to.display()))?;
    sync_folder(&cells)?;
    sync_folder(&folder.join(SUPERSEDED))
}
