//! One GPU, read through the driver's library.

use std::time::Instant;

use nvml_wrapper::enum_wrappers::device::{Clock, PcieUtilCounter, TemperatureSensor};
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};
use nvml_wrapper::{Device, Nvml};

use super::choice::Listed;
use super::fields::{self, NvLinkBytes};
use super::replay::Recorder;
use super::{Call, NvmlSource, ReadError, Reading, Record, Why};
use crate::nvml;

/// Most NVLinks of one GPU.
const NVLINKS: u32 = 18;
/// Below this, two GPM samples are too close to be compared, seconds.
const GPM_SHORTEST_S: f64 = 0.010;

/// The GPUs that the library lists, in the order of their indices.
pub(crate) fn listed() -> Result<Vec<Listed>, String> {
    nvml::ask(|nvml| {
        let count = nvml.device_count().map_err(|error| error.to_string())?;
        let listed = |index| {
            let device = nvml.device_by_index(index).ok()?;
            let running = device.running_compute_processes().unwrap_or_default();
            Some(Listed {
                index,
                uuid: device.uuid().unwrap_or_default(),
                pids: running.iter().map(|process| process.pid).collect(),
            })
        };
        Ok((0..count).filter_map(listed).collect())
    })?
}

/// Reads one GPU through the driver's library.
pub(crate) struct Live {
    nvml: &'static Nvml,
    device: Device<'static>,
    gpu: u32,
    epoch: Instant,
    before: Option<(GpmSample<'static>, f64)>,
    nvlink_bytes: NvLinkBytes,
    recorder: Option<Recorder>,
}

impl Live {
    /// The GPU of index `gpu`, read on the clock that began at `epoch`.
    pub(crate) fn open(
        gpu: u32,
        epoch: Instant,
        recorder: Option<Recorder>,
    ) -> Result<Self, ReadError> {
        let found = nvml::ask(|nvml| (nvml, nvml.device_by_index(gpu)));
        let (nvml, device) = found.map_err(|message| ReadError {
            why: Why::Unsupported,
            message: message.to_owned(),
        })?;
        Ok(Self {
            nvml,
            device: device.map_err(read_error)?,
            gpu,
            epoch,
            before: None,
            nvlink_bytes: NvLinkBytes::default(),
            recorder,
        })
    }

    fn now_s(&self) -> f64 {
        self.epoch.elapsed().as_secs_f64()
    }

    fn ask(&mut self, call: Call) -> Result<Reading, NvmlError> {
        let device = &self.device;
        Ok(match call {
            Call::Identity => Reading::Identity {
                name: device.name()?,
                uuid: device.uuid()?,
                max_link_generation: device.max_pcie_link_gen().unwrap_or(0),
                max_link_width: device.max_pcie_link_width().unwrap_or(0),
            },
            Call::Gpm => return self.gpm(),
            Call::Counters => return self.counters(),
            Call::Throughput => Reading::Throughput {
                tx_kb_per_s: device.pcie_throughput(PcieUtilCounter::Send)?,
                rx_kb_per_s: device.pcie_throughput(PcieUtilCounter::Receive)?,
            },
            Call::Utilization => {
                let rates = device.utilization_rates()?;
                Reading::Utilization {
                    gpu_percent: rates.gpu,
                    memory_percent: rates.memory,
                }
            }
            Call::Memory => {
                let memory = device.memory_info()?;
                Reading::Memory {
                    used: memory.used,
                    total: memory.total,
                }
            }
            Call::Power => Reading::Power {
                milliwatts: device.power_usage()?,
            },
            Call::Energy => Reading::Energy {
                millijoules: device.total_energy_consumption()?,
            },
            Call::Temperature => Reading::Temperature {
                celsius: device.temperature(TemperatureSensor::Gpu)?,
            },
            Call::Clocks => Reading::Clocks {
                sm_mhz: device.clock_info(Clock::SM)?,
                memory_mhz: device.clock_info(Clock::Memory)?,
            },
            Call::Throttle => Reading::Throttle {
                bits: device.current_throttle_reasons()?.bits(),
            },
            Call::Link => Reading::Link {
                generation: device.current_pcie_link_gen()?,
                width: device.current_pcie_link_width()?,
            },
            Call::Processes => {
                let running = device.running_compute_processes()?;
                Reading::Processes {
                    pids: running.iter().map(|process| process.pid).collect(),
                }
            }
            Call::NvLinks => {
                // Asks the first link only: a GPU without NVLink fails once.
                device.link_wrapper_for(0).is_active()?;
                Reading::NvLinks {
                    active: u32::try_from(active_links(device).len()).unwrap_or(0),
                }
            }
            Call::NvLinkBytes => {
                let links = || active_links(device);
                let ask = |wanted: &[fields::Field]| fields::read(device, wanted);
                let [tx_kib, rx_kib] = self.nvlink_bytes.read(links, ask)?;
                Reading::NvLinkBytes { tx_kib, rx_kib }
            }
        })
    }

