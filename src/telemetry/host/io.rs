//! Bytes to and from this machine's disks and network interfaces.
//!
//! `/proc/diskstats` counts sectors of 512 bytes that went to or came from the device (kernel
//! documentation, `admin-guide/iostats`): what the page cache answers is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::proc_file::ProcFile;
use crate::series::Series;
use crate::telemetry::nvml::pcie::link_bytes_per_s;
use crate::telemetry::sample::{Batch, Growth};
use crate::telemetry::thread::{Ended, Sampler};

const SECTOR: f64 = 512.0;

/// The disk that holds `path`, by its kernel name; `None` where the file system has no device of
/// its own (overlayfs, tmpfs, network file systems).
pub(crate) fn disk_of(path: &Path) -> Option<String> {
    // A folder that is still to be made lies where its parent does.
    let metadata = path.ancestors().find_map(|at| std::fs::metadata(at).ok())?;
    let (major, minor) = (
        rustix::fs::major(metadata.dev()),
        rustix::fs::minor(metadata.dev()),
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
    /// What its link carries each way, bytes a second; absent where it states none.
    link: Option<f64>,
    growth: [Growth; 5],
}

/// The counters of one interface.
#[derive(Debug)]
struct Interface {
    device: Arc<str>,
    /// What its link carries each way, bytes a second; absent where it has no link, or an unknown speed.
    link: Option<f64>,
    growth: [Growth; 2],
}

/// Reads disks and interfaces.
#[derive(Debug)]
pub(crate) struct IoSampler {
    interval: Duration,
    disks: BTreeMap<String, Disk>,
    interfaces: BTreeMap<String, Interface>,
    /// The interface on the way to the tier's Redis: its bytes are also recorded under that role.
    redis_interface: Option<String>,
    /// Partitions, whose bytes their disk counts too.
    partitions: BTreeSet<String>,
    diskstats: ProcFile,
    net_dev: ProcFile,
    text: Vec<u8>,
}

impl IoSampler {
    /// Reads every disk and interface of the machine; `redis_interface` is on the way to the tier's
    /// Redis.
    pub(crate) fn new(interval: Duration, redis_interface: Option<String>) -> Self {
        Self {
            interval,
            disks: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            redis_interface,
            partitions: partitions(),
            diskstats: ProcFile::open("/proc/diskstats"),
            net_dev: ProcFile::open("/proc/self/net/dev"),
            text: Vec::new(),
        }
    }

    fn disks(&mut self, text: &str, batch: &mut Batch) {
        for line in text.lines() {
            let name = line.split_ascii_whitespace().nth(2).unwrap_or_default();
            if self.partitions.contains(name) {
                continue;
            }
            let Some(stat) = DiskStat::parse(line).filter(|stat| !stat.is_unused()) else {
                continue;
            };
            if !self.disks.contains_key(name) {
                let disk = Disk {
                    device: name.into(),
                    link: disk_link(&Path::new("/sys/block").join(name)),
                    growth: <[Growth; 5]>::default(),
                };
                self.disks.insert(name.to_owned(), disk);
            }
            if let Some(disk) = self.disks.get_mut(name) {
                disk.keep(&stat, batch);
            }
        }
    }

    fn interfaces(&mut self, text: &str, batch: &mut Batch) {
        for (name, counters) in text.lines().filter_map(interface_of) {
            if counters == [0.0, 0.0] {
                continue;
            }
            if !self.interfaces.contains_key(name) {
                let interface = Interface {
                    device: name.into(),
                    link: link_of(name),
                    growth: <[Growth; 2]>::default(),
                };
                self.interfaces.insert(name.to_owned(), interface);
            }
            let Some(interface) = self.interfaces.get_mut(name) else {
                continue;
            };
            if let Some(link) = interface.link {
                batch.level(Series::NetworkLink, &interface.device, link);
            }
            let is_redis = self.redis_interface.as_deref() == Some(name);
            let ways = [
                (Series::NetworkRx, Series::NetworkRedisRx),
                (Series::NetworkTx, Series::NetworkRedisTx),
            ];
            let values = ways.into_iter().zip(counters);
            for (((plain, role), value), growth) in values.zip(&mut interface.growth) {
                let Some((grown, span)) = growth.of(batch.at, value) else {
                    continue;
                };
                batch.rate(plain, &interface.device, grown, span);
                if is_redis {
                    batch.rate(role, &interface.device, grown, span);
                }
            }
        }
    }
}

/// The columns of a line of `/proc/diskstats` that are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
struct DiskStat {
    reads: f64,
    sectors_read: f64,
    writes: f64,
    sectors_written: f64,
    in_flight: f64,
    busy_ms: f64,
}

impl DiskStat {
    /// Major and minor number, name, then the counters.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip(3);
        let mut columns = [0.0; 10];
        for column in &mut columns {
            *column = words.next()?.parse().ok()?;
        }
        let [
            reads,
            _,
            sectors_read,
            _,
            writes,
            _,
            sectors_written,
            _,
            in_flight,
            busy_ms,
        ] = columns;
        Some(Self {
            reads,
            sectors_read,
            writes,
            sectors_written,
            in_flight,
            busy_ms,
        })
    }

    fn is_unused(&self) -> bool {
        self.sectors_read == 0.0 && self.sectors_written == 0.0
    }
}

