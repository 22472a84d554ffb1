//! KV bytes per token by the engine's start logs in a run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::bounded;
use crate::record::reader::read_record;
use crate::server::kv_size::logs;
use crate::units::Bounds;

/// The most bytes of a server's log that is read.
const MAX_LOG_BYTES: u64 = 256 << 20;

/// What the start log of each cell's server states, by the cell's folder.
#[derive(Debug, Default)]
pub(super) struct EngineKv(HashMap<PathBuf, Bounds>);

impl EngineKv {
    /// Reads the logs of `cells`. Where a server serves several cells, the first of them has the log of
    /// its start.
    pub(super) fn of(cells: &[PathBuf]) -> Self {
        let mut started: Vec<_> = cells.iter().filter_map(|cell| started(cell)).collect();
        started.sort_by(|a, b| (&a.part, a.position).cmp(&(&b.part, b.position)));
        let mut all = HashMap::new();
        let mut before: Option<(Option<String>, Bounds)> = None;
        for cell in started {
            if !before
                .as_ref()
                .is_some_and(|(part, _)| cell.is_reused && *part == cell.part)
            {
                before = None;
            }
            if let Some(stated) = cell.stated {
                before = Some((cell.part, stated));
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

/// A cell of a real server.
struct Started {
    folder: PathBuf,
    part: Option<String>,
    position: u32,
    is_reused: bool,
    stated: Option<Bounds>,
}

fn started(folder: &Path) -> Option<Started> {
    let log = folder.join("server.log");
    if !log.exists() {
        return None;
    }
    let (record, _) = read_record(folder).ok()?;
    let log = bounded::read(&log, MAX_LOG_BYTES).ok()?;
    Some(Started {
        folder: folder.to_owned(),
        part: record.part,
        position: record.position,
        is_reused: record.server.reused,
        stated: logs::engine(&log).and_then(|statement| statement.device),
    })
}
