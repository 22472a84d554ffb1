//! Trace and dataset files, read and checked before any server starts.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{BuildError, dataset, trace};
use crate::plan::load_spec::Arrival;
use crate::plan::workload_spec::{WorkloadKind, WorkloadSpec};
use crate::text_file;

/// The requests of a trace or dataset file.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkloadFile {
    /// Requests with lengths and times.
    Trace(trace::Trace),
    /// Prompts.
    Dataset(dataset::Dataset),
}

impl WorkloadFile {
    /// Reads the file at `path`, which `spec` names, for a load with these arrivals. Errors name
    /// the path.
    pub fn read(path: &Path, spec: &WorkloadSpec, arrival: Arrival) -> Result<Self> {
        let text = text_file::read(path)?;
        let file = Self::parse(&text, spec, arrival);
        file.with_context(|| format!("the workload's file `{}`", path.display()))
    }

    /// Reads the text of a file.
    pub fn parse(text: &str, spec: &WorkloadSpec, arrival: Arrival) -> Result<Self, BuildError> {
        match &spec.kind {
            WorkloadKind::Trace {
                block_len,
                speed,
                time_unit,
                ..
            } => {
                let asked = trace::Asked {
                    block_len: *block_len,
                    speed: *speed,
                    time_unit: *time_unit,
                    replays_times: arrival == Arrival::Trace,
                };
                trace::Trace::parse(text, asked).map(Self::Trace)
            }
            _ => dataset::Dataset::parse(text, spec.endpoint).map(Self::Dataset),
        }
    }

    /// How many requests it holds.
    pub fn requests(&self) -> usize {
        match self {
            Self::Trace(trace) => trace.lines.len(),
            Self::Dataset(dataset) => dataset.entries.len(),
        }
    }

    /// From the first to the last of its first `requests` requests, as they are replayed; absent
    /// for a file without times.
    pub fn span(&self, requests: u32) -> Option<Duration> {
        match self {
            Self::Trace(trace) => Some(trace.span(requests)),
            Self::Dataset(_) => None,
        }
    }

    /// Names of its fields that decide nothing, in alphabetical order.
    pub fn unused_fields(&self) -> Vec<&str> {
        let unused = match self {
            Self::Trace(trace) => &trace.unused_fields,
            Self::Dataset(dataset) => &dataset.unused_fields,
        };
        unused.iter().map(String::as_str).collect()
    }
}

/// The first name of `refused` among a line's other fields.
pub(crate) fn refused<'a>(
    fields: impl Iterator<Item = &'a String> + Clone,
    refused: &[&str],
) -> Option<&'a String> {
    let mut fields = fields;
    fields.find(|name| refused.contains(&name.as_str()))
}