impl Disk {
    fn keep(&mut self, stat: &DiskStat, batch: &mut Batch) {
        let values = [
            (Series::DiskRead, stat.sectors_read * SECTOR),
            (Series::DiskWrite, stat.sectors_written * SECTOR),
            (Series::DiskReads, stat.reads),
            (Series::DiskWrites, stat.writes),
            // Milliseconds with something in flight: a tenth of them is percent of a second.
            (Series::DiskBusy, stat.busy_ms / 10.0),
        ];
        for ((series, value), growth) in values.into_iter().zip(&mut self.growth) {
            if let Some((grown, span)) = growth.of(batch.at, value) {
                batch.rate(series, &self.device, grown, span);
            }
        }
        batch.level(Series::DiskInFlight, &self.device, stat.in_flight);
        if let Some(link) = self.link {
            batch.level(Series::DiskLink, &self.device, link);
        }
    }
}

/// Bytes received and sent of a line of `/proc/net/dev`: `  eth0: 1 2 ...`, sent in the ninth column.
fn interface_of(line: &str) -> Option<(&str, [f64; 2])> {
    let (name, columns) = line.split_once(':')?;
    let mut columns = columns.split_ascii_whitespace();
    let received = columns.next()?.parse().ok()?;
    let sent = columns.nth(7)?.parse().ok()?;
    Some((name.trim(), [received, sent]))
}

/// What the link of an interface carries, bytes a second. A virtual one (tun, veth, a bridge) has
/// none, whatever speed it reports; a bond consists of links.
fn link_of(interface: &str) -> Option<f64> {
    let folder = Path::new("/sys/class/net").join(interface);
    let is_link = folder.join("device").exists() || folder.join("bonding").exists();
    bytes_a_second(&is_link.then(|| std::fs::read_to_string(folder.join("speed")).ok())??)
}

/// Converts megabits a second. A link that is down, or belongs to a virtual machine, reports -1.
fn bytes_a_second(megabits: &str) -> Option<f64> {
    let megabits: f64 = megabits.trim().parse().ok()?;
    (megabits > 0.0).then_some(megabits * 1e6 / 8.0)
}

