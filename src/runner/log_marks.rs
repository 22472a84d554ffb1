//! How far logs were written, and what was written since.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use crate::bounded::{MAX_LINE_BYTES, read_line};

/// How far some logs were written at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogMarks(Vec<(PathBuf, u64)>);

impl LogMarks {
    /// The lengths of `logs` now; one that is not there has none.
    pub(super) fn take(logs: impl IntoIterator<Item = PathBuf>) -> Self {
        let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |found| found.len());
        Self(
            logs.into_iter()
                .map(|path| {
                    let length = length(&path);
                    (path, length)
                })
                .collect(),
        )
    }

    /// What was written from `before` to now.
    pub(super) fn text_since(&self, before: &Self) -> String {
        let mut text = String::new();
        for (path, to) in &self.0 {
            let from = before
                .0
                .iter()
                .find(|(known, _)| known == path)
                .map_or(0, |(_, length)| *length);
            if let Some(part) = read(path, from, *to) {
                text.push_str(&part);
                text.push('\n');
            }
        }
        text
    }
}

fn read(path: &PathBuf, from: u64, to: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut lines = BufReader::new(file.take(to.saturating_sub(from)));
    let mut text = String::new();
    loop {
        // What is worth knowing stands at the begin of a line, and some lines have no end.
        let mut line = Vec::new();
        let left_out = read_line(&mut lines, &mut line, MAX_LINE_BYTES).ok()?;
        if line.is_empty() {
            return Some(text);
        }
        text.push_str(&String::from_utf8_lossy(&line));
        if left_out > 0 {
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::log_counts::LogCounts;

    #[test]
    fn only_what_was_written_since_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        std::fs::write(&path, "[x] LMCache INFO: Stored 1 out of total 1 tokens\n").unwrap();
        let logs = || [path.clone(), dir.path().join("none.log")];
        let before = LogMarks::take(logs());
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("[x] LMCache INFO: Stored 2 out of total 2 tokens\n");
        std::fs::write(&path, text).unwrap();
        let part = LogMarks::take(logs()).text_since(&before);
        assert_eq!(
            (
                part.matches("Stored").count(),
                LogCounts::of(&part).stored.lines
            ),
            (1, 1)
        );
        assert!(part.contains("Stored 2"));
    }
}
