use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::{Cell, Coordinates, Matrix, inputs, is_of_tier};
use crate::plan::Plan;
use crate::plan::tier::BASELINE;

/// Further axes: keys of the server, of each tier and of each workload.
const AXES: [&str; 6] = [
    "\"server.args.max-num-seqs\" = [8, 16]",
    "\"tier.cpu.chunk_size\" = [64, 256, 1024]",
    "\"tier.cpu.max_local_cpu_size\" = [1, 2]",
    "\"tier.disk.chunk_size\" = [64, 256]",
    "\"workload.rag.question_len\" = [8, 16]",
    "\"workload.chat.question_len\" = [8, 16]",
];

fn plan(axes: &[&str], tiers: &[&str], labels: &[&str], run: &str) -> Matrix {
    let text = format!(
        "name = \"t\"\nmodel = \"m\"\n[matrix]\ntier = {tiers:?}\nprompt_len = [4096]\n\
         gen_len = [8]\nconcurrency = [1, 2]\nlabel = {labels:?}\n{}\n[run]\n{run}\n\
         [workload.rag]\nkind = \"shared-prefix\"\n[workload.chat]\nkind = \"shared-prefix\"\n\
         [server]\nlauncher = \"process\"\n",
        axes.join("\n")
    );
    Matrix::expand(&Plan::parse(&text, "t").unwrap()).unwrap()
}

/// What decides the result of a cell, and its repeat.
fn measured(cell: &Cell) -> String {
    let at = Coordinates {
        extra: BTreeMap::new(),
        ..cell.coordinates.clone()
    };
    let inputs = inputs::of(&cell.resolved, &cell.tier, &cell.workload);
    format!("{at:?} {inputs}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_two_cells_are_equal_and_every_tier_has_a_baseline_with_its_prompts(
        axes in subsequence(AXES.to_vec(), 0..=4),
        tiers in subsequence(vec!["cpu", "disk"], 1..=2),
        labels in subsequence(vec!["rag", "chat"], 1..=2),
        run in prop::sample::select(vec!["", "repeats = 2", "aa = true", "reuse = \"server\""]),
    ) {
        let tiers = [&[BASELINE], tiers.as_slice()].concat();
        let cells: Vec<Cell> = plan(&axes, &tiers, &labels, run).cells.iter().collect();
        let mut seen = HashSet::new();
        for cell in &cells {
            prop_assert!(seen.insert(measured(cell)), "{} is measured twice", cell.id);
        }
        for cell in &cells {
            let mut at = cell.coordinates.clone();
            BASELINE.clone_into(&mut at.tier);
            at.extra.retain(|key, _| !is_of_tier(key));
            let baseline = cells.iter().find(|cell| cell.coordinates == at);
            prop_assert!(baseline.is_some(), "{} has no baseline", cell.id);
            prop_assert_eq!(baseline.unwrap().seed(), cell.seed());
        }
    }
}

#[test]
fn old_words_of_cache_states_mean_the_same_cells() {
    let cells = |axes: &[&str], run: &str| -> Vec<_> {
        let matrix = plan(axes, &[BASELINE, "disk"], &["rag"], run);
        let each = matrix.cells.iter();
        each.map(|cell| (cell.id.clone(), cell.inputs())).collect()
    };
    for (old, new) in [
        ("[\"cold\", \"gpu\"]", "[\"cold\", \"gpu-hit\"]"),
        (
            "[\"tier\", \"restart\"]",
            "[\"tier-hit\", \"after-restart\"]",
        ),
    ] {
        let of = |states: &str| cells(&[], &format!("states = {states}"));
        assert_eq!(of(old), of(new));
        let axis = |states: &str| cells(&[&format!("\"run.states\" = [{states}]")], "");
        assert_eq!(axis(old), axis(new));
    }
}

#[test]
fn a_sweep_of_a_tiers_setting_measures_the_other_tiers_once_and_on_one_machine() {
    let axis = "\"tier.cpu.chunk_size\" = [64, 256, 1024]";
    let matrix = plan(
        &[axis],
        &[BASELINE, "cpu", "disk"],
        &["rag"],
        "controls = false",
    );
    let of = |tier: &str| {
        let cells = matrix.cells.iter();
        cells.filter(|cell| cell.coordinates.tier == tier).count()
    };
    assert_eq!((of(BASELINE), of("cpu"), of("disk")), (2, 6, 2));
    for index in [1, 2] {
        let part = matrix.cells_of(super::shard::Shard { index, of: 2 });
        let loads: HashSet<_> = part
            .iter()
            .map(|&index| matrix.cells.get(index).unwrap().coordinates.concurrency)
            .collect();
        assert_eq!((part.len(), loads.len()), (5, 1));
    }
}
