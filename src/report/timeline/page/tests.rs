use super::*;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::plan::state::CacheState;

const COLD: CacheState = CacheState::Cold;

/// One strip a cell, each of so many bytes.
pub(in crate::report) fn strips(count: usize, bytes: usize) -> Timelines {
    let mut all = Timelines::default();
    for at in 0..count {
        all.add(strip(at, bytes), false);
    }
    all
}

fn strip(at: usize, bytes: usize) -> Strip {
    Strip::Inline {
        svg: format!("<svg>{}{at:010}", "0".repeat(bytes - 15)),
        names: String::new(),
        resolution: String::new(),
        title: format!("cell {at}"),
        file: format!("timeline_c{at}.svg"),
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
fn a_cell_that_is_a_file_anyway_is_one_file_when_the_page_has_no_room() {
    let mut bench = Bench::new();
    for tier in ["cpu", "disk"] {
        bench.cell(tier, 1024, 1, 1).pass(COLD, &rows_of(&[1.0], 0));
    }
    let mut all = Timelines::default();
    all.add(strip(0, 100), true);
    all.add(strip(1, 100), false);
    let names =
        |all: &Timelines| -> Vec<String> { all.files().map(|(name, _)| name.to_owned()).collect() };
    assert_eq!(names(&all), ["timeline_c0.svg"]);
    assert_eq!(all.counts(), (2, 2), "it stands in the page as well");
    all.fit(&bench.run().cells, 0);
    assert_eq!(names(&all), ["timeline_c0.svg", "timeline_c1.svg"]);
    assert_eq!(all.counts(), (0, 2));
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
