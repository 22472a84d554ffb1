//! Reads a run folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use polars::prelude::DataFrame;
use serde::Deserialize;
use serde_json::Value;

use crate::bounded;
use crate::matrix::file_name::is_file_name;
use crate::parallel::side_by_side;
use crate::record::hashes::{self, CELL_FILE, REQUESTS_FILE, Seal};
use crate::record::schema::{CellRecord, FORMAT, RequestRow};
use crate::record::{frame, redact};

/// The most bytes of a `cell.json` or a manifest.
pub(super) const MAX_RECORD_BYTES: u64 = 256 << 20;

/// All complete cells of a run, or of several, with their requests.
#[derive(Clone, Debug)]
pub struct RunData {
    /// The cells in the order that they ran; those of a merged run's parts, which ran side by side,
    /// in turn.
    pub cells: Vec<CellRecord>,
    /// The requests of all cells.
    pub requests: Requests,
    /// Cells that cannot be read, a sentence each.
    pub unreadable: Vec<String>,
}

/// The requests of many cells, in the order of [`RunData::cells`]. Those of a run folder stay in
/// their files until they are asked for: all of them at once may not fit into memory.
#[derive(Clone, Debug)]
pub struct Requests(Vec<CellRequests>);

/// Reads one fact of a cell.
type Fact = fn(&CellRecord) -> String;

#[derive(Clone, Debug)]
enum CellRequests {
    InMemory(DataFrame),
    /// In the `requests.parquet` of this cell's folder.
    InFolder(PathBuf),
}

impl Requests {
    /// The columns of one cell's requests: those called `columns`, which every cell has.
    pub(crate) fn of_cell(&self, cell: usize, columns: &[&str]) -> Result<DataFrame> {
        let frame = match self.0.get(cell) {
            Some(CellRequests::InMemory(frame)) => frame.clone(),
            Some(CellRequests::InFolder(folder)) => {
                read_requests(folder, columns).with_context(|| unusable_cell(folder))?
            }
            None => frame::to_frame(&[])?,
        };
        let known = frame.select(columns.iter().copied());
        known.context("these requests lack a column; a newer labrun may have written them")
    }
}

impl RunData {
    /// A run of cells with their rows, ordered by position.
    pub fn new(cells: Vec<(CellRecord, Vec<RequestRow>)>) -> Result<Self> {
        let cells = cells
            .into_iter()
            .map(|(cell, rows)| Ok((cell, CellRequests::InMemory(frame::to_frame(&rows)?))))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self::of(cells))
    }

    fn of(mut cells: Vec<(CellRecord, CellRequests)>) -> Self {
        let order = |cell: &CellRecord| (cell.position, cell.part.clone(), cell.id.clone());
        cells.sort_by_cached_key(|(cell, _)| order(cell));
        let (cells, requests) = cells.into_iter().unzip();
        Self {
            cells,
            requests: Requests(requests),
            unreadable: Vec::new(),
        }
    }

    /// Refuses to go on where a cell cannot be read: results of the others alone would mislead.
    pub fn whole(self) -> Result<Self> {
        match self.unreadable.first() {
            Some(why) => bail!("{why}; move its folder away to do this with the others"),
            None => Ok(self),
        }
    }

    /// The cells of several runs, run by run. Cells that differ in nothing but the run count as
    /// repeats. What runs may differ in besides, the model and whether numbers are simulated,
    /// becomes a further axis where it does: such numbers are never pooled.
    pub fn together(runs: Vec<Self>) -> Self {
        let (mut cells, mut requests, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        for run in runs {
            cells.extend(run.cells);
            requests.extend(run.requests.0);
            unreadable.extend(run.unreadable);
        }
        let model = |cell: &CellRecord| cell.model.clone();
        let source = |cell: &CellRecord| cell.source.name().to_owned();
        let facts: [(&str, Fact); 2] = [("model", model), ("source", source)];
        for (axis, value) in facts {
            let first = cells.first().map(value);
            if cells.iter().any(|cell| Some(value(cell)) != first) {
                for cell in &mut cells {
                    let value = value(cell);
                    cell.coordinates.extra.insert(axis.to_owned(), value);
                }
            }
        }
        Self {
            cells,
            requests: Requests(requests),
            unreadable,
        }
    }
}

