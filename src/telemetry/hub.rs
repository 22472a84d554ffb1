//! Starts the samplers that a server under test needs, and sums up what they read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::host::cpu::CpuSampler;
use super::host::io::{self, IoSampler};
use super::nvml::gauges::GaugeSampler;
use super::nvml::live::{self, Live};
use super::nvml::pcie::{Method, PcieSampler};
use super::nvml::replay::Recorder;
use super::nvml::{NvmlSource, ReadError};
use super::sample::{Recording, Series, SeriesKey};
use super::summary::{Summary, Window, summarize};
use super::thread::{Ended, Make, Sampler, SamplerThread};
use crate::config;

/// Longest wait for readings at the edge of a phase.
const EDGE_LIMIT: Duration = Duration::from_millis(500);
/// Longest wait for samplers to end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Which GPUs are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// None: the server under test has none.
    None,
    /// Every one that the library lists.
    All,
    /// These, by index.
    These(Vec<u32>),
}

/// What is watched.
#[derive(Clone, Debug)]
pub struct Target {
    /// The GPUs.
    pub gpus: Gpus,
    /// The folder of the disk tier: its disk is marked.
    pub disk_tier: Option<PathBuf>,
    /// Keeps NVML's raw answers.
    pub recorder: Option<Recorder>,
}

/// Running samplers.
#[derive(Debug)]
pub struct Telemetry {
    recording: Arc<Recording>,
    threads: Vec<SamplerThread>,
    tier_disk: Option<String>,
    began: Duration,
}

/// What samplers leave behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// Every series.
    pub series: BTreeMap<SeriesKey, Series>,
    /// The disk of the disk tier, by its kernel name.
    pub tier_disk: Option<String>,
    /// What a reader should know.
    pub warnings: Vec<String>,
    /// CPU time of all sampler threads.
    pub cpu: Duration,
    /// How long they ran.
    pub elapsed: Duration,
}

impl Recorded {
    /// CPU time of the samplers, percent of one core.
    pub fn cpu_share_percent(&self) -> f64 {
        share_percent(self.cpu, self.elapsed)
    }
}

fn share_percent(cpu: Duration, elapsed: Duration) -> f64 {
    cpu.as_secs_f64() / elapsed.as_secs_f64().max(1e-9) * 100.0
}

impl Telemetry {
    /// Starts every sampler that `target` needs, on the clock that began at `epoch`.
    pub fn start(settings: &config::Telemetry, epoch: Instant, target: &Target) -> Self {
        let recording = Arc::new(Recording::new(epoch));
        let mut telemetry = Self {
            began: recording.now(),
            tier_disk: target.disk_tier.as_deref().and_then(io::disk_of),
            recording,
            threads: Vec::new(),
        };
        let interval = settings.interval();
        telemetry.add("io", move || Ok(Box::new(IoSampler::new(interval))));
        let slow = settings.slow_interval();
        telemetry.add("cpu", move || Ok(Box::new(CpuSampler::new(slow))));
        match &target.gpus {
            Gpus::None => {}
            Gpus::All => match live::gpus() {
                Ok(found) => {
                    for (gpu, _) in found {
                        telemetry.add_gpu(settings, epoch, gpu, target);
                    }
                }
                Err(why) => telemetry
                    .recording
                    .warn(format!("no telemetry of GPUs: {why}")),
            },
            Gpus::These(these) => {
                for gpu in these {
                    telemetry.add_gpu(settings, epoch, *gpu, target);
                }
            }
        }
        telemetry
    }

    fn add_gpu(&mut self, settings: &config::Telemetry, epoch: Instant, gpu: u32, target: &Target) {
        let open = {
            let recorder = target.recorder.clone();
            move || -> Result<Box<dyn NvmlSource>, Ended> {
                let live = Live::open(gpu, epoch, recorder);
                let live = live.map_err(|ReadError { message, .. }| {
                    Ended(format!("no telemetry of GPU {gpu}: {message}"))
                })?;
                Ok(Box::new(live))
            }
        };
        let intervals = (settings.interval(), settings.pcie_interval());
        for methods in Method::chains(settings.pcie) {
            let open = open.clone();
            self.add("pcie", move || {
                Ok(Box::new(PcieSampler::new(open()?, gpu, methods, intervals)))
            });
        }
        let interval = settings.interval();
        self.add("gpu", move || {
            Ok(Box::new(GaugeSampler::new(open()?, gpu, interval)))
        });
    }

    fn add(
        &mut self,
        name: &'static str,
        make: impl FnOnce() -> Result<Box<dyn Sampler>, Ended> + Send + 'static,
    ) {
        let make: Make = Box::new(make);
        let thread = SamplerThread::start(name, make, &self.recording);
        self.threads.push(thread);
    }

    /// Now on the samplers' clock, which all of them are asked to read at: the edge of a phase.
    pub fn edge(&self) -> Duration {
        let now = self.recording.now();
        for thread in &self.threads {
            thread.read_now();
        }
        now
    }

    /// Waits until every sampler has read since `edge`, for a moment at most: one that blocks
    /// holds nobody up.
    pub async fn settle(&self, edge: Duration) {
        let deadline = self.recording.now() + EDGE_LIMIT;
        while self.recording.now() < deadline
            && !self
                .threads
                .iter()
                .all(|thread| thread.has_read_since(edge))
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What the samplers say of `window` by now.
    pub fn summaries(&self, window: Window) -> Vec<Summary> {
        summarize(&self.recording.series(|_| true), window)
    }

    /// CPU time of all sampler threads by now.
    pub fn cpu(&self) -> Duration {
        self.recording.cpu()
    }

    /// Ends every sampler. Blocks for a moment at most; one that does not answer is left behind.
    pub fn stop(self) -> Recorded {
        for thread in &self.threads {
            thread.ask_to_stop();
        }
        let deadline = Instant::now() + STOP_LIMIT;
        for thread in self.threads {
            if let Some(said) = thread.join(deadline) {
                self.recording.warn(said);
            }
        }
        let elapsed = self.recording.now().saturating_sub(self.began);
        Recorded {
            series: self.recording.take(),
            tier_disk: self.tier_disk,
            warnings: self.recording.warnings(),
            cpu: self.recording.cpu(),
            elapsed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> config::Telemetry {
        config::Telemetry {
            enabled: true,
            interval_ms: 20,
            pcie_interval_ms: 20,
            slow_interval_ms: 50,
            pcie: config::PcieMethod::Auto,
        }
    }

    #[tokio::test]
    async fn a_machine_without_nvml_warns_once_and_tells_the_rest() {
        let target = Target {
            gpus: Gpus::All,
            disk_tier: Some(PathBuf::from(env!("CARGO_MANIFEST_DIR"))),
            recorder: None,
        };
        let telemetry = Telemetry::start(&settings(), Instant::now(), &target);
        let from = telemetry.edge();
        tokio::time::sleep(Duration::from_millis(150)).await;
        let to = telemetry.edge();
        telemetry.settle(to).await;
        let found = telemetry.summaries(Window { from, to });
        let recorded = telemetry.stop();
        let sources: Vec<&str> = found.iter().map(|summary| summary.key.source).collect();
        assert!(
            sources.contains(&"cpu") && sources.contains(&"network"),
            "{sources:?}"
        );
        assert!(recorded.cpu > Duration::ZERO && recorded.elapsed >= to.saturating_sub(from));
        if let Err(why) = live::gpus() {
            assert_eq!(recorded.warnings, [format!("no telemetry of GPUs: {why}")]);
        }
    }
}
