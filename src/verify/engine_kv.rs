//! KV bytes per token by the engine's start logs in a run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::cell::MAX_LOG_BYTES;
use crate::bounded;
use crate::record::reader::read_record;
use crate::server::kv_size::logs;
use crate::units::Bounds;

/// What the start log of each cell's server states, by the cell's folder.
#[derive(Debug, Default)]
pub(super) struct EngineKv(HashMap<PathBuf, Bounds>);

impl EngineKv {
    /// Reads the start logs of `cells`. Where a server serves several cells, the first of them has it.
    pub(super) fn of(cells: &[PathBuf]) -> Self {
        let mut served: Vec<_> = cells.iter().filter_map(|cell| Served::of(cell)).collect();
        served.sort_by(|a, b| (&a.part, a.position).cmp(&(&b.part, b.position)));
        let mut all = HashMap::new();
        let mut before: Option<(Option<String>, Bounds)> = None;
        for cell in served {
            let goes_on =
                |(part, _): &(Option<String>, Bounds)| cell.is_reused && *part == cell.part;
            before = before.filter(goes_on);
            if before.is_none() {
                before = stated(&cell.folder).map(|bytes| (cell.part, bytes));
            }
            if let Some((_, bytes)) = &before {
                all.insert(cell.folder, *bytes);
            }
        }
        Self(all)
    }

    pub(super) fn of_cell(&self, folder: &Path) -> Option<Bounds> {
        self.0.get(folder).copied()
    }
}

/// A cell, and whether an earlier one started its server.
struct Served {
    folder: PathBuf,
    part: Option<String>,
    position: u32,
    is_reused: bool,
}

impl Served {
    fn of(folder: &Path) -> Option<Self> {
        let (record, _) = read_record(folder).ok()?;
        Some(Self {
            folder: folder.to_owned(),
            part: record.part,
            position: record.position,
            is_reused: record.server.reused,
        })
    }
}

/// What the log of the cell in `folder` states, where it has that of a start.
fn stated(folder: &Path) -> Option<Bounds> {
    let log = bounded::read(&folder.join("server.log"), MAX_LOG_BYTES).ok()?;
    logs::engine(&log)?.device
}
