//! Bytes over a GPU's PCIe link, by the best method that answers.

use std::sync::Arc;
use std::time::Duration;

use super::{Call, NvmlSource, ReadError, Reading, Why};
use crate::config::PcieMethod;
use crate::series::{Pcie, Series};
use crate::telemetry::sample::Batch;
use crate::telemetry::thread::{Ended, Sampler};

const MIB: f64 = 1_048_576.0;
/// Failures in a row after which a method is given up.
const PATIENCE: u32 = 20;
/// Longest time between two readings where the samplers are slowed and nothing wraps.
const LONGEST: Duration = Duration::from_secs(5);
/// Share of the time in which a full link wraps a 32-bit counter that may pass between two readings.
const SAFE_SHARE: f64 = 0.6;
/// `nvmlDeviceGetPcieThroughput` blocks for two windows of 20 ms.
const THROUGHPUT_INTERVAL: Duration = Duration::from_secs(1);

/// How far GPM's answers trail the call: the driver's own samples are that much older. Measured on an
/// H100 (driver 580) by GPM beside the counters, at the edges of known copies.
pub(crate) const GPM_LAG: Duration = Duration::from_millis(125);

/// What a link carries besides payload. PCI Express moves at most 256 bytes a packet on these
/// links, with about 20 bytes around a completion (reads into the GPU) and 24 around a write (out of
/// it), and a read request out of the GPU for what comes in. Counters of an H100 agree with that
/// within 0.6 %, over known copies; GPM reports 1.5 % less than the counters.
#[derive(Clone, Copy, Debug)]
struct Overhead {
    /// Bytes on the wire for a byte of payload into the GPU.
    rx: f64,
    /// Bytes on the wire for a byte of payload out of the GPU.
    tx: f64,
    /// Bytes out of the GPU that ask for a byte into it.
    requests: f64,
}

impl Overhead {
    const COUNTERS: Self = Self {
        rx: 1.078,
        tx: 1.094,
        requests: 0.094,
    };
    const GPM: Self = Self {
        rx: 1.062,
        tx: 1.078,
        requests: 0.062,
    };

    /// Payload into and out of the GPU for what was seen on the wire.
    fn payload(self, [rx, tx]: [f64; 2]) -> [f64; 2] {
        let into = rx / self.rx;
        [into, (tx - self.requests * into).max(0.0) / self.tx]
    }
}

/// One way to measure PCIe bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// GPM between two samples.
    Gpm,
    /// The 32-bit byte counters.
    Counters,
    /// The windows of `nvmlDeviceGetPcieThroughput`.
    Throughput,
}

impl Method {
    /// The methods that a setting stands for on a machine with `gpus` GPUs, each list for a sampler of
    /// its own that goes on to the next where one is not answered. With several GPUs, GPM is read only
    /// on request: on a host of two H200 (driver 580.159) it gave 80 % of the bytes of a pass.
    pub(crate) fn chains(setting: PcieMethod, gpus: u32) -> Vec<Vec<Self>> {
        match setting {
            PcieMethod::Auto if gpus > 1 => vec![vec![Self::Counters, Self::Throughput]],
            PcieMethod::Auto => vec![vec![Self::Gpm, Self::Counters, Self::Throughput]],
            PcieMethod::Gpm => vec![vec![Self::Gpm]],
            PcieMethod::Counters => vec![vec![Self::Counters]],
            PcieMethod::All => vec![
                vec![Self::Gpm],
                vec![Self::Counters],
                vec![Self::Throughput],
            ],
            PcieMethod::Off => Vec::new(),
        }
    }

    fn call(self) -> Call {
        match self {
            Self::Gpm => Call::Gpm,
            Self::Counters => Call::Counters,
            Self::Throughput => Call::Throughput,
        }
    }
}

/// Where 32-bit counters wrap.
const WRAP: u64 = 1 << 32;

/// A 32-bit (or wider) byte counter pair, and what it grew by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unwrap {
    last: Option<(f64, [u64; 2])>,
}

