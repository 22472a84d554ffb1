//! The one table of telemetry: which series there are, who reads them, their units and what they
//! mean. Samplers, verdict, report and the glossary all read names from here.

#[cfg(test)]
use std::fmt::Write as _;

/// What the values of a series are. Decides what may be summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A rate over the point's span; its integral is bytes.
    BytesPerSecond,
    /// A rate over the point's span of something counted; its integral is a count.
    PerSecond,
    /// A mean power over the point's span; its integral is joules.
    WattsMean,
    /// An instantaneous power.
    Watts,
    /// A level, bytes.
    Bytes,
    /// A share of something, 0 to 100.
    Percent,
    /// A temperature.
    Celsius,
    /// A clock.
    Megahertz,
    /// A plain number: a count, a generation, bits.
    Count,
    /// What `nvmlDeviceGetPcieThroughput` reports, which must never be integrated.
    SampledBytesPerSecond,
}

impl Unit {
    /// The word in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::BytesPerSecond | Self::SampledBytesPerSecond => "bytes/s",
            Self::PerSecond => "1/s",
            Self::WattsMean | Self::Watts => "W",
            Self::Bytes => "bytes",
            Self::Percent => "%",
            Self::Celsius => "C",
            Self::Megahertz => "MHz",
            Self::Count => "",
        }
    }

    /// What the integral over time is, where it means something.
    pub fn integral(self) -> Option<&'static str> {
        match self {
            Self::BytesPerSecond => Some("bytes"),
            Self::PerSecond => Some("count"),
            Self::WattsMean => Some("J"),
            _ => None,
        }
    }
}

/// Which sampler reads a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The cgroups (v2) that hold the server's processes.
    Cgroup,
    /// The machine's processors.
    Cpu,
    /// The machine's disks.
    Disk,
    /// `/metrics` of the engine.
    Engine,
    /// The GPUs, through NVML.
    Gpu,
    /// `/metrics` of an LMCache server beside the engine.
    Lmcache,
    /// The machine's memory.
    Memory,
    /// The machine's network interfaces.
    Network,
    /// The machine's NUMA nodes.
    Numa,
    /// The machine's pressure (PSI).
    Pressure,
    /// The tier's Redis.
    Redis,
    /// The server's own processes.
    Server,
    /// What the simulator pretends to move.
    Simulated,
}

impl Source {
    /// The word in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Cpu => "cpu",
            Self::Disk => "disk",
            Self::Engine => "engine",
            Self::Gpu => "gpu",
            Self::Lmcache => "lmcache",
            Self::Memory => "memory",
            Self::Network => "network",
            Self::Numa => "numa",
            Self::Pressure => "pressure",
            Self::Redis => "redis",
            Self::Server => "server",
            Self::Simulated => "simulated",
        }
    }

    /// What the name of its device is.
    pub fn device(self) -> &'static str {
        match self {
            Self::Cgroup => "the parts of the server in it",
            Self::Cpu => "`all`, or a core",
            Self::Disk => "the kernel's name of the disk",
            Self::Engine | Self::Lmcache | Self::Memory => "-",
            Self::Gpu => "the index of the GPU",
            Self::Network => "the interface",
            Self::Numa => "the node",
            Self::Pressure => "`cpu`, `io` or `memory`",
            Self::Redis => "its address",
            Self::Server => "the part: the engine, LMCache or Redis",
            Self::Simulated => "`simulated`",
        }
    }
}

/// What is to be known about a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Which sampler reads it.
    pub source: Source,
    /// Its name in files: the column `metric`.
    pub name: &'static str,
    /// What its values are.
    pub unit: Unit,
    /// A few words for people: a line of a timeline.
    pub label: &'static str,
    /// What exactly is read.
    pub meaning: &'static str,
}

macro_rules! series {
    ($($variant:ident = $source:ident $name:literal $unit:ident $label:literal $meaning:literal;)+) => {
        /// A series of telemetry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Series {
            $(#[doc = $meaning] $variant,)+
        }

        impl Series {
            /// Every series, by source and name.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// What is to be known about it.
            pub fn spec(self) -> &'static Spec {
                match self {
                    $(Self::$variant => &Spec {
                        source: Source::$source,
                        name: $name,
                        unit: Unit::$unit,
                        label: $label,
                        meaning: $meaning,
                    },)+
                }
            }
        }
    };
}

