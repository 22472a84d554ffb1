//! Estimates how long the rest of a run takes. Starting a server costs minutes, reusing a running one
//! costs nothing, and tiers differ.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::matrix::{Cell, shares_server};
use crate::runner::result::Work;

/// Tier, and whether the cell starts a server: cells that agree in both take equally long.
type Kind = (Arc<str>, bool);

/// The cells of a run, and how long the finished ones took.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    todo: Vec<Kind>,
    ended: HashMap<Kind, (Duration, u32)>,
    next: usize,
}

impl Estimate {
    /// An estimate for the cells of `work` before the first begins.
    pub(super) fn new(work: Work<'_>) -> Self {
        let mut names: HashMap<String, Arc<str>> = HashMap::new();
        let mut before: Option<Cell> = None;
        let cells = work.todo.iter().filter_map(|&at| work.matrix.cells.get(at));
        let todo = cells
            .map(|cell| {
                let starts = before
                    .take()
                    .is_none_or(|before| !shares_server(&before, &cell));
                let tier = cell.coordinates.tier.clone();
                let new = || Arc::from(tier.as_str());
                let name = Arc::clone(names.entry(tier.clone()).or_insert_with(new));
                before = Some(cell);
                (name, starts)
            })
            .collect();
        Self {
            todo,
            ended: HashMap::new(),
            next: 0,
        }
    }

    /// How many cells there are in all.
    pub(super) fn cells(&self) -> usize {
        self.todo.len()
    }

    /// How many have ended.
    pub(super) fn count_ended(&self) -> usize {
        self.next
    }

    /// The next cell was not run.
    pub(super) fn skipped(&mut self) {
        self.next += 1;
    }

    /// The next cell has ended.
    pub(super) fn ended(&mut self, took: Duration) {
        if let Some(kind) = self.todo.get(self.next) {
            let (sum, count) = self.ended.entry(kind.clone()).or_default();
            *sum += took;
            *count += 1;
        }
        self.next += 1;
    }

    /// The time that the remaining cells will take. Each is expected to take the mean of the finished
    /// cells of its kind, else of those that started a server (or reused one) like it, else of all. `None`
    /// before the first has ended and when none is left.
    pub(super) fn left(&self) -> Option<Duration> {
        let rest = self.todo.get(self.next..).filter(|rest| !rest.is_empty())?;
        let mut counts: HashMap<&Kind, u32> = HashMap::new();
        for kind in rest {
            *counts.entry(kind).or_default() += 1;
        }
        let mut left = Duration::ZERO;
        for (kind, count) in counts {
            let own = self.mean(|known| known == kind);
            let alike = || self.mean(|known| known.1 == kind.1);
            left += own.or_else(alike).or_else(|| self.mean(|_| true))? * count;
        }
        Some(left)
    }

    fn mean(&self, of: impl Fn(&Kind) -> bool) -> Option<Duration> {
        let finished = self.ended.iter().filter(|(kind, _)| of(kind));
        let (sum, count) = finished
            .fold((Duration::ZERO, 0), |(sum, count), (_, (took, ended))| {
                (sum + *took, count + ended)
            });
        sum.checked_div(count)
    }

    #[cfg(test)]
    pub(super) fn of(todo: &[(&str, bool)]) -> Self {
        let kind = |(tier, starts): &(&str, bool)| (Arc::from(*tier), *starts);
        Self {
            todo: todo.iter().map(kind).collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_start_a_server_take_as_long_as_such_cells() {
        let seconds = Duration::from_secs;
        let mut run = Estimate::of(&[
            ("cpu", true),
            ("cpu", false),
            ("disk", true),
            ("disk", false),
            ("cpu", true),
        ]);
        assert_eq!(run.left(), None, "nothing is known yet");
        run.ended(seconds(100));
        assert_eq!(run.left(), Some(seconds(400)), "all that is known");
        run.ended(seconds(1));
        assert_eq!(run.left(), Some(seconds(201)), "100 + 1 + 100");
        run.ended(seconds(50));
        assert_eq!(run.left(), Some(seconds(101)), "starts of each are known");
        run.ended(seconds(1));
        run.ended(seconds(1));
        assert_eq!(run.left(), None, "nothing is left");
    }
}
