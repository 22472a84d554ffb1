//! The files that a plan's workloads name: read and checked before anything is started, and each
//! problem shown at the plan's own line.

use crate::matrix::Matrix;
use crate::plan::Plan;
use crate::plan::problem::{PlanProblems, Problem};
use crate::workload::files::Files;

/// Reads the files of `matrix`.
pub(super) fn read(plan: &Plan, matrix: &Matrix) -> Result<Files, PlanProblems> {
    Files::read(matrix, plan.folder()).map_err(|problems| PlanProblems {
        file: plan.file.clone(),
        text: plan.text.clone(),
        problems: problems
            .into_iter()
            .map(|problem| {
                let span = plan.span_of(&["workload", &problem.label, "path"]);
                Problem::new(span, problem.message, "the file that this names")
            })
            .collect(),
    })
}