series! {
    CgroupAnonymous = Cgroup "anonymous" Bytes "anonymous" "Memory of the cgroup that backs no file.";
    CgroupCpu = Cgroup "cpu" Percent "CPU" "CPU time of the cgroup, percent of one core.";
    CgroupCpuPressureFull = Cgroup "cpu_pressure_full" Percent "all wait for CPU" "Share of the time in which all tasks of the cgroup waited for a CPU.";
    CgroupCpuPressureSome = Cgroup "cpu_pressure_some" Percent "waits for CPU" "Share of the time in which a task of the cgroup waited for a CPU.";
    CgroupIoPressureFull = Cgroup "io_pressure_full" Percent "all wait for I/O" "Share of the time in which all tasks of the cgroup waited for I/O.";
    CgroupIoPressureSome = Cgroup "io_pressure_some" Percent "waits for I/O" "Share of the time in which a task of the cgroup waited for I/O.";
    CgroupMemory = Cgroup "memory" Bytes "memory" "All memory that is charged to the cgroup.";
    CgroupMemoryPressureFull = Cgroup "memory_pressure_full" Percent "all wait for memory" "Share of the time in which all tasks of the cgroup waited for memory.";
    CgroupMemoryPressureSome = Cgroup "memory_pressure_some" Percent "waits for memory" "Share of the time in which a task of the cgroup waited for memory.";
    CgroupPageCache = Cgroup "page_cache" Bytes "page cache" "Memory of the cgroup that caches files; shared memory is not in it.";
    CgroupRead = Cgroup "read" BytesPerSecond "read" "Bytes that the cgroup read from block devices.";
    CgroupShared = Cgroup "shared" Bytes "shared" "Memory of the cgroup that processes share (`/dev/shm`).";
    CgroupThrottled = Cgroup "throttled" Percent "throttled" "Time in which the cgroup's CPU quota throttled it.";
    CgroupWrite = Cgroup "write" BytesPerSecond "written" "Bytes that the cgroup wrote to block devices.";
    CpuBusy = Cpu "busy" Percent "busy" "Share of the time in which the core, or all cores together, did something.";
    CpuIoWait = Cpu "io_wait" Percent "waits for I/O" "Share of the time in which the cores idled while a task waited for I/O.";
    DiskBusy = Disk "busy" Percent "busy" "Share of the time with a request in flight.";
    DiskInFlight = Disk "in_flight" Count "in flight" "Requests in flight.";
    DiskLink = Disk "link" BytesPerSecond "link" "What the PCIe link of an NVMe disk carries each way at most.";
    DiskRead = Disk "read" BytesPerSecond "read" "Bytes that came from the device; what the page cache answers is not in it.";
    DiskReads = Disk "reads" PerSecond "reads" "Reads that the device completed.";
    DiskWrite = Disk "write" BytesPerSecond "written" "Bytes that went to the device.";
    DiskWrites = Disk "writes" PerSecond "writes" "Writes that the device completed.";
    EngineComputedTokens = Engine "computed_tokens" PerSecond "computed" "Prompt tokens that the engine computed.";
    EngineGpuHitTokens = Engine "gpu_hit_tokens" PerSecond "GPU hits" "Prompt tokens that came from the GPU prefix cache.";
    EngineKvCacheUsage = Engine "kv_cache_usage" Percent "KV cache in use" "Share of the engine's KV blocks in use.";
    EngineLmcacheDisk = Engine "lmcache_disk" Bytes "LMCache's disk" "Bytes that LMCache in the engine's process holds on disk.";
    EngineLmcacheHitTokens = Engine "lmcache_hit_tokens" PerSecond "all tiers" "Tokens that LMCache in the engine's process had, over all tiers.";
    EngineLmcacheRam = Engine "lmcache_ram" Bytes "LMCache's RAM" "Bytes that LMCache in the engine's process holds in RAM.";
    EngineLmcacheRemote = Engine "lmcache_remote" Bytes "LMCache's remote store" "Bytes that LMCache in the engine's process holds in a remote store.";
    EngineLmcacheRemotePuts = Engine "lmcache_remote_puts" Count "remote puts" "Puts to a remote store under way.";
    EngineLmcacheRemoteRead = Engine "lmcache_remote_read" BytesPerSecond "remote read" "Bytes that LMCache in the engine's process read from a remote store, all workers.";
    EngineLmcacheRemoteWrite = Engine "lmcache_remote_write" BytesPerSecond "remote written" "Bytes that LMCache in the engine's process wrote to a remote store, all workers.";
    EngineLmcacheStoredTokens = Engine "lmcache_stored_tokens" PerSecond "stored" "Tokens that LMCache in the engine's process stored.";
    EngineOffloadLoad = Engine "offload_load" BytesPerSecond "offload to the GPU" "Bytes that vLLM's own offloading loaded to the GPU, by its counters.";
    EngineOffloadStore = Engine "offload_store" BytesPerSecond "offload from the GPU" "Bytes that vLLM's own offloading took from the GPU, by its counters.";
    EngineOutputTokens = Engine "output_tokens" PerSecond "output" "Tokens that the engine generated.";
    EnginePreemptions = Engine "preemptions" PerSecond "preemptions" "Requests that the engine preempted.";
    EnginePromptTokens = Engine "prompt_tokens" PerSecond "prompt" "Prompt tokens that the engine took in.";
    EngineRunning = Engine "running" Count "running" "Requests that the engine runs.";
    EngineTierHitTokens = Engine "tier_hit_tokens" PerSecond "tier hits" "Prompt tokens that came through the connector.";
    EngineWaiting = Engine "waiting" Count "waiting" "Requests that wait in the engine.";
    GpuDramActive = Gpu "dram_active" Percent "memory busy" "Share of the bandwidth of the GPU's memory (GPM).";
    GpuEnergy = Gpu "energy" WattsMean "energy" "Mean power by the GPU's own energy counter.";
    GpuMemoryClock = Gpu "memory_clock" Megahertz "memory clock" "Clock of the GPU's memory.";
    GpuMemoryTotal = Gpu "memory_total" Bytes "memory" "The GPU's memory.";
    GpuMemoryUsed = Gpu "memory_used" Bytes "GPU, used" "The GPU's memory in use.";
    GpuMemoryUtilization = Gpu "memory_utilization" Percent "memory accessed" "Share of the time in which the GPU's memory was read or written.";
    GpuNvlinkRxCounters = Gpu "nvlink_rx_counters" BytesPerSecond "NVLink in" "Payload into the GPU over all NVLinks, by NVML's counters.";
    GpuNvlinkRxGpm = Gpu "nvlink_rx_gpm" BytesPerSecond "NVLink in" "Bytes into the GPU over all NVLinks, by GPM.";
    GpuNvlinkTxCounters = Gpu "nvlink_tx_counters" BytesPerSecond "NVLink out" "Payload out of the GPU over all NVLinks, by NVML's counters.";
    GpuNvlinkTxGpm = Gpu "nvlink_tx_gpm" BytesPerSecond "NVLink out" "Bytes out of the GPU over all NVLinks, by GPM.";
    GpuNvlinks = Gpu "nvlinks" Count "NVLinks" "NVLinks that are up.";
    GpuPcieGeneration = Gpu "pcie_generation" Count "PCIe generation" "Generation at which the PCIe link runs now; lower at rest.";
    GpuPcieRxCounters = Gpu "pcie_rx_counters" BytesPerSecond "into the GPU" "Bytes on the wire into the GPU, by NVML's counters.";
    GpuPcieRxCountersPayload = Gpu "pcie_rx_counters_payload" BytesPerSecond "into the GPU" "Payload into the GPU, by NVML's counters: packet headers and requests taken out.";
    GpuPcieRxGpm = Gpu "pcie_rx_gpm" BytesPerSecond "into the GPU" "Bytes on the wire into the GPU, by GPM.";
    GpuPcieRxGpmPayload = Gpu "pcie_rx_gpm_payload" BytesPerSecond "into the GPU" "Payload into the GPU, by GPM: packet headers and requests taken out.";
    GpuPcieRxThroughput = Gpu "pcie_rx_throughput" SampledBytesPerSecond "into the GPU" "Bytes into the GPU in a window of 20 ms now and then: shown, never integrated.";
    GpuPcieTxCounters = Gpu "pcie_tx_counters" BytesPerSecond "out of it" "Bytes on the wire out of the GPU, by NVML's counters.";
    GpuPcieTxCountersPayload = Gpu "pcie_tx_counters_payload" BytesPerSecond "out of it" "Payload out of the GPU, by NVML's counters: packet headers and requests taken out.";
    GpuPcieTxGpm = Gpu "pcie_tx_gpm" BytesPerSecond "out of it" "Bytes on the wire out of the GPU, by GPM.";
    GpuPcieTxGpmPayload = Gpu "pcie_tx_gpm_payload" BytesPerSecond "out of it" "Payload out of the GPU, by GPM: packet headers and requests taken out.";
    GpuPcieTxThroughput = Gpu "pcie_tx_throughput" SampledBytesPerSecond "out of it" "Bytes out of the GPU in a window of 20 ms now and then: shown, never integrated.";
    GpuPcieWidth = Gpu "pcie_width" Count "PCIe lanes" "Lanes of the PCIe link now.";
    GpuPower = Gpu "power" Watts "power" "Power now.";
    GpuProcesses = Gpu "processes" Count "processes" "Processes that compute on the GPU.";
    GpuSmActive = Gpu "sm_active" Percent "busy" "Share of the time in which an SM had work, mean over SMs (GPM).";
    GpuSmClock = Gpu "sm_clock" Megahertz "SM clock" "Clock of the SMs.";
    GpuTemperature = Gpu "temperature" Celsius "temperature" "Temperature of the GPU.";
    GpuTensorActive = Gpu "tensor_active" Percent "tensor cores busy" "Share of the time in which tensor cores worked (GPM).";
    GpuThrottleReasons = Gpu "throttle_reasons" Count "throttle reasons" "The bits of `nvmlClocksThrottleReason`.";
    GpuThrottledByHeat = Gpu "throttled_by_heat" Percent "throttled by heat" "100 while heat holds the clocks down, else 0.";
    GpuThrottledByPower = Gpu "throttled_by_power" Percent "throttled by power" "100 while a power limit holds the clocks down, else 0.";
    GpuUtilization = Gpu "utilization" Percent "busy" "Share of the time in which any kernel ran.";
    LmcacheLoadedChunks = Lmcache "loaded_chunks" PerSecond "loaded to the GPU" "Chunks that the LMCache server loaded to the GPU, of all workers.";
    LmcacheRamHitTokens = Lmcache "ram_hit_tokens" PerSecond "RAM" "Tokens that the LMCache server had in RAM.";
    LmcacheRamStoredChunks = Lmcache "ram_stored_chunks" PerSecond "stored in RAM" "Chunks that the LMCache server stored in RAM.";
    LmcacheSecondHitTokens = Lmcache "second_hit_tokens" PerSecond "second tier" "Tokens that the LMCache server had in its second layer.";
    LmcacheSecondStoredChunks = Lmcache "second_stored_chunks" PerSecond "stored in the second tier" "Chunks that the second layer of the LMCache server stored.";
    LmcacheSecondSubmittedChunks = Lmcache "second_submitted_chunks" PerSecond "handed to the second tier" "Chunks that the LMCache server handed to its second layer.";
    MemoryAvailable = Memory "available" Bytes "available" "Memory that programs can still get.";
    MemoryDirty = Memory "dirty" Bytes "dirty" "Cached bytes of files that are not yet written.";
    MemoryPageCache = Memory "page_cache" Bytes "page cache" "Memory that caches files; shared memory is not in it.";
    MemoryShared = Memory "shared" Bytes "shared" "Memory that processes share (`/dev/shm`).";
    MemoryWriteback = Memory "writeback" Bytes "writeback" "Cached bytes of files that are being written.";
    NetworkLink = Network "link" BytesPerSecond "link" "What the interface's link carries each way.";
    NetworkRedisRx = Network "redis_rx" BytesPerSecond "received" "Bytes received by the interface on the way to the tier's Redis, all that it carried.";
    NetworkRedisTx = Network "redis_tx" BytesPerSecond "sent" "Bytes sent by the interface on the way to the tier's Redis, all that it carried.";
    NetworkRx = Network "rx" BytesPerSecond "received" "Bytes received by the interface.";
    NetworkTx = Network "tx" BytesPerSecond "sent" "Bytes sent by the interface.";
    NumaMisses = Numa "misses" PerSecond "misses" "Pages that were allocated on another node than was wanted.";
    PressureFull = Pressure "full" Percent "all wait" "Share of the time in which all tasks of the machine waited.";
    PressureSome = Pressure "some" Percent "waits for I/O" "Share of the time in which a task of the machine waited.";
    RedisClients = Redis "clients" Count "clients" "Connections to Redis.";
    RedisCommands = Redis "commands" PerSecond "commands" "Commands that Redis executed.";
    RedisCpu = Redis "cpu" Percent "CPU" "CPU time of Redis, percent of one core.";
    RedisEvictedKeys = Redis "evicted_keys" PerSecond "evicted" "Keys that Redis evicted.";
    RedisKeyHits = Redis "key_hits" PerSecond "hits" "Keys that were asked for and there.";
    RedisKeyMisses = Redis "key_misses" PerSecond "misses" "Keys that were asked for and not there.";
    RedisRead = Redis "read" BytesPerSecond "sent" "Bytes that Redis sent.";
    RedisUsedMemory = Redis "used_memory" Bytes "memory" "Memory that Redis uses.";
    RedisWrite = Redis "write" BytesPerSecond "received" "Bytes that Redis received.";
    ServerCpu = Server "cpu" Percent "used" "CPU time of the part's processes, percent of one core.";
    ServerProcesses = Server "processes" Count "processes" "Processes of the part.";
    ServerResidentMemory = Server "resident_memory" Bytes "resident" "Resident memory of the part's processes; shared pages count in each.";
    ServerStorageRead = Server "storage_read" BytesPerSecond "read" "Bytes that the part's processes fetched from storage; absent where a process may not be read.";
    ServerStorageWrite = Server "storage_write" BytesPerSecond "written" "Bytes that the part's processes sent to storage; absent where a process may not be read.";
    SimulatedDiskRead = Simulated "disk_read" BytesPerSecond "read" "Bytes that the simulator pretends to read from a disk.";
    SimulatedDiskWrite = Simulated "disk_write" BytesPerSecond "written" "Bytes that the simulator pretends to write to a disk.";
    SimulatedPcieRx = Simulated "pcie_rx_simulated" BytesPerSecond "into the GPU" "Bytes that the simulator pretends to move into the GPU.";
    SimulatedPcieTx = Simulated "pcie_tx_simulated" BytesPerSecond "out of it" "Bytes that the simulator pretends to move out of the GPU.";
    SimulatedRedisRead = Simulated "redis_read" BytesPerSecond "sent" "Bytes that the simulator pretends to get from Redis.";
    SimulatedRedisWrite = Simulated "redis_write" BytesPerSecond "received" "Bytes that the simulator pretends to send to Redis.";
}

