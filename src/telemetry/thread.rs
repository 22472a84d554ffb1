//! One OS thread a sampler: a reading that blocks delays that sampler and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::sample::{Batch, Recording};

/// Longest time between two readings by default: a pass of some seconds should have readings of every
/// series.
const LONGEST: Duration = Duration::from_secs(5);

/// One telemetry source. Its calls may block: they run on a thread of their own.
pub trait Sampler: Send {
    /// Time between two readings.
    fn interval(&self) -> Duration;

    /// Longest time between two readings that it tolerates when it is slowed.
    fn longest(&self) -> Duration {
        self.interval().max(LONGEST)
    }

    /// Reads once. An error ends the sampler; what fails in part is left out of the batch.
    fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended>;
}

/// Why a sampler ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended(pub String);

/// Makes a sampler on its own thread, where also its start may block.
pub(crate) type Make = Box<dyn FnOnce() -> Result<Box<dyn Sampler>, Ended> + Send>;

/// What a sampler thread and its owner share.
#[derive(Debug, Default)]
struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
    /// Begin of the last finished reading, nanoseconds from the epoch; `u64::MAX` after its end.
    read_until: AtomicU64,
}

#[derive(Debug, Default)]
struct Orders {
    stop: bool,
    /// Read now, out of turn.
    now: bool,
}

/// The sampler's side of the shared state. Its drop, also by a panic, releases everyone who waits for
/// a reading.
struct Reader(Arc<Shared>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.read_until.store(u64::MAX, Ordering::Release);
    }
}

/// A sampler that runs on its own thread.
#[derive(Debug)]
pub(crate) struct SamplerThread {
    name: &'static str,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl SamplerThread {
    /// Starts the thread of the sampler that `make` makes.
    pub(crate) fn start(name: &'static str, make: Make, recording: &Arc<Recording>) -> Self {
        let shared = Arc::<Shared>::default();
        let (reader, recording) = (Reader(Arc::clone(&shared)), Arc::clone(recording));
        let body = move || match make() {
            Ok(sampler) => run(sampler, &reader.0, &recording),
            Err(Ended(why)) => recording.warn(why),
        };
        let builder = std::thread::Builder::new().name(format!("tele-{name}"));
        Self {
            name,
            shared,
            // Where no thread can be started, the reader is dropped with the body, and nothing waits.
            thread: builder.spawn(body).ok(),
        }
    }

    /// Asks for a reading out of turn: at the edge of a phase.
    pub(crate) fn read_now(&self) {
        self.order(|orders| orders.now = true);
    }

    /// Whether a reading has ended that began at `instant` or later, or none ever will.
    pub(crate) fn has_read_since(&self, instant: Duration) -> bool {
        let until = self.shared.read_until.load(Ordering::Acquire);
        u128::from(until) >= instant.as_nanos()
    }

    /// Asks the sampler to end.
    pub(crate) fn ask_to_stop(&self) {
        self.order(|orders| orders.stop = true);
    }

