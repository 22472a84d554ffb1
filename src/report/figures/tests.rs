use super::*;
use crate::aggregate::compare;
use crate::aggregate::fixture::{Bench, realistic, rows_of};
use crate::report::figure::HeatCell;

fn names(comparison: &Comparison) -> Vec<String> {
    let drawings = drawings(comparison, &[]).unwrap();
    drawings.into_iter().map(|drawing| drawing.name).collect()
}

#[test]
fn a_run_with_every_axis_has_every_figure_and_each_is_marked_simulated() {
    let comparison = compare(&realistic()).unwrap();
    assert_eq!(
        names(&comparison),
        [
            "comparison_ttft",
            "comparison_e2e",
            "cold_warm",
            "break_even",
            "speedup_heatmap",
            "throughput_concurrency",
            "latency_throughput",
            "ttft_ecdf",
            "itl_distribution",
        ]
    );
    for drawing in drawings(&comparison, &[]).unwrap() {
        assert!(drawing.svg.contains(">\nsimulated"), "{}", drawing.name);
    }
}

#[test]
fn what_the_data_does_not_hold_is_not_drawn() {
    let mut bench = Bench::new();
    for tier in ["baseline", "cpu"] {
        bench
            .cell(tier, 1024, 8, 1)
            .pass(CacheState::Tier, &rows_of(&[10.0, 20.0], 0));
    }
    // One length, one concurrency, one state.
    assert_eq!(
        names(&compare(&bench.run()).unwrap()),
        [
            "comparison_ttft",
            "comparison_e2e",
            "ttft_ecdf",
            "itl_distribution"
        ]
    );
}

#[test]
fn where_the_time_went_is_one_bar_a_tier_and_comes_first() {
    let mut bench = Bench::new();
    for tier in ["baseline", "cpu"] {
        bench
            .cell(tier, 1024, 1, 1)
            .pass(CacheState::Cold, &rows_of(&[90.0, 110.0], 0))
            .pass(CacheState::Tier, &rows_of(&[90.0, 110.0], 0));
    }
    let mut run = bench.run();
    for cell in &mut run.cells {
        cell.passes[1].evidence = [
            ("queue_time_mean_ms".to_owned(), 60.0),
            ("prefill_time_mean_ms".to_owned(), 30.0),
        ]
        .into();
    }
    let comparison = compare(&run).unwrap();
    let chart = parts::chart(&comparison, &[]).unwrap();
    assert_eq!(chart.panels.len(), 1, "the cold passes were not timed");
    let bars = &chart.panels[0].bars;
    assert_eq!(bars.len(), 2);
    assert_eq!(bars[0].values, [60.0, 0.0, 30.0, 0.0, 0.0, 0.0, 0.0, 10.0]);
    assert_eq!(bars[0].label, "100 ms, queue");
    assert_eq!(names(&comparison)[0], "ttft_parts");
}

#[test]
fn the_front_is_what_nothing_beats_in_both() {
    let points = vec![
        (10.0, 5.0),
        (20.0, 9.0),
        (15.0, 4.0),
        (20.0, 8.0),
        (5.0, 3.0),
        (4.0, 3.0),
    ];
    assert_eq!(front(points), [(5.0, 3.0), (15.0, 4.0), (20.0, 8.0)]);
}

#[test]
fn an_invalid_cell_is_marked_and_has_no_colour_and_no_break_even() {
    let comparison = compare(&realistic()).unwrap();
    let map = heat::map(&comparison, &[]).unwrap();
    let panel = map
        .panels
        .iter()
        .find(|panel| panel.title == "redis, state tier hit")
        .unwrap();
    assert_eq!(
        (panel.columns.len(), panel.rows.join(",")),
        (3, "1,8".to_owned())
    );
    // Concurrency 8, 16384 tokens.
    let invalid = HeatCell {
        text: "invalid".to_owned(),
        speedup: None,
    };
    assert_eq!(panel.cells[1][2], invalid);
    assert!(panel.cells[0][2].speedup.is_some());
    let figure = break_even(&comparison, &[]).unwrap();
    let redis = figure
        .tiers
        .iter()
        .position(|tier| tier == "redis")
        .unwrap();
    let panel = figure
        .panels
        .iter()
        .find(|panel| panel.title == "tier hit, 8 at a time")
        .unwrap();
    assert!(panel.lines[&redis].iter().all(|point| point.x < 16_384.0));
    let drawn = latency_throughput(&comparison.pools, &[]).unwrap();
    let svg = Picture::Lines(drawn).svg().unwrap();
    assert!(svg.contains("crossed: verdict invalid") && svg.contains("Pareto front"));
}

#[test]
fn cold_and_warm_are_the_two_ends_of_one_line() {
    let mut bench = Bench::new();
    bench
        .cell("cpu", 1024, 8, 1)
        .pass(CacheState::Cold, &rows_of(&[100.0, 120.0], 0))
        .pass(CacheState::Tier, &rows_of(&[10.0, 20.0], 0));
    let figure = cold_warm(&compare(&bench.run()).unwrap().pools, &[]).unwrap();
    let point = &figure.panels[0].lines[&0][0];
    assert_eq!((point.y, point.band), (15.0, Some((15.0, 110.0))));
}
