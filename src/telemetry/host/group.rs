//! The server's own share of the machine: its processes, and the cgroup (v2) that holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cpu::pressure_totals;
use super::kept::{Kept, number_after};
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
    device: Arc<str>,
    members: BTreeMap<u32, Member>,
    clock: Growth,
    cgroup: Option<Cgroup>,
    ticks: u64,
    text: Vec<u8>,
}

/// One process: what it tells, and what it told last.
#[derive(Debug)]
struct Member {
    stat: Kept,
    io: Kept,
    read: Growth,
    written: Growth,
    cpu: Growth,
}

/// What processes do together, a second; memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    processes: f64,
    read: f64,
    written: f64,
    cpu_percent: f64,
    resident: f64,
}

impl Member {
    fn open(pid: u32) -> Self {
        Self {
            stat: Kept::open(format!("/proc/{pid}/stat")),
            io: Kept::open(format!("/proc/{pid}/io")),
            read: Growth::default(),
            written: Growth::default(),
            cpu: Growth::default(),
        }
    }

    /// Adds what it does to `sum`; nothing where it is gone. A first reading adds no rate.
    fn add_to(&mut self, sum: &mut Sum, text: &mut Vec<u8>, at: Duration) {
        let Some((cpu_s, resident)) = self.stat.read(text).and_then(cpu_and_resident) else {
            return;
        };
        let rate = |growth: &mut Growth, value: f64| {
            let grown = growth.of(at, value);
            grown.map_or(0.0, |(grown, span)| grown / span.as_secs_f64())
        };
        sum.processes += 1.0;
        sum.resident += resident;
        sum.cpu_percent += rate(&mut self.cpu, cpu_s) * 100.0;
        let io = self.io.read(text).unwrap_or_default();
        let bytes = |name| number_after(io, name).unwrap_or(0.0);
        sum.read += rate(&mut self.read, bytes("read_bytes:"));
        sum.written += rate(&mut self.written, bytes("write_bytes:"));
    }
}

/// CPU seconds and resident bytes of a process, from its `stat` (proc(5)): fields 14, 15 and 24. The
/// command name, field 2, stands in parentheses and may hold anything.
fn cpu_and_resident(stat: &str) -> Option<(f64, f64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let mut number = |skipped| fields.nth(skipped)?.parse::<f64>().ok();
    let (user, system, pages) = (number(11)?, number(0)?, number(8)?);
    Some((
        (user + system) / procfs::ticks_per_second() as f64,
        pages * procfs::page_size() as f64,
    ))
}

impl GroupSampler {
    /// Reads the process groups that `leaders` lead.
    pub fn new(leaders: Vec<u32>, interval: Duration) -> Self {
        Self {
            cgroup: leaders.first().and_then(|pid| Cgroup::of(*pid)),
            interval,
            leaders,
            device: "".into(),
            members: BTreeMap::new(),
            clock: Growth::default(),
            ticks: 0,
            text: Vec::new(),
        }
    }

    fn look(&mut self) {
        let all = ProcStat::all();
        let ours = all.filter(|(_, stat)| stat.lives && self.leaders.contains(&stat.group));
        // A container's first process may lead no group that its others belong to.
        let pids = ours.map(|(pid, _)| pid).chain(self.leaders.iter().copied());
        let pids: BTreeSet<u32> = pids.collect();
        self.members.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            self.members.entry(pid).or_insert_with(|| Member::open(pid));
        }
    }

    fn processes(&mut self, batch: &mut Batch, since: Duration) {
        let (at, mut sum) = (batch.at, Sum::default());
        for member in self.members.values_mut() {
            member.add_to(&mut sum, &mut self.text, at);
        }
        if sum.processes == 0.0 {
            return;
        }
        let device = &self.device;
        let levels = [
            ("processes", Unit::Count, sum.processes),
            ("resident_memory", Unit::Bytes, sum.resident),
        ];
        for (metric, unit, value) in levels {
            batch.level(("server", device, metric), unit, value);
        }
        for (metric, unit, value) in [
            ("storage_read", Unit::BytesPerSecond, sum.read),
            ("storage_write", Unit::BytesPerSecond, sum.written),
            ("cpu", Unit::Percent, sum.cpu_percent),
        ] {
            if !since.is_zero() {
                batch.push(("server", device, metric), unit, (at, since), value);
            }
        }
    }
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

/// A cgroup's files, and what its counters told last.
#[derive(Debug)]
struct Cgroup {
    device: Arc<str>,
    io: Kept,
    cpu: Kept,
    memory_current: Kept,
    memory: Kept,
    pressures: [Kept; 3],
    growth: BTreeMap<&'static str, Growth>,
}

