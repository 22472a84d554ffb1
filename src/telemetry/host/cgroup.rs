//! The cgroups (v2) that hold a server's processes: what they use, and what they wait for (PSI).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cpu::pressure_totals;
use super::proc_file::{ProcFile, number_after};
use crate::series::Series;
use crate::telemetry::sample::{Batch, Growth};

/// The cgroups of `leaders`, each once, named by the roles that are in it.
pub(crate) fn of(leaders: &[(&'static str, u32)]) -> Vec<Cgroup> {
    by_folder(leaders, folder_of_process)
}

fn by_folder(
    leaders: &[(&'static str, u32)],
    folder_of: impl Fn(u32) -> Option<PathBuf>,
) -> Vec<Cgroup> {
    let mut folders: Vec<(PathBuf, Vec<&str>)> = Vec::new();
    for (role, leader) in leaders {
        let Some(folder) = folder_of(*leader) else {
            continue;
        };
        match folders.iter_mut().find(|(known, _)| *known == folder) {
            Some((_, roles)) => roles.push(role),
            None => folders.push((folder, vec![role])),
        }
    }
    let folders = folders.iter();
    folders
        .map(|(folder, roles)| Cgroup::open(folder, &roles.join("+")))
        .collect()
}

/// The folder of the cgroup (v2) of process `pid`; `None` for the root, which is the machine.
fn folder_of_process(pid: u32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let inside = path.trim_start_matches('/');
    if inside.is_empty() {
        return None;
    }
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(|root| Path::new(root).join(inside))
        .find(|folder| folder.join("cgroup.procs").exists())
}

/// A cgroup's files, and the last readings of its counters.
#[derive(Debug)]
pub(crate) struct Cgroup {
    device: Arc<str>,
    io: ProcFile,
    cpu: ProcFile,
    memory_current: ProcFile,
    memory: ProcFile,
    pressures: [ProcFile; 3],
    growth: BTreeMap<Series, Growth>,
}

/// A value read from a cgroup's files.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reading {
    /// A counter, which only grows.
    Counter(Series, f64),
    /// Bytes at the moment of the reading.
    Level(Series, f64),
}

const PRESSURES: [[Series; 2]; 3] = [
    [Series::CgroupCpuPressureSome, Series::CgroupCpuPressureFull],
    [Series::CgroupIoPressureSome, Series::CgroupIoPressureFull],
    [
        Series::CgroupMemoryPressureSome,
        Series::CgroupMemoryPressureFull,
    ],
];

impl Cgroup {
    fn open(folder: &Path, name: &str) -> Self {
        let file = |name| ProcFile::open(folder.join(name));
        Self {
            device: name.into(),
            io: file("io.stat"),
            cpu: file("cpu.stat"),
            memory_current: file("memory.current"),
            memory: file("memory.stat"),
            pressures: ["cpu.pressure", "io.pressure", "memory.pressure"].map(file),
            growth: BTreeMap::new(),
        }
    }

    /// Reads its files and passes every value to `keep`.
    fn read(&self, text: &mut Vec<u8>, mut keep: impl FnMut(Reading)) {
        if let Some(io) = self.io.read(text).filter(|io| !io.is_empty()) {
            keep(Reading::Counter(Series::CgroupRead, sum_of(io, "rbytes=")));
            keep(Reading::Counter(Series::CgroupWrite, sum_of(io, "wbytes=")));
        }
        // Microseconds in a second: 10^4 of them are a percent of a core.
        let mut percent = |series, us: f64| keep(Reading::Counter(series, us / 1e4));
        if let Some(cpu) = self.cpu.read(text) {
            for (series, name) in [
                (Series::CgroupCpu, "usage_usec "),
                (Series::CgroupThrottled, "throttled_usec "),
            ] {
                if let Some(us) = number_after(cpu, name) {
                    percent(series, us);
                }
            }
        }
        for (file, both) in self.pressures.iter().zip(PRESSURES) {
            let totals = file.read(text).map(pressure_totals).unwrap_or_default();
            for (total_us, series) in totals.into_iter().zip(both) {
                if let Some(us) = total_us {
                    percent(series, us);
                }
            }
        }
        let current = self.memory_current.read(text);
        if let Some(bytes) = current.and_then(|bytes| bytes.trim().parse().ok()) {
            keep(Reading::Level(Series::CgroupMemory, bytes));
        }
        if let Some(memory) = self.memory.read(text) {
            let bytes = |name| number_after(memory, name);
            let shared = bytes("shmem ");
            for (series, bytes) in [
                // The kernel counts shared memory as files too.
                (
                    Series::CgroupPageCache,
                    bytes("file ").map(|all| all - shared.unwrap_or(0.0)),
                ),
                (Series::CgroupShared, shared),
                (Series::CgroupAnonymous, bytes("anon ")),
            ] {
                if let Some(bytes) = bytes {
                    keep(Reading::Level(series, bytes));
                }
            }
        }
    }

    /// Reads its files and adds the values to `batch`.
    pub(crate) fn sample(&mut self, text: &mut Vec<u8>, batch: &mut Batch) {
        let mut growth = std::mem::take(&mut self.growth);
        self.read(text, |reading| match reading {
            Reading::Level(series, bytes) => batch.level(series, &self.device, bytes),
            Reading::Counter(series, value) => {
                let growth = growth.entry(series).or_default();
                if let Some((grown, span)) = growth.of(batch.at, value) {
                    batch.rate(series, &self.device, grown, span);
                }
            }
        });
        self.growth = growth;
    }
}

/// Sum over devices in `io.stat`, a line a device: `254:0 rbytes=1 wbytes=2 rios=3 ...`.
fn sum_of(io: &str, name: &str) -> f64 {
    let words = io.split_ascii_whitespace();
    words
        .filter_map(|word| word.strip_prefix(name)?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroups_files_are_read_by_their_fields() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "io.stat",
                "254:0 rbytes=100 wbytes=7 rios=1\n254:16 rbytes=20 wbytes=3 rios=1\n",
            ),
            (
                "cpu.stat",
                "usage_usec 5000000\nuser_usec 1\nthrottled_usec 20000\n",
            ),
            ("memory.current", "4096\n"),
            (
                "memory.stat",
                "anon 1024\nfile 2048\nshmem 48\nfile_mapped 1\n",
            ),
            (
                "io.pressure",
                "some avg10=0.00 total=30000\nfull avg10=0.00 total=10000\n",
            ),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let (mut found, mut text) = (Vec::new(), Vec::new());
        Cgroup::open(folder.path(), "vllm").read(&mut text, |reading| {
            found.push(match reading {
                Reading::Counter(series, value) => (series.name(), true, value),
                Reading::Level(series, value) => (series.name(), false, value),
            });
        });
        assert_eq!(
            found,
            [
                ("read", true, 120.0),
                ("write", true, 10.0),
                ("cpu", true, 500.0),
                ("throttled", true, 2.0),
                ("io_pressure_some", true, 3.0),
                ("io_pressure_full", true, 1.0),
                ("memory", false, 4096.0),
                ("page_cache", false, 2000.0),
                ("shared", false, 48.0),
                ("anonymous", false, 1024.0),
            ]
        );
    }

    #[test]
    fn a_cgroup_without_controllers_gives_no_reading_rather_than_zero() {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::open(folder.path(), "vllm");
        cgroup.read(&mut Vec::new(), |reading| panic!("{reading:?}"));
    }

    #[test]
    fn each_cgroup_is_read_once_under_the_roles_in_it() {
        let leaders = [("redis", 7), ("vllm", 8), ("lmcache", 9), ("none", 10)];
        let folder_of = |pid| match pid {
            7 => Some(PathBuf::from("/redis")),
            10 => None,
            _ => Some(PathBuf::from("/server")),
        };
        let found = by_folder(&leaders, folder_of);
        let names: Vec<_> = found.iter().map(|cgroup| &*cgroup.device).collect();
        assert_eq!(names, ["redis", "vllm+lmcache"]);
    }
}
