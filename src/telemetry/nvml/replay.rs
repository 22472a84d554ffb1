//! Recorded readings: written while a live library is asked, and played back in its place.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

use super::{Call, NvmlSource, ReadError, Record, Why};

/// Writes every reading as a line of JSON.
#[derive(Clone, Debug)]
pub struct Recorder {
    file: Arc<Mutex<BufWriter<File>>>,
}

impl Recorder {
    /// Makes the file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("making `{}`", path.display()))?;
        Ok(Self {
            file: Arc::new(Mutex::new(BufWriter::new(file))),
        })
    }

    /// Appends one reading. A full disk loses the recording, not the telemetry.
    pub fn keep(&self, record: &Record) {
        if let Ok(line) = serde_json::to_string(record) {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let _lost = writeln!(file, "{line}");
        }
    }

    /// Writes out what is buffered; says whether the file is whole.
    pub fn finish(&self) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().context("writing the recorded readings")
    }
}

/// Recorded readings, by GPU.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    gpus: BTreeMap<u32, BTreeMap<Call, VecDeque<Record>>>,
}

impl Recorded {
    /// Reads a file that [`Recorder`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading `{}`", path.display()))?;
        Self::parse(&text).with_context(|| format!("`{}` holds no readings", path.display()))
    }

    /// Reads lines of JSON.
    pub fn parse(text: &str) -> Result<Self> {
        let mut all = Self::default();
        for (at, line) in text.lines().enumerate() {
            let record: Record =
                serde_json::from_str(line).with_context(|| format!("in line {}", at + 1))?;
            let calls = all.gpus.entry(record.gpu).or_default();
            calls.entry(record.call).or_default().push_back(record);
        }
        Ok(all)
    }

    /// The GPUs that it tells of.
    pub fn gpus(&self) -> Vec<u32> {
        self.gpus.keys().copied().collect()
    }

    /// A source that answers each call as the GPU answered it then, in that order.
    pub fn source(&self, gpu: u32) -> Replay {
        Replay {
            gpu,
            calls: self.gpus.get(&gpu).cloned().unwrap_or_default(),
        }
    }
}

/// Plays back what one GPU answered.
#[derive(Clone, Debug)]
pub struct Replay {
    gpu: u32,
    calls: BTreeMap<Call, VecDeque<Record>>,
}

impl NvmlSource for Replay {
    fn read(&mut self, call: Call) -> Record {
        let next = self.calls.get_mut(&call).and_then(VecDeque::pop_front);
        next.unwrap_or_else(|| Record {
            at_s: 0.0,
            took_s: 0.0,
            gpu: self.gpu,
            call,
            reading: None,
            error: Some(ReadError {
                why: Why::Ended,
                message: "the recording holds no more".to_owned(),
            }),
        })
    }
}
