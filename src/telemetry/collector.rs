//! Starts the samplers that a server under test needs, and sums up what they read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoints::{EngineSampler, RedisSampler};
use super::host::cpu::CpuSampler;
use super::host::group::GroupSampler;
use super::host::io::{self, IoSampler};
use super::host::route;
use super::nvml::choice::{Gpus, chosen};
use super::nvml::gauges::{GaugeSampler, Kind};
use super::nvml::live::Live;
use super::nvml::pcie::GPM_LAG;
use super::nvml::pcie::{Method, PcieSampler};
use super::nvml::replay::Recorder;
use super::nvml::{NvmlSource, ReadError};
use super::sample::{Points, Recording};
use super::summary::{Summary, Window, summarize_around};
use super::thread::{Ended, Make, Sampler, SamplerThread};
use crate::config;
use crate::nvml::gpu_count;
use crate::server::control::Endpoint;

/// Longest wait for readings at the edge of a phase, while no load runs.
const EDGE_LIMIT: Duration = Duration::from_secs(2);
/// How long nothing moves before a pass and behind it: as long as a reading of GPM, so that one at least
/// sees nothing and bounds the pass's bytes ([`super::quiet`]).
const REST: Duration = Duration::from_millis(200);
/// Longest wait for samplers to end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The server under test, as it is now: it may be started again on another port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// The processes that it was started by, and what each is.
    pub leaders: Vec<(&'static str, u32)>,
    /// Address of the engine's API and `/metrics`.
    pub engine: Option<Endpoint>,
    /// The admin address of an LMCache server beside it.
    pub lmcache: Option<String>,
}

/// The Redis of a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TierRedis {
    /// `redis://[user:password@]host:port`, as this machine reaches it.
    pub url: String,
    /// The first process of its container, where the server reaches it from another container.
    pub container: Option<u32>,
}

impl TierRedis {
    /// The network interface between the server and it.
    fn interface(&self) -> Option<String> {
        match self.container {
            // Without a network of its own it is reached as this machine's.
            Some(pid) => route::of_container(pid).or_else(|| route::to_redis(&self.url)),
            None => route::to_redis(&self.url),
        }
    }
}

/// What the samplers of a cell watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    /// GPUs whose gauges and PCIe bytes are read.
    pub gpus: Gpus,
    /// The folder of the disk tier: its disk is marked.
    pub disk_tier: Option<PathBuf>,
    /// Processes and addresses of the server under test.
    pub served: Served,
    /// The Redis of the tier.
    pub redis: Option<TierRedis>,
    /// Records NVML's raw answers.
    pub recorder: Option<Recorder>,
}

/// The running samplers of a cell.
#[derive(Debug)]
pub(crate) struct Telemetry {
    recording: Arc<Recording>,
    threads: Vec<SamplerThread>,
    /// Threads that watch the server itself.
    server_threads: Vec<SamplerThread>,
    served: Served,
    slow: Duration,
    tier_disk: Option<String>,
    began: Duration,
    /// How many GPUs are to be watched.
    gpus: usize,
}

/// Everything that the samplers recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Recorded {
    /// Points of every series.
    pub series: Points,
    /// The disk of the disk tier, by its kernel name.
    pub tier_disk: Option<String>,
    /// Warnings of all samplers.
    pub warnings: Vec<String>,
    /// CPU time of all sampler threads.
    pub cpu: Duration,
    /// How long they ran.
    pub elapsed: Duration,
}

impl Recorded {
    /// CPU time of the samplers, percent of one core.
    pub(crate) fn cpu_share_percent(&self) -> f64 {
        share_percent(self.cpu, self.elapsed)
    }
}

fn share_percent(cpu: Duration, elapsed: Duration) -> f64 {
    cpu.as_secs_f64() / elapsed.as_secs_f64().max(1e-9) * 100.0
}

impl Telemetry {
    /// Starts every sampler that `target` needs, on the clock that began at `epoch`.
    pub(crate) fn start(settings: &config::Telemetry, epoch: Instant, target: &Target) -> Self {
        let recording = Arc::new(Recording::within(epoch, settings.budget_percent));
        let mut telemetry = Self {
            began: recording.now(),
            tier_disk: target.disk_tier.as_deref().and_then(io::disk_of),
            recording,
            threads: Vec::new(),
            server_threads: Vec::new(),
            served: Served::default(),
            slow: settings.slow_interval(),
            gpus: 0,
        };
        let interval = settings.interval();
        let redis = target.redis.clone();
        telemetry.add("io", move || {
            let interface = redis.and_then(|redis| redis.interface());
            Ok(Box::new(IoSampler::new(interval, interface)))
        });
        let slow = telemetry.slow;
        telemetry.add("cpu", move || Ok(Box::new(CpuSampler::new(slow))));
        if let Some(TierRedis { url, .. }) = target.redis.clone() {
            telemetry.add("redis", move || {
                Ok(Box::new(RedisSampler::new(&url, slow)?))
            });
        }
        telemetry.follow(target.served.clone());
        let leaders: Vec<u32> = target.served.leaders.iter().map(|(_, pid)| *pid).collect();
        match chosen(&target.gpus, &leaders) {
            Ok(gpus) => {
                for gpu in gpus {
                    telemetry.add_gpu(settings, epoch, gpu, target);
                }
            }
            Err(why) => telemetry
                .recording
                .warn(format!("no telemetry of GPUs: {why}")),
        }
        telemetry
    }

