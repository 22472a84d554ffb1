//! Control cells, on which offloading cannot help. A tier that wins there makes its comparisons
//! doubtful.

use std::sync::Arc;

use super::cells::{CellIndex, Shared};
use super::place::{Placed, place_last};
use crate::plan::server::Launcher;
use crate::plan::state::CacheState;
use crate::plan::tier::BASELINE;
use crate::plan::workload_spec::{WorkloadKind, WorkloadSpec};
use crate::plan::{Plan, Resolved, Variant};
use crate::units::{Repeat, RequestCount};

/// The label of the control whose prompts share nothing: no tier has anything to serve.
pub(crate) const NO_REUSE: &str = "control-no-reuse";
/// The label of the control whose documents fit the GPU, asked again while they are there: no tier
/// is needed.
pub(crate) const FITS_GPU: &str = "control-fits-gpu";

/// Most requests of a control's pass.
const MAX_REQUESTS: u32 = 8;

/// Whether `label` is a control's.
pub(crate) fn is_control(label: &str) -> bool {
    [NO_REUSE, FITS_GPU].contains(&label)
}

/// Whether `variant` has controls: by default, where a real server compares a tier with the
/// baseline. Simulated numbers stand for no hardware and need none.
fn has_controls(plan: &Plan, variant: &Variant) -> bool {
    let run = &variant.resolved.run;
    let is_real = variant.resolved.server.launcher != Launcher::Sim;
    let tiers = &plan.axes.tier;
    run.controls.unwrap_or(is_real)
        && run.states.iter().any(|state| *state != CacheState::Cold)
        && tiers.iter().any(|tier| tier.value == BASELINE)
        && tiers.len() > 1
}

/// Adds the controls of `variant`: one of each kind a tier, at the smallest coordinates.
pub(super) fn place(plan: &Plan, index: usize, variant: &Variant, placed: &mut Placed) {
    if !has_controls(plan, variant) {
        return;
    }
    let axes = &plan.axes;
    let (Some(&prompt_len), Some(&gen_len), Some(&concurrency), Some(repeat)) = (
        axes.prompt_len.iter().min(),
        axes.gen_len.iter().min(),
        axes.concurrency.iter().min(),
        Repeat::new(1),
    ) else {
        return;
    };
    for (number, (label, control)) in controls(variant).into_iter().enumerate() {
        for tier in &axes.tier {
            let Some(shared) = Shared::new(&control, &tier.value, label) else {
                continue;
            };
            let cell_index = CellIndex {
                shared: 0,
                prompt_len,
                gen_len,
                concurrency,
                repeat,
            };
            place_last(plan, index, shared, cell_index, number, placed);
        }
    }
}

/// The controls of a variant, with the values that they are run with.
fn controls(variant: &Variant) -> Vec<(&'static str, Variant)> {
    let named = variant.resolved.run.states.as_slice();
    let no_reuse = WorkloadSpec {
        kind: WorkloadKind::Unique,
        ..WorkloadSpec::default()
    };
    let mut all = Vec::new();
    let mut states = vec![CacheState::Cold];
    if named.contains(&CacheState::Tier) {
        states.push(CacheState::Tier);
    }
    all.push((NO_REUSE, with(variant, NO_REUSE, no_reuse, states)));
    if variant.resolved.server.gpu_prefix_cache() {
        let states = vec![CacheState::Cold, CacheState::Gpu];
        let fits = WorkloadSpec::default();
        all.push((FITS_GPU, with(variant, FITS_GPU, fits, states)));
    }
    all
}

fn with(variant: &Variant, label: &str, spec: WorkloadSpec, states: Vec<CacheState>) -> Variant {
    let mut resolved = Resolved::clone(&variant.resolved);
    let requests = resolved.run.requests.get().min(MAX_REQUESTS);
    resolved.run.requests = RequestCount::new(requests).unwrap_or(resolved.run.requests);
    resolved.run.states = states;
    resolved.workloads.insert(label.to_owned(), spec);
    Variant {
        extra: variant.extra.clone(),
        resolved: Arc::new(resolved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;

    const PLAN: &str = r#"
name = "t"
model = "m"
[matrix]
tier = ["baseline", "cpu"]
prompt_len = [4096, 1024]
gen_len = [4]
concurrency = [8, 1]
label = ["rag"]
[run]
requests = 24
repeats = 2
states = ["cold", "gpu", "tier"]
reuse = "server"
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "process"
"#;

    fn matrix(from: &str, to: &str) -> Matrix {
        assert!(PLAN.contains(from));
        let plan = Plan::parse(&PLAN.replace(from, to), "t.toml").unwrap();
        Matrix::expand(&plan).unwrap()
    }

    fn controls(matrix: &Matrix) -> Vec<crate::matrix::Cell> {
        let is_one = |cell: &crate::matrix::Cell| is_control(&cell.coordinates.label);
        matrix.cells.iter().filter(is_one).collect()
    }

    #[test]
    fn each_tier_has_one_of_each_kind_at_the_smallest_coordinates_on_its_own_server() {
        let all = matrix("repeats = 2", "repeats = 2");
        let controls = controls(&all);
        assert_eq!(controls.len(), 4);
        assert_eq!(all.cells.len(), 2 * 2 * 2 * 2 + 4);
        let without = matrix("repeats = 2", "repeats = 2\ncontrols = false");
        assert_eq!(all.server_starts(), without.server_starts());
        for cell in controls {
            let at = &cell.coordinates;
            assert_eq!((at.prompt_len.get(), at.concurrency.get()), (1024, 1));
            assert_eq!(cell.resolved.run.requests.get(), 8);
            let second = match at.label.as_str() {
                NO_REUSE => CacheState::Tier,
                _ => CacheState::Gpu,
            };
            assert_eq!(cell.resolved.run.states, [CacheState::Cold, second]);
        }
    }

    #[test]
    fn there_are_none_where_they_are_off_or_mean_nothing() {
        for (from, to) in [
            ("repeats = 2", "controls = false"),
            ("[\"baseline\", \"cpu\"]", "[\"cpu\"]"),
            ("launcher = \"process\"", "launcher = \"sim\""),
            ("[\"cold\", \"gpu\", \"tier\"]", "[\"cold\"]"),
        ] {
            assert_eq!(controls(&matrix(from, to)).len(), 0, "{to}");
        }
        let no_gpu_cache = "launcher = \"process\"\n[server.args]\nenable-prefix-caching = false";
        let states = PLAN.replace("\"gpu\", ", "");
        let text = states.replace("launcher = \"process\"", no_gpu_cache);
        let plan = Plan::parse(&text, "t.toml").unwrap();
        let matrix = Matrix::expand(&plan).unwrap();
        assert!(
            controls(&matrix)
                .iter()
                .all(|cell| cell.coordinates.label == NO_REUSE)
        );
    }
}
