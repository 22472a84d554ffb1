//! Gauges of a GPU besides PCIe bytes: load, memory, power, clocks, and why clocks are reduced.

use std::sync::Arc;
use std::time::Duration;

use super::{Call, NvmlSource, Reading, Why};
use crate::series::Series;
use crate::telemetry::sample::{Batch, Growth};
use crate::telemetry::thread::{Ended, Sampler};

/// Which of them a sampler reads. Each kind has a sampler of its own: the costly one can be read less
/// often alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What changes from moment to moment.
    Load,
    /// What changes slowly, or costs milliseconds a call; energy and NVLink bytes are sums that lose
    /// nothing by being read rarely.
    State,
}

impl Kind {
    fn calls(self) -> &'static [Call] {
        match self {
            Self::Load => &[Call::Utilization, Call::Power],
            Self::State => &[
                Call::Energy,
                Call::Memory,
                Call::Temperature,
                Call::Clocks,
                Call::Throttle,
                Call::Link,
                Call::NvLinkBytes,
                Call::Processes,
                Call::NvLinks,
            ],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Load => "load and power",
            Self::State => "energy, memory and clocks",
        }
    }
}

/// Calls whose answers hardly ever change. They are read at the edges of phases, and once in
/// [`SELDOM_EVERY`] readings: a minute, at the default rates.
const SELDOM: [Call; 2] = [Call::Processes, Call::NvLinks];
const SELDOM_EVERY: u64 = 60;
/// Longest time between two readings where the samplers are slowed: gauges can wait.
const LONGEST: Duration = Duration::from_secs(30);
/// Failures in a row after which a call is not made any more.
const PATIENCE: u32 = 20;

/// Bits `nvmlClocksThrottleReasonSwPowerCap | HwPowerBrakeSlowdown`.
const THROTTLED_BY_POWER: u64 = 0x04 | 0x80;
/// Bits `nvmlClocksThrottleReasonSwThermalSlowdown | HwThermalSlowdown`.
const THROTTLED_BY_HEAT: u64 = 0x20 | 0x40;

/// Reads the gauges of one GPU.
pub(crate) struct GaugeSampler {
    source: Box<dyn NvmlSource>,
    device: Arc<str>,
    kind: Kind,
    interval: Duration,
    /// Calls still made, with their failures in a row.
    calls: Vec<(Call, u32)>,
    energy: Growth,
    nvlink: [Growth; 2],
    ticks: u64,
    unavailable: Vec<&'static str>,
}

impl GaugeSampler {
    /// Reads gauges of `kind` from the GPU behind `source`.
    pub(crate) fn new(
        source: Box<dyn NvmlSource>,
        gpu: u32,
        kind: Kind,
        interval: Duration,
    ) -> Self {
        Self {
            source,
            device: gpu.to_string().into(),
            kind,
            interval,
            calls: kind.calls().iter().map(|call| (*call, 0)).collect(),
            energy: Growth::default(),
            nvlink: <[Growth; 2]>::default(),
            ticks: 0,
            unavailable: Vec::new(),
        }
    }

