use super::*;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::plan::state::CacheState;

const COLD: CacheState = CacheState::Cold;

/// One strip a cell, each of so many bytes.
pub(in crate::report) fn strips(count: usize, bytes: usize) -> Timelines {
    let strip = |at| Strip::Inline {
        svg: format!("<svg>{}{at:010}", "0".repeat(bytes - 15)),
        names: String::new(),
        told: String::new(),
        title: format!("cell {at}"),
    };
    Timelines {
        figures: Vec::new(),
        strips: (0..count).map(strip).collect(),
    }
}

/// Which stay in the page, in the order of the cells, and the files of the others.
fn fitted(
    mut all: Timelines,
    cells: &[CellRecord],
    budget_bytes: usize,
) -> (Vec<usize>, Vec<String>) {
    all.fit(cells, budget_bytes);
    let inline = (0..cells.len()).filter(|at| matches!(all.of_cell(*at), Strip::Inline { .. }));
    let files = all.files().map(|(name, _)| name.to_owned()).collect();
    (inline.collect(), files)
}

#[test]
fn each_tier_and_length_comes_first_then_what_is_not_valid() {
    let mut bench = Bench::new();
    for (tier, length) in [
        ("cpu", 1024),
        ("cpu", 1024),
        ("cpu", 2048),
        ("disk", 1024),
        ("disk", 1024),
    ] {
        bench
            .cell(tier, length, 1, 1)
            .pass(COLD, &rows_of(&[1.0], 0));
    }
    let mut cells = bench.run().cells;
    cells[1].passes[0].duration_s = 9.0;
    cells[4].passes[0].verdict.status = VerdictStatus::Invalid;
    for (at, cell) in cells.iter_mut().enumerate() {
        cell.id = format!("c{at}");
    }
    let all = || strips(5, 100);
    assert_eq!(fitted(all(), &cells, 500), (vec![0, 1, 2, 3, 4], vec![]));
    let one_out = vec!["timeline_c0.svg".to_owned()];
    assert_eq!(fitted(all(), &cells, 499), (vec![1, 2, 3, 4], one_out));
    assert_eq!(fitted(all(), &cells, 300).0, [1, 2, 3]);
}

#[test]
fn files_of_cells_with_one_id_do_not_overwrite_each_other() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench
            .cell("cpu", 1024, 1, 1)
            .pass(COLD, &rows_of(&[1.0], 0));
    }
    let (inline, files) = fitted(strips(2, 100), &bench.run().cells, 0);
    assert!(inline.is_empty());
    assert_eq!(
        files,
        [
            "timeline_cpu-p1024-c1-r1.svg",
            "timeline_cpu-p1024-c1-r1_2.svg"
        ]
    );
}

#[test]
fn a_file_holds_what_the_page_would_have() {
    let mut bench = Bench::new();
    bench
        .cell("cpu", 1024, 1, 1)
        .pass(COLD, &rows_of(&[1.0], 0));
    let mut all = strips(1, 100);
    all.fit(&bench.run().cells, 0);
    let (_, bytes) = all.files().next().unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(
        text.contains("cell 0") && text.ends_with(&format!("{:095}", 0)),
        "{text}"
    );
    assert_eq!(all.counts(), (0, 1));
}
