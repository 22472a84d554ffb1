//! A series in few numbers: its least and its most in each of equally long stretches. No peak is
//! lost and nothing is averaged.

/// Stretches of time that a timeline in a page is divided into.
pub(super) const COLUMNS: usize = 310;

/// The least and the most value.
pub(super) type Range = (f64, f64);

/// Of `steps`, each from one second to another with a value, within `span`; absent for stretches
/// of time that no step touches.
pub(super) fn envelope(steps: &[(f64, f64, f64)], span: (f64, f64)) -> Vec<Option<Range>> {
    let mut columns: Vec<Option<Range>> = vec![None; COLUMNS];
    let (begin, end) = span;
    let width = (end - begin).max(1e-9) / COLUMNS as f64;
    let inside = steps.iter().filter(|step| step.1 >= begin && step.0 <= end);
    for (from, to, value) in inside.filter(|step| step.2.is_finite()) {
        let first = column((from - begin) / width);
        // What ends where a column begins is not in it.
        let last = column((to - begin) / width - 1e-9).max(first);
        for ends in &mut columns[first..=last] {
            let (low, high) = ends.unwrap_or((*value, *value));
            *ends = Some((low.min(*value), high.max(*value)));
        }
    }
    columns
}

fn column(at: f64) -> usize {
    (at.max(0.0) as usize).min(COLUMNS - 1)
}

/// The largest value; 0 where none is above it.
pub(super) fn most(columns: &[Option<Range>]) -> f64 {
    columns
        .iter()
        .flatten()
        .fold(0.0, |most, ends| ends.1.max(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_of_a_thousandth_of_a_column_is_not_lost() {
        let mut steps: Vec<_> = (0..31_000)
            .map(|at| (f64::from(at) / 100.0, f64::from(at + 1) / 100.0, 5.0))
            .collect();
        steps[12_345] = (123.45, 123.451, 90.0);
        steps[12_346] = (123.451, 123.47, -2.0);
        let columns = envelope(&steps, (0.0, 310.0));
        assert_eq!(columns.len(), COLUMNS);
        assert_eq!(columns[123], Some((-2.0, 90.0)));
        let others = columns.iter().enumerate().filter(|(at, _)| *at != 123);
        assert!(others.clone().all(|(_, ends)| *ends == Some((5.0, 5.0))));
        assert!((most(&columns) - 90.0).abs() < f64::EPSILON);
    }

    #[test]
    fn time_without_a_reading_stays_empty_and_what_is_outside_is_left_out() {
        let steps = [
            (-20.0, -10.0, 9.0),
            (-5.0, 10.0, 1.0),
            (200.0, 200.0, 2.0),
            (320.0, 330.0, 9.0),
        ];
        let columns = envelope(&steps, (0.0, 310.0));
        let filled: Vec<_> = (0..COLUMNS).filter(|at| columns[*at].is_some()).collect();
        let expected: Vec<_> = (0..10).chain([200]).collect();
        assert_eq!(filled, expected);
        assert!((most(&columns) - 2.0).abs() < f64::EPSILON);
    }
}
