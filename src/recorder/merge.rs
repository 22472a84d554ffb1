//! Joins the run folders of shards into one, after checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::open::Opened;
use super::resume::Outcomes;
use crate::matrix::shard::Shard;
use crate::matrix::{Coordinates, Matrix};
use crate::plan::Plan;
use crate::record::manifest::{Ended, Manifest};
use crate::record::reader::{Written, cell_folders, read_cell_of};
use crate::text_file;
use crate::units::WallClock;

/// What came of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// How the cells of all parts ended.
    pub outcomes: Outcomes,
    /// What a person should know besides.
    pub notes: Vec<String>,
}

/// One run to be joined.
struct Part {
    folder: PathBuf,
    manifest: Manifest,
    plan: String,
    cells: Vec<(PathBuf, Coordinates)>,
}

impl Part {
    fn read(folder: &Path, outcomes: &mut Outcomes) -> Result<Self> {
        let name = folder.display();
        let manifest = Manifest::read(folder)?
            .with_context(|| format!("`{name}` is not a run folder: it has no `manifest.json`"))?;
        let plan = text_file::read(&folder.join("plan.toml"))
            .with_context(|| format!("reading the plan of `{name}`"))?;
        let mut cells = Vec::new();
        let written = Written::read(folder);
        for path in cell_folders(&folder.join("cells"))? {
            let record = read_cell_of(&written, &path)?;
            outcomes.count(&record);
            cells.push((path, record.coordinates));
        }
        Ok(Self {
            folder: folder.to_owned(),
            manifest,
            plan,
            cells,
        })
    }

    /// The matrix of its plan.
    fn matrix(&self) -> Result<Matrix> {
        let file = self.folder.join("plan.toml").display().to_string();
        Ok(Matrix::expand(&Plan::parse(&self.plan, &file)?)?)
    }

    /// Its shard of the matrix of `first`: another plan may be divided otherwise.
    fn shard_of(&self, first: &Self) -> Option<Shard> {
        self.manifest.shard.filter(|_| self.plan == first.plan)
    }

    /// Its name in what is merged.
    fn label(&self, first: &Self) -> String {
        let folder = || self.folder.display().to_string();
        let shard = self.shard_of(first);
        shard.map_or_else(folder, |shard| shard.to_string())
    }
}

/// Copies the cells of `runs` into `out`. With `resume`, `out` may hold some of them already.
pub(crate) fn merge(
    out: &Path,
    runs: &[PathBuf],
    allow_missing: bool,
    resume: bool,
) -> Result<Merged> {
    let mut outcomes = Outcomes::default();
    let parts = runs
        .iter()
        .map(|run| Part::read(run, &mut outcomes))
        .collect::<Result<Vec<_>>>()?;
    let Some(first) = parts.first() else {
        bail!("nothing to merge: name run folders");
    };
    let matrix = first.matrix()?;
    for part in &parts[1..] {
        check_cells_of_plan(first, part, &matrix)?;
        check_alike(first, part)?;
    }
    let shards = missing_shards(first, &parts)?;
    check_twice(&parts)?;
    let missing = missing_cells(&matrix, &parts);
    if !missing.is_empty() && !allow_missing {
        let shards = shards.map_or_else(String::new, |shards| format!(" ({shards})"));
        bail!(
            "{} of the plan's cells are in none of these runs, such as `{}`{shards}; finish their runs \
             with `labrun run --resume RUN`, or give --allow-missing",
            missing.len(),
            missing[0]
        );
    }
    let notes = shards.into_iter().collect();
    let before = Manifest::read(out)?;
    let is_cut_short = match &before {
        Some(manifest) => !manifest.merged_from.is_empty() && manifest.ended.is_none(),
        // Whatever else the folder holds is refused where it is opened.
        None => out.join("cells").is_dir(),
    };
    let is_empty = !std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(
        resume || is_empty || is_cut_short,
        "`{}` exists and is not empty; name another folder",
        out.display()
    );
    let opened = Opened::open(out, true)?;
    let is_first = opened.manifest.is_none() || is_cut_short;
    let mut folder = opened.begin(merged_manifest(first, &parts)?, &first.plan)?;
    if is_first {
        folder.forget_events()?;
    }
    for part in &parts {
        let label = part.label(first);
        for (path, _) in &part.cells {
            folder.adopt(path, &label)?;
        }
        if is_first {
            folder.append_events_of(&part.folder, &label)?;
        }
    }
    folder.end(Ended {
        how: "merged".to_owned(),
        at: WallClock::now().rfc3339(),
        completed: outcomes.completed,
        failed: outcomes.failed,
        invalid: outcomes.invalid,
        missing: Some(missing.len()),
        ..Ended::default()
    })?;
    Ok(Merged { outcomes, notes })
}

