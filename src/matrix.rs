//! Plan to ordered, fully resolved cells. Pure: no I/O, no clock.

mod cells;
pub(crate) mod controls;
mod coordinates;
pub(crate) mod file_name;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod inputs;
mod partial;
mod place;
pub(crate) mod shard;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::plan::problem::{PlanProblems, Problem};
use crate::plan::run::Reuse;
use crate::plan::tier::TierSpec;
use crate::plan::workload_spec::WorkloadSpec;
use crate::plan::{Plan, Resolved};
use crate::units::Seed;
use partial::{is_excluded, matches, useless_includes, with_included};
use place::{Placed, place};

pub(crate) use cells::Cells;
pub(crate) use coordinates::{Coordinates, is_of_tier};

/// One point of the matrix, complete: it can be run, hashed and stored without its plan.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its coordinates and a hash of all plan values that decide its result.
    pub id: String,
    /// Where it lies.
    pub coordinates: Coordinates,
    /// The plan's values at this cell.
    pub resolved: Arc<Resolved>,
    /// The tier with its settings.
    pub tier: Arc<TierSpec>,
    /// The workload with its settings.
    pub workload: Arc<WorkloadSpec>,
    /// Cells with equal keys differ only in load: one server can serve them.
    pub server_key: Arc<str>,
}

impl Cell {
    /// The seed of this cell's prompts. Neither the tier nor its keys are in it: at equal other
    /// coordinates every tier is asked the same.
    pub fn seed(&self) -> Seed {
        let at = self.coordinates.without_tier();
        let at = String::from_utf8_lossy(&at.bytes()).into_owned();
        self.resolved.run.seed.derive(&at)
    }

    /// Whether it may find a server of an earlier cell running.
    pub fn can_share(&self) -> bool {
        self.resolved.run.reuse == Reuse::Server
    }
}

/// All cells of a plan, in the order that they run. At least one.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The cells.
    pub cells: Cells,
}

impl Matrix {
    /// Expands `plan`. Fails when nothing is left to run.
    pub fn expand(plan: &Plan) -> Result<Self, PlanProblems> {
        let mut problems = Vec::new();
        let mut placed = Placed::default();
        for (index, variant) in plan.variants.iter().enumerate() {
            place(plan, &plan.axes, index, variant, &mut placed);
        }
        for excluded in &plan.axes.exclude {
            // The author of a plan without a baseline says so that none is added.
            let is_baseline = excluded.is_whole_baseline();
            if !is_baseline && !placed.points().any(|at| matches(excluded, &at)) {
                problems.push(Problem::new(
                    excluded.span.clone(),
                    "this `matrix.exclude` takes no cell out",
                    "each value must stand on its axis, and the keys of a tier or a workload concern its own cells alone",
                ));
            }
        }
        if !plan.axes.exclude.is_empty() {
            placed.retain(|at| !is_excluded(&plan.axes, at));
        }
        for (index, variant) in plan.variants.iter().enumerate() {
            for included in &plan.axes.include {
                let axes = with_included(&plan.axes, included);
                let names_it =
                    |(key, value): &(String, String)| variant.extra.get(key) == Some(value);
                if included.extra.iter().all(names_it) {
                    place(plan, &axes, index, variant, &mut placed);
                }
            }
        }
        problems.extend(useless_includes(plan, &placed));
        for (index, variant) in plan.variants.iter().enumerate() {
            controls::place(plan, index, variant, &mut placed);
        }
        let cells = placed.into_cells(may_repeat(plan));
        if cells.is_empty() {
            problems.push(Problem::new(
                plan.axes.span.clone(),
                "the matrix has no cell",
                "`matrix.exclude` takes every one out",
            ));
        }
        if problems.is_empty() {
            return Ok(Self { cells });
        }
        Err(PlanProblems {
            file: plan.file.clone(),
            text: plan.text.clone(),
            problems,
        })
    }

    /// How many servers are started for the matrix.
    #[cfg(test)]
    pub(crate) fn server_starts(&self) -> usize {
        let pairs = self.cells.iter().zip(self.cells.iter().skip(1));
        1 + pairs
            .filter(|(earlier, next)| !shares_server(earlier, next))
            .count()
    }
}

/// Whether two ways of the plan may lead to one cell: by an include, or by values of an axis that do
/// not concern the cell's tier or workload.
fn may_repeat(plan: &Plan) -> bool {
    !plan.axes.include.is_empty() || !plan.axes.extra.is_empty()
}

/// Whether `next`, run right after `earlier`, uses the same server.
pub(crate) fn shares_server(earlier: &Cell, next: &Cell) -> bool {
    earlier.can_share() && next.can_share() && earlier.server_key == next.server_key
}