impl Series {
    /// Which sampler reads it.
    pub fn source(self) -> Source {
        self.spec().source
    }

    /// Its name in files: the column `metric`.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// What its values are.
    pub fn unit(self) -> Unit {
        self.spec().unit
    }

    /// A few words for people: a line of a timeline.
    pub fn label(self) -> &'static str {
        self.spec().label
    }

    /// The series of `source` and `name` as files have them; `None` for one that this labrun does not
    /// know.
    pub fn find(source: &str, name: &str) -> Option<Self> {
        let order = |series: &Self| {
            let spec = series.spec();
            (spec.source.name(), spec.name).cmp(&(source, name))
        };
        let place = Self::ALL.binary_search_by(order).ok()?;
        Some(Self::ALL[place])
    }

    /// Whether files call it `source` and `name`.
    pub fn is(self, source: &str, name: &str) -> bool {
        let spec = self.spec();
        spec.source.name() == source && spec.name == name
    }
}

/// One way to measure bytes over PCIe, and its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pcie {
    /// The method, as the names of its series end.
    pub method: &'static str,
    /// Into the GPU.
    pub rx: Series,
    /// Out of the GPU.
    pub tx: Series,
}

impl Pcie {
    /// GPM, on the wire.
    pub(crate) const GPM: Self = Self {
        method: "gpm",
        rx: Series::GpuPcieRxGpm,
        tx: Series::GpuPcieTxGpm,
    };
    /// GPM, payload only.
    pub(crate) const GPM_PAYLOAD: Self = Self {
        method: "gpm_payload",
        rx: Series::GpuPcieRxGpmPayload,
        tx: Series::GpuPcieTxGpmPayload,
    };
    /// NVML's 32-bit counters, on the wire.
    pub(crate) const COUNTERS: Self = Self {
        method: "counters",
        rx: Series::GpuPcieRxCounters,
        tx: Series::GpuPcieTxCounters,
    };
    /// NVML's 32-bit counters, payload only.
    pub(crate) const COUNTERS_PAYLOAD: Self = Self {
        method: "counters_payload",
        rx: Series::GpuPcieRxCountersPayload,
        tx: Series::GpuPcieTxCountersPayload,
    };
    /// Windows of 20 ms now and then.
    pub(crate) const THROUGHPUT: Self = Self {
        method: "throughput",
        rx: Series::GpuPcieRxThroughput,
        tx: Series::GpuPcieTxThroughput,
    };
    /// What the simulator pretends.
    pub(crate) const SIMULATED: Self = Self {
        method: "simulated",
        rx: Series::SimulatedPcieRx,
        tx: Series::SimulatedPcieTx,
    };

