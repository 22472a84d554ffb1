//! The workload files of a whole matrix, read once before anything is started.

use std::path::Path;
use std::time::Duration;

use super::WorkloadFile;
use crate::matrix::{Cell, Matrix};
use crate::plan::load_spec::Arrival;
use crate::plan::workload_spec::WorkloadSpec;
use crate::units::RequestCount;

/// What is known of the files that a matrix' workloads name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    known: Vec<(Use, FileFacts)>,
}

/// One way in which cells use a file.
type Use = (WorkloadSpec, Arrival, RequestCount);

/// What is known of a file without its prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileFacts {
    /// How many requests it holds.
    pub requests: usize,
    /// From the first to the last request that is sent, as replayed; absent without times.
    pub span: Option<Duration>,
    /// Names of its fields that decide nothing.
    pub unused_fields: Vec<String>,
}

/// A file that no request can be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileProblem {
    /// The label of the workload that names it.
    pub label: String,
    /// What is wrong, with the file's path and line.
    pub message: String,
}

impl Files {
    /// Reads every file that `matrix` names, looked up in `folder`.
    pub(crate) fn read(matrix: &Matrix, folder: &Path) -> Result<Self, Vec<FileProblem>> {
        let mut files = Self::default();
        let mut problems: Vec<FileProblem> = Vec::new();
        for cell in &matrix.cells {
            let Some(path) = cell.workload.kind.path() else {
                continue;
            };
            let arrival = cell.resolved.load.arrival;
            let requests = cell.resolved.run.requests;
            let label = &cell.coordinates.label;
            let is_bad = problems.iter().any(|problem| problem.label == *label);
            if is_bad || files.of(&cell).is_some() {
                continue;
            }
            match WorkloadFile::read(&folder.join(path), &cell.workload, arrival) {
                Ok(file) => {
                    let names = file.unused_fields().into_iter();
                    let facts = FileFacts {
                        requests: file.requests(),
                        span: file.span(requests.get()),
                        unused_fields: names.map(str::to_owned).collect(),
                    };
                    let used = ((*cell.workload).clone(), arrival, requests);
                    files.known.push((used, facts));
                }
                Err(error) => problems.push(FileProblem {
                    label: label.clone(),
                    message: format!("{error:#}"),
                }),
            }
        }
        if problems.is_empty() {
            Ok(files)
        } else {
            Err(problems)
        }
    }

    /// What is known of the file of `cell`, if it has one.
    pub(crate) fn of(&self, cell: &Cell) -> Option<&FileFacts> {
        let is_its = |(spec, arrival, requests): &&Use| {
            *spec == *cell.workload
                && *arrival == cell.resolved.load.arrival
                && *requests == cell.resolved.run.requests
        };
        let known = self.known.iter();
        known
            .map(|(used, facts)| (used, facts))
            .find(|(used, _)| is_its(used))
            .map(|(_, facts)| facts)
    }
}
