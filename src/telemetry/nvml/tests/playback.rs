//! Plays recorded readings back in place of a library.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context as _, Result};

use super::super::{Call, NvmlSource, ReadError, Record, Why};

/// Recorded readings, by GPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    gpus: BTreeMap<u32, BTreeMap<Call, VecDeque<Record>>>,
}

impl Recorded {
    /// Reads lines of JSON.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut all = Self::default();
        for (at, line) in text.lines().enumerate() {
            let record: Record =
                serde_json::from_str(line).with_context(|| format!("in line {}", at + 1))?;
            let calls = all.gpus.entry(record.gpu).or_default();
            calls.entry(record.call).or_default().push_back(record);
        }
        Ok(all)
    }

    /// A source that answers each call as the GPU answered it then, in that order.
    pub(crate) fn source(&self, gpu: u32) -> Replay {
        Replay {
            gpu,
            calls: self.gpus.get(&gpu).cloned().unwrap_or_default(),
        }
    }
}

/// Plays back what one GPU answered.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
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
