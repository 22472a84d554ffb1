//! Whether a run's folder holds all that its run was to measure. A run, a merge or an import that was cut
//! short leaves a folder that reads like any other.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use serde_json::Value;

use super::reader::{cell_folders, read_manifest};
use crate::bounded;
use crate::units::grouped;

/// How old the last touch of a lock's owner on another machine must be before it counts as gone.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(90);

/// The lock's file in a run folder.
pub(crate) const LOCK_FILE: &str = ".lock";

/// What of its run the folder at `path` lacks, in a sentence; nothing where it is whole.
pub(crate) fn lack(path: &Path) -> Option<String> {
    let have = cell_folders(&path.join("cells")).map_or(0, |cells| cells.len());
    let file = path.join("manifest.json");
    if !file.exists() {
        return Some(format!(
            "{} cells without a `manifest.json`: whether any is missing is unknown",
            grouped(have)
        ));
    }
    match read_manifest(path) {
        Ok(manifest) => of(&manifest, have, || is_locked(path)),
        Err(why) => Some(format!(
            "{} cells, and a `manifest.json` that {why}: whether any is missing is unknown",
            grouped(have)
        )),
    }
}

fn of(manifest: &Value, have: usize, is_running: impl Fn() -> bool) -> Option<String> {
    let ended = &manifest["ended"];
    let count = |value: &Value| value.as_u64().map(|count| count as usize);
    let planned = manifest["cells"].as_array().map(Vec::len);
    let cells = match planned {
        Some(planned) => format!("{} of {} cells", grouped(have), grouped(planned)),
        None => format!("{} cells", grouped(have)),
    };
    let unfinished = |why: &str| Some(format!("{cells}: {why}"));
    let Some(how) = ended["how"].as_str() else {
        return match (&manifest["imported_from"], &manifest["merged_from"]) {
            // labrun 0.1 listed no cells of what it imported.
            (Value::Array(_), _) if planned.is_none() => None,
            (Value::Array(_), _) => unfinished("the import was cut short; import the files again"),
            (_, Value::Array(_)) => unfinished("the merge was cut short; merge the runs again"),
            _ if is_running() => unfinished("the run is still going on"),
            _ => unfinished("the run was killed"),
        };
    };
    if let Some(missing) = count(&ended["missing"]).filter(|missing| *missing > 0) {
        let missing = grouped(missing);
        return Some(format!(
            "{missing} cells of the plan are missing: no merged run has them"
        ));
    }
    match how {
        // Repeats that the plan did not need are not measured: what ended counts.
        "finished" | "merged" | "imported" => {
            let completed = count(&ended["completed"]);
            let failed = count(&ended["failed"]);
            let measured = completed
                .zip(failed)
                .map(|(completed, failed)| completed + failed);
            let gone = measured.or(planned).filter(|measured| have < *measured)?;
            Some(format!(
                "{} of {} cells: the others were removed",
                grouped(have),
                grouped(gone)
            ))
        }
        "interrupted" => unfinished("the run was interrupted"),
        "broken" => unfinished("the run broke off"),
        why => unfinished(&format!("the run was stopped: {why}")),
    }
}

/// Whether a process writes to the folder: one of this machine holds its lock, one of another has touched
/// it lately.
fn is_locked(folder: &Path) -> bool {
    is_locked_here(folder) || is_touched_elsewhere(folder).unwrap_or(false)
}

fn is_touched_elsewhere(folder: &Path) -> Option<bool> {
    let file = folder.join(LOCK_FILE);
    let owner: Value = serde_json::from_str(&bounded::read(&file, 64 << 10).ok()?).ok()?;
    let here = rustix::system::uname();
    let is_other = owner["host"].as_str()? != here.nodename().to_string_lossy();
    let age = file.metadata().ok()?.modified().ok()?.elapsed().ok()?;
    Some(is_other && age < STALE_AFTER)
}

fn is_locked_here(folder: &Path) -> bool {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(folder.join(LOCK_FILE));
    // What is taken here is given back when the file is closed.
    file.is_ok_and(|file| {
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_folder_shows_how_its_run_ended_and_what_it_lacks() {
        let six = json!(["a", "b", "c", "d", "e", "f"]);
        let ended =
            |how: &str, completed: u32| json!({"how": how, "completed": completed, "failed": 0});
        for (manifest, have, expected) in [
            (
                json!({"cells": six, "ended": ended("finished", 6)}),
                6,
                None,
            ),
            // Repeats that were not needed.
            (
                json!({"cells": six, "ended": ended("finished", 4)}),
                4,
                None,
            ),
            (
                json!({"cells": six, "ended": ended("finished", 6)}),
                4,
                Some("4 of 6 cells: the others were removed"),
            ),
            (
                json!({"cells": six}),
                4,
                Some("4 of 6 cells: the run was killed"),
            ),
            (
                json!({"cells": six, "ended": ended("interrupted", 2)}),
                2,
                Some("2 of 6 cells: the run was interrupted"),
            ),
            (
                json!({"cells": six, "ended": ended("the disk is full", 2)}),
                2,
                Some("2 of 6 cells: the run was stopped: the disk is full"),
            ),
            (
                json!({"cells": six, "merged_from": []}),
                3,
                Some("3 of 6 cells: the merge was cut short; merge the runs again"),
            ),
            (
                json!({"merged_from": [], "ended": {"how": "merged", "missing": 1200}}),
                3,
                Some("1,200 cells of the plan are missing: no merged run has them"),
            ),
            (json!({"imported_from": []}), 3, None),
            (
                json!({"imported_from": [], "cells": six}),
                3,
                Some("3 of 6 cells: the import was cut short; import the files again"),
            ),
        ] {
            let lack = of(&manifest, have, || false);
            assert_eq!(lack.as_deref(), expected, "{manifest}");
        }
        let running = of(&json!({"cells": six}), 4, || true).unwrap();
        assert_eq!(running, "4 of 6 cells: the run is still going on");
    }

    #[test]
    fn a_folder_without_a_readable_manifest_is_reported() {
        let run = tempfile::tempdir().unwrap();
        let cell = run.path().join("cells/a");
        std::fs::create_dir_all(&cell).unwrap();
        std::fs::write(cell.join("cell.json"), "{}").unwrap();
        assert!(
            lack(run.path())
                .unwrap()
                .contains("without a `manifest.json`")
        );
        std::fs::write(run.path().join("manifest.json"), "{\"cells\": [").unwrap();
        assert!(lack(run.path()).unwrap().contains("cannot be read"));
        std::fs::write(run.path().join("manifest.json"), "{\"cells\": [1, 2]}").unwrap();
        assert_eq!(
            lack(run.path()).unwrap(),
            "1 of 2 cells: the run was killed"
        );
        let file = run.path().join(LOCK_FILE);
        std::fs::write(&file, r#"{"host": "elsewhere"}"#).unwrap();
        assert!(lack(run.path()).unwrap().contains("still going on"));
        let lock = File::options().write(true).open(&file).unwrap();
        lock.set_modified(std::time::SystemTime::now() - STALE_AFTER)
            .unwrap();
        assert!(lack(run.path()).unwrap().contains("was killed"));
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(lack(run.path()).unwrap().contains("still going on"));
    }
}