    fn keep(&mut self, at_s: f64, reading: &Reading, batch: &mut Batch) {
        let at = Duration::from_secs_f64(at_s.max(0.0));
        let device = &self.device;
        let mut put = |series, value| batch.push(series, device, (at, Duration::ZERO), value);
        match *reading {
            Reading::Utilization {
                gpu_percent,
                memory_percent,
            } => {
                put(Series::GpuUtilization, f64::from(gpu_percent));
                put(Series::GpuMemoryUtilization, f64::from(memory_percent));
            }
            Reading::Memory { used, total } => {
                put(Series::GpuMemoryUsed, used as f64);
                put(Series::GpuMemoryTotal, total as f64);
            }
            Reading::Power { milliwatts } => {
                put(Series::GpuPower, f64::from(milliwatts) / 1e3);
            }
            Reading::Energy { millijoules } => {
                if let Some((grown, span)) = self.energy.of(at, millijoules as f64) {
                    let mean = grown / 1e3 / span.as_secs_f64();
                    batch.push(Series::GpuEnergy, device, (at, span), mean);
                }
            }
            Reading::Temperature { celsius } => {
                put(Series::GpuTemperature, f64::from(celsius));
            }
            Reading::Clocks { sm_mhz, memory_mhz } => {
                put(Series::GpuSmClock, f64::from(sm_mhz));
                put(Series::GpuMemoryClock, f64::from(memory_mhz));
            }
            Reading::Throttle { bits } => {
                let share = |mask| if bits & mask == 0 { 0.0 } else { 100.0 };
                put(Series::GpuThrottleReasons, bits as f64);
                put(Series::GpuThrottledByPower, share(THROTTLED_BY_POWER));
                put(Series::GpuThrottledByHeat, share(THROTTLED_BY_HEAT));
            }
            Reading::Link { generation, width } => {
                put(Series::GpuPcieGeneration, f64::from(generation));
                put(Series::GpuPcieWidth, f64::from(width));
            }
            Reading::Processes { ref pids } => put(Series::GpuProcesses, pids.len() as f64),
            Reading::NvLinks { active } => put(Series::GpuNvlinks, f64::from(active)),
            Reading::NvLinkBytes { tx_kib, rx_kib } => {
                keep_nvlink(&mut self.nvlink, [tx_kib, rx_kib], (device, at), batch);
            }
            Reading::Identity { .. }
            | Reading::GpmStarted
            | Reading::Gpm { .. }
            | Reading::Counters { .. }
            | Reading::Throughput { .. } => {}
        }
    }
}

/// What the NVLinks' counters grew by.
fn keep_nvlink(
    counters: &mut [Growth; 2],
    kib: [u64; 2],
    (device, at): (&Arc<str>, Duration),
    batch: &mut Batch,
) {
    let ways = [Series::GpuNvlinkTxCounters, Series::GpuNvlinkRxCounters];
    for ((series, kib), counter) in ways.into_iter().zip(kib).zip(counters) {
        if let Some((grown, span)) = counter.of(at, kib as f64 * 1024.0) {
            let rate = grown / span.as_secs_f64();
            batch.push(series, device, (at, span), rate);
        }
    }
}

impl Sampler for GaugeSampler {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn longest(&self) -> Duration {
        self.interval.max(LONGEST)
    }

    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        let seldom = batch.at_edge || self.ticks.is_multiple_of(SELDOM_EVERY);
        let mut calls = std::mem::take(&mut self.calls);
        for (call, failures) in &mut calls {
            let call = *call;
            if !seldom && SELDOM.contains(&call) {
                continue;
            }
            let record = self.source.read(call);
            let at_s = record.at_s;
            match record.result() {
                Ok(reading) => {
                    *failures = 0;
                    self.keep(at_s, &reading, batch);
                }
                Err(error) => match error.why {
                    Why::GpuLost => {
                        return Err(Ended(format!(
                            "GPU {} was lost at {:.1} s ({}); its {} end there",
                            self.device,
                            batch.at.as_secs_f64(),
                            error.message,
                            self.kind.name()
                        )));
                    }
                    Why::Unsupported => *failures = PATIENCE,
                    Why::Failed => *failures += 1,
                    Why::Ended => *failures = u32::MAX,
                },
            }
            // Most GPUs have no NVLink: that is not worth a warning.
            let is_news = !matches!(call, Call::NvLinks | Call::NvLinkBytes);
            if (PATIENCE..u32::MAX).contains(failures) && is_news {
                self.unavailable.push(call.name());
            }
        }
        calls.retain(|(_, failures)| *failures < PATIENCE);
        self.calls = calls;
        self.ticks += 1;
        if !self.unavailable.is_empty() {
            let missing = std::mem::take(&mut self.unavailable).join(", ");
            let warning = format!("GPU {} does not report: {missing}", self.device);
            batch.warnings.push(warning);
        }
        if self.calls.is_empty() {
            let (gpu, kind) = (&self.device, self.kind.name());
            return Err(Ended(format!("GPU {gpu} no longer reports its {kind}")));
        }
        Ok(())
    }
}
