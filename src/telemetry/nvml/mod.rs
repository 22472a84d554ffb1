//! NVIDIA GPUs through NVML: raw readings from a live library or from a file of recorded ones.
//!
//! PCIe bytes can be measured in three ways, and every record names the one that was used:
//! - `gpm`: GPU Performance Monitoring between two samples (Hopper and later): no gaps.
//! - `counters`: the field values 197 (TX) and 198 (RX), which are 32-bit counters of bytes,
//!   protocol included. At full speed they wrap in under 100 ms, so they are read every 20 ms.
//! - `throughput`: `nvmlDeviceGetPcieThroughput`, a window of 20 ms now and then, which is far
//!   off for bursts. It is shown under its name and never integrated.

pub(crate) mod choice;
pub(crate) mod fields;
pub(crate) mod gauges;
pub(crate) mod live;
pub(crate) mod pcie;
pub(crate) mod replay;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// What NVML can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Call {
    /// Name, UUID and what its PCIe link can do.
    Identity,
    /// GPM metrics since the reading before.
    Gpm,
    /// PCIe byte counters (field values 197 and 198).
    Counters,
    /// `nvmlDeviceGetPcieThroughput`, both directions.
    Throughput,
    /// Share of time that kernels and memory were busy.
    Utilization,
    /// Memory in use and in all.
    Memory,
    /// Power draw now.
    Power,
    /// Energy since the driver was loaded.
    Energy,
    /// Temperature of the GPU.
    Temperature,
    /// SM and memory clocks.
    Clocks,
    /// Why clocks are reduced.
    Throttle,
    /// PCIe generation and width now.
    Link,
    /// Processes that compute on it.
    Processes,
    /// NVLinks that are up.
    NvLinks,
    /// Payload over all NVLinks.
    NvLinkBytes,
}

impl Call {
    /// The word in messages and recorded files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gpm => "gpm",
            Self::Counters => "counters",
            Self::Throughput => "throughput",
            Self::Utilization => "utilization",
            Self::Memory => "memory",
            Self::Power => "power",
            Self::Energy => "energy",
            Self::Temperature => "temperature",
            Self::Clocks => "clocks",
            Self::Throttle => "throttle reasons",
            Self::Link => "PCIe link",
            Self::Processes => "processes",
            Self::NvLinks => "NVLinks",
            Self::NvLinkBytes => "bytes over NVLink",
        }
    }
}

/// What it answered, as it answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Reading {
    /// What the GPU is.
    Identity {
        name: String,
        uuid: String,
        /// Highest generation of its PCIe link; 0 where unknown.
        max_link_generation: u32,
        /// Most lanes of its PCIe link; 0 where unknown.
        max_link_width: u32,
    },
    /// The first GPM sample: nothing to compare it with yet.
    GpmStarted,
    /// GPM metrics between two samples. MiB are 2^20 bytes.
    Gpm {
        /// When the earlier sample was taken, seconds on the reader's clock.
        from_s: f64,
        /// PCIe into the GPU.
        pcie_rx_mib_per_s: f64,
        /// PCIe out of the GPU.
        pcie_tx_mib_per_s: f64,
        /// Share of time that an SM had work, mean over SMs.
        sm_percent: Option<f64>,
        /// Share of time that tensor cores worked.
        tensor_percent: Option<f64>,
        /// Share of the memory's bandwidth.
        dram_percent: Option<f64>,
        /// NVLink into the GPU, all links.
        nvlink_rx_mib_per_s: Option<f64>,
        /// NVLink out of the GPU, all links.
        nvlink_tx_mib_per_s: Option<f64>,
    },
    /// Raw byte counters.
    Counters {
        /// Out of the GPU.
        tx: u64,
        /// Into the GPU.
        rx: u64,
    },
    /// Two windows of 20 ms, one after the other.
    Throughput {
        /// Out of the GPU, KB/s.
        tx_kb_per_s: u32,
        /// Into the GPU, KB/s.
        rx_kb_per_s: u32,
    },
    /// Shares of the time since the driver's last look.
    Utilization {
        /// A kernel ran.
        gpu_percent: u32,
        /// Memory was read or written.
        memory_percent: u32,
    },
    /// GPU memory, bytes.
    Memory { used: u64, total: u64 },
    /// Power now, in milliwatts.
    Power { milliwatts: u32 },
    /// Energy since the driver was loaded, in millijoules.
    Energy { millijoules: u64 },
    /// Temperature in degrees Celsius.
    Temperature { celsius: u32 },
    /// Clocks in MHz.
    Clocks { sm_mhz: u32, memory_mhz: u32 },
    /// `nvmlClocksThrottleReason*` bits.
    Throttle { bits: u64 },
    /// The PCIe link as it is now; it is slower while the GPU idles.
    Link {
        generation: u32,
        /// Number of lanes.
        width: u32,
    },
    /// Process ids that compute on it, as this machine's kernel names them.
    Processes { pids: Vec<u32> },
    /// NVLinks that are up.
    NvLinks { active: u32 },
    /// Payload over all NVLinks since the driver was loaded, in units of 1024 bytes.
    NvLinkBytes {
        /// Out of the GPU.
        tx_kib: u64,
        /// Into the GPU.
        rx_kib: u64,
    },
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Why {
    /// This GPU, driver or user cannot ask it: asking again is useless.
    Unsupported,
    /// The driver lost the GPU.
    #[serde(rename = "gone")]
    GpuLost,
    /// It failed this time.
    Failed,
    /// A recorded file holds no more.
    Ended,
}

/// A call that was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadError {
    /// What kind of failure.
    pub why: Why,
    /// The library's message.
    pub message: String,
}

/// One call and what came of it: a line of a recorded file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The middle of the call, seconds on the reader's clock.
    pub at_s: f64,
    /// How long the call took, seconds.
    pub took_s: f64,
    /// The GPU's index as NVML counts.
    pub gpu: u32,
    pub call: Call,
    /// The answer; absent where the call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
    /// Why the call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ReadError>,
}

impl Record {
    /// The answer, or why there is none.
    pub(crate) fn result(self) -> Result<Reading, ReadError> {
        match (self.reading, self.error) {
            (Some(reading), None) => Ok(reading),
            (_, Some(error)) => Err(error),
            (None, None) => Err(ReadError {
                why: Why::Failed,
                message: "the record holds neither an answer nor an error".to_owned(),
            }),
        }
    }
}

/// Where raw readings of one GPU come from.
pub(crate) trait NvmlSource: Send {
    /// Makes the call. The record always has its time and duration.
    fn read(&mut self, call: Call) -> Record;
}