/// Fails where `part` measured a cell that `matrix`, of the first part's plan, does not have. The plans may
/// differ in what these cells do not hold, such as the RAM of another tier.
fn check_cells_of_plan(first: &Part, part: &Part, matrix: &Matrix) -> Result<()> {
    if first.plan == part.plan {
        return Ok(());
    }
    let planned: BTreeSet<String> = matrix.cells.iter().map(|cell| cell.id).collect();
    let ids = part.cells.iter().filter_map(|(path, _)| path.file_name());
    let mut foreign = ids.filter(|id| !planned.contains(&*id.to_string_lossy()));
    if let Some(id) = foreign.next() {
        bail!(
            "`{a}` and `{b}` ran different plans: the cell `{}` of `{b}` is not in the plan of `{a}` with the \
             same values (name the run first whose plan has the cells of all)",
            id.display(),
            a = first.folder.display(),
            b = part.folder.display(),
        );
    }
    Ok(())
}

/// Fails where two runs had different servers or machines.
fn check_alike(first: &Part, part: &Part) -> Result<()> {
    let (a, b) = (first.folder.display(), part.folder.display());
    let of = |manifest: &Manifest| -> Result<[(&str, Value); 4]> {
        Ok([
            (
                "versions or models",
                serde_json::to_value(&manifest.software)?,
            ),
            ("launchers", serde_json::to_value(manifest.launcher)?),
            ("servers' environments", manifest.settings["env"].clone()),
            ("GPUs", serde_json::to_value(manifest.gpu_names())?),
        ])
    };
    for ((what, one), (_, other)) in of(&first.manifest)?.into_iter().zip(of(&part.manifest)?) {
        ensure!(
            one == other,
            "`{a}` and `{b}` have different {what} ({one} and {other}); what they measured cannot \
             be compared as one run"
        );
    }
    Ok(())
}

/// Names the shards that are not there; fails where the parts are no shards of one division.
fn missing_shards(first: &Part, parts: &[Part]) -> Result<Option<String>> {
    let shards: Vec<Shard> = parts
        .iter()
        .filter_map(|part| part.shard_of(first))
        .collect();
    let mut seen = BTreeSet::new();
    for shard in &shards {
        ensure!(
            shard.of == shards[0].of,
            "shards {} and {shard} are of different divisions",
            shards[0]
        );
        ensure!(seen.insert(shard.index), "shard {shard} is there twice");
    }
    if shards.len() == parts.len() && !shards.is_empty() {
        let missing: Vec<String> = (1..=shards[0].of)
            .filter(|index| !seen.contains(index))
            .map(|index| index.to_string())
            .collect();
        if !missing.is_empty() {
            return Ok(Some(format!(
                "missing of {} shards: {}",
                shards[0].of,
                missing.join(", ")
            )));
        }
    }
    Ok(None)
}

fn check_twice(parts: &[Part]) -> Result<()> {
    let mut seen: BTreeMap<&Coordinates, &Path> = BTreeMap::new();
    for (path, at) in parts.iter().flat_map(|part| &part.cells) {
        if let Some(other) = seen.insert(at, path) {
            bail!(
                "the cell `{}` is there twice: `{}` and `{}`",
                at.slug(),
                other.display(),
                path.display()
            );
        }
    }
    Ok(())
}

/// The plan's cells that no part has, without repeats that were not needed.
fn missing_cells(matrix: &Matrix, parts: &[Part]) -> Vec<String> {
    let there: BTreeSet<&Coordinates> = parts
        .iter()
        .flat_map(|part| &part.cells)
        .map(|(_, at)| at)
        .collect();
    let missing = matrix.cells.iter().filter(|cell| {
        let auto = cell.resolved.run.pace.auto;
        let may_miss = auto.is_some_and(|auto| cell.coordinates.repeat > auto.min_repeats);
        !may_miss && !there.contains(&cell.coordinates)
    });
    missing.map(|cell| cell.id).collect()
}

/// The first part's manifest, with the manifests of all.
fn merged_manifest(first: &Part, parts: &[Part]) -> Result<Manifest> {
    let own = |part: &Part| -> Result<Value> {
        let mut own = serde_json::to_value(&part.manifest)?;
        if let Value::Object(table) = &mut own {
            for key in ["cells", "settings", "settings_from", "earlier_attempts"] {
                table.remove(key);
            }
        }
        Ok(own)
    };
    let ids = parts.iter().flat_map(|part| &part.cells);
    let ids = ids.filter_map(|(path, _)| Some(path.file_name()?.to_string_lossy().into_owned()));
    Ok(Manifest {
        merged_from: parts.iter().map(own).collect::<Result<_>>()?,
        shard: None,
        cells: ids.collect(),
        ended: None,
        earlier_attempts: Vec::new(),
        attempt: None,
        ..first.manifest.clone()
    })
}
