//! The client's audit of itself: whether its own work may have shaped the numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alarm::{Alarm, Timer};
use super::record::RequestRecord;

/// Time between the ticks that measure the client's own wake-up delay.
const TICK: Duration = Duration::from_millis(10);

/// Width of a bucket of measured delays; the last bucket holds all longer ones.
const BUCKET: Duration = Duration::from_micros(20);
const BUCKETS: usize = 5000;

/// Above any of these limits, the client is reported to bound the load.
const LATENESS_P99_LIMIT: Duration = Duration::from_millis(5);
const LAG_P99_LIMIT: Duration = Duration::from_millis(5);
const THREAD_SHARE_LIMIT: f64 = 0.8;

/// A single pause of the load's thread that no busy machine explains.
const STALL_LIMIT: Duration = Duration::from_millis(250);

/// The client's account of one load.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// 99th percentile of intended to real send, connection set-up taken out.
    pub lateness_p99: Duration,
    /// The longest of these.
    pub lateness_max: Duration,
    /// 99th percentile of the delay with which the load's thread woke for a tick.
    pub lag_p99: Duration,
    /// The longest of these.
    pub lag_max: Duration,
    /// 99th percentile of the time that bytes lay in a socket before the client read them. Arrivals
    /// do not include it: they are the kernel's stamps.
    pub read_wait_p99: Duration,
    /// Share of reads whose bytes the kernel stamped. The others are stamped when they were read.
    /// With TLS it is 0.
    pub stamped_share: f64,
    /// CPU of the load's thread over the window: 1 is a whole core, all it can have.
    pub thread_share: f64,
    /// CPU of this process over the window and all cores; a simulator in this process counts.
    pub process_share: f64,
    /// The time that the shares are of: from the load's start to the end of its last request.
    pub busy: Duration,
    /// Frames that carried several token events, of all that carried any.
    pub coalesced_share: f64,
    /// Set when the client may have shaped the numbers: what passed its limit, and what to do.
    pub client_bound: Option<String>,
}

impl Audit {
    /// The figures by name, the unit last, as records keep them.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        BTreeMap::from([
            ("lateness_p99_ms".to_owned(), ms(self.lateness_p99)),
            ("lateness_max_ms".to_owned(), ms(self.lateness_max)),
            ("scheduler_lag_p99_ms".to_owned(), ms(self.lag_p99)),
            ("scheduler_lag_max_ms".to_owned(), ms(self.lag_max)),
            ("read_wait_p99_ms".to_owned(), ms(self.read_wait_p99)),
            (
                "kernel_stamped_percent".to_owned(),
                self.stamped_share * 100.0,
            ),
            (
                "client_thread_cpu_percent".to_owned(),
                self.thread_share * 100.0,
            ),
            (
                "client_cpu_share_percent".to_owned(),
                self.process_share * 100.0,
            ),
            (
                "coalesced_frames_percent".to_owned(),
                self.coalesced_share * 100.0,
            ),
        ])
    }
}

/// CPU time used so far, by this thread and by this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTimes {
    thread: Duration,
    process: Duration,
}

impl CpuTimes {
    pub(crate) fn thread(self) -> Duration {
        self.thread
    }

    pub(crate) fn now() -> Self {
        Self {
            thread: cpu_clock(ClockId::ThreadCPUTime),
            process: cpu_clock(ClockId::ProcessCPUTime),
        }
    }
}

fn cpu_clock(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Delays by bucket: fixed memory, however long the load.
#[derive(Debug)]
pub(crate) struct Delays {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Delays {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            longest: Duration::ZERO,
        }
    }

    pub(crate) fn add(&mut self, delay: Duration) {
        let bucket = usize::try_from(delay.as_nanos() / BUCKET.as_nanos()).unwrap_or(BUCKETS);
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
        self.longest = self.longest.max(delay);
    }

    /// The upper edge of the bucket that holds the `share` quantile.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let edge = BUCKET * u32::try_from(bucket + 1).unwrap_or(u32::MAX);
                return if bucket == BUCKETS - 1 {
                    self.longest
                } else {
                    edge.min(self.longest)
                };
            }
        }
        Duration::ZERO
    }
}

/// How long bytes waited to be read, over all requests of a load.
#[derive(Debug)]
pub(crate) struct Waits(Mutex<WaitCounts>);

#[derive(Debug)]
struct WaitCounts {
    stamped: Delays,
    reads: u64,
}

impl Waits {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(WaitCounts {
            stamped: Delays::new(),
            reads: 0,
        }))
    }

    /// Notes one read. Only the load's thread does, so the lock is always free.
    pub(crate) fn add(&self, waited: Option<Duration>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.reads += 1;
        if let Some(waited) = waited {
            counts.stamped.add(waited);
        }
    }

    /// 99th percentile of the waits, and the share of reads with a known wait.
    fn summary(&self) -> (Duration, f64) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let share = counts.stamped.total as f64 / counts.reads.max(1) as f64;
        (counts.stamped.quantile(0.99), share)
    }
}

/// Ticks until `end` and measures how late each tick comes.
pub(crate) async fn measure_lag(timer: Timer, end: CancellationToken) -> io::Result<Delays> {
    let alarm = Alarm::new(timer)?;
    let mut delays = Delays::new();
    let mut due = Instant::now() + TICK;
    loop {
        tokio::select! {
            () = end.cancelled() => return Ok(delays),
            () = alarm.wait_until(due) => {}
        }
        let now = Instant::now();
        // A stall counts once for each tick that it delayed, not as one late tick among thousands.
        while due <= now {
            delays.add(now - due);
            due += TICK;
        }
    }
}

