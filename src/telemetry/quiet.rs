//! Bytes that belong to a pass, counted from the quiet reading before it to the quiet one after it.
//!
//! A reading is the mean rate of a span. The span that reaches over the begin of a pass holds bytes
//! of the pass, and dividing them by time loses some: a tier loads 2 GiB in 50 ms right behind the
//! begin. Where the reading before that span is quiet, nothing else was moving, and the whole span
//! belongs to the pass; the same holds at the end. Where no quiet reading bounds the pass, its
//! bytes are known only between two values.

use super::sample::Point;
use super::summary::Window;
use crate::units::Bounds;

/// A reading is quiet up to this share of the pass's highest rate.
const QUIET_SHARE: f64 = 0.02;

/// The bytes of `points` (rates over spans, in the order of their time) that belong to `pass`.
/// `None` where no reading reaches into it.
pub(crate) fn bytes_of(points: &[Point], pass: Window) -> Option<Bounds> {
    let first = points.iter().position(|point| point.at > pass.from)?;
    let begin = |point: &Point| point.at.saturating_sub(point.span);
    let last = points.iter().rposition(|point| begin(point) < pass.to)?;
    let inside = points.get(first..=last)?;
    let peak = inside.iter().map(|point| point.value).fold(0.0, f64::max);
    let is_quiet = |point: &Point| point.value <= QUIET_SHARE * peak;
    let bytes = |point: &Point| point.value * point.span.as_secs_f64();
    let mut sum = Bounds::exact(0.0);
    for (index, point) in (first..=last).zip(inside) {
        let starts_before = begin(point) < pass.from;
        let ends_behind = point.at > pass.to;
        let before = first.checked_sub(1).and_then(|before| points.get(before));
        let behind = points.get(last + 1);
        let certain =
            |neighbour: Option<&Point>| !is_quiet(point) && neighbour.is_some_and(is_quiet);
        let is_whole = (!starts_before || index != first || certain(before))
            && (!ends_behind || index != last || certain(behind));
        let high = bytes(point);
        sum = sum
            + Bounds {
                low: if is_whole { high } else { 0.0 },
                high,
            };
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Readings as (end s, span s, megabytes).
    fn points(readings: &[(f64, f64, f64)]) -> Vec<Point> {
        readings
            .iter()
            .map(|(at_s, span_s, megabytes)| Point {
                at: Duration::from_secs_f64(*at_s),
                span: Duration::from_secs_f64(*span_s),
                value: megabytes * 1e6 / span_s,
                late: false,
                slowed: false,
            })
            .collect()
    }

    fn window(from_s: f64, to_s: f64) -> Window {
        Window {
            from: Duration::from_secs_f64(from_s),
            to: Duration::from_secs_f64(to_s),
        }
    }

    /// GPM's payload of vLLM 0.26's own offloading on an H200: a probe of one document, the pass
    /// with six of 2 GiB each, then the canaries.
    const NATIVE: [(f64, f64, f64); 19] = [
        (308.5757, 0.1979, 2.2),
        (308.7757, 0.2, 0.0),
        (308.9757, 0.2, 0.2),
        (309.1757, 0.2, 0.0),
        (309.3856, 0.2099, 0.0),
        (309.5757, 0.1901, 2064.7),
        (309.6054, 0.0297, 1.0),
        (309.8038, 0.1985, 2154.2),
        (310.0038, 0.2, 2171.3),
        (310.2038, 0.2, 6.3),
        (310.4038, 0.2, 2171.3),
        (310.6038, 0.2, 2172.0),
        (310.8039, 0.2, 2172.6),
        (311.0038, 0.2, 6.1),
        (311.2053, 0.2015, 2188.4),
        (311.3477, 0.1424, 2.4),
        (311.5454, 0.1977, 2148.1),
        (311.7454, 0.2, 2175.7),
        (311.9454, 0.2, 680.9),
    ];

    #[test]
    fn a_short_pass_on_an_h200_is_counted_within_two_percent() {
        let pass = window(309.738_002, 309.738_002 + 1.589_547);
        let bytes = bytes_of(&points(&NATIVE), pass).unwrap();
        let truth = 6.0 * 2_147_483_648.0;
        for end in [bytes.low, bytes.high] {
            assert!((end / truth - 1.0).abs() < 0.02, "{end} of {truth}");
        }
    }

    #[test]
    fn without_a_quiet_reading_the_edge_is_uncertain() {
        // Something else moves until the pass begins at 1.1 s, and again from its end at 1.9 s.
        let busy = points(&[
            (1.0, 0.2, 900.0),
            (1.2, 0.2, 800.0),
            (1.8, 0.6, 3000.0),
            (2.0, 0.2, 700.0),
            (2.2, 0.2, 900.0),
        ]);
        let bytes = bytes_of(&busy, window(1.1, 1.9)).unwrap();
        assert_eq!((bytes.low, bytes.high), (3000e6, 4500e6));
        assert_eq!(bytes_of(&busy, window(3.0, 4.0)), None);
        assert_eq!(bytes_of(&[], window(0.0, 1.0)), None);
    }

    proptest! {
        /// Whatever moves in a pass between two quiet stretches is counted to the byte.
        #[test]
        fn bytes_between_quiet_readings_are_exact(
            inside in prop::collection::vec(0.0..2000.0_f64, 1..20),
            begin in 0.0..0.2_f64,
            end in 0.0..0.2_f64,
        ) {
            let peak = inside.iter().copied().fold(1.0, f64::max);
            let mut readings = vec![(1.0, 0.2, 0.0), (1.2, 0.2, 0.0)];
            let mut at_s = 1.2;
            // The readings at the edges carry load; in between anything goes.
            for megabytes in std::iter::once(&peak).chain(&inside).chain([&peak]) {
                at_s += 0.2;
                readings.push((at_s, 0.2, *megabytes));
            }
            readings.extend([(at_s + 0.2, 0.2, 0.0), (at_s + 0.4, 0.2, 0.0)]);
            let pass = window(1.2 + begin, at_s - end);
            let bytes = bytes_of(&points(&readings), pass).unwrap();
            let truth = (inside.iter().sum::<f64>() + 2.0 * peak) * 1e6;
            prop_assert!((bytes.low - truth).abs() < 1.0, "{bytes:?} {truth}");
            prop_assert!((bytes.high - truth).abs() < 1.0, "{bytes:?} {truth}");
        }
    }
}
