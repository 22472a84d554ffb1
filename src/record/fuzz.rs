//! The entry point of a fuzzer: the files of a run.

use std::path::PathBuf;

use super::manifest::{MANIFEST_FILE, Manifest};
use super::reader::read_cell;
use super::schema::CellRecord;

/// The first byte says which file it is: `c` a cell's record, `m` a manifest. What can be read can be
/// written and read again.
pub(crate) fn record(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let folder = folder();
    let write = |name: &str| drop(std::fs::write(folder.join(name), bytes));
    match kind {
        b'c' => {
            write("cell.json");
            if let Ok(record) = read_cell(&folder) {
                let text = serde_json::to_string(&record).unwrap_or_default();
                let again: Option<CellRecord> = serde_json::from_str(&text).ok();
                assert!(again.is_some(), "{text}");
            }
        }
        b'm' => {
            write(MANIFEST_FILE);
            if let Ok(Some(manifest)) = Manifest::read(&folder) {
                let text = serde_json::to_string(&manifest).unwrap_or_default();
                let again: Option<Manifest> = serde_json::from_str(&text).ok();
                assert!(again.is_some() && manifest.known().is_ok(), "{text}");
                let _of_report = (manifest.plan_commit(), manifest.gpu_names());
            }
        }
        _ => {}
    }
}

/// A folder of this process's own.
fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("labrun-fuzz-{}", std::process::id()));
    drop(std::fs::create_dir_all(&folder));
    folder
}