/// Draws the account of a load.
pub(crate) fn audit(
    records: &[RequestRecord],
    (lag, waits): (&Delays, &Waits),
    cpu: (CpuTimes, CpuTimes),
    window: Duration,
) -> Audit {
    let mut lateness = Delays::new();
    for late in records.iter().filter_map(RequestRecord::lateness) {
        lateness.add(late);
    }
    let with_tokens: u64 = records
        .iter()
        .map(|record| record.arrivals_ns.len() as u64)
        .sum();
    let coalesced: u64 = records
        .iter()
        .map(|record| u64::from(record.coalesced_frames))
        .sum();
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get) as f64;
    let seconds = window.as_secs_f64().max(1e-9);
    let (read_wait_p99, stamped_share) = waits.summary();
    let mut audit = Audit {
        read_wait_p99,
        stamped_share,
        lateness_p99: lateness.quantile(0.99),
        lateness_max: lateness.longest,
        lag_p99: lag.quantile(0.99),
        lag_max: lag.longest,
        thread_share: cpu.1.thread.saturating_sub(cpu.0.thread).as_secs_f64() / seconds,
        process_share: cpu.1.process.saturating_sub(cpu.0.process).as_secs_f64() / seconds / cores,
        busy: window,
        coalesced_share: coalesced as f64 / with_tokens.max(1) as f64,
        client_bound: None,
    };
    audit.client_bound = verdict(&audit);
    audit
}

fn verdict(audit: &Audit) -> Option<String> {
    let mut reasons = String::new();
    let mut reason = |text: std::fmt::Arguments<'_>| {
        if !reasons.is_empty() {
            reasons.push_str("; ");
        }
        // Writing to a string cannot fail.
        let _infallible = reasons.write_fmt(text);
    };
    if audit.thread_share > THREAD_SHARE_LIMIT {
        reason(format_args!(
            "the load thread used {:.0} % of a core: lower the concurrency or use a faster machine",
            audit.thread_share * 100.0
        ));
    }
    if audit.lag_p99 > LAG_P99_LIMIT {
        reason(format_args!(
            "the load thread woke {:.1} ms late (p99): keep other work off this machine's cores, \
             for example with `taskset`",
            audit.lag_p99.as_secs_f64() * 1e3
        ));
    }
    if audit.lag_max > STALL_LIMIT {
        reason(format_args!(
            "labrun stood still for {:.0} ms (suspended, or without CPU time): measure again",
            audit.lag_max.as_secs_f64() * 1e3
        ));
    }
    if audit.lateness_p99 > LATENESS_P99_LIMIT {
        reason(format_args!(
            "requests were sent {:.1} ms late (p99): lower the rate or the concurrency",
            audit.lateness_p99.as_secs_f64() * 1e3
        ));
    }
    (!reasons.is_empty()).then_some(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Audit {
        Audit {
            lateness_p99: Duration::from_millis(1),
            lateness_max: Duration::from_millis(50),
            lag_p99: Duration::from_millis(1),
            lag_max: Duration::from_millis(50),
            read_wait_p99: Duration::from_millis(1),
            stamped_share: 1.0,
            thread_share: 0.3,
            process_share: 0.9,
            busy: Duration::from_secs(1),
            coalesced_share: 0.5,
            client_bound: None,
        }
    }

    #[test]
    fn each_limit_is_named_with_advice() {
        assert_eq!(verdict(&calm()), None);
        let busy = Audit {
            thread_share: 0.95,
            ..calm()
        };
        assert!(verdict(&busy).unwrap().contains("95 % of a core"));
        let late = Audit {
            lateness_p99: Duration::from_millis(7),
            lag_p99: Duration::from_millis(6),
            ..calm()
        };
        let text = verdict(&late).unwrap();
        assert!(
            text.contains("6.0 ms late") && text.contains("sent 7.0 ms late"),
            "{text}"
        );
    }

    #[test]
    fn a_single_stall_is_named() {
        let stalled = Audit {
            lag_max: Duration::from_millis(1200),
            ..calm()
        };
        let text = verdict(&stalled).unwrap();
        assert!(text.contains("stood still for 1200 ms"), "{text}");
    }

    #[tokio::test]
    async fn a_stall_counts_each_tick_that_it_delayed() {
        let end = CancellationToken::new();
        let stall = async {
            tokio::time::sleep(TICK).await;
            std::thread::sleep(TICK * 20);
            tokio::time::sleep(TICK * 2).await;
            end.cancel();
        };
        let (lag, ()) = tokio::join!(measure_lag(Timer::Precise, end.clone()), stall);
        let lag = lag.unwrap();
        assert!(lag.longest >= TICK * 15, "{:?}", lag.longest);
        assert!(lag.total >= 19, "{}", lag.total);
    }

    #[test]
    fn only_stamped_reads_have_a_wait() {
        let waits = Waits::new();
        assert_eq!(waits.summary(), (Duration::ZERO, 0.0));
        waits.add(None);
        waits.add(Some(Duration::from_micros(7)));
        assert_eq!(waits.summary(), (Duration::from_micros(7), 0.5));
    }

    #[test]
    fn quantiles_come_from_buckets() {
        let mut delays = Delays::new();
        assert_eq!(delays.quantile(0.99), Duration::ZERO);
        for micros in 1..=1000 {
            delays.add(Duration::from_micros(micros));
        }
        let p99 = delays.quantile(0.99).as_micros();
        assert!((990..=1010).contains(&p99), "{p99}");
        delays.add(Duration::from_secs(3));
        assert_eq!(
            delays.quantile(1.0),
            Duration::from_secs(3),
            "beyond the last bucket"
        );
    }
}