/// Reads `cells/*/cell.json` of every complete cell of the run in `folder`; their requests are
/// read from `cells/*/requests.parquet` when they are asked for. A folder whose name begins with
/// `.` is one that was never completed.
///
/// # Errors
/// Where the run has no folder of cells, and where none of its cells can be read. Else one that cannot
/// be read is in [`RunData::unreadable`].
pub fn read_run(folder: &Path) -> Result<RunData> {
    let (mut cells, mut unreadable) = (Vec::new(), Vec::new());
    let written = Written::read(folder);
    let folders = cell_folders(&folder.join("cells"))?;
    let records = side_by_side(folders.len(), |at| read_cell_of(&written, &folders[at]));
    for (cell, record) in folders.into_iter().zip(records) {
        match record {
            Ok(record) => cells.push((record, CellRequests::InFolder(cell))),
            Err(error) => unreadable.push(error),
        }
    }
    match unreadable.pop() {
        Some(error) if cells.is_empty() => return Err(error),
        last => unreadable.extend(last),
    }
    let mut run = RunData::of(cells);
    run.unreadable = unreadable
        .iter()
        .map(|error| format!("{error:#}"))
        .collect();
    Ok(run)
}

fn unusable_cell(cell: &Path) -> String {
    format!("the cell `{}` cannot be used", cell.display())
}

/// The folders of all complete cells under `cells`, in the order of their names. A folder without
/// `cell.json`, such as a file system's `lost+found`, is not a cell.
pub(crate) fn cell_folders(cells: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(cells).with_context(|| format!("no run here: `{}`", cells.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list `{}`", cells.display()))?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // A folder that cannot be looked into is read, which reports why; a file is not a cell.
        let is_cell = || match entry.path().join(CELL_FILE).try_exists() {
            Ok(exists) => exists,
            Err(error) => error.kind() != io::ErrorKind::NotADirectory,
        };
        if !hidden && is_cell() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

/// A file is of a newer format than this labrun reads.
#[derive(Debug)]
pub(crate) struct NewerFormat {
    file: String,
    format: u32,
}

impl fmt::Display for NewerFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, format } = self;
        write!(
            f,
            "`{file}` has format {format}, and this labrun reads up to {FORMAT}; use a newer one"
        )
    }
}

impl std::error::Error for NewerFormat {}

/// Whether a cell could not be read for a reason that lies outside its files: no permission, a disk that
/// does not answer, a newer format. The cell itself may be sound.
pub(crate) fn may_be_sound(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let of_files = [
            io::ErrorKind::InvalidInput,
            io::ErrorKind::NotFound,
            io::ErrorKind::UnexpectedEof,
        ];
        cause.is::<NewerFormat>() || io.is_some_and(|kind| !of_files.contains(&kind))
    })
}

/// Reads one `cell.json`, and whether it is as it was written; refuses a format that this labrun does not
/// know.
pub(crate) fn read_record(folder: &Path) -> Result<(CellRecord, Seal)> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }

    let path = folder.join(CELL_FILE);
    let name = path.display();
    let text =
        bounded::read(&path, MAX_RECORD_BYTES).with_context(|| format!("cannot read `{name}`"))?;
    // The format is read alone first: a newer file need not have the fields that we expect.
    let Versioned { format } =
        serde_json::from_str(&text).with_context(|| format!("`{name}` is not a cell record"))?;
    if format > FORMAT {
        let file = name.to_string();
        return Err(NewerFormat { file, format }.into());
    }
    // Whoever wrote it: nothing of it may steer a terminal, hold a secret, or lead out of the folder.
    let what = || format!("`{name}` is not a cell record");
    let mut value: Value = serde_json::from_str(&text).with_context(what)?;
    let seal = hashes::seal_of(&text, &value);
    redact::json(&mut value);
    let record: CellRecord = serde_json::from_value(value).with_context(what)?;
    ensure!(
        is_file_name(&record.id),
        "`{name}` names its cell `{}`, which no folder can be called",
        record.id
    );
    Ok((record, seal))
}

/// Reads the record of a cell, and refuses it where it or a file that is read with it is not as it was
/// recorded.
pub(crate) fn read_cell(folder: &Path) -> Result<CellRecord> {
    let read = || -> Result<CellRecord> {
        let (record, seal) = read_record(folder)?;
        refuse_changed(folder, &record, &seal)?;
        Ok(record)
    };
    read().with_context(|| unusable_cell(folder))
}

/// [`read_cell`] of a cell in its place in a run: refuses also one that was copied, renamed or brought
/// from another run.
pub(crate) fn read_cell_of(written: &Written, folder: &Path) -> Result<CellRecord> {
    let read = || -> Result<CellRecord> {
        let (record, seal) = read_record(folder)?;
        refuse_changed(folder, &record, &seal)?;
        match written.misplaced(folder, &record, &seal) {
            Some(why) => bail!("{why}"),
            None => Ok(record),
        }
    };
    read().with_context(|| unusable_cell(folder))
}

