//! Whether anything changed, in a line, and how small a change would have been seen.

use super::judge::Judged;
use crate::diff::{Diff, DiffRow, Measure, Outcome, Shown};
use crate::units::grouped;

impl Diff {
    /// Whether anything changed, and the least change that would have stood out of the noise. Nothing
    /// where no number is on both sides.
    pub(super) fn summary(&self) -> Option<String> {
        let of = |wanted: Outcome| self.count(|outcome| outcome == wanted);
        let (better, worse) = (of(Outcome::Better), of(Outcome::Worse));
        let untested = of(Outcome::Untested);
        let tested = better + worse + of(Outcome::Same);
        let mut text = match (better + worse, tested) {
            (_, 0) if untested == 0 => return None,
            (_, 0) => {
                "Whether anything changed is not known: too few repeats or requests to test any number"
                    .to_owned()
            }
            (0, _) => format!("No change in {} tested", numbers(tested)),
            (changed, _) => format!(
                "{} of {} changed: {} better, {} worse",
                grouped(changed),
                numbers(tested),
                grouped(better),
                grouped(worse)
            ),
        };
        if tested > 0 {
            text.push_str("; ");
            text.push_str(&self.least_change());
        }
        Some(text)
    }

    /// The least change that would have been seen, by measure.
    fn least_change(&self) -> String {
        let least = self.measures.iter().filter_map(|measure| {
            let mut floors: Vec<f64> = self
                .rows
                .iter()
                .filter_map(|row| row.numbers.get(measure)?.floor)
                .collect();
            floors.sort_by(f64::total_cmp);
            let median = crate::stats::quantile(&floors, 0.5)?;
            Some(format!("{measure} {:.1} %", median * 100.0))
        });
        let least: Vec<String> = least.collect();
        if least.is_empty() {
            return "how small a change would have been seen is not known: that takes several repeats a \
                    side (`repeats` in [run])"
                .to_owned();
        }
        format!(
            "least change that would have been seen: {}",
            least.join(", ")
        )
    }

    /// The rows of `measure` that are shown.
    pub(super) fn shown_rows(&self, measure: Measure) -> Vec<(&DiffRow, &Judged)> {
        let is_tested = self.count(|outcome| outcome != Outcome::Untested) > 0;
        let is_shown = |judged: &Judged| match (self.shown, judged.outcome) {
            (Shown::All, _) | (Shown::Changed, Outcome::Better | Outcome::Worse) => true,
            (Shown::Changed, Outcome::Same) => false,
            (Shown::Changed, Outcome::Untested) => !is_tested,
        };
        self.rows
            .iter()
            .filter_map(|row| Some((row, row.numbers.get(&measure)?)))
            .filter(|(_, judged)| is_shown(judged))
            .collect()
    }

    /// What is not shown, and how to see it.
    pub(super) fn not_shown(&self) -> Option<String> {
        let shown: usize = self
            .measures
            .iter()
            .map(|measure| self.shown_rows(*measure).len())
            .sum();
        let hidden = self.count(|_| true) - shown;
        let untested = match self.count(|outcome| outcome == Outcome::Untested) {
            0 => String::new(),
            untested => format!(", {} of them for want of a test", grouped(untested)),
        };
        (hidden > 0).then(|| {
            format!(
                "Not shown: {} without a change that could be named{untested}; --all shows them.",
                numbers(hidden)
            )
        })
    }

    fn count(&self, wanted: impl Fn(Outcome) -> bool) -> usize {
        let all = self.rows.iter().flat_map(|row| row.numbers.values());
        all.filter(|judged| wanted(judged.outcome)).count()
    }
}

/// `1 number`, `1,024 numbers`.
fn numbers(count: usize) -> String {
    match count {
        1 => "1 number".to_owned(),
        count => format!("{} numbers", grouped(count)),
    }
}
