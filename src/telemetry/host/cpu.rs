//! CPU, memory, pressure and NUMA of the whole machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::proc_file::{ProcFile, number_after};
use crate::series::Series;
use crate::telemetry::sample::{Batch, Growth};
use crate::telemetry::thread::{Ended, Sampler};

/// Reads the machine's processors and memory.
#[derive(Debug)]
pub(crate) struct CpuSampler {
    interval: Duration,
    cores: BTreeMap<String, Core>,
    machine: Arc<str>,
    stat: ProcFile,
    meminfo: ProcFile,
    pressures: [Pressure; 3],
    nodes: Vec<Node>,
    text: Vec<u8>,
}

/// A file of pressure, and its last readings.
#[derive(Debug)]
struct Pressure {
    file: ProcFile,
    device: Arc<str>,
    growth: [Growth; 2],
}

/// The counters of one NUMA node.
#[derive(Debug)]
struct Node {
    file: ProcFile,
    device: Arc<str>,
    misses: Growth,
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
        let mut values = [0; 8];
        let mut columns_read = 0;
        for (value, column) in values.iter_mut().zip(columns.split_ascii_whitespace()) {
            *value = column.parse().ok()?;
            columns_read += 1;
        }
        (columns_read > 4).then(|| Self {
            all: values.iter().sum(),
            idle: values[3],
            io_wait: values[4],
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
    /// A sampler that reads every `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            interval,
            cores: BTreeMap::new(),
            machine: "".into(),
            stat: ProcFile::open("/proc/stat"),
            meminfo: ProcFile::open("/proc/meminfo"),
            pressures: ["cpu", "io", "memory"].map(|resource| Pressure {
                file: ProcFile::open(format!("/proc/pressure/{resource}")),
                device: resource.into(),
                growth: <[Growth; 2]>::default(),
            }),
            nodes: nodes(),
            text: Vec::new(),
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
            if !self.cores.contains_key(name) {
                // The line of all cores is called `cpu`.
                let device = if name == "cpu" { "all" } else { name }.into();
                let core = Core { device, last: None };
                self.cores.insert(name.to_owned(), core);
            }
            let Some(core) = self.cores.get_mut(name) else {
                continue;
            };
            let Some(before) = core.last.replace(ticks) else {
                continue;
            };
            // A reading out of turn can fall into the same tick.
            let Some((busy, io_wait)) = ticks.shares(before) else {
                core.last = Some(before);
                continue;
            };
            batch.level(Series::CpuBusy, &core.device, busy);
            if name == "cpu" {
                batch.level(Series::CpuIoWait, &core.device, io_wait);
            }
        }
    }

    /// Microseconds that some or all tasks waited, as a share of the time.
    fn pressure(&mut self, text: &mut Vec<u8>, batch: &mut Batch) {
        for Pressure {
            file,
            device,
            growth,
        } in &mut self.pressures
        {
            let Some(text) = file.read(text) else {
                continue;
            };
            let both = [Series::PressureSome, Series::PressureFull];
            let totals = both.into_iter().zip(pressure_totals(text));
            for (growth, (series, total_us)) in growth.iter_mut().zip(totals) {
                let Some(total_us) = total_us else {
                    continue;
                };
                if let Some((grown, span)) = growth.of(batch.at, total_us / 1e4) {
                    batch.rate(series, device, grown, span);
                }
            }
        }
    }

    fn numa(&mut self, text: &mut Vec<u8>, batch: &mut Batch) {
        for node in &mut self.nodes {
            let numastat = node.file.read(text);
            let Some(misses) = numastat.and_then(|text| number_after(text, "numa_miss ")) else {
                continue;
            };
            if let Some((grown, span)) = node.misses.of(batch.at, misses) {
                batch.rate(Series::NumaMisses, &node.device, grown, span);
            }
        }
    }
}

/// The NUMA nodes of this machine.
fn nodes() -> Vec<Node> {
    let node = |number: u32| Node {
        file: ProcFile::open(format!("/sys/devices/system/node/node{number}/numastat")),
        device: format!("node{number}").into(),
        misses: Growth::default(),
    };
    let all = (0..).map(node);
    all.take_while(|node| node.file.is_open()).collect()
}

/// `total` of the `some` and `full` lines of a pressure file, microseconds.
pub(super) fn pressure_totals(text: &str) -> [Option<f64>; 2] {
    ["some", "full"].map(|kind| {
        let line = text.lines().find(|line| line.starts_with(kind))?;
        let total = line.split_whitespace().last()?.strip_prefix("total=")?;
        total.parse().ok()
    })
}