fn refuse_changed(folder: &Path, record: &CellRecord, seal: &Seal) -> Result<()> {
    ensure!(
        *seal != Seal::Broken,
        "its `{CELL_FILE}` was changed after labrun wrote it: the digest in it differs"
    );
    match hashes::unusable(folder, record) {
        Some(why) => bail!("{why}"),
        None => Ok(()),
    }
}

/// The digests of the cells that a run wrote, by the cell's id, as its events have them. A cell that was
/// measured again has several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written(BTreeMap<String, BTreeSet<String>>);

/// The events of a run.
pub(crate) const EVENTS_FILE: &str = "events.jsonl";

/// The event of a cell that was written; it has the cell's digest.
pub(crate) const CELL_WRITTEN: &str = "cell-written";

impl Written {
    /// What the events of the run in `folder` name. Lines that cannot be read name nothing.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut written = Self::default();
        let Ok(file) = bounded::open(&folder.join(EVENTS_FILE)) else {
            return written;
        };
        let (mut file, mut line) = (BufReader::new(file), Vec::new());
        loop {
            line.clear();
            let read = bounded::read_line(&mut file, &mut line, bounded::MAX_LINE_BYTES);
            if read.is_err() || line.is_empty() {
                return written;
            }
            if memchr::memmem::find(&line, CELL_WRITTEN.as_bytes()).is_some() {
                written.add(&serde_json::from_slice(&line).unwrap_or_default());
            }
        }
    }

    fn add(&mut self, event: &Value) {
        if event["event"] == CELL_WRITTEN
            && let (Some(cell), Some(digest)) = (event["cell"].as_str(), event["digest"].as_str())
        {
            let digests = self.0.entry(cell.to_owned()).or_default();
            digests.insert(digest.to_owned());
        }
    }

    /// Whether the events name any cell: those of labrun 0.1 name none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the events name this cell.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// Why the cell in `folder` is not one that the run wrote there, where that is certain.
    pub(crate) fn misplaced(
        &self,
        folder: &Path,
        record: &CellRecord,
        seal: &Seal,
    ) -> Option<String> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if name != record.id {
            return Some(format!(
                "it is the record of the cell `{}`: the folder was copied or renamed, or the files of \
                 two cells were exchanged",
                record.id
            ));
        }
        let digests = self.0.get(&record.id)?;
        match seal {
            Seal::Whole(digest) if digests.contains(digest) => None,
            Seal::Absent => Some(format!(
                "its `{CELL_FILE}` was changed after labrun wrote it: the digest in it is gone"
            )),
            Seal::Whole(_) | Seal::Broken => Some(format!(
                "this run wrote another record of it: `{EVENTS_FILE}` has another digest"
            )),
        }
    }
}

/// A cell that failed before its first pass has no request file, and so no requests.
fn read_requests(folder: &Path, columns: &[&str]) -> Result<DataFrame> {
    let path = folder.join(REQUESTS_FILE);
    if path.exists() {
        frame::load_columns(&path, columns)
    } else {
        frame::to_frame(&[])
    }
}

/// Whether the manifest of the run in `folder` is as it was written, where it can be read.
pub(crate) fn manifest_seal(folder: &Path) -> Option<Seal> {
    let text = bounded::read(&folder.join("manifest.json"), MAX_RECORD_BYTES).ok()?;
    let manifest = serde_json::from_str(&text).ok()?;
    Some(hashes::seal_of(&text, &manifest))
}

