//! Summaries of series over a window of time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quiet;
use super::sample::{Point, Points, SeriesKey};
use crate::series::{Series, Unit};
use crate::units::Bounds;

/// A stretch of a run: a pass, mostly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Its begin, from the run's epoch.
    pub from: Duration,
    /// Its end, from the run's epoch.
    pub to: Duration,
}

impl Window {
    /// Length, seconds.
    pub(crate) fn seconds(self) -> f64 {
        self.to.saturating_sub(self.from).as_secs_f64()
    }

    /// Seconds of the window that lie in the `span` up to `at`.
    fn overlap(self, at: Duration, span: Duration) -> f64 {
        let from = at.saturating_sub(span).max(self.from);
        at.min(self.to).saturating_sub(from).as_secs_f64()
    }
}

/// One series over one window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Series and device.
    pub key: SeriesKey,
    /// Points that lie in the window or reach into it.
    pub samples: u64,
    /// Those of them that came late.
    pub late: u64,
    /// Those whose sampler had slowed down to stay within the budget.
    pub slowed: u64,
    /// Mean time between two of them, seconds; absent where there are fewer than two.
    pub every_s: Option<f64>,
    /// Mean over time.
    pub mean: Option<f64>,
    /// Largest point.
    pub max: Option<f64>,
    /// Share of the time that it was at least half of its largest.
    pub near_max: f64,
    /// Integral over the window, where that means something.
    pub total: Option<f64>,
    /// The same counted between quiet readings, with what the edges leave open.
    pub bounds: Option<Bounds>,
    /// Share of the core window that points with a span cover; 1 for levels.
    pub covered: f64,
}

/// Summarizes every series with points in `window`.
pub(crate) fn summarize(series: &Points, window: Window) -> Vec<Summary> {
    summarize_around(series, window, window)
}

/// The same for a `window` around a `core`: the samplers read a moment before and after the core,
/// when nothing moves any more, and what they read belongs to it. The core is what must be covered.
pub(crate) fn summarize_around(series: &Points, window: Window, core: Window) -> Vec<Summary> {
    let all = series.iter();
    all.filter_map(|(key, points)| summary(key, points, window, core))
        .collect()
}

/// A rate is weighted by the part of its span that lies in the window: what moved in an interval
/// that reaches over an edge is taken to have moved evenly in it. A level is weighted by half the
/// time to the points before and after it.
fn summary(key: &SeriesKey, points: &[Point], window: Window, core: Window) -> Option<Summary> {
    let has_span = points.iter().any(|point| !point.span.is_zero());
    let weighed: Vec<(f64, &Point)> = if has_span {
        // What was read before the core began is of the time before.
        points
            .iter()
            .filter(|point| point.at > core.from)
            .map(|point| (window.overlap(point.at, point.span), point))
            .filter(|(weight, _)| *weight > 0.0)
            .collect()
    } else {
        levels(points, window)
    };
    let weight: f64 = weighed.iter().map(|(weight, _)| weight).sum();
    let sum: f64 = weighed
        .iter()
        .map(|(weight, point)| weight * point.value)
        .sum();
    let values = || weighed.iter().map(|(_, point)| point.value);
    let max = values().reduce(f64::max)?;
    let near: f64 = weighed
        .iter()
        .filter(|(_, point)| point.value >= max / 2.0)
        .map(|(weight, _)| weight)
        .sum();
    let covered = if has_span {
        let points = weighed.iter();
        let inside: f64 = points
            .map(|(_, point)| core.overlap(point.at, point.span))
            .sum();
        (inside / core.seconds().max(f64::MIN_POSITIVE)).min(1.0)
    } else {
        1.0
    };
    Some(Summary {
        key: key.clone(),
        samples: weighed.len() as u64,
        late: weighed.iter().filter(|(_, point)| point.late).count() as u64,
        slowed: weighed.iter().filter(|(_, point)| point.slowed).count() as u64,
        every_s: every_s(&weighed),
        mean: (weight > 0.0).then(|| sum / weight),
        max: Some(max),
        near_max: if weight > 0.0 { near / weight } else { 0.0 },
        total: (has_span && key.series.unit().integral().is_some()).then_some(sum),
        bounds: (key.series.unit() == Unit::BytesPerSecond && has_span)
            .then(|| quiet::bytes_of(points, window))
            .flatten(),
        covered,
    })
}

/// Mean time between two points.
fn every_s(weighed: &[(f64, &Point)]) -> Option<f64> {
    let ((_, first), (_, last)) = (weighed.first()?, weighed.last()?);
    let gaps = (weighed.len() > 1).then(|| weighed.len() - 1)?;
    Some(last.at.saturating_sub(first.at).as_secs_f64() / gaps as f64)
}

/// The points in the window, each with the time that it represents.
fn levels(points: &[Point], window: Window) -> Vec<(f64, &Point)> {
    let inside: Vec<&Point> = points
        .iter()
        .filter(|point| point.at >= window.from && point.at <= window.to)
        .collect();
    let gap = |one: Duration, other: Duration| other.saturating_sub(one).as_secs_f64() / 2.0;
    let weight = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| inside.get(before));
        let before = before.map_or(0.0, |before| gap(before.at, inside[at].at));
        let after = inside.get(at + 1);
        before + after.map_or(0.0, |after| gap(inside[at].at, after.at))
    };
    match inside.len() {
        1 => vec![(1.0, inside[0])],
        count => (0..count).map(|at| (weight(at), inside[at])).collect(),
    }
}