/// A metric of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    /// Only grows.
    Counter(&'static str, Unit, f64),
    /// Is so now, bytes.
    Level(&'static str, f64),
}

const PRESSURES: [[&str; 2]; 3] = [
    ["cpu_pressure_some", "cpu_pressure_full"],
    ["io_pressure_some", "io_pressure_full"],
    ["memory_pressure_some", "memory_pressure_full"],
];

impl Cgroup {
    /// The cgroup of process `pid`.
    fn of(pid: u32) -> Option<Self> {
        cgroup_of(pid).map(|folder| Self::open(&folder))
    }

    fn open(folder: &Path) -> Self {
        let file = |name| Kept::open(folder.join(name));
        let name = folder.file_name().unwrap_or_default();
        Self {
            device: name.to_string_lossy().into(),
            io: file("io.stat"),
            cpu: file("cpu.stat"),
            memory_current: file("memory.current"),
            memory: file("memory.stat"),
            pressures: ["cpu.pressure", "io.pressure", "memory.pressure"].map(file),
            growth: BTreeMap::new(),
        }
    }

    /// Hands everything that it tells now to `keep`.
    fn tell(&self, text: &mut Vec<u8>, mut keep: impl FnMut(Told)) {
        if let Some(io) = self.io.read(text).filter(|io| !io.is_empty()) {
            keep(Told::Counter(
                "read",
                Unit::BytesPerSecond,
                sum_of(io, "rbytes="),
            ));
            keep(Told::Counter(
                "write",
                Unit::BytesPerSecond,
                sum_of(io, "wbytes="),
            ));
        }
        // Microseconds in a second: 10^4 of them are a percent of a core.
        let mut percent = |metric, us: f64| keep(Told::Counter(metric, Unit::Percent, us / 1e4));
        if let Some(cpu) = self.cpu.read(text) {
            for (metric, name) in [("cpu", "usage_usec "), ("throttled", "throttled_usec ")] {
                if let Some(us) = number_after(cpu, name) {
                    percent(metric, us);
                }
            }
        }
        for (file, names) in self.pressures.iter().zip(PRESSURES) {
            let totals = file.read(text).map(pressure_totals).unwrap_or_default();
            for (told, name) in totals.into_iter().zip(names) {
                if let Some((_, us)) = told {
                    percent(name, us);
                }
            }
        }
        let current = self.memory_current.read(text);
        if let Some(bytes) = current.and_then(|bytes| bytes.trim().parse().ok()) {
            keep(Told::Level("memory", bytes));
        }
        if let Some(memory) = self.memory.read(text) {
            for (metric, name) in [("page_cache", "file "), ("anonymous", "anon ")] {
                if let Some(bytes) = number_after(memory, name) {
                    keep(Told::Level(metric, bytes));
                }
            }
        }
    }

    fn sample(&mut self, text: &mut Vec<u8>, batch: &mut Batch) {
        let mut growth = std::mem::take(&mut self.growth);
        self.tell(text, |told| match told {
            Told::Level(metric, bytes) => {
                batch.level(("cgroup", &self.device, metric), Unit::Bytes, bytes);
            }
            Told::Counter(metric, unit, value) => {
                let growth = growth.entry(metric).or_default();
                if let Some((grown, span)) = growth.of(batch.at, value) {
                    batch.rate(("cgroup", &self.device, metric), unit, grown, span);
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

impl Sampler for GroupSampler {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        if self.ticks.is_multiple_of(LOOK_EVERY) {
            self.look();
        }
        self.ticks += 1;
        let clock = self.clock.of(batch.at, 0.0);
        let since = clock.map_or(Duration::ZERO, |(_, span)| span);
        self.processes(batch, since);
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.sample(&mut self.text, batch);
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
        let (mut found, mut text) = (Vec::new(), Vec::new());
        Cgroup::open(folder.path()).tell(&mut text, |told| {
            found.push(match told {
                Told::Counter(metric, _, value) => (metric, true, value),
                Told::Level(metric, value) => (metric, false, value),
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
                ("page_cache", false, 2048.0),
                ("anonymous", false, 1024.0),
            ]
        );
    }

    #[test]
    fn a_cgroup_without_controllers_tells_nothing_rather_than_zero() {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::open(folder.path());
        cgroup.tell(&mut Vec::new(), |told| panic!("{told:?}"));
    }

    #[test]
    fn the_fields_of_a_process_count_on_after_its_name() {
        let stat = "7 (a) b (c) S 1 42 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 987 19 20\n";
        let (cpu_s, resident) = cpu_and_resident(stat).unwrap();
        assert!((cpu_s * procfs::ticks_per_second() as f64 - 200.0).abs() < 1e-9);
        assert!((resident - 20.0 * procfs::page_size() as f64).abs() < 1e-9);
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
