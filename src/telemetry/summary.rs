//! What a series says of a window of time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sample::{Series, SeriesKey, Unit};

/// A stretch of a run: a pass, mostly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its begin, from the run's epoch.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
}

impl Window {
    /// Seconds of it.
    pub fn seconds(self) -> f64 {
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
pub struct Summary {
    /// Which series.
    pub key: SeriesKey,
    /// Its unit.
    pub unit: Unit,
    /// Points that lie in the window or reach into it.
    pub samples: u64,
    /// Those of them that came late.
    pub late: u64,
    /// Mean over time; of levels, over the points.
    pub mean: Option<f64>,
    /// Largest point.
    pub max: Option<f64>,
    /// Integral over the window, where that means something.
    pub total: Option<f64>,
    /// Share of the window that points with a span cover; 1 for levels.
    pub covered: f64,
}

/// Sums up every series that says something of `window`.
pub fn summarize(series: &BTreeMap<SeriesKey, Series>, window: Window) -> Vec<Summary> {
    let all = series.iter();
    all.filter_map(|(key, series)| summary(key, series, window))
        .collect()
}

/// A rate is weighted by the part of its span that lies in the window: what moved in an interval
/// that reaches over an edge is taken to have moved evenly in it.
fn summary(key: &SeriesKey, series: &Series, window: Window) -> Option<Summary> {
    let (mut samples, mut late) = (0, 0);
    let (mut weight, mut sum) = (0.0, 0.0);
    let mut max = f64::NEG_INFINITY;
    let mut has_span = false;
    for point in &series.points {
        let share = if point.span.is_zero() {
            if point.at < window.from || point.at > window.to {
                continue;
            }
            1.0
        } else {
            has_span = true;
            window.overlap(point.at, point.span)
        };
        if share <= 0.0 {
            continue;
        }
        samples += 1;
        late += u64::from(point.late);
        weight += share;
        sum += share * point.value;
        max = max.max(point.value);
    }
    if samples == 0 {
        return None;
    }
    let covered = if has_span {
        (weight / window.seconds().max(f64::MIN_POSITIVE)).min(1.0)
    } else {
        1.0
    };
    Some(Summary {
        key: key.clone(),
        unit: series.unit,
        samples,
        late,
        mean: (weight > 0.0).then(|| sum / weight),
        max: Some(max),
        total: (has_span && series.unit.integrates()).then_some(sum),
        covered,
    })
}

/// Sum of the totals of `metric` over the devices of `source`; `None` where a device is covered by
/// less than `least` of the window, or none tells.
pub fn total(summaries: &[Summary], source: &str, metric: &str, least: f64) -> Option<f64> {
    let of = summaries
        .iter()
        .filter(|summary| summary.key.source == source && summary.key.metric == metric);
    let mut total = None;
    for summary in of {
        if summary.covered < least {
            return None;
        }
        *total.get_or_insert(0.0) += summary.total?;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::super::sample::Point;
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn series(unit: Unit, points: &[(u64, u64, f64)]) -> BTreeMap<SeriesKey, Series> {
        let key = SeriesKey {
            source: "gpu",
            device: "0".into(),
            metric: "m",
        };
        let points = points
            .iter()
            .map(|&(at, span, value)| Point {
                at: ms(at),
                span: ms(span),
                value,
                late: false,
            })
            .collect();
        BTreeMap::from([(key, Series { unit, points })])
    }

    #[test]
    fn an_interval_over_an_edge_counts_by_its_share() {
        // 100 bytes/s over 0..1 s, 300 over 1..2 s, 500 over 2..3 s; the window is 0.5..2.5 s.
        let all = series(
            Unit::BytesPerSecond,
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
        let found = &summarize(&all, window)[0];
        assert_eq!(found.total, Some(600.0), "50 + 300 + 250");
        assert_eq!(found.mean, Some(300.0));
        assert_eq!((found.samples, found.max), (3, Some(500.0)));
        assert!((found.covered - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_gap_lowers_the_cover_and_then_there_is_no_total_to_rely_on() {
        let all = series(
            Unit::BytesPerSecond,
            &[(1000, 1000, 100.0), (3000, 1000, 100.0)],
        );
        let window = Window {
            from: ms(0),
            to: ms(3000),
        };
        let found = summarize(&all, window);
        assert!((found[0].covered - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(total(&found, "gpu", "m", 0.95), None);
        assert_eq!(total(&found, "gpu", "m", 0.5), Some(200.0));
        assert_eq!(total(&found, "gpu", "other", 0.5), None);
    }

    #[test]
    fn a_level_has_no_total_and_a_sampled_throughput_never() {
        let window = Window {
            from: ms(0),
            to: ms(10),
        };
        let levels = series(Unit::Watts, &[(5, 0, 200.0), (9, 0, 400.0), (11, 0, 900.0)]);
        let found = &summarize(&levels, window)[0];
        assert_eq!((found.mean, found.max), (Some(300.0), Some(400.0)));
        assert_eq!((found.total, found.samples), (None, 2));
        let sampled = series(Unit::SampledBytesPerSecond, &[(5, 5, 200.0)]);
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
