//! The server's own share of the machine: what each of its parts (the engine, an LMCache server, a
//! Redis of its own) does with its processes, and the cgroups (v2) that hold them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

use super::cgroup::{self, Cgroup};
use super::proc_file::{ProcFile, number_after};
use crate::series::Series;
use crate::server::process_tree;
use crate::telemetry::sample::{Batch, Growth};
use crate::telemetry::thread::{Ended, Sampler};

/// Number of readings between two searches for new processes: listing all processes of a machine
/// costs more than reading a few.
const LOOK_EVERY: u64 = 10;

/// Reads the parts of a server and their cgroups.
#[derive(Debug)]
pub(crate) struct GroupSampler {
    interval: Duration,
    parts: Vec<Part>,
    clock: Growth,
    cgroups: Vec<Cgroup>,
    ticks: u64,
    text: Vec<u8>,
}

/// What one process started: a part of the server.
#[derive(Debug)]
struct Part {
    role: Arc<str>,
    leader: u32,
    members: BTreeMap<u32, Member>,
}

/// One process: its files, and their last readings.
#[derive(Debug)]
struct Member {
    stat: ProcFile,
    io: ProcFile,
    read: Growth,
    written: Growth,
    cpu: Growth,
}

/// What processes do together, a second; memory in bytes.
#[derive(Clone, Copy, Debug)]
struct Sum {
    processes: f64,
    /// Read and written; `None` where a process does not let its counters be read.
    storage: Option<[f64; 2]>,
    cpu_percent: f64,
    resident: f64,
}

impl Member {
    fn open(pid: u32) -> Self {
        Self {
            stat: ProcFile::open(format!("/proc/{pid}/stat")),
            io: ProcFile::open(format!("/proc/{pid}/io")),
            read: Growth::default(),
            written: Growth::default(),
            cpu: Growth::default(),
        }
    }

    /// Adds what it does to `sum`; nothing where it is gone. A first reading adds no rate.
    fn add_to(&mut self, sum: &mut Sum, text: &mut Vec<u8>, at: Duration) {
        let io = self.io.read(text);
        let bytes = |name| io.and_then(|io| number_after(io, name));
        let moved = (bytes("read_bytes:"), bytes("write_bytes:"));
        // Last: a process that ended meanwhile has no part in the sum.
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
        let own = match moved {
            (Some(read), Some(written)) => {
                Some([rate(&mut self.read, read), rate(&mut self.written, written)])
            }
            // The counters of another user's process are unreadable, not zero.
            _ => None,
        };
        let both = sum.storage.zip(own);
        sum.storage = both.map(|(sum, own)| [sum[0] + own[0], sum[1] + own[1]]);
    }
}

/// CPU seconds and resident bytes of a process, from its `stat` (proc(5)): fields 14, 15 and 24. The
/// command name, field 2, stands in parentheses and may hold anything.
fn cpu_and_resident(stat: &str) -> Option<(f64, f64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let mut number = |skipped| fields.nth(skipped)?.parse::<f64>().ok();
    let (user, system, pages) = (number(11)?, number(0)?, number(8)?);
    Some((
        (user + system) / clock_ticks_per_second() as f64,
        pages * page_size() as f64,
    ))
}

impl Part {
    fn processes(&mut self, batch: &mut Batch, since: Duration, text: &mut Vec<u8>) {
        let at = batch.at;
        let mut sum = Sum {
            processes: 0.0,
            storage: Some([0.0; 2]),
            cpu_percent: 0.0,
            resident: 0.0,
        };
        for member in self.members.values_mut() {
            member.add_to(&mut sum, text, at);
        }
        if sum.processes == 0.0 {
            return;
        }
        let role = &self.role;
        batch.level(Series::ServerProcesses, role, sum.processes);
        batch.level(Series::ServerResidentMemory, role, sum.resident);
        if since.is_zero() {
            return;
        }
        let mut rate = |series, value| batch.push(series, role, (at, since), value);
        rate(Series::ServerCpu, sum.cpu_percent);
        if let Some([read, written]) = sum.storage {
            rate(Series::ServerStorageRead, read);
            rate(Series::ServerStorageWrite, written);
        }
    }
}

impl GroupSampler {
    /// Reads what `leaders` lead, each with its role.
    pub(crate) fn new(leaders: &[(&'static str, u32)], interval: Duration) -> Self {
        let part = |&(role, leader): &(&'static str, u32)| Part {
            role: role.into(),
            leader,
            members: BTreeMap::new(),
        };
        Self {
            cgroups: cgroup::of(leaders),
            interval,
            parts: leaders.iter().map(part).collect(),
            clock: Growth::default(),
            ticks: 0,
            text: Vec::new(),
        }
    }

    fn look(&mut self) {
        let leaders: Vec<u32> = self.parts.iter().map(|part| part.leader).collect();
        let all = process_tree::of(&leaders);
        for part in &mut self.parts {
            let is_own = |pid: &u32| all.get(pid) == Some(&part.leader);
            part.members.retain(|pid, _| is_own(pid));
            for pid in all.keys().filter(|pid| is_own(pid)) {
                let member = || Member::open(*pid);
                part.members.entry(*pid).or_insert_with(member);
            }
        }
    }
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
        for part in &mut self.parts {
            part.processes(batch, since, &mut self.text);
        }
        for cgroup in &mut self.cgroups {
            cgroup.sample(&mut self.text, batch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_process_count_on_after_its_name() {
        let stat = "7 (a) b (c) S 1 42 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 987 19 20\n";
        let (cpu_s, resident) = cpu_and_resident(stat).unwrap();
        assert!((cpu_s * clock_ticks_per_second() as f64 - 200.0).abs() < 1e-9);
        assert!((resident - 20.0 * page_size() as f64).abs() < 1e-9);
    }

    #[test]
    fn each_part_is_named_by_its_role() {
        let mut sampler =
            GroupSampler::new(&[("vllm", std::process::id())], Duration::from_secs(1));
        let mut batch = Batch::new(Duration::from_secs(1), false);
        sampler.sample(&mut batch).unwrap();
        let of = |batch: &Batch, series: Series| {
            let points = batch.points().iter();
            let found = points.filter(|(key, _)| (key.series, &*key.device) == (series, "vllm"));
            found.map(|(_, point)| point.value).next_back()
        };
        assert!(of(&batch, Series::ServerProcesses).unwrap() >= 1.0);
        assert!(of(&batch, Series::ServerResidentMemory).unwrap() > 1e6);
        assert_eq!(
            of(&batch, Series::ServerCpu),
            None,
            "nothing to compare with yet"
        );
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(150) {
            std::hint::black_box(0);
        }
        let mut batch = Batch::new(Duration::from_secs(2), false);
        sampler.sample(&mut batch).unwrap();
        assert!(of(&batch, Series::ServerCpu).unwrap() > 0.0);
    }

    #[test]
    fn storage_that_may_not_be_read_is_not_zero() {
        let mut member = Member::open(std::process::id());
        member.io = ProcFile::open("/proc/self/none");
        let mut part = Part {
            role: "vllm".into(),
            leader: 1,
            members: BTreeMap::from([(std::process::id(), member)]),
        };
        let mut batch = Batch::new(Duration::from_secs(1), false);
        part.processes(&mut batch, Duration::from_secs(1), &mut Vec::new());
        let metrics: Vec<_> = batch
            .points()
            .iter()
            .map(|(key, _)| key.series.name())
            .collect();
        assert_eq!(metrics, ["processes", "resident_memory", "cpu"]);
    }
}
