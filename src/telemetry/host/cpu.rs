//! CPU, memory, pressure and NUMA of the whole machine.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use procfs::{Current as _, Meminfo};

use crate::telemetry::sample::{Batch, Growth, Unit};
use crate::telemetry::thread::{Ended, Sampler};

/// Reads the machine's processors and memory.
#[derive(Debug)]
pub struct CpuSampler {
    interval: Duration,
    cores: BTreeMap<String, Core>,
    counters: BTreeMap<(&'static str, String), Growth>,
}

/// Ticks of one core: of all its time, and of the time that it did something.
#[derive(Debug)]
struct Core {
    device: Arc<str>,
    last: Option<Ticks>,
}

/// Clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    all: u64,
    idle: u64,
    io_wait: u64,
}

impl Ticks {
    /// The first eight columns of a `cpu` line (proc(5)): guest time is part of user time.
    fn parse(columns: &str) -> Option<Self> {
        let values: Vec<u64> = columns
            .split_whitespace()
            .take(8)
            .map_while(|value| value.parse().ok())
            .collect();
        Some(Self {
            all: values.iter().sum(),
            idle: *values.get(3)?,
            io_wait: *values.get(4)?,
        })
    }

    /// Percent of the time since `before` that it was busy, and that it waited for I/O.
    fn shares(self, before: Self) -> Option<(f64, f64)> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)? as f64;
        let idle = self.idle.saturating_sub(before.idle) as f64;
        let io_wait = self.io_wait.saturating_sub(before.io_wait) as f64;
        Some((
            (all - idle - io_wait).max(0.0) / all * 100.0,
            io_wait / all * 100.0,
        ))
    }
}

impl CpuSampler {
    /// Reads every `interval`.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            cores: BTreeMap::new(),
            counters: BTreeMap::new(),
        }
    }

    fn cores(&mut self, stat: &str, batch: &mut Batch) {
        for line in stat.lines().take_while(|line| line.starts_with("cpu")) {
            let Some((name, columns)) = line.split_once(' ') else {
                continue;
            };
            let Some(ticks) = Ticks::parse(columns) else {
                continue;
            };
            // The line of all cores is called `cpu`.
            let device = if name == "cpu" { "all" } else { name };
            let core = self.cores.entry(name.to_owned()).or_insert_with(|| Core {
                device: device.into(),
                last: None,
            });
            let Some(before) = core.last.replace(ticks) else {
                continue;
            };
            // A reading out of turn can fall into the same tick.
            let Some((busy, io_wait)) = ticks.shares(before) else {
                core.last = Some(before);
                continue;
            };
            batch.level(("cpu", &core.device, "busy"), Unit::Percent, busy);
            if name == "cpu" {
                batch.level(("cpu", &core.device, "io_wait"), Unit::Percent, io_wait);
            }
        }
    }

    /// Microseconds that some or all tasks waited, as a share of the time.
    fn pressure(&mut self, resource: &'static str, batch: &mut Batch) {
        let Ok(text) = fs::read_to_string(format!("/proc/pressure/{resource}")) else {
            return;
        };
        for (kind, total_us) in pressure_totals(&text) {
            let at = batch.at;
            let key = ("pressure", format!("{resource}-{kind}"));
            let growth = self.counters.entry(key).or_default();
            if let Some((grown, span)) = growth.of(at, total_us / 1e4) {
                let device: Arc<str> = resource.into();
                batch.rate(("pressure", &device, kind), Unit::Percent, grown, span);
            }
        }
    }

    fn numa(&mut self, batch: &mut Batch) {
        for node in 0.. {
            let path = format!("/sys/devices/system/node/node{node}/numastat");
            let Ok(text) = fs::read_to_string(path) else {
                return;
            };
            let misses = text
                .lines()
                .find_map(|line| line.strip_prefix("numa_miss "))
                .and_then(|value| value.trim().parse::<f64>().ok());
            let Some(misses) = misses else { continue };
            let at = batch.at;
            let growth = self.counters.entry(("numa", node.to_string())).or_default();
            if let Some((grown, span)) = growth.of(at, misses) {
                let device: Arc<str> = format!("node{node}").into();
                batch.rate(("numa", &device, "misses"), Unit::PerSecond, grown, span);
            }
        }
    }
}

/// `some` and `full` lines of a pressure file, with their `total` in microseconds.
pub(super) fn pressure_totals(text: &str) -> Vec<(&'static str, f64)> {
    let of = |kind: &'static str| {
        let line = text.lines().find(|line| line.starts_with(kind))?;
        let total = line.split_whitespace().last()?.strip_prefix("total=")?;
        Some((kind, total.parse().ok()?))
    };
    [of("some"), of("full")].into_iter().flatten().collect()
}

fn memory(batch: &mut Batch) {
    let Ok(memory) = Meminfo::current() else {
        return;
    };
    let device: Arc<str> = "".into();
    for (metric, bytes) in [
        ("page_cache", Some(memory.cached)),
        ("dirty", Some(memory.dirty)),
        ("writeback", Some(memory.writeback)),
        ("available", memory.mem_available),
    ] {
        if let Some(bytes) = bytes {
            batch.level(("memory", &device, metric), Unit::Bytes, bytes as f64);
        }
    }
}

impl Sampler for CpuSampler {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        if let Ok(stat) = fs::read_to_string("/proc/stat") {
            self.cores(&stat, batch);
        }
        memory(batch);
        for resource in ["cpu", "io", "memory"] {
            self.pressure(resource, batch);
        }
        self.numa(batch);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_core_are_told_between_two_readings() {
        let mut sampler = CpuSampler::new(Duration::from_secs(1));
        let mut batch = Batch::new(Duration::from_secs(1), false);
        sampler.cores(
            "cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 0 1 7 1 0 0 0\nintr 5\n",
            &mut batch,
        );
        assert!(batch.points().is_empty());
        sampler.cores(
            "cpu  150 0 150 780 120 0 0 0 90 0\ncpu0 1 0 1 7 1 0 0 0\n",
            &mut batch,
        );
        let found: Vec<_> = batch
            .points()
            .iter()
            .map(|(key, _, point)| (&*key.device, key.metric, point.value))
            .collect();
        assert_eq!(found, [("all", "busy", 50.0), ("all", "io_wait", 10.0)]);
    }

    #[test]
    fn pressure_is_told_in_both_kinds() {
        let text = "some avg10=0.32 avg60=0.42 avg300=0.52 total=8740249\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=2694214\n";
        assert_eq!(
            pressure_totals(text),
            [("some", 8_740_249.0), ("full", 2_694_214.0)]
        );
        assert_eq!(pressure_totals("some nonsense"), []);
    }
}
