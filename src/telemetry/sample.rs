//! Points of named series, which samplers produce, all on one clock.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::budget::Budget;
use crate::series::Series;
use crate::server::prom::growth;

/// Names the readings of one series on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesKey {
    /// What was measured.
    pub series: Series,
    /// Which device of its source; empty where there is one only.
    pub device: Arc<str>,
}

impl Ord for SeriesKey {
    /// The order in files: by source, device and name.
    fn cmp(&self, other: &Self) -> Ordering {
        let sources = self.series.source().cmp(&other.series.source());
        let devices = || self.device.cmp(&other.device);
        sources
            .then_with(devices)
            .then_with(|| self.series.cmp(&other.series))
    }
}

impl PartialOrd for SeriesKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One value of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When it was read, from the run's epoch.
    pub at: Duration,
    /// The time up to `at` that it is the mean of; zero for what is true at one instant.
    pub span: Duration,
    /// In the unit of the series.
    pub value: f64,
    /// Read later than it was to be, or slower, by more than half an interval.
    pub late: bool,
    /// Read after a longer time than configured: the sampler slowed down to stay within the budget.
    pub slowed: bool,
}

/// The points of all series, each in the order of their time.
pub type Points = BTreeMap<SeriesKey, Vec<Point>>;

/// Most points of one series: a day at 20 ms. Later points are dropped.
const MAX_POINTS: usize = 24 * 3600 * 50;

/// Where all samplers of a machine put their points. Shared by their threads, and by nothing that
/// drives a load.
#[derive(Debug)]
pub(crate) struct Recording {
    epoch: Instant,
    series: Mutex<Points>,
    warnings: Mutex<Vec<String>>,
    cpu_nanos: AtomicU64,
    budget: Arc<Budget>,
}

impl Recording {
    /// An empty recording of the clock that began at `epoch`, whose samplers may cost what they do.
    #[cfg(test)]
    pub(crate) fn new(epoch: Instant) -> Self {
        Self::within(epoch, 0.0)
    }

    /// An empty recording of the clock that began at `epoch`, whose samplers may use
    /// `budget_percent` of one core together; 0 means no limit.
    pub(crate) fn within(epoch: Instant, budget_percent: f64) -> Self {
        Self {
            epoch,
            series: Mutex::default(),
            warnings: Mutex::default(),
            cpu_nanos: AtomicU64::new(0),
            budget: Arc::new(Budget::new(budget_percent)),
        }
    }

    /// What its samplers may cost.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Now, on the recording's clock.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Takes what one sampler read at one time out of its batch.
    pub(crate) fn add(&self, batch: &mut Batch) {
        let mut all = lock(&self.series);
        for (key, point) in batch.points.drain(..) {
            let points = all.entry(key).or_default();
            if points.len() < MAX_POINTS {
                points.push(point);
            }
        }
    }

    /// Adds a warning, unless it is there already.
    pub(crate) fn warn(&self, text: String) {
        let mut warnings = lock(&self.warnings);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// All warnings until now.
    pub(crate) fn warnings(&self) -> Vec<String> {
        lock(&self.warnings).clone()
    }

    /// Adds CPU time that a sampler thread used.
    pub(super) fn add_cpu(&self, used: Duration) {
        let nanos = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        self.cpu_nanos.fetch_add(nanos, atomic::Ordering::Relaxed);
    }

    /// CPU time that all sampler threads used.
    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_nanos.load(atomic::Ordering::Relaxed))
    }

    /// A copy of the series that `wanted` picks.
    pub(crate) fn series(&self, wanted: impl Fn(&SeriesKey) -> bool) -> Points {
        lock(&self.series)
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(key, points)| (key.clone(), points.clone()))
            .collect()
    }

    /// Takes every series out.
    pub(crate) fn take(&self) -> Points {
        std::mem::take(&mut *lock(&self.series))
    }
}

/// Locks `mutex`, also after the panic of a sampler, which leaves whole points only.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one sampler reads at one time.
#[derive(Debug)]
pub struct Batch {
    /// Time of the reading, for points without a time of their own.
    pub at: Duration,
    /// Whether it is read too late.
    pub late: bool,
    /// Whether it is read after a longer time than was set.
    pub slowed: bool,
    /// Whether it is read at the edge of a phase, where a phase of any length has readings of everything.
    pub at_edge: bool,
    /// Warnings for the reader of the run.
    pub warnings: Vec<String>,
    made: (Duration, Instant),
    points: Vec<(SeriesKey, Point)>,
}