    /// Watches `served`, and no longer what was watched before, unless it is the same.
    pub(crate) fn follow(&mut self, served: Served) {
        if self.served == served {
            return;
        }
        // Dropping a thread asks it to end; its last reading may still come.
        self.server_threads.clear();
        let slow = self.slow;
        let mut add = |name, make: Make| {
            let thread = SamplerThread::start(name, make, &self.recording);
            self.server_threads.push(thread);
        };
        if !served.leaders.is_empty() {
            let leaders = served.leaders.clone();
            add(
                "group",
                Box::new(move || Ok(Box::new(GroupSampler::new(&leaders, slow)))),
            );
        }
        if let Some(endpoint) = served.engine.clone() {
            let lmcache = served.lmcache.clone();
            let make = move || -> Result<Box<dyn Sampler>, Ended> {
                Ok(Box::new(EngineSampler::new(endpoint, lmcache, slow)?))
            };
            add("engine", Box::new(make));
        }
        self.served = served;
    }

    /// The disk of the disk tier, by its kernel name.
    pub(crate) fn tier_disk(&self) -> Option<&str> {
        self.tier_disk.as_deref()
    }

    /// How many GPUs are watched, or would be if they answered.
    pub(crate) fn gpus(&self) -> usize {
        self.gpus
    }

    fn all_threads(&self) -> impl Iterator<Item = &SamplerThread> {
        self.threads.iter().chain(&self.server_threads)
    }

    /// The edge of a pass that begins when this returns: when its readings were asked for, and when they were
    /// there. Nothing may be sent meanwhile: GPUs rest first, so that what moved before, such as a probe's
    /// load, is in readings of its own.
    pub(crate) async fn begin_pass(&self) -> (Duration, Duration) {
        self.read_gpus_after(GPM_LAG).await;
        if self.gpus > 0 {
            tokio::time::sleep(REST).await;
        }
        let asked = self.edge();
        (asked, self.settle(asked).await)
    }

    /// Waits as [`Self::settle_all`] does for the `edge` at which a pass ended, and lets the GPUs rest. Nothing
    /// may be sent meanwhile.
    pub(crate) async fn end_pass(&self, edge: Duration) -> Duration {
        let settled = self.settle_all(edge).await;
        self.read_gpus_after(REST).await;
        settled
    }

    /// Waits as [`Self::settle`] does, and until series that lag behind (GPM) cover `edge` too.
    /// Returns when the readings of `edge` were there.
    pub(crate) async fn settle_all(&self, edge: Duration) -> Duration {
        let settled = self.settle(edge).await;
        self.read_gpus_after(GPM_LAG).await;
        settled
    }

