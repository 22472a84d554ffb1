//! Reads server logs: the last lines, and the part that one cell wrote.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use crate::foreign::{shortened, visible, without_colours};
use crate::secret;

/// The most of one line that a failure quotes.
const MAX_LINE_CHARS: usize = 2_000;
/// Most bytes read from the end of a log for its last lines.
const TAIL_BYTES: u64 = 64 * 1024;

/// The last `count` lines of the log, oldest first, without colour codes. Empty where there is no
/// log.
pub(crate) fn tail(path: &Path, count: usize) -> Vec<String> {
    let Ok(text) = read_from_end(path) else {
        return Vec::new();
    };
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| {
            visible(&shortened(
                &secret::mask(&without_colours(line)),
                MAX_LINE_CHARS,
            ))
            .into_owned()
        })
        .collect()
}

fn read_from_end(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    // The rest of a line whose begin is not read may be the rest of a secret.
    let rest = memchr::memchr(b'\n', &bytes).filter(|_| from > 0);
    let whole = &bytes[rest.map_or(0, |end| end + 1)..];
    Ok(String::from_utf8_lossy(whole).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_plain_and_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "a\n\nb\n\u{1b}[32mc\u{1b}[0m d\u{7}\n").unwrap();
        assert_eq!(tail(&path, 2), ["b", "c d\\x07"]);
        assert_eq!(tail(&path, 9).len(), 3);
        assert!(tail(&dir.path().join("none"), 2).is_empty());
    }
}
