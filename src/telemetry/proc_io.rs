//! Bytes that a server's processes moved to and from storage, from `/proc/<pid>/io` (proc(5)).
//!
//! `read_bytes` counts what was fetched from the storage layer: a read that the page cache answers
//! adds nothing to it. This distinguishes a disk tier from RAM.

use std::collections::BTreeMap;
use std::fs;

use crate::server::process_tree;

/// Storage counters of one process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Storage {
    read_bytes: u64,
    write_bytes: u64,
}

/// Counters of every process of some servers at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupIo {
    processes: BTreeMap<u32, Storage>,
}

impl GroupIo {
    /// Reads the counters of all processes of the servers that `leaders` lead ([`process_tree`]).
    pub(crate) fn read(leaders: &[u32]) -> Self {
        Self::of(process_tree::of(leaders).into_keys())
    }

    fn of(pids: impl Iterator<Item = u32>) -> Self {
        Self {
            processes: pids
                .filter_map(|pid| Some((pid, storage_of(pid)?)))
                .collect(),
        }
    }

    /// Bytes fetched from storage since `before`; `None` when nothing could be read.
    pub(crate) fn read_since(&self, before: &Self) -> Option<u64> {
        self.since(before, |storage| storage.read_bytes)
    }

    /// Bytes sent to storage since `before`; `None` when nothing could be read.
    pub(crate) fn written_since(&self, before: &Self) -> Option<u64> {
        self.since(before, |storage| storage.write_bytes)
    }

    fn since(&self, before: &Self, counter: impl Fn(&Storage) -> u64) -> Option<u64> {
        if self.processes.is_empty() {
            return None;
        }
        let grown = self.processes.iter().map(|(pid, now)| {
            let then = before.processes.get(pid).map_or(0, &counter);
            counter(now).saturating_sub(then)
        });
        Some(grown.sum())
    }
}

fn storage_of(pid: u32) -> Option<Storage> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let field = |name: &str| -> Option<u64> {
        text.lines()
            .find_map(|line| line.strip_prefix(name))?
            .trim()
            .parse()
            .ok()
    };
    Some(Storage {
        read_bytes: field("read_bytes:")?,
        write_bytes: field("write_bytes:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_synced_write_is_seen_and_a_cached_read_is_not() {
        // This process alone, with no child of another test that ends meanwhile: its bytes would be
        // this one's.
        let _alone = crate::telemetry::DISK_TESTS.lock();
        let read = || GroupIo::of([std::process::id()].into_iter());
        let dir = tempfile::tempdir_in(".").unwrap();
        let path = dir.path().join("data");
        let before = read();
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&vec![7; 4 << 20]).unwrap();
        file.sync_all().unwrap();
        let written = read();
        assert!(written.written_since(&before).unwrap() >= 4 << 20);
        assert_eq!(fs::read(&path).unwrap().len(), 4 << 20);
        let cached = read().read_since(&written).unwrap();
        assert!(
            cached < 1 << 20,
            "{cached} bytes were fetched for a cached read"
        );
    }

    #[test]
    fn no_group_is_not_zero_bytes() {
        assert_eq!(GroupIo::read(&[]).read_since(&GroupIo::default()), None);
    }
}
