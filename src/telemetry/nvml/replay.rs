//! Records the readings of a live library, for tests to play back.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

use super::Record;

/// Writes every reading as a line of JSON.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    file: Arc<Mutex<BufWriter<File>>>,
}

impl Recorder {
    /// Creates the file at `path`, or empties it.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("making `{}`", path.display()))?;
        Ok(Self {
            file: Arc::new(Mutex::new(BufWriter::new(file))),
        })
    }

    /// Appends one reading. A full disk loses the recording, not the telemetry.
    pub(crate) fn keep(&self, record: &Record) {
        if let Ok(line) = serde_json::to_string(record) {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let _lost = writeln!(file, "{line}");
        }
    }

    /// Writes out the buffer. Fails where the file is incomplete.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().context("writing the recorded readings")
    }
}