    /// Another reading after `wait`, where GPUs are watched.
    async fn read_gpus_after(&self, wait: Duration) {
        if self.gpus > 0 {
            tokio::time::sleep(wait).await;
            self.settle(self.edge()).await;
        }
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
        self.gpus += 1;
        let intervals = (settings.interval(), settings.pcie_interval());
        for methods in Method::chains(settings.pcie, gpu_count()) {
            let open = open.clone();
            self.add("pcie", move || {
                Ok(Box::new(PcieSampler::new(open()?, gpu, methods, intervals)))
            });
        }
        for (name, kind, interval) in [
            ("gpu load", Kind::Load, settings.interval()),
            ("gpu state", Kind::State, settings.slow_interval()),
        ] {
            let open = open.clone();
            self.add(name, move || {
                Ok(Box::new(GaugeSampler::new(open()?, gpu, kind, interval)))
            });
        }
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
    pub(crate) fn edge(&self) -> Duration {
        let now = self.recording.now();
        for thread in self.all_threads() {
            thread.read_now();
        }
        now
    }

    /// Waits until every sampler has read since `edge`, for a moment at most: one that blocks
    /// delays nothing else. Returns when the readings were there, or the moment was over.
    pub(crate) async fn settle(&self, edge: Duration) -> Duration {
        let deadline = self.recording.now() + EDGE_LIMIT;
        while self.recording.now() < deadline
            && !self.all_threads().all(|thread| thread.has_read_since(edge))
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.recording.now()
    }

    /// Summaries, by now, of a `window` around a `core` that must be covered.
    pub(crate) fn summaries(&self, window: Window, core: Window) -> Vec<Summary> {
        summarize_around(&self.recording.series(|_| true), window, core)
    }

    /// CPU time of all sampler threads by now.
    pub(crate) fn cpu(&self) -> Duration {
        self.recording.cpu()
    }

    /// Ends every sampler. Blocks for a moment at most; one that does not answer is left behind.
    pub(crate) fn stop(self) -> Recorded {
        for thread in self.all_threads() {
            thread.ask_to_stop();
        }
        let deadline = Instant::now() + STOP_LIMIT;
        for thread in self.threads.into_iter().chain(self.server_threads) {
            if let Some(warning) = thread.join(deadline) {
                self.recording.warn(warning);
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
    use std::sync::Mutex;

    use super::super::nvml::live;
    use super::super::sample::Batch;
    use super::super::summary::total_bounds;
    use super::*;
    use crate::series::{Pcie, Source};

    fn settings() -> config::Telemetry {
        config::Telemetry {
            enabled: true,
            interval_ms: 20,
            pcie_interval_ms: 20,
            slow_interval_ms: 50,
            budget_percent: 0.0,
            pcie: config::PcieMethod::Auto,
        }
    }

    /// Bytes that move to a GPU, at their times, and a sampler that sees them as late as GPM does.
    #[derive(Clone)]
    struct Lagging {
        moved: Arc<Mutex<Vec<(Duration, f64)>>>,
        seen_until: Duration,
    }

    impl Sampler for Lagging {
        fn interval(&self) -> Duration {
            Duration::from_millis(200)
        }

        fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
            let until = batch.at.saturating_sub(GPM_LAG);
            let moved = self.moved.lock().unwrap();
            let new = moved
                .iter()
                .filter(|(at, _)| (self.seen_until..until).contains(at));
            let bytes: f64 = new.map(|(_, bytes)| bytes).sum();
            let span = until.saturating_sub(self.seen_until);
            if !span.is_zero() {
                let rate = bytes / span.as_secs_f64();
                batch.push(Pcie::GPM_PAYLOAD.rx, &"0".into(), (until, span), rate);
            }
            self.seen_until = until;
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_bytes_of_a_short_pass_are_exact_whatever_moved_before_and_after() {
        let mut telemetry = Telemetry::start(&settings(), Instant::now(), &Target::default());
        let sampler = Lagging {
            moved: Arc::default(),
            seen_until: Duration::ZERO,
        };
        let moved = Arc::clone(&sampler.moved);
        telemetry.gpus = 1;
        telemetry.add("pcie", move || Ok(Box::new(sampler)));
        let recording = Arc::clone(&telemetry.recording);
        let moves = |bytes| moved.lock().unwrap().push((recording.now(), bytes));
        // Passes begin and end anywhere between two readings.
        for offset_ms in [3, 47, 91, 146] {
            tokio::time::sleep(Duration::from_millis(offset_ms)).await;
            moves(500.0);
            let (asked, read) = telemetry.begin_pass().await;
            moves(1000.0);
            tokio::time::sleep(Duration::from_millis(offset_ms)).await;
            moves(1000.0);
            let edge = telemetry.edge();
            let to = telemetry.end_pass(edge).await;
            moves(700.0);
            tokio::time::sleep(Duration::from_millis(400)).await;
            let window = Window { from: asked, to };
            let core = Window {
                from: read,
                to: edge,
            };
            let summaries = telemetry.summaries(window, core);
            let bytes = total_bounds(&summaries, Pcie::GPM_PAYLOAD.rx, 0.0).unwrap();
            for end in [bytes.low, bytes.high] {
                assert!((end - 2000.0).abs() < 1e-6, "{bytes:?} at {offset_ms} ms");
            }
        }
    }

    #[tokio::test]
    async fn a_machine_without_nvml_warns_once_and_records_the_rest() {
        let target = Target {
            gpus: Gpus::All,
            disk_tier: Some(PathBuf::from(env!("CARGO_MANIFEST_DIR"))),
            ..Target::default()
        };
        let telemetry = Telemetry::start(&settings(), Instant::now(), &target);
        let from = telemetry.edge();
        tokio::time::sleep(Duration::from_millis(150)).await;
        let to = telemetry.edge();
        telemetry.settle(to).await;
        let window = Window { from, to };
        let summaries = telemetry.summaries(window, window);
        let recorded = telemetry.stop();
        let sources: Vec<Source> = summaries
            .iter()
            .map(|one| one.key.series.source())
            .collect();
        assert!(
            sources.contains(&Source::Cpu) && sources.contains(&Source::Network),
            "{sources:?}"
        );
        assert!(recorded.cpu > Duration::ZERO && recorded.elapsed >= to.saturating_sub(from));
        if let Err(why) = live::listed() {
            assert_eq!(recorded.warnings, [format!("no telemetry of GPUs: {why}")]);
        }
    }
}