/// The manifest of the run in `folder`, as it is written; or why it cannot be used.
pub(super) fn read_manifest(folder: &Path) -> Result<Value, &'static str> {
    let text = bounded::read(&folder.join("manifest.json"), MAX_RECORD_BYTES);
    let text = text.map_err(|_| "cannot be read")?;
    let manifest = serde_json::from_str(&text).map_err(|_| "cannot be read")?;
    match hashes::seal_of(&text, &manifest) {
        Seal::Broken => Err("was changed after labrun wrote it"),
        Seal::Absent | Seal::Whole(_) => Ok(manifest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::frame::tests::good_row;
    use crate::record::frame::write_parquet;
    use crate::record::schema::{CellOutcome, ServerRecord, Source};

    fn cell(id: &str, position: u32) -> CellRecord {
        let coordinates = serde_json::json!({
            "label": "l", "tier": "cpu", "prompt_len": 1024, "gen_len": 4, "concurrency": 1,
            "repeat": 1,
        });
        CellRecord {
            format: FORMAT,
            id: id.to_owned(),
            position,
            part: None,
            coordinates: serde_json::from_value(coordinates).unwrap(),
            tier_kind: None,
            identity: BTreeMap::new(),
            machine: BTreeMap::new(),
            source: Source::Simulated,
            model: "m".to_owned(),
            outcome: CellOutcome::Completed,
            server: ServerRecord::default(),
            passes: vec![],
            warnings: vec![],
            files: BTreeMap::new(),
        }
    }

    fn write(run: &Path, folder: &str, record: &CellRecord, rows: &[RequestRow]) {
        let folder = run.join("cells").join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("cell.json"),
            serde_json::to_string(record).unwrap(),
        )
        .unwrap();
        if !rows.is_empty() {
            write_parquet(rows, &folder.join("requests.parquet")).unwrap();
        }
    }

    #[test]
    fn reads_complete_cells_in_the_order_they_ran() {
        let run = tempfile::tempdir().unwrap();
        write(
            run.path(),
            "a",
            &cell("a", 2),
            &[good_row(0, 1.0), good_row(1, 2.0)],
        );
        write(run.path(), "b", &cell("b", 1), &[good_row(0, 3.0)]);
        write(run.path(), "c", &cell("c", 3), &[]);
        write(run.path(), ".tmp-d", &cell("d", 4), &[good_row(0, 4.0)]);
        let data = read_run(run.path()).unwrap();
        let ids: Vec<_> = data.cells.iter().map(|cell| cell.id.as_str()).collect();
        assert_eq!(ids, ["b", "a", "c"]);
        let ttft = |cell| -> Vec<f64> {
            let frame = data.requests.of_cell(cell, &["ttft_ms"]).unwrap();
            let column = frame.column("ttft_ms").unwrap().f64().unwrap().clone();
            column.iter().flatten().collect()
        };
        assert_eq!(
            [ttft(0), ttft(1), ttft(2)],
            [vec![3.0], vec![1.0, 2.0], vec![]]
        );
    }

    #[test]
    fn runs_together_keep_what_must_not_be_pooled_apart() {
        let of = |model: &str| {
            let cell = CellRecord {
                model: model.to_owned(),
                ..cell("a", 1)
            };
            RunData::new(vec![(cell, vec![good_row(0, 1.0)])]).unwrap()
        };
        let alike = RunData::together(vec![of("m"), of("m")]);
        assert_eq!(alike.cells.len(), 2);
        assert!(alike.cells[0].coordinates.extra.is_empty());
        let unlike = RunData::together(vec![of("m"), of("other")]);
        let models: Vec<_> = unlike
            .cells
            .iter()
            .map(|cell| cell.coordinates.extra["model"].as_str())
            .collect();
        assert_eq!(models, ["m", "other"]);
        assert_eq!(
            unlike.requests.of_cell(1, &["ttft_ms"]).unwrap().height(),
            1
        );
    }

    #[test]
    fn a_newer_format_is_refused_before_its_fields_are_read() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("cells/x");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cell.json"), r#"{"format": 2, "coords": []}"#).unwrap();
        let error = format!("{:#}", read_run(run.path()).unwrap_err());
        assert!(
            error.ends_with(
                "cell.json` has format 2, and this labrun reads up to 1; use a newer one"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_cell_that_cannot_be_read_is_named_and_the_others_are_read() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), "a", &cell("a", 1), &[good_row(0, 1.0)]);
        write(run.path(), "b", &cell("b", 2), &[]);
        let torn = run.path().join("cells/b/cell.json");
        for text in ["", "{\"format\": 1", "{\"format\": 9}", "\0\0"] {
            fs::write(&torn, text).unwrap();
            let data = read_run(run.path()).unwrap();
            assert_eq!((data.cells.len(), data.unreadable.len()), (1, 1), "{text}");
            assert!(
                data.unreadable[0].contains("cells/b` cannot be used"),
                "{:?}",
                data.unreadable
            );
            let error = data.whole().unwrap_err().to_string();
            assert!(error.contains("move its folder away"), "{error}");
        }
        fs::remove_dir_all(run.path().join("cells/a")).unwrap();
        assert!(
            read_run(run.path()).is_err(),
            "nothing is left to report on"
        );
    }

    #[test]
    fn folders_that_are_no_cells_are_passed_over() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), "a", &cell("a", 1), &[]);
        fs::create_dir_all(run.path().join("cells/lost+found")).unwrap();
        fs::create_dir_all(run.path().join("cells/notes/deep")).unwrap();
        fs::write(run.path().join("cells/README"), "x").unwrap();
        assert_eq!(cell_folders(&run.path().join("cells")).unwrap().len(), 1);
        let data = read_run(run.path()).unwrap();
        assert_eq!((data.cells.len(), data.unreadable.len()), (1, 0));
    }

    #[test]
    fn a_folder_without_cells_is_no_run() {
        let run = tempfile::tempdir().unwrap();
        let error = read_run(run.path()).unwrap_err().to_string();
        assert!(error.starts_with("no run here: `"), "{error}");
    }
}
