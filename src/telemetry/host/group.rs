//! The server's own share of the machine: its processes, and the cgroup (v2) that holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use procfs::process::Process;

use super::cpu::pressure_totals;
use crate::server::proc_stat::ProcStat;
use crate::telemetry::sample::{Batch, Growth, Unit};
use crate::telemetry::thread::{Ended, Sampler};

/// Readings after which processes that were started meanwhile are looked for: a look at all
/// processes of a machine costs more than reading a few.
const LOOK_EVERY: u64 = 10;

/// Reads the processes of some groups and their cgroup.
#[derive(Debug)]
pub struct GroupSampler {
    interval: Duration,
    leaders: Vec<u32>,
    members: BTreeSet<u32>,
    cgroup: Option<PathBuf>,
    growth: BTreeMap<(u32, &'static str), Growth>,
    ticks: u64,
}

/// What one process has used.
struct Used {
    read: f64,
    written: f64,
    cpu_s: f64,
    resident: f64,
}

impl GroupSampler {
    /// Reads the process groups that `leaders` lead.
    pub fn new(leaders: Vec<u32>, interval: Duration) -> Self {
        Self {
            cgroup: leaders.first().and_then(|pid| cgroup_of(*pid)),
            interval,
            leaders,
            members: BTreeSet::new(),
            growth: BTreeMap::new(),
            ticks: 0,
        }
    }

    fn look(&mut self) {
        let all = ProcStat::all();
        let ours = all.filter(|(_, stat)| stat.lives && self.leaders.contains(&stat.group));
        self.members = ours.map(|(pid, _)| pid).collect();
        // A container's first process may lead no group that its others belong to.
        self.members.extend(&self.leaders);
    }

    /// What `metric` of process `pid` grew by, as a rate; 0 for a first reading.
    fn rate(&mut self, at: Duration, pid: u32, metric: &'static str, value: f64) -> f64 {
        let growth = self.growth.entry((pid, metric)).or_default();
        let grown = growth.of(at, value);
        grown.map_or(0.0, |(grown, span)| grown / span.as_secs_f64())
    }

    fn processes(&mut self, batch: &mut Batch, since: Duration) {
        let at = batch.at;
        let (mut read, mut written, mut cpu, mut resident) = (0.0, 0.0, 0.0, 0.0);
        let mut seen = 0.0;
        for pid in self.members.clone() {
            let Some(used) = used_by(pid) else { continue };
            seen += 1.0;
            read += self.rate(at, pid, "read", used.read);
            written += self.rate(at, pid, "write", used.written);
            cpu += self.rate(at, pid, "cpu", used.cpu_s) * 100.0;
            resident += used.resident;
        }
        if seen == 0.0 {
            return;
        }
        let device: Arc<str> = "".into();
        batch.level(("server", &device, "processes"), Unit::Count, seen);
        batch.level(
            ("server", &device, "resident_memory"),
            Unit::Bytes,
            resident,
        );
        for (metric, unit, value) in [
            ("storage_read", Unit::BytesPerSecond, read),
            ("storage_write", Unit::BytesPerSecond, written),
            ("cpu", Unit::Percent, cpu),
        ] {
            if !since.is_zero() {
                batch.push(("server", &device, metric), unit, (at, since), value);
            }
        }
    }
}

/// What process `pid` has used; `None` where it is gone.
fn used_by(pid: u32) -> Option<Used> {
    let process = Process::new(pid.cast_signed()).ok()?;
    let stat = process.stat().ok()?;
    let io = process.io().ok();
    let ticks = procfs::ticks_per_second() as f64;
    Some(Used {
        read: io.map_or(0.0, |io| io.read_bytes as f64),
        written: io.map_or(0.0, |io| io.write_bytes as f64),
        cpu_s: (stat.utime + stat.stime) as f64 / ticks,
        resident: stat.rss as f64 * procfs::page_size() as f64,
    })
}

/// The folder of the cgroup (v2) of process `pid`; `None` for the root, which is the machine.
fn cgroup_of(pid: u32) -> Option<PathBuf> {
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

/// Counters and levels of a cgroup: metric, unit, and whether it is a counter.
fn cgroup_values(folder: &Path) -> Vec<(&'static str, Unit, bool, f64)> {
    let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let field = |text: &str, name: &str| -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line[name.len()..].trim().parse().ok()
    };
    // A line a device: `254:0 rbytes=1 wbytes=2 rios=3 ...`.
    let io = text("io.stat");
    let io_sum = |name: &str| -> Option<f64> {
        let values = io
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(name)?.parse::<f64>().ok());
        (!io.is_empty()).then(|| values.sum())
    };
    let (cpu, memory) = (text("cpu.stat"), text("memory.stat"));
    // Microseconds in a second: 10^4 of them are a percent of a core.
    let percent = |us: Option<f64>| us.map(|us| us / 1e4);
    let mut all = vec![
        ("read", Unit::BytesPerSecond, true, io_sum("rbytes=")),
        ("write", Unit::BytesPerSecond, true, io_sum("wbytes=")),
        (
            "cpu",
            Unit::Percent,
            true,
            percent(field(&cpu, "usage_usec ")),
        ),
        (
            "throttled",
            Unit::Percent,
            true,
            percent(field(&cpu, "throttled_usec ")),
        ),
        (
            "memory",
            Unit::Bytes,
            false,
            field(&text("memory.current"), ""),
        ),
        ("page_cache", Unit::Bytes, false, field(&memory, "file ")),
        ("anonymous", Unit::Bytes, false, field(&memory, "anon ")),
    ];
    for (file, names) in [
        ("cpu.pressure", ["cpu_pressure_some", "cpu_pressure_full"]),
        ("io.pressure", ["io_pressure_some", "io_pressure_full"]),
        (
            "memory.pressure",
            ["memory_pressure_some", "memory_pressure_full"],
        ),
    ] {
        for ((_, us), name) in pressure_totals(&text(file)).into_iter().zip(names) {
            all.push((name, Unit::Percent, true, percent(Some(us))));
        }
    }
    let known = all.into_iter();
    known
        .filter_map(|(metric, unit, counter, value)| Some((metric, unit, counter, value?)))
        .collect()
}

