//! The metrics of LMCache in vLLM's own process.
//!
//! LMCache counts in the processes of the engine and the workers. Their counts reach vLLM's `/metrics`
//! only through files (prometheus_client's multi-process mode). Their folder must be empty at the
//! start: old files would be counted again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::leftovers::{self, Mark};
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::server::LmcacheMode;

/// The variable that names the folder.
pub(crate) const VARIABLE: &str = "PROMETHEUS_MULTIPROC_DIR";

/// Whether the server of `cell` gets such a folder: where LMCache is in its process, and the plan
/// and the machine name none of their own.
pub(crate) fn is_wanted(cell: &Cell, settings: &Settings) -> bool {
    let server = &cell.resolved.server;
    cell.tier.kind.uses_lmcache()
        && server.lmcache == LmcacheMode::InProcess
        && !server.env.contains_key(VARIABLE)
        && !settings.env.contains_key(VARIABLE)
}

/// The folder, in memory: the files are written with every step of the engine. Gone when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct MetricsFolder(PathBuf);

impl MetricsFolder {
    /// Makes it, empty, for the server whose folder is `server`.
    pub(crate) fn make(mark: &Mark, server: &Path) -> Result<Self> {
        let number = server.file_name().unwrap_or_default().to_string_lossy();
        let path = Path::new("/dev/shm").join(leftovers::metrics_name(mark, &number));
        // A restart of the server makes it anew.
        drop(fs::remove_dir_all(&path));
        fs::create_dir(&path).with_context(|| format!("making the folder `{}`", path.display()))?;
        Ok(Self(path))
    }

    /// Path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for MetricsFolder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_empty_at_first_and_gone_at_last() {
        let mark = Mark::of_this_process("metrics-test");
        let server = Path::new("/r/servers/metrics-test");
        let first = MetricsFolder::make(&mark, server).unwrap();
        let path = first.path().to_owned();
        fs::write(path.join("counter_1.db"), "old").unwrap();
        // As a killed labrun leaves it.
        std::mem::forget(first);
        let second = MetricsFolder::make(&mark, server).unwrap();
        assert_eq!(second.path(), path);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        drop(second);
        assert!(!path.exists());
    }
}