    /// Waits for its end until `deadline`. Returns a warning where it is left behind or panicked.
    pub(crate) fn join(mut self, deadline: Instant) -> Option<String> {
        let thread = self.thread.take()?;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return Some(format!(
                    "the {} sampler did not answer and was left behind",
                    self.name
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        match thread.join() {
            Ok(()) => None,
            Err(_) => Some(format!("the {} sampler panicked", self.name)),
        }
    }

    fn order(&self, give: impl FnOnce(&mut Orders)) {
        let orders = self.shared.orders.lock();
        give(&mut orders.unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.notify_all();
    }
}

impl Drop for SamplerThread {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

/// CPU time that the calling thread has used.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn run(mut sampler: Box<dyn Sampler>, shared: &Shared, recording: &Recording) {
    // The CPU time of the start is recorded, but not charged to a reading.
    let mut used = thread_cpu();
    recording.add_cpu(used);
    let now = recording.now();
    let mut turns = recording.budget().join(now);
    let mut batch = Batch::new(now, false);
    loop {
        let interval = sampler.interval().max(Duration::from_millis(1));
        let Some(in_turn) = wait(shared, recording, turns.planned()) else {
            return;
        };
        let reading = turns.begin(recording.now(), in_turn, interval);
        batch.begin(reading.began, reading.late, reading.slowed);
        batch.at_edge = !in_turn;
        let read = sampler.sample(&mut batch);
        if recording.now().saturating_sub(reading.began) > interval / 2 {
            batch.mark_late();
        }
        for warning in batch.warnings.drain(..) {
            recording.warn(warning);
        }
        recording.add(&mut batch);
        let spent = thread_cpu();
        let cpu = spent.saturating_sub(used);
        recording.add_cpu(cpu);
        used = spent;
        let nanos = u64::try_from(reading.began.as_nanos()).unwrap_or(u64::MAX - 1);
        shared.read_until.store(nanos, Ordering::Release);
        if let Err(Ended(why)) = read {
            recording.warn(why);
            return;
        }
        let longest = sampler.longest().max(interval);
        turns.end(reading, recording.now(), cpu, (interval, longest));
    }
}

/// Waits for the tick at `planned`; `Some(false)` for a reading out of turn, `None` for the end.
fn wait(shared: &Shared, recording: &Recording, planned: Duration) -> Option<bool> {
    let mut orders = shared.orders.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if orders.stop {
            return None;
        }
        if std::mem::take(&mut orders.now) {
            return Some(false);
        }
        let left = planned.saturating_sub(recording.now());
        if left.is_zero() {
            return Some(true);
        }
        orders = shared
            .changed
            .wait_timeout(orders, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Series;
    use std::sync::atomic::AtomicBool;

    struct Counting {
        reads: u32,
        block: Option<Arc<AtomicBool>>,
    }

    impl Sampler for Counting {
        fn interval(&self) -> Duration {
            Duration::from_millis(5)
        }

        fn sample(&mut self, batch: &mut Batch) -> Result<(), Ended> {
            self.reads += 1;
            if let (3, Some(block)) = (self.reads, &self.block) {
                while block.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            batch.level(Series::EngineRunning, &"".into(), f64::from(self.reads));
            Ok(())
        }
    }

    fn counting(block: Option<Arc<AtomicBool>>) -> Make {
        Box::new(move || Ok(Box::new(Counting { reads: 0, block })))
    }

    fn wait_for(condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < Duration::from_secs(20), "waited too long");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_sampler_that_blocks_is_left_behind_and_the_others_go_on() {
        let recording = Arc::new(Recording::new(Instant::now()));
        let block = Arc::new(AtomicBool::new(true));
        let blocked =
            SamplerThread::start("blocked", counting(Some(Arc::clone(&block))), &recording);
        let free = SamplerThread::start("free", counting(None), &recording);
        wait_for(|| free.has_read_since(Duration::from_millis(50)));
        // The other one goes on; a reading out of turn does not wait for the blocked one either.
        let asked = recording.now();
        free.read_now();
        blocked.read_now();
        wait_for(|| free.has_read_since(asked));
        assert!(!blocked.has_read_since(asked));
        blocked.ask_to_stop();
        let warning = blocked.join(Instant::now() + Duration::from_millis(20));
        assert!(warning.unwrap().contains("left behind"));
        block.store(false, Ordering::Relaxed);
        free.ask_to_stop();
        assert_eq!(free.join(Instant::now() + Duration::from_secs(10)), None);
        assert!(recording.cpu() > Duration::ZERO);
    }

    #[test]
    fn a_blocked_reading_is_late_and_leaves_a_gap() {
        let recording = Arc::new(Recording::new(Instant::now()));
        let block = Arc::new(AtomicBool::new(true));
        let thread = SamplerThread::start("b", counting(Some(Arc::clone(&block))), &recording);
        // The third reading is delayed. The grid goes on: the next reading is on time again, and no
        // points are invented for the time between.
        std::thread::sleep(Duration::from_millis(60));
        block.store(false, Ordering::Relaxed);
        wait_for(|| thread.has_read_since(Duration::from_millis(61)));
        thread.ask_to_stop();
        assert_eq!(thread.join(Instant::now() + Duration::from_secs(10)), None);
        let all = recording.take();
        let points = all.values().next().unwrap();
        let gap = points
            .windows(2)
            .map(|pair| pair[1].at.abs_diff(pair[0].at))
            .max();
        assert!(gap.unwrap() >= Duration::from_millis(40), "{points:?}");
        let values: Vec<f64> = points.iter().map(|point| point.value).collect();
        let counted: Vec<f64> = (1..=points.len()).map(|n| n as f64).collect();
        assert_eq!(values, counted, "one point a reading");
        assert!(points[2].late, "{:?}", points[2]);
    }

    #[test]
    fn a_sampler_that_panics_delays_nothing() {
        let recording = Arc::new(Recording::new(Instant::now()));
        let thread = SamplerThread::start("bad", Box::new(|| panic!("on purpose")), &recording);
        wait_for(|| thread.has_read_since(Duration::from_secs(1_000_000)));
        let warning = thread.join(Instant::now() + Duration::from_secs(10));
        assert_eq!(warning.as_deref(), Some("the bad sampler panicked"));
    }

    #[test]
    fn a_sampler_that_cannot_be_made_is_one_warning_and_delays_nothing() {
        let recording = Arc::new(Recording::new(Instant::now()));
        let make: Make = Box::new(|| Err(Ended("no such thing".to_owned())));
        let thread = SamplerThread::start("none", make, &recording);
        wait_for(|| thread.has_read_since(Duration::from_secs(1_000_000)));
        assert_eq!(recording.warnings(), ["no such thing"]);
    }
}
