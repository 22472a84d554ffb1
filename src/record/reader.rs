//! A run's folder to what it holds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use polars::prelude::{Column, DataFrame, DataType, Scalar};
use serde::Deserialize;

use crate::record::frame;
use crate::record::schema::{CellRecord, FORMAT, RequestRow};

/// All complete cells of a run with their requests.
#[derive(Clone, Debug)]
pub struct RunData {
    /// The cells in the order that they ran.
    pub cells: Vec<CellRecord>,
    /// The requests of all cells.
    pub requests: Requests,
}

/// The requests of many cells in columns: those of `requests.parquet`, and `cell`, an index into
/// [`RunData::cells`].
#[derive(Clone, Debug)]
pub struct Requests(DataFrame);

impl Requests {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.height()
    }

    /// The columns.
    pub(crate) fn frame(&self) -> &DataFrame {
        &self.0
    }
}

impl RunData {
    /// A run of cells with their rows, ordered by position.
    pub fn new(cells: Vec<(CellRecord, Vec<RequestRow>)>) -> Result<Self> {
        let frames = cells
            .into_iter()
            .map(|(cell, rows)| Ok((cell, frame::to_frame(&rows)?)))
            .collect::<Result<Vec<_>>>()?;
        Self::from_frames(frames)
    }

    fn from_frames(mut cells: Vec<(CellRecord, DataFrame)>) -> Result<Self> {
        cells.sort_by(|(a, _), (b, _)| (a.position, &a.id).cmp(&(b.position, &b.id)));
        let mut all = frame::to_frame(&[])?;
        all.with_column(Column::new_empty("cell".into(), &DataType::UInt32))?;
        let mut records = Vec::with_capacity(cells.len());
        for (at, (record, mut requests)) in cells.into_iter().enumerate() {
            let index = Scalar::from(u32::try_from(at)?);
            requests.with_column(Column::new_scalar("cell".into(), index, requests.height()))?;
            // By name: a later labrun may have more columns, or another order.
            let known = requests.select(all.get_column_names_owned());
            known
                .and_then(|known| all.vstack_mut(&known).map(|_| ()))
                .with_context(|| format!("the requests of cell `{}` do not fit", record.id))?;
            records.push(record);
        }
        all.rechunk_mut();
        Ok(Self {
            cells: records,
            requests: Requests(all),
        })
    }
}

/// Reads `cells/*/cell.json` and `cells/*/requests.parquet` of every complete cell of the run in
/// `folder`. A folder whose name begins with `.` is one that was never completed.
pub fn read_run(folder: &Path) -> Result<RunData> {
    let cells = cell_folders(&folder.join("cells"))?
        .into_iter()
        .map(|cell| {
            let read = read_cell(&cell).and_then(|record| Ok((record, read_requests(&cell)?)));
            read.with_context(|| {
                format!(
                    "the cell `{}` cannot be read; move its folder away to report on the others",
                    cell.display()
                )
            })
        })
        .collect::<Result<Vec<_>>>()?;
    RunData::from_frames(cells)
}

/// The folders of all complete cells under `cells`, in the order of their names.
pub fn cell_folders(cells: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(cells).with_context(|| format!("no run here: `{}`", cells.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list `{}`", cells.display()))?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.path().is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

/// Reads one `cell.json`, refusing a format that this labrun does not know.
pub fn read_cell(folder: &Path) -> Result<CellRecord> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }

    let path = folder.join("cell.json");
    let name = path.display();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{name}`"))?;
    // The format is read alone first: a newer file need not have the fields that we expect.
    let Versioned { format } =
        serde_json::from_str(&text).with_context(|| format!("`{name}` is not a cell record"))?;
    if format > FORMAT {
        bail!(
            "`{name}` has format {format}, and this labrun reads up to {FORMAT}; use a newer one"
        );
    }
    serde_json::from_str(&text).with_context(|| format!("`{name}` is not a cell record"))
}

/// A cell that failed before its first pass has no request file, and so no requests.
fn read_requests(folder: &Path) -> Result<DataFrame> {
    let path = folder.join("requests.parquet");
    if path.exists() {
        frame::load_frame(&path)
    } else {
        frame::to_frame(&[])
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
            coordinates: serde_json::from_value(coordinates).unwrap(),
            identity: std::collections::BTreeMap::new(),
            machine: std::collections::BTreeMap::new(),
            source: Source::Simulated,
            model: "m".to_owned(),
            outcome: CellOutcome::Completed,
            server: ServerRecord::default(),
            passes: vec![],
            warnings: vec![],
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
        let frame = data.requests.frame();
        let index: Vec<_> = frame
            .column("cell")
            .unwrap()
            .u32()
            .unwrap()
            .iter()
            .flatten()
            .collect();
        let ttft: Vec<_> = frame
            .column("ttft_ms")
            .unwrap()
            .f64()
            .unwrap()
            .iter()
            .flatten()
            .collect();
        assert_eq!((index, ttft), (vec![0, 1, 1], vec![3.0, 1.0, 2.0]));
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
    fn a_folder_without_cells_is_no_run() {
        let run = tempfile::tempdir().unwrap();
        let error = read_run(run.path()).unwrap_err().to_string();
        assert!(error.starts_with("no run here: `"), "{error}");
    }
}