impl Unwrap {
    /// Growth of both counters since the last reading, with the time that passed. `None` the first
    /// time, where so much time passed that a link of `link_bytes_per_s` may have wrapped them
    /// twice, and where they grew by more than it carries: then the growth is unknown.
    pub(crate) fn growth(
        &mut self,
        at_s: f64,
        now: [u64; 2],
        link_bytes_per_s: f64,
    ) -> Option<(f64, [u64; 2])> {
        let (then_s, before) = self.last.replace((at_s, now))?;
        let span_s = at_s - then_s;
        let narrow = now.iter().chain(&before).all(|value| *value < WRAP);
        if span_s <= 0.0 || (narrow && span_s * link_bytes_per_s >= WRAP as f64) {
            return None;
        }
        let grown = |now: u64, before: u64| {
            let difference = now.wrapping_sub(before);
            if narrow {
                difference % WRAP
            } else {
                difference
            }
        };
        let grown = [grown(now[0], before[0]), grown(now[1], before[1])];
        // The time of a reading may be off by a little.
        let most = (span_s + 0.010) * link_bytes_per_s * 1.1;
        let possible = grown.iter().all(|bytes| *bytes as f64 <= most);
        possible.then_some((span_s, grown))
    }
}

/// Bytes a second that a PCIe link of `width` lanes carries one way at most, by its generation
/// (PCI-SIG: GT/s a lane, less line code); the widest known where the GPU does not report it.
pub(crate) fn link_bytes_per_s(generation: u32, width: u32) -> f64 {
    let lane = match generation {
        1 => 0.25e9,
        2 => 0.5e9,
        3 => 0.985e9,
        4 => 1.969e9,
        6 => 7.563e9,
        _ => 3.938e9,
    };
    lane * f64::from(if width == 0 { 16 } else { width })
}

/// Reads one GPU's PCIe bytes.
pub(crate) struct PcieSampler {
    source: Box<dyn NvmlSource>,
    device: Arc<str>,
    methods: Vec<Method>,
    interval: Duration,
    counter_interval: Duration,
    link_bytes_per_s: f64,
    unwrap: Unwrap,
    /// Whether a counter was seen beyond 32 bits: then it does not wrap.
    is_wide: bool,
    failures: u32,
    lost: u32,
}

impl PcieSampler {
    /// Reads the GPU behind `source` by the first of `methods` that answers.
    pub(crate) fn new(
        mut source: Box<dyn NvmlSource>,
        gpu: u32,
        methods: Vec<Method>,
        (interval, counter_interval): (Duration, Duration),
    ) -> Self {
        let link = match source.read(Call::Identity).result() {
            Ok(Reading::Identity {
                max_link_generation,
                max_link_width,
                ..
            }) => link_bytes_per_s(max_link_generation, max_link_width),
            _ => link_bytes_per_s(0, 0),
        };
        Self {
            source,
            device: gpu.to_string().into(),
            methods,
            interval,
            counter_interval,
            link_bytes_per_s: link,
            unwrap: Unwrap::default(),
            is_wide: false,
            failures: 0,
            lost: 0,
        }
    }

    fn keep(&mut self, at_s: f64, reading: &Reading, batch: &mut Batch) {
        let device = &Arc::clone(&self.device);
        let mut at = Duration::from_secs_f64(at_s.max(0.0));
        if matches!(reading, Reading::Gpm { .. }) {
            at = at.saturating_sub(GPM_LAG);
        }
        let mut put = |series, span_s: f64, value| {
            let span = Duration::from_secs_f64(span_s.max(0.0));
            batch.push(series, device, (at, span), value);
        };
        match *reading {
            Reading::Gpm {
                from_s,
                pcie_rx_mib_per_s,
                pcie_tx_mib_per_s,
                sm_percent,
                tensor_percent,
                dram_percent,
                nvlink_rx_mib_per_s,
                nvlink_tx_mib_per_s,
            } => {
                let span_s = at_s - from_s;
                let [rx, tx] = Overhead::GPM.payload([pcie_rx_mib_per_s, pcie_tx_mib_per_s]);
                for (series, rate) in [
                    (Pcie::GPM.rx, Some(pcie_rx_mib_per_s)),
                    (Pcie::GPM.tx, Some(pcie_tx_mib_per_s)),
                    (Pcie::GPM_PAYLOAD.rx, Some(rx)),
                    (Pcie::GPM_PAYLOAD.tx, Some(tx)),
                    (Series::GpuNvlinkRxGpm, nvlink_rx_mib_per_s),
                    (Series::GpuNvlinkTxGpm, nvlink_tx_mib_per_s),
                ] {
                    if let Some(rate) = rate {
                        put(series, span_s, rate * MIB);
                    }
                }
                for (series, share) in [
                    (Series::GpuSmActive, sm_percent),
                    (Series::GpuTensorActive, tensor_percent),
                    (Series::GpuDramActive, dram_percent),
                ] {
                    if let Some(share) = share {
                        put(series, span_s, share);
                    }
                }
            }
            Reading::Counters { tx, rx } => self.keep_counters((at_s, at), [tx, rx], batch),
            Reading::Throughput {
                tx_kb_per_s,
                rx_kb_per_s,
            } => {
                put(Pcie::THROUGHPUT.rx, 0.0, f64::from(rx_kb_per_s) * 1000.0);
                put(Pcie::THROUGHPUT.tx, 0.0, f64::from(tx_kb_per_s) * 1000.0);
            }
            _ => {}
        }
    }

