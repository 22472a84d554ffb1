//! What a GPU tells of itself besides PCIe bytes: load, memory, power, clocks, and why they are
//! held down.

use std::sync::Arc;
use std::time::Duration;

use super::{Call, NvmlSource, Reading, Why};
use crate::telemetry::sample::{Batch, Growth, Unit};
use crate::telemetry::thread::{Ended, Sampler};

/// Read every time.
const OFTEN: [Call; 3] = [Call::Utilization, Call::Memory, Call::Power];
/// Read once in [`RARE_EVERY`] times. Energy is a sum that loses nothing by that, and one call of it
/// takes 3 ms.
const RARELY: [Call; 7] = [
    Call::Energy,
    Call::Temperature,
    Call::Clocks,
    Call::Throttle,
    Call::Link,
    Call::Processes,
    Call::NvLinks,
];
const RARE_EVERY: u64 = 5;
/// Failures in a row after which a call is not made any more.
const PATIENCE: u32 = 20;

/// `nvmlClocksThrottleReasonSwPowerCap | HwPowerBrakeSlowdown`.
const THROTTLED_BY_POWER: u64 = 0x04 | 0x80;
/// `nvmlClocksThrottleReasonSwThermalSlowdown | HwThermalSlowdown`.
const THROTTLED_BY_HEAT: u64 = 0x20 | 0x40;

/// Reads one GPU.
pub struct GaugeSampler {
    source: Box<dyn NvmlSource>,
    device: Arc<str>,
    interval: Duration,
    /// Calls still made, with their failures in a row.
    calls: Vec<(Call, u32)>,
    energy: Growth,
    ticks: u64,
    untold: Vec<&'static str>,
}

impl GaugeSampler {
    /// Reads the GPU behind `source`.
    pub fn new(source: Box<dyn NvmlSource>, gpu: u32, interval: Duration) -> Self {
        let calls = OFTEN.into_iter().chain(RARELY);
        Self {
            source,
            device: gpu.to_string().into(),
            interval,
            calls: calls.map(|call| (call, 0)).collect(),
            energy: Growth::default(),
            ticks: 0,
            untold: Vec::new(),
        }
    }

    fn keep(&mut self, at_s: f64, reading: &Reading, batch: &mut Batch) {
        let at = Duration::from_secs_f64(at_s.max(0.0));
        let device = &self.device;
        let mut put = |metric, unit, value| {
            batch.push(("gpu", device, metric), unit, (at, Duration::ZERO), value);
        };
        match *reading {
            Reading::Utilization {
                gpu_percent,
                memory_percent,
            } => {
                put("utilization", Unit::Percent, f64::from(gpu_percent));
                put(
                    "memory_utilization",
                    Unit::Percent,
                    f64::from(memory_percent),
                );
            }
            Reading::Memory { used, total } => {
                put("memory_used", Unit::Bytes, used as f64);
                put("memory_total", Unit::Bytes, total as f64);
            }
            Reading::Power { milliwatts } => {
                put("power", Unit::Watts, f64::from(milliwatts) / 1e3);
            }
            Reading::Energy { millijoules } => {
                if let Some((grown, span)) = self.energy.of(at, millijoules as f64) {
                    let mean = grown / 1e3 / span.as_secs_f64();
                    let key = ("gpu", device, "energy");
                    batch.push(key, Unit::WattsMean, (at, span), mean);
                }
            }
            Reading::Temperature { celsius } => {
                put("temperature", Unit::Celsius, f64::from(celsius));
            }
            Reading::Clocks { sm_mhz, memory_mhz } => {
                put("sm_clock", Unit::Megahertz, f64::from(sm_mhz));
                put("memory_clock", Unit::Megahertz, f64::from(memory_mhz));
            }
            Reading::Throttle { bits } => {
                let share = |mask| if bits & mask == 0 { 0.0 } else { 100.0 };
                put("throttle_reasons", Unit::Count, bits as f64);
                put(
                    "throttled_by_power",
                    Unit::Percent,
                    share(THROTTLED_BY_POWER),
                );
                put("throttled_by_heat", Unit::Percent, share(THROTTLED_BY_HEAT));
            }
            Reading::Link { generation, width } => {
                put("pcie_generation", Unit::Count, f64::from(generation));
                put("pcie_width", Unit::Count, f64::from(width));
            }
            Reading::Processes { ref pids } => put("processes", Unit::Count, pids.len() as f64),
            Reading::NvLinks { active } => put("nvlinks", Unit::Count, f64::from(active)),
            Reading::Identity { .. }
            | Reading::GpmStarted
            | Reading::Gpm { .. }
            | Reading::Counters { .. }
            | Reading::Throughput { .. } => {}
        }
    }
}

impl Sampler for GaugeSampler {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        let rare = self.ticks.is_multiple_of(RARE_EVERY);
        for (call, mut failures) in std::mem::take(&mut self.calls) {
            if !rare && RARELY.contains(&call) {
                self.calls.push((call, failures));
                continue;
            }
            let record = self.source.read(call);
            let at_s = record.at_s;
            match record.result() {
                Ok(reading) => {
                    failures = 0;
                    self.keep(at_s, &reading, batch);
                }
                Err(error) => match error.why {
                    Why::Gone => {
                        return Err(Ended(format!(
                            "GPU {} was lost at {:.1} s ({}); its telemetry ends there",
                            self.device,
                            batch.at.as_secs_f64(),
                            error.message
                        )));
                    }
                    Why::Unsupported => failures = PATIENCE,
                    Why::Failed => failures += 1,
                    Why::Ended => failures = u32::MAX,
                },
            }
            if failures < PATIENCE {
                self.calls.push((call, failures));
            } else if failures < u32::MAX && call != Call::NvLinks {
                // Most GPUs have no NVLink: no news.
                self.untold.push(call.name());
            }
        }
        self.ticks += 1;
        if !self.untold.is_empty() {
            let untold = std::mem::take(&mut self.untold).join(", ");
            let warning = format!("GPU {} does not tell: {untold}", self.device);
            batch.warnings.push(warning);
        }
        if self.calls.is_empty() {
            return Err(Ended(format!("GPU {} tells nothing more", self.device)));
        }
        Ok(())
    }
}