impl Sampler for GroupSampler {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        if self.ticks.is_multiple_of(LOOK_EVERY) {
            self.look();
        }
        self.ticks += 1;
        // Pid 0 stands for the group as a whole and for its cgroup.
        let clock = self.growth.entry((0, "clock")).or_default();
        let since = clock
            .of(batch.at, 0.0)
            .map_or(Duration::ZERO, |(_, span)| span);
        self.processes(batch, since);
        let Some(folder) = self.cgroup.clone() else {
            return Ok(());
        };
        let device: Arc<str> = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into();
        for (metric, unit, counter, value) in cgroup_values(&folder) {
            if !counter {
                batch.level(("cgroup", &device, metric), unit, value);
                continue;
            }
            let growth = self.growth.entry((0, metric)).or_default();
            if let Some((grown, span)) = growth.of(batch.at, value) {
                batch.rate(("cgroup", &device, metric), unit, grown, span);
            }
        }
        Ok(())
    }
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
            ("memory.stat", "anon 1024\nfile 2048\nfile_mapped 1\n"),
            (
                "io.pressure",
                "some avg10=0.00 total=30000\nfull avg10=0.00 total=10000\n",
            ),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let found: Vec<(&str, bool, f64)> = cgroup_values(folder.path())
            .into_iter()
            .map(|(metric, _, counter, value)| (metric, counter, value))
            .collect();
        assert_eq!(
            found,
            [
                ("read", true, 120.0),
                ("write", true, 10.0),
                ("cpu", true, 500.0),
                ("throttled", true, 2.0),
                ("memory", false, 4096.0),
                ("page_cache", false, 2048.0),
                ("anonymous", false, 1024.0),
                ("io_pressure_some", true, 3.0),
                ("io_pressure_full", true, 1.0),
            ]
        );
    }

    #[test]
    fn a_cgroup_without_controllers_tells_nothing_rather_than_zero() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(cgroup_values(folder.path()).len(), 0);
    }

    #[test]
    fn this_processs_group_is_seen() {
        let group = ProcStat::read(std::process::id()).unwrap().group;
        let mut sampler = GroupSampler::new(vec![group], Duration::from_secs(1));
        let mut batch = Batch::new(Duration::from_secs(1), false);
        sampler.sample(&mut batch).unwrap();
        let of = |batch: &Batch, metric: &str| {
            let points = batch.points().iter();
            let found = points.filter(|(key, _, _)| key.source == "server" && key.metric == metric);
            found.map(|(_, _, point)| point.value).next_back()
        };
        assert!(of(&batch, "processes").unwrap() >= 1.0);
        assert!(of(&batch, "resident_memory").unwrap() > 1e6);
        assert_eq!(of(&batch, "cpu"), None, "nothing to compare with yet");
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(150) {
            std::hint::black_box(0);
        }
        let mut batch = Batch::new(Duration::from_secs(2), false);
        sampler.sample(&mut batch).unwrap();
        assert!(of(&batch, "cpu").unwrap() > 0.0);
    }
}