    /// All ways, in the order of their names.
    pub(crate) const ALL: [Self; 6] = [
        Self::COUNTERS,
        Self::COUNTERS_PAYLOAD,
        Self::GPM,
        Self::GPM_PAYLOAD,
        Self::SIMULATED,
        Self::THROUGHPUT,
    ];
}

/// The glossary of telemetry as Markdown: a row a series.
#[cfg(test)]
fn telemetry_markdown() -> String {
    let mut text = String::from(
        "| source | metric | unit | total | device | meaning |\n|:--|:--|:--|:--|:--|:--|\n",
    );
    for series in Series::ALL {
        let spec = series.spec();
        let _ = writeln!(
            text,
            "| `{}` | `{}` | {} | {} | {} | {} |",
            spec.source.name(),
            spec.name,
            spec.unit.name(),
            spec.unit.integral().unwrap_or("-"),
            spec.source.device(),
            spec.meaning
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_its_names_and_each_is_there_once() {
        let names = |series: &Series| (series.source().name(), series.name());
        assert!(
            Series::ALL.is_sorted_by(|one, next| names(one) < names(next)),
            "{:?}",
            Series::ALL
                .windows(2)
                .find(|pair| names(&pair[0]) >= names(&pair[1]))
        );
        for series in Series::ALL {
            let (source, name) = names(series);
            assert_eq!(Series::find(source, name), Some(*series));
            assert!(series.is(source, name));
        }
        assert_eq!(Series::find("gpu", "powre"), None);
        assert!(!Series::GpuPower.is("gpu", "energy"));
    }

    #[test]
    fn ways_to_measure_pcie_are_named_as_their_series_are() {
        for pcie in Pcie::ALL {
            assert_eq!(pcie.rx.name(), format!("pcie_rx_{}", pcie.method));
            assert_eq!(pcie.tx.name(), format!("pcie_tx_{}", pcie.method));
            assert_eq!(pcie.rx.unit(), pcie.tx.unit());
        }
        assert!(Pcie::ALL.is_sorted_by_key(|pcie| pcie.method));
        let pcie = |series: &&Series| series.name().starts_with("pcie_rx_");
        assert_eq!(Series::ALL.iter().filter(pcie).count(), Pcie::ALL.len());
    }

    #[test]
    fn a_sampled_throughput_and_levels_have_no_total() {
        for series in Series::ALL {
            let has_total = series.unit().integral().is_some();
            let may = matches!(series.unit().name(), "bytes/s" | "1/s" | "W");
            assert!(may || !has_total, "{series:?}");
        }
        assert_eq!(Series::GpuPcieRxThroughput.unit().integral(), None);
        assert_eq!(Series::GpuPower.unit().integral(), None);
        assert_eq!(Series::GpuEnergy.unit().integral(), Some("J"));
    }

    #[test]
    fn the_page_in_the_docs_is_this_table() {
        let docs = include_str!("../docs/telemetry.md");
        assert!(
            docs.ends_with(&telemetry_markdown()),
            "docs/telemetry.md must end with:\n{}",
            telemetry_markdown()
        );
    }
}
