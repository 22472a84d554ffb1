//! A cause that concerns every cell is met twice, and not once a cell.

use crate::record::schema::{CellOutcome, CellRecord, Phase};
use crate::server::startup_error::LOG_IS_AT;

/// Why the server of the last cell did not start, if it did not.
#[derive(Debug, Default)]
pub(super) struct SameFailure(Option<String>);

impl SameFailure {
    /// Takes in the next cell. Returns why its server did not start, if the one before failed in the same
    /// way.
    pub(super) fn repeats(&mut self, record: &CellRecord) -> Option<String> {
        let why = reason(record);
        let is_same = why.is_some() && why.as_deref().map(shape) == self.0.as_deref().map(shape);
        self.0.clone_from(&why);
        why.filter(|_| is_same)
    }
}

/// Why the server of a cell did not start, without the place of its log.
fn reason(record: &CellRecord) -> Option<String> {
    match &record.outcome {
        CellOutcome::Failed {
            phase: Phase::Launch | Phase::Ready,
            error,
            ..
        } => Some(error.split(LOG_IS_AT).next().unwrap_or(error).to_owned()),
        _ => None,
    }
}

/// A text without its numbers: ports, process ids and sizes differ from start to start.
pub(super) fn shape(reason: &str) -> String {
    let mut shape = String::with_capacity(reason.len());
    for c in reason.chars() {
        match c {
            '0'..='9' if shape.ends_with('0') => {}
            '0'..='9' => shape.push('0'),
            other => shape.push(other),
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_tell_failures_apart_and_words_do() {
        let port = |port: u32| format!("127.0.0.1:{port}: address already in use");
        assert_eq!(shape(&port(8000)), shape(&port(43_211)));
        assert_ne!(shape("no room: 12 MiB"), shape("no file: 12 MiB"));
    }
}