/// Sum of the totals of `series` over its devices; `None` where a device is covered by
/// less than `least` of the window, or no device has the series.
pub(crate) fn total(summaries: &[Summary], series: Series, least: f64) -> Option<f64> {
    let mut total = None;
    for summary in summaries.iter().filter(|one| one.key.series == series) {
        if summary.covered < least {
            return None;
        }
        *total.get_or_insert(0.0) += summary.total?;
    }
    total
}

/// The same as [`total`], counted between quiet readings.
pub(crate) fn total_bounds(summaries: &[Summary], series: Series, least: f64) -> Option<Bounds> {
    let mut total = None;
    for summary in summaries.iter().filter(|one| one.key.series == series) {
        if summary.covered < least {
            return None;
        }
        let sum = total.unwrap_or(Bounds::exact(0.0));
        total = Some(sum + summary.bounds?);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn series(series: Series, points: &[(u64, u64, f64)]) -> Points {
        let key = SeriesKey {
            series,
            device: "0".into(),
        };
        let points = points
            .iter()
            .map(|&(at, span, value)| Point {
                at: ms(at),
                span: ms(span),
                value,
                late: false,
                slowed: value >= 800.0,
            })
            .collect();
        Points::from([(key, points)])
    }

    #[test]
    fn an_interval_over_an_edge_counts_by_its_share() {
        // 100 bytes/s over 0..1 s, 300 over 1..2 s, 500 over 2..3 s; the window is 0.5..2.5 s.
        let all = series(
            Series::GpuPcieRxGpm,
            &[
                (1000, 1000, 100.0),
                (2000, 1000, 300.0),
                (3000, 1000, 500.0),
            ],
        );
        let window = Window {
            from: ms(500),
            to: ms(2500),
        };
        let summary = &summarize(&all, window)[0];
        assert_eq!(summary.total, Some(600.0), "50 + 300 + 250");
        assert_eq!(summary.mean, Some(300.0));
        assert_eq!((summary.samples, summary.max), (3, Some(500.0)));
        assert_eq!((summary.every_s, summary.slowed), (Some(1.0), 0));
        assert!((summary.covered - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_level_counts_by_the_time_that_it_stands_for() {
        // A reading out of turn right after another must not count twice.
        let all = series(
            Series::EngineWaiting,
            &[(0, 0, 0.0), (1000, 0, 8.0), (1001, 0, 8.0), (4000, 0, 2.0)],
        );
        let window = Window {
            from: ms(0),
            to: ms(4000),
        };
        let summary = &summarize(&all, window)[0];
        let expected = (0.5005 * 8.0 + 1.5 * 8.0 + 1.4995 * 2.0) / 4.0;
        assert!(
            (summary.mean.unwrap() - expected).abs() < 1e-9,
            "{summary:?}"
        );
        let near = (0.5005 + 1.5) / 4.0;
        assert!((summary.near_max - near).abs() < 1e-9, "{summary:?}");
    }

    #[test]
    fn what_is_read_at_the_edges_of_a_core_is_separate_from_what_was_before() {
        // Read at 0, 1000 (just before the core), 2000 (just after it) and 3000.
        let all = series(
            Series::GpuPcieRxGpm,
            &[(1000, 1000, 700.0), (2000, 1000, 50.0), (3000, 1000, 900.0)],
        );
        let window = Window {
            from: ms(990),
            to: ms(2010),
        };
        let core = Window {
            from: ms(1005),
            to: ms(1995),
        };
        let summary = &summarize_around(&all, window, core)[0];
        let expected = 50.0 + 0.010 * 900.0;
        assert!(
            (summary.total.unwrap() - expected).abs() < 1e-9,
            "{summary:?}"
        );
        assert!((summary.covered - 1.0).abs() < 1e-9);
        assert_eq!(summary.slowed, 1, "of what was read at 3000");
    }

    #[test]
    fn a_gap_lowers_the_cover_and_then_there_is_no_total_to_rely_on() {
        let all = series(
            Series::GpuPcieRxGpm,
            &[(1000, 1000, 100.0), (3000, 1000, 100.0)],
        );
        let window = Window {
            from: ms(0),
            to: ms(3000),
        };
        let summaries = summarize(&all, window);
        assert!((summaries[0].covered - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(total(&summaries, Series::GpuPcieRxGpm, 0.95), None);
        assert_eq!(total(&summaries, Series::GpuPcieRxGpm, 0.5), Some(200.0));
        assert_eq!(total(&summaries, Series::GpuPcieTxGpm, 0.5), None);
    }

    #[test]
    fn a_level_has_no_total_and_a_sampled_throughput_never() {
        let window = Window {
            from: ms(0),
            to: ms(10),
        };
        let levels = series(
            Series::GpuPower,
            &[(5, 0, 200.0), (9, 0, 400.0), (11, 0, 900.0)],
        );
        let summary = &summarize(&levels, window)[0];
        assert!((summary.mean.unwrap() - 300.0).abs() < 1e-9);
        assert_eq!((summary.max, summary.samples), (Some(400.0), 2));
        assert_eq!(summary.total, None);
        assert!((summary.near_max - 1.0).abs() < 1e-9, "200 is half of 400");
        let sampled = series(Series::GpuPcieRxThroughput, &[(5, 5, 200.0)]);
        assert_eq!(summarize(&sampled, window)[0].total, None);
        assert_eq!(
            summarize(
                &levels,
                Window {
                    from: ms(20),
                    to: ms(30)
                }
            ),
            []
        );
    }
}