/// Memory of `/proc/meminfo`, whose unit is 1024 bytes.
fn memory(meminfo: &str, device: &Arc<str>, batch: &mut Batch) {
    let bytes = |name| Some(number_after(meminfo, name)? * 1024.0);
    let shared = bytes("Shmem:");
    for (series, bytes) in [
        // Memory that processes share (/dev/shm) is counted as cached, and caches no file.
        (
            Series::MemoryPageCache,
            bytes("Cached:").map(|all| all - shared.unwrap_or(0.0)),
        ),
        (Series::MemoryShared, shared),
        (Series::MemoryDirty, bytes("Dirty:")),
        (Series::MemoryWriteback, bytes("Writeback:")),
        (Series::MemoryAvailable, bytes("MemAvailable:")),
    ] {
        if let Some(bytes) = bytes {
            batch.level(series, device, bytes);
        }
    }
}

impl Sampler for CpuSampler {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        let mut text = std::mem::take(&mut self.text);
        if let Some(stat) = self.stat.read(&mut text) {
            self.cores(stat, batch);
        }
        if let Some(meminfo) = self.meminfo.read(&mut text) {
            memory(meminfo, &self.machine, batch);
        }
        self.pressure(&mut text, batch);
        self.numa(&mut text, batch);
        self.text = text;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Source;

    #[test]
    fn shares_of_a_core_are_computed_between_two_readings() {
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
        let values: Vec<_> = batch
            .points()
            .iter()
            .map(|(key, point)| (&*key.device, key.series.name(), point.value))
            .collect();
        assert_eq!(values, [("all", "busy", 50.0), ("all", "io_wait", 10.0)]);
    }

    #[test]
    fn each_core_has_its_own_series() {
        let mut sampler = CpuSampler::new(Duration::from_secs(1));
        let mut batch = Batch::new(Duration::from_secs(1), false);
        sampler.cores("cpu0 0 0 0 10 0\ncpu1 0 0 0 10 0\n", &mut batch);
        sampler.cores("cpu0 75 0 0 35 0\ncpu1 25 0 0 85 0\n", &mut batch);
        let points = batch.points().iter();
        let values: Vec<_> = points
            .map(|(key, point)| (&*key.device, point.value))
            .collect();
        assert_eq!(values, [("cpu0", 75.0), ("cpu1", 25.0)]);
    }

    #[test]
    fn misses_of_nodes_and_pressures_are_rates() {
        let folder = tempfile::tempdir().unwrap();
        let (numastat, psi) = (folder.path().join("numastat"), folder.path().join("io"));
        let write = |misses: u32, some_us: u32, full_us: u32| {
            std::fs::write(&numastat, format!("numa_hit 9\nnuma_miss {misses}\n")).unwrap();
            let text =
                format!("some avg10=0.00 total={some_us}\nfull avg10=0.00 total={full_us}\n");
            std::fs::write(&psi, text).unwrap();
        };
        write(100, 0, 0);
        let mut sampler = CpuSampler::new(Duration::from_secs(1));
        sampler.nodes = vec![Node {
            file: ProcFile::open(&numastat),
            device: "node1".into(),
            misses: Growth::default(),
        }];
        sampler.pressures = [
            &psi,
            &folder.path().join("none"),
            &folder.path().join("none"),
        ]
        .map(|path| Pressure {
            file: ProcFile::open(path),
            device: "io".into(),
            growth: <[Growth; 2]>::default(),
        });
        sampler
            .sample(&mut Batch::new(Duration::from_secs(1), false))
            .unwrap();
        write(160, 500_000, 20_000);
        let mut batch = Batch::new(Duration::from_secs(3), false);
        sampler.sample(&mut batch).unwrap();
        let points = batch.points().iter();
        let values: Vec<_> = points
            .filter(|(key, _)| matches!(key.series.source(), Source::Numa | Source::Pressure))
            .map(|(key, point)| (&*key.device, key.series.name(), point.value))
            .collect();
        let expected = [
            ("io", "some", 25.0),
            ("io", "full", 1.0),
            ("node1", "misses", 30.0),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn pressure_has_both_kinds() {
        let text = "some avg10=0.32 avg60=0.42 avg300=0.52 total=8740249\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=2694214\n";
        assert_eq!(
            pressure_totals(text),
            [Some(8_740_249.0), Some(2_694_214.0)]
        );
        assert_eq!(pressure_totals("some nonsense"), [None, None]);
    }

    #[test]
    fn memory_is_in_bytes() {
        let mut batch = Batch::new(Duration::from_secs(1), false);
        let text = "MemTotal: 9 kB\nMemAvailable:  4 kB\nCached: 3 kB\nSwapCached: 7 kB\n\
                    Shmem: 1 kB\n";
        memory(text, &"".into(), &mut batch);
        let points = batch.points().iter();
        let values: Vec<_> = points
            .map(|(key, point)| (key.series.name(), point.value))
            .collect();
        assert_eq!(
            values,
            [
                ("page_cache", 2048.0),
                ("shared", 1024.0),
                ("available", 4096.0)
            ]
        );
    }
}