impl Batch {
    /// An empty batch for a reading at `at`.
    pub fn new(at: Duration, late: bool) -> Self {
        Self {
            at,
            late,
            slowed: false,
            at_edge: false,
            warnings: Vec::new(),
            made: (at, Instant::now()),
            points: Vec::new(),
        }
    }

    /// Empties the batch for a reading at `at`, without giving up its memory.
    pub fn begin(&mut self, at: Duration, late: bool, slowed: bool) {
        self.points.clear();
        (self.at, self.late, self.slowed) = (at, late, slowed);
        self.made = (at, Instant::now());
    }

    /// Gives all further points the present time: a slow answer describes the moment of its arrival.
    pub fn answered(&mut self) {
        let (at, made) = self.made;
        self.at = at + made.elapsed();
    }

    /// Adds a value that is true at one instant.
    pub fn level(&mut self, series: Series, device: &Arc<str>, value: f64) {
        self.push(series, device, (self.at, Duration::ZERO), value);
    }

    /// Adds the mean rate of something that grew by `growth` in the `span` up to now.
    pub fn rate(&mut self, series: Series, device: &Arc<str>, growth: f64, span: Duration) {
        if !span.is_zero() {
            self.push(series, device, (self.at, span), growth / span.as_secs_f64());
        }
    }

    /// Adds a value of `when` = (instant, span up to it).
    pub fn push(
        &mut self,
        series: Series,
        device: &Arc<str>,
        (at, span): (Duration, Duration),
        value: f64,
    ) {
        if !value.is_finite() {
            return;
        }
        let key = SeriesKey {
            series,
            device: Arc::clone(device),
        };
        let point = Point {
            at,
            span,
            value,
            late: self.late,
            slowed: self.slowed,
        };
        self.points.push((key, point));
    }

    /// Marks every point so far as late.
    pub fn mark_late(&mut self) {
        self.late = true;
        for (_, point) in &mut self.points {
            point.late = true;
        }
    }

    /// Points that were added since the batch began.
    pub fn points(&self) -> &[(SeriesKey, Point)] {
        &self.points
    }
}

/// Below this, two readings are too close to make a rate.
const SHORTEST: Duration = Duration::from_millis(10);

/// A counter that only grows, read again and again; what it grew by between two readings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Growth {
    last: Option<(Duration, f64)>,
}

impl Growth {
    /// What it grew by since the last reading, and in which time; `None` the first time, and where
    /// the last was less than [`SHORTEST`] ago: a rate over so short a time means nothing, and the next
    /// reading covers it.
    pub(crate) fn of(&mut self, at: Duration, value: f64) -> Option<(f64, Duration)> {
        if let Some((then, before)) = self.last
            && at.saturating_sub(then) < SHORTEST
            && value >= before
        {
            return None;
        }
        let (then, before) = self.last.replace((at, value))?;
        let span = at.saturating_sub(then);
        (!span.is_zero()).then_some((growth(before, value), span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn growth_survives_a_reset_and_begins_with_nothing() {
        let mut growth = Growth::default();
        assert_eq!(growth.of(ms(0), 100.0), None);
        assert_eq!(growth.of(ms(1000), 150.0), Some((50.0, ms(1000))));
        assert_eq!(growth.of(ms(1500), 20.0), Some((20.0, ms(500))));
        assert_eq!(growth.of(ms(1505), 30.0), None, "a moment passed");
        assert_eq!(growth.of(ms(2500), 40.0), Some((20.0, ms(1000))));
    }

    #[test]
    fn keys_are_ordered_as_files_have_them() {
        let key = |series, device: &str| SeriesKey {
            series,
            device: device.into(),
        };
        let keys = [
            key(Series::DiskWrite, "sda"),
            key(Series::DiskBusy, "vda"),
            key(Series::DiskRead, "vda"),
            key(Series::GpuEnergy, "0"),
        ];
        assert!(keys.is_sorted(), "{keys:?}");
    }

    #[test]
    fn points_gather_by_series_and_what_is_not_a_number_is_left_out() {
        let recording = Recording::new(Instant::now());
        let gpu: Arc<str> = "0".into();
        for at in [1, 2] {
            let mut batch = Batch::new(ms(at), at == 2);
            batch.level(Series::GpuPower, &gpu, 100.0);
            batch.level(Series::GpuTemperature, &gpu, f64::NAN);
            batch.rate(Series::GpuEnergy, &gpu, 1.0, Duration::ZERO);
            recording.add(&mut batch);
        }
        let all = recording.take();
        assert_eq!(all.len(), 1, "{all:?}");
        let points = all.values().next().unwrap();
        assert_eq!((points[0].late, points[1].late), (false, true));
        assert!(recording.take().is_empty());
    }
}