    fn counters(&self) -> Result<Reading, NvmlError> {
        let wanted = [(fields::PCIE_TX_BYTES, 0), (fields::PCIE_RX_BYTES, 0)];
        let mut values = fields::read(&self.device, &wanted)?.into_iter();
        let mut next = || values.next().unwrap_or(Err(NvmlError::NoData));
        let (tx, rx) = (next()?, next()?);
        Ok(Reading::Counters { tx, rx })
    }

    /// Compares a new GPM sample with the one before. One that cannot be compared is dropped, so
    /// that the next reading covers its time too.
    fn gpm(&mut self) -> Result<Reading, NvmlError> {
        if self.before.is_none() && !self.device.gpm_support()? {
            return Err(NvmlError::NotSupported);
        }
        if let Some((_, from_s)) = &self.before
            && self.now_s() - from_s < GPM_SHORTEST_S
        {
            return Err(NvmlError::NoData);
        }
        let asked_s = self.now_s();
        let sample = self.device.gpm_sample()?;
        let at_s = f64::midpoint(asked_s, self.now_s());
        let Some((before, from_s)) = &self.before else {
            self.before = Some((sample, at_s));
            return Ok(Reading::GpmStarted);
        };
        let ids = [
            GpmMetricId::PcieRxPerSec,
            GpmMetricId::PcieTxPerSec,
            GpmMetricId::SmUtil,
            GpmMetricId::AnyTensorUtil,
            GpmMetricId::DramBwUtil,
            GpmMetricId::NvlinkTotalRxPerSec,
            GpmMetricId::NvlinkTotalTxPerSec,
        ];
        let mut values = gpm_metrics_get(self.nvml, before, &sample, &ids)?.into_iter();
        let mut next =
            || -> Result<f64, NvmlError> { Ok(values.next().ok_or(NvmlError::NoData)??.value) };
        let reading = Reading::Gpm {
            from_s: *from_s,
            pcie_rx_mib_per_s: next()?,
            pcie_tx_mib_per_s: next()?,
            sm_percent: next().ok(),
            tensor_percent: next().ok(),
            dram_percent: next().ok(),
            nvlink_rx_mib_per_s: next().ok(),
            nvlink_tx_mib_per_s: next().ok(),
        };
        self.before = Some((sample, at_s));
        Ok(reading)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _alone = nvml::alone();
        self.before = None;
    }
}

impl NvmlSource for Live {
    fn read(&mut self, call: Call) -> Record {
        let alone = nvml::alone();
        let began_s = self.now_s();
        let answer = self.ask(call);
        let took_s = self.now_s() - began_s;
        drop(alone);
        let mut record = Record {
            at_s: began_s + took_s / 2.0,
            took_s,
            gpu: self.gpu,
            call,
            reading: None,
            error: None,
        };
        match answer {
            Ok(reading) => {
                // The metrics are up to the sample, not up to the end of their computation.
                if let (Reading::Gpm { .. } | Reading::GpmStarted, Some((_, at_s))) =
                    (&reading, &self.before)
                {
                    record.at_s = *at_s;
                }
                record.reading = Some(reading);
            }
            Err(error) => record.error = Some(read_error(error)),
        }
        if let Some(recorder) = &self.recorder {
            recorder.keep(&record);
        }
        record
    }
}

/// The NVLinks that are up.
fn active_links(device: &Device<'_>) -> Vec<u32> {
    let up = |link: &u32| matches!(device.link_wrapper_for(*link).is_active(), Ok(true));
    (0..NVLINKS).filter(up).collect()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used with map_err, which hands the error over"
)]
fn read_error(error: NvmlError) -> ReadError {
    let why = match error {
        NvmlError::GpuLost | NvmlError::ResetRequired => Why::GpuLost,
        NvmlError::NotSupported
        | NvmlError::NoPermission
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::FunctionNotFound
        | NvmlError::InvalidArg => Why::Unsupported,
        _ => Why::Failed,
    };
    ReadError {
        why,
        message: error.to_string(),
    }
}