/// What the PCIe link of an NVMe disk, whose folder in sysfs is `disk`, carries at most each way,
/// bytes a second. Disks behind others (RAID, LVM) and on other buses state none.
fn disk_link(disk: &Path) -> Option<f64> {
    let device = disk.join("device/device");
    let read = |name| std::fs::read_to_string(device.join(name)).ok();
    let transfers = read("max_link_speed")?;
    let transfers: f64 = transfers.split_whitespace().next()?.parse().ok()?;
    let generation = match transfers {
        speed if speed < 3.0 => 1,
        speed if speed < 6.0 => 2,
        speed if speed < 10.0 => 3,
        speed if speed < 20.0 => 4,
        speed if speed < 40.0 => 5,
        speed if speed < 70.0 => 6,
        _ => return None,
    };
    let width: u32 = read("max_link_width")?.trim().parse().ok()?;
    (1..=16)
        .contains(&width)
        .then(|| link_bytes_per_s(generation, width))
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
        // A container may hide either: then it has no readings.
        let mut text = std::mem::take(&mut self.text);
        if let Some(text) = self.diskstats.read(&mut text) {
            self.disks(text, batch);
        }
        if let Some(text) = self.net_dev.read(&mut text) {
            self.interfaces(text, batch);
        }
        self.text = text;
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

    /// Runs `dd`. As another process it does not count in this process's own counters.
    fn dd(arguments: &[String]) -> bool {
        let mut command = Command::new("dd");
        command.args(arguments).arg("bs=1M").arg("status=none");
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.status().is_ok_and(|status| status.success())
    }

    /// Bytes of `series` on `disk` while `work` runs, as a share of what it moves. Others use the
    /// disk too and only add to it: the smallest of several tries is nearest to the truth.
    fn share(disk: &str, series: Series, work: impl Fn() -> bool) -> f64 {
        let mut smallest = f64::INFINITY;
        for _ in 0..8 {
            let recording = Recording::new(Instant::now());
            let mut sampler = IoSampler::new(Duration::from_millis(100), None);
            let mut sample = || {
                let mut batch = Batch::new(recording.now(), false);
                sampler.sample(&mut batch).unwrap();
                recording.add(&mut batch);
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
            let bytes = total(&summarize(&all, window), series, 0.5).unwrap();
            smallest = smallest.min(bytes / BYTES as f64);
            if smallest < 1.005 {
                break;
            }
        }
        smallest
    }

    #[test]
    fn the_link_of_a_disk_is_known_where_it_is_an_nvme() {
        let link = |speed: &str, width: &str| {
            let folder = tempfile::tempdir().unwrap();
            let device = folder.path().join("device/device");
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("max_link_speed"), speed).unwrap();
            std::fs::write(device.join("max_link_width"), width).unwrap();
            disk_link(folder.path())
        };
        assert_eq!(link("16.0 GT/s PCIe\n", "4\n"), Some(4.0 * 1.969e9));
        assert_eq!(link("32.0 GT/s PCIe\n", "4\n"), Some(4.0 * 3.938e9));
        assert_eq!(link("8.0 GT/s\n", "2\n"), Some(2.0 * 0.985e9));
        assert_eq!(link("Unknown\n", "4\n"), None);
        assert_eq!(link("16.0 GT/s PCIe\n", "0\n"), None);
        assert_eq!(
            link("128.0 GT/s PCIe\n", "4\n"),
            None,
            "of no known generation"
        );
        let none = tempfile::tempdir().unwrap();
        assert_eq!(disk_link(none.path()), None);
    }

    #[test]
    fn bytes_of_a_direct_write_and_read_are_seen_within_two_percent() {
        let _alone = crate::telemetry::DISK_TESTS.lock();
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
        for (series, share) in [
            (Series::DiskWrite, share(&disk, Series::DiskWrite, write)),
            (Series::DiskRead, share(&disk, Series::DiskRead, read)),
        ] {
            assert!(
                (share - 1.0).abs() < 0.02,
                "{series:?}: {share:.4} of the bytes"
            );
        }
    }

    #[test]
    fn lines_of_the_kernels_tables_are_read() {
        let line = " 254       0 vda 100 1 2000 3 40 5 600 7 8 90 10 0 0 0 0 1 2";
        let stat = DiskStat::parse(line).unwrap();
        assert_eq!((stat.reads, stat.sectors_read), (100.0, 2000.0));
        assert_eq!((stat.writes, stat.sectors_written), (40.0, 600.0));
        assert_eq!((stat.in_flight, stat.busy_ms), (8.0, 90.0));
        assert_eq!(DiskStat::parse(" 254 0 vda 1 2"), None);
        let line = "  eth0: 41743 166101    0    0    0     0          0         0  3042 37 0 0";
        assert_eq!(interface_of(line), Some(("eth0", [41743.0, 3042.0])));
        assert_eq!(interface_of(" face |bytes    packets errs"), None);
    }

    #[test]
    fn a_link_reports_megabits_and_a_virtual_one_nothing() {
        assert_eq!(bytes_a_second("100000\n"), Some(12.5e9));
        assert_eq!(bytes_a_second("-1\n"), None);
        assert_eq!(link_of("none"), None);
    }

    #[test]
    fn the_interface_on_the_way_to_redis_is_also_recorded_under_its_role() {
        let mut sampler = IoSampler::new(Duration::from_secs(1), Some("eth1".to_owned()));
        let table = |bytes: u32| {
            let row = |name: &str| format!("  {name}: {bytes} 1 0 0 0 0 0 0 {} 1\n", bytes * 2);
            format!("{}{}", row("eth0"), row("eth1"))
        };
        let mut batch = Batch::new(Duration::from_secs(1), false);
        sampler.interfaces(&table(100), &mut batch);
        batch.begin(Duration::from_secs(2), false, false);
        sampler.interfaces(&table(150), &mut batch);
        let points = batch.points().iter();
        let found: Vec<_> = points
            .map(|(key, point)| (&*key.device, key.series.name(), point.value))
            .collect();
        assert_eq!(
            found,
            [
                ("eth0", "rx", 50.0),
                ("eth0", "tx", 100.0),
                ("eth1", "rx", 50.0),
                ("eth1", "redis_rx", 50.0),
                ("eth1", "tx", 100.0),
                ("eth1", "redis_tx", 100.0),
            ]
        );
    }

    #[test]
    fn the_disk_of_a_folder_that_is_still_to_be_made_is_its_parents() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(disk_of(&here.join("not/yet/there")), disk_of(here));
        assert_eq!(disk_of(Path::new("/proc/self")), None);
    }
}
