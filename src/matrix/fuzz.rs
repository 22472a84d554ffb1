//! The entry point of a fuzzer: a plan's text.

use super::Matrix;
use crate::plan::Plan;

/// More cells than that say nothing that these do not.
const MAX_CELLS: usize = 2_000;

/// Any text is a plan, whose cells differ, or has problems that can be shown.
pub(crate) fn plan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let plan = match Plan::parse(text, "plan.toml") {
        Ok(plan) => plan,
        Err(problems) => return assert!(!problems.to_string().is_empty()),
    };
    let axes = &plan.axes;
    let lengths = [axes.tier.len(), axes.label.len(), axes.prompt_len.len()];
    let more = [
        axes.gen_len.len(),
        axes.concurrency.len(),
        plan.variants.len(),
    ];
    let repeats = plan.variants[0].resolved.run.repeats.get() as usize;
    let counts = [&lengths[..], &more, &[repeats, axes.include.len() + 1]].concat();
    if counts.into_iter().fold(1, usize::saturating_mul) > MAX_CELLS {
        return;
    }
    match Matrix::expand(&plan) {
        Ok(matrix) => {
            let mut ids: Vec<String> = matrix.cells.iter().map(|cell| cell.id.clone()).collect();
            ids.sort_unstable();
            assert!(!ids.is_empty() && ids.windows(2).all(|two| two[0] != two[1]));
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}
