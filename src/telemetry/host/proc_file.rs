//! Files of `/proc` and `/sys`. Each is opened once and read many times: the kernel fills it anew at
//! each reading.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A file that stays open between readings.
#[derive(Debug)]
pub(crate) struct ProcFile(Option<File>);

impl ProcFile {
    /// Opens the file at `path`. One that is missing or unreadable gives no readings.
    pub(crate) fn open(path: impl AsRef<Path>) -> Self {
        Self(File::open(path).ok())
    }

    /// Whether the file could be opened.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Its present content, read into `buffer`. The buffer grows as needed; the caller passes the same
    /// one again. `None` where the read fails, for example because the process is gone.
    pub(crate) fn read<'b>(&self, buffer: &'b mut Vec<u8>) -> Option<&'b str> {
        let file = self.0.as_ref()?;
        let mut filled = 0;
        loop {
            if filled == buffer.len() {
                buffer.resize((filled * 2).max(4096), 0);
            }
            match file.read_at(&mut buffer[filled..], filled as u64) {
                // The kernel returns a table in pieces: only an empty read is its end.
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        std::str::from_utf8(&buffer[..filled]).ok()
    }
}

/// The number behind `name` at the start of a line of `text`.
pub(crate) fn number_after(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_read_anew_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counters");
        let long = "x".repeat(20_000);
        std::fs::write(&path, &long).unwrap();
        let (file, mut buffer) = (ProcFile::open(&path), Vec::new());
        assert_eq!(file.read(&mut buffer), Some(long.as_str()));
        std::fs::write(&path, "shorter").unwrap();
        assert_eq!(file.read(&mut buffer), Some("shorter"));
        assert_eq!(buffer.len(), 32_768, "nothing is allocated anew");
        assert_eq!(
            ProcFile::open(folder.path().join("none")).read(&mut buffer),
            None
        );
    }

    #[test]
    fn the_kernel_makes_each_reading_anew() {
        let (stat, mut buffer) = (ProcFile::open("/proc/self/stat"), Vec::new());
        let mut used = || {
            let text = stat.read(&mut buffer).unwrap();
            let rest = &text[text.rfind(')').unwrap()..];
            let ticks = rest.split_whitespace().nth(12).unwrap();
            ticks.parse::<u64>().unwrap()
        };
        let before = used();
        let began = std::time::Instant::now();
        while used() == before {
            assert!(began.elapsed().as_secs() < 20, "CPU time does not grow");
        }
    }

    #[test]
    fn a_process_that_is_gone_gives_no_reading() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let file = ProcFile::open(format!("/proc/{}/io", child.id()));
        let mut buffer = Vec::new();
        assert!(file.read(&mut buffer).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(file.read(&mut buffer), None);
    }

    #[test]
    fn a_number_stands_behind_its_name() {
        let text = "MemTotal:  5 kB\nDirty:     16 kB\nnuma_miss 7\n";
        assert_eq!(number_after(text, "Dirty:"), Some(16.0));
        assert_eq!(number_after(text, "numa_miss "), Some(7.0));
        assert_eq!(number_after(text, "Cached:"), None);
    }
}