    fn keep_counters(&mut self, (at_s, at): (f64, Duration), now: [u64; 2], batch: &mut Batch) {
        let first = self.unwrap.last.is_none();
        self.is_wide |= now.iter().any(|value| *value >= WRAP);
        let grown = self.unwrap.growth(at_s, now, self.link_bytes_per_s);
        let Some((span_s, [tx, rx])) = grown else {
            self.lost += u32::from(!first);
            return;
        };
        let rate = |bytes: u64| bytes as f64 / span_s;
        let [payload_rx, payload_tx] = Overhead::COUNTERS.payload([rate(rx), rate(tx)]);
        let span = Duration::from_secs_f64(span_s);
        for (series, value) in [
            (Pcie::COUNTERS.rx, rate(rx)),
            (Pcie::COUNTERS.tx, rate(tx)),
            (Pcie::COUNTERS_PAYLOAD.rx, payload_rx),
            (Pcie::COUNTERS_PAYLOAD.tx, payload_tx),
        ] {
            batch.push(series, &self.device, (at, span), value);
        }
    }

    /// Goes on to the next method.
    fn give_up(&mut self, error: &ReadError, batch: &mut Batch) -> Result<(), Ended> {
        let gpu = &self.device;
        let given_up = self.methods.remove(0).call().name();
        let why = &error.message;
        self.failures = 0;
        match self.methods.first() {
            None => Err(Ended(format!(
                "GPU {gpu} does not report bytes over PCIe by {given_up}: {why}"
            ))),
            Some(Method::Throughput) => {
                batch.warnings.push(format!(
                    "GPU {gpu} reports PCIe traffic only in occasional windows of 20 ms \
                     ({given_up}: {why}); bytes over PCIe are not known"
                ));
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }
}

impl Sampler for PcieSampler {
    fn interval(&self) -> Duration {
        match self.methods.first() {
            Some(Method::Counters) => self.counter_interval,
            Some(Method::Throughput) => self.interval.max(THROUGHPUT_INTERVAL),
            Some(Method::Gpm) | None => self.interval,
        }
    }

    /// Counters must be read again before they can have wrapped twice, with room for a late reading.
    fn longest(&self) -> Duration {
        let usual = self.interval().max(LONGEST);
        match self.methods.first() {
            Some(Method::Counters) if !self.is_wide => {
                let wrap_s = WRAP as f64 / self.link_bytes_per_s;
                Duration::from_secs_f64(wrap_s * SAFE_SHARE).max(self.interval())
            }
            _ => usual,
        }
    }

    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
        let Some(method) = self.methods.first().copied() else {
            return Err(Ended("no method is left".to_owned()));
        };
        let record = self.source.read(method.call());
        let at_s = record.at_s;
        match record.result() {
            Ok(reading) => {
                self.failures = 0;
                self.keep(at_s, &reading, batch);
                if self.lost == PATIENCE {
                    self.lost += 1;
                    batch.warnings.push(format!(
                        "GPU {}: its PCIe counters were read too late again and again; the bytes \
                         of those moments are not known",
                        self.device
                    ));
                }
                Ok(())
            }
            Err(error) => match error.why {
                Why::GpuLost | Why::Ended => Err(Ended(format!(
                    "GPU {} was lost at {:.1} s ({}); its PCIe telemetry ends there",
                    self.device,
                    batch.at.as_secs_f64(),
                    error.message
                ))),
                Why::Unsupported => self.give_up(&error, batch),
                Why::Failed => {
                    self.failures += 1;
                    if self.failures < PATIENCE {
                        return Ok(());
                    }
                    self.give_up(&error, batch)
                }
            },
        }
    }
}
