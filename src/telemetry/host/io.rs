//! Bytes to and from this machine's disks and network interfaces.
//!
//! `/proc/diskstats` counts sectors of 512 bytes that went to or came from the device (kernel
//! documentation, `admin-guide/iostats`): what the page cache answers is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use procfs::DiskStat;

use crate::telemetry::sample::{Batch, Growth, Unit};
use crate::telemetry::thread::{Ended, Sampler};

const SECTOR: f64 = 512.0;

/// The disk that holds `path`, by its kernel name; `None` where the file system has no device of
/// its own (overlayfs, tmpfs, network file systems).
pub fn disk_of(path: &Path) -> Option<String> {
    // A folder that is still to be made lies where its parent does.
    let found = path.ancestors().find_map(|at| std::fs::metadata(at).ok())?;
    let (major, minor) = (
        rustix::fs::major(found.dev()),
        rustix::fs::minor(found.dev()),
    );
    let link = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let disk = if link.join("partition").exists() {
        link.parent()?
    } else {
        &link
    };
    Some(disk.file_name()?.to_string_lossy().into_owned())
}

/// The counters of one disk, and its last readings.
#[derive(Debug)]
struct Disk {
    device: Arc<str>,
    growth: [Growth; 5],
}

/// The counters of one interface.
#[derive(Debug)]
struct Interface {
    device: Arc<str>,
    growth: [Growth; 2],
}

/// Reads disks and interfaces.
#[derive(Debug)]
pub struct IoSampler {
    interval: Duration,
    disks: BTreeMap<String, Disk>,
    interfaces: BTreeMap<String, Interface>,
    /// Partitions, whose bytes their disk counts too.
    partitions: BTreeSet<String>,
}

impl IoSampler {
    /// Reads every disk and interface of the machine.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            disks: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            partitions: partitions(),
        }
    }

    fn disk(&mut self, stat: &DiskStat, batch: &mut Batch) {
        let idle = stat.sectors_read == 0 && stat.sectors_written == 0;
        if idle || self.partitions.contains(&stat.name) {
            return;
        }
        let disk = self.disks.entry(stat.name.clone()).or_insert_with(|| Disk {
            device: stat.name.as_str().into(),
            growth: <[Growth; 5]>::default(),
        });
        let at = batch.at;
        let values = [
            (
                "read",
                Unit::BytesPerSecond,
                stat.sectors_read as f64 * SECTOR,
            ),
            (
                "write",
                Unit::BytesPerSecond,
                stat.sectors_written as f64 * SECTOR,
            ),
            ("reads", Unit::PerSecond, stat.reads as f64),
            ("writes", Unit::PerSecond, stat.writes as f64),
            // Milliseconds with something in flight: a tenth of them is percent of a second.
            ("busy", Unit::Percent, stat.time_in_progress as f64 / 10.0),
        ];
        for ((metric, unit, value), growth) in values.into_iter().zip(&mut disk.growth) {
            if let Some((grown, span)) = growth.of(at, value) {
                batch.rate(("disk", &disk.device, metric), unit, grown, span);
            }
        }
        let in_flight = stat.in_progress as f64;
        batch.level(("disk", &disk.device, "in_flight"), Unit::Count, in_flight);
    }

    fn interface(&mut self, name: &str, (received, sent): (u64, u64), batch: &mut Batch) {
        if received == 0 && sent == 0 {
            return;
        }
        let at = batch.at;
        let entry = self.interfaces.entry(name.to_owned());
        let interface = entry.or_insert_with(|| Interface {
            device: name.into(),
            growth: <[Growth; 2]>::default(),
        });
        let values = [("rx", received), ("tx", sent)];
        for ((metric, value), growth) in values.into_iter().zip(&mut interface.growth) {
            if let Some((grown, span)) = growth.of(at, value as f64) {
                let series = ("network", &interface.device, metric);
                batch.rate(series, Unit::BytesPerSecond, grown, span);
            }
        }
    }
}

/// Names of the partitions among the block devices.
fn partitions() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/sys/class/block").into_iter().flatten();
    let is_partition = |path: &PathBuf| path.join("partition").exists();
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(is_partition)
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect()
}

impl Sampler for IoSampler {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        // In a container either may be hidden: then there is nothing to tell.
        for stat in procfs::diskstats().unwrap_or_default() {
            self.disk(&stat, batch);
        }
        for (name, status) in procfs::net::dev_status().unwrap_or_default() {
            self.interface(&name, (status.recv_bytes, status.sent_bytes), batch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;
    use crate::telemetry::sample::Recording;
    use crate::telemetry::summary::{Window, summarize, total};

    const BYTES: usize = 128 << 20;

    /// Runs `dd`: another process, so that this one's own counters tell nothing of it.
    fn dd(arguments: &[String]) -> bool {
        let mut command = Command::new("dd");
        command.args(arguments).arg("bs=1M").arg("status=none");
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.status().is_ok_and(|status| status.success())
    }

    /// Bytes of `metric` on `disk` while `work` runs, as a share of what it moves. Others use the
    /// disk too and only add to it: the smallest of some tries is the truest.
    fn share(disk: &str, metric: &'static str, work: impl Fn() -> bool) -> f64 {
        let mut smallest = f64::INFINITY;
        for _ in 0..8 {
            let recording = Recording::new(Instant::now());
            let mut sampler = IoSampler::new(Duration::from_millis(100));
            let mut sample = || {
                let mut batch = Batch::new(recording.now(), false);
                sampler.sample(&mut batch).unwrap();
                recording.add(batch);
            };
            let from = recording.now();
            sample();
            assert!(work());
            sample();
            let window = Window {
                from,
                to: recording.now(),
            };
            let all = recording.series(|key| &*key.device == disk);
            let bytes = total(&summarize(&all, window), "disk", metric, 0.5).unwrap();
            smallest = smallest.min(bytes / BYTES as f64);
            if smallest < 1.005 {
                break;
            }
        }
        smallest
    }

    #[test]
    fn bytes_of_a_direct_write_and_read_are_seen_within_two_percent() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("direct");
        let Some(disk) = disk_of(&path) else {
            return; // no device of its own: nothing to compare with
        };
        let count = format!("count={}", BYTES >> 20);
        let write = || {
            let to = format!("of={}", path.display());
            let direct = ["oflag=direct", "conv=fsync"].map(str::to_owned);
            dd(&[
                "if=/dev/zero".to_owned(),
                to,
                count.clone(),
                direct[0].clone(),
                direct[1].clone(),
            ])
        };
        let read = || {
            let from = format!("if={}", path.display());
            dd(&[from, "of=/dev/null".to_owned(), "iflag=direct".to_owned()])
        };
        if !write() {
            return; // a file system without direct writes
        }
        for (metric, share) in [
            ("write", share(&disk, "write", write)),
            ("read", share(&disk, "read", read)),
        ] {
            assert!(
                (share - 1.0).abs() < 0.02,
                "{metric}: {share:.4} of the bytes"
            );
        }
    }

    #[test]
    fn the_disk_of_a_folder_that_is_still_to_be_made_is_its_parents() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(disk_of(&here.join("not/yet/there")), disk_of(here));
        assert_eq!(disk_of(Path::new("/proc/self")), None);
    }
}
