use super::*;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::plan::state::CacheState;

const COLD: CacheState = CacheState::Cold;

#[test]
fn pools_repeats_and_compares_medians() {
    let mut bench = Bench::new();
    bench
        .cell("baseline", 1024, 8, 1)
        .pass(COLD, &rows_of(&[100.0, 110.0, 120.0], 0));
    bench
        .cell("baseline", 1024, 8, 2)
        .pass(COLD, &rows_of(&[130.0, 140.0, 150.0], 0));
    bench
        .cell("cpu", 1024, 8, 1)
        .pass(COLD, &rows_of(&[20.0, 25.0, 30.0, 45.0], 1));
    let comparison = compare(&bench.run()).unwrap();
    assert_eq!(comparison.pools.len(), 2);
    assert_eq!(
        (
            comparison.pools[0].tier.as_str(),
            comparison.pools[0].repeats
        ),
        ("baseline", 2)
    );

    let row = &comparison.rows[0];
    assert_eq!(
        (comparison.rows.len(), &row.standing),
        (1, &Standing::Compared)
    );
    // Medians: 125 of six, 27.5 of four. 125 / 27.5 = 4.5454...
    assert_eq!(
        (row.ttft.baseline, row.ttft.tier),
        (Some(125.0), Some(27.5))
    );
    assert_eq!(row.ttft.difference, Some(-97.5));
    assert!((row.ttft.speedup.unwrap() - 50.0 / 11.0).abs() < 1e-12);
    assert_eq!(row.ttft.clarity, Clarity::Clear);
    // E2E is 30 ms more on both sides: 155 / 57.5.
    assert!((row.e2e.speedup.unwrap() - 155.0 / 57.5).abs() < 1e-12);
    // 24 tokens in two passes of 2 s against 16 in one: 6 against 8.
    assert_eq!(
        (row.output.baseline, row.output.tier),
        (Some(6.0), Some(8.0))
    );
    assert!((row.output.speedup.unwrap() - 8.0 / 6.0).abs() < 1e-12);
    assert_eq!(row.baseline_counts.unwrap().ok, 6);
    assert_eq!(
        (
            row.tier_counts.sent,
            row.tier_counts.ok,
            row.tier_counts.failed
        ),
        (5, 4, 1)
    );
}

#[test]
fn scatter_larger_than_the_difference_may_be_noise() {
    let mut bench = Bench::new();
    bench
        .cell("baseline", 1024, 1, 1)
        .pass(COLD, &rows_of(&[10.0, 20.0, 30.0, 40.0], 0));
    bench
        .cell("cpu", 1024, 1, 1)
        .pass(COLD, &rows_of(&[11.0, 19.0, 33.0, 38.0], 0));
    bench
        .cell("disk", 1024, 1, 1)
        .pass(COLD, &rows_of(&[1.0, 2.0], 0));
    let comparison = compare(&bench.run()).unwrap();
    let clarity: Vec<_> = comparison.rows.iter().map(|row| row.ttft.clarity).collect();
    assert_eq!(clarity, [Clarity::MayBeNoise, Clarity::Untested]);
}

#[test]
fn one_invalid_repeat_withholds_the_ratio_on_either_side() {
    for (spoiled, expected) in [
        ("cpu", "cpu is invalid: no tier hits"),
        ("baseline", "baseline is invalid: no tier hits"),
    ] {
        let mut bench = Bench::new();
        for tier in ["baseline", "cpu"] {
            bench
                .cell(tier, 1024, 1, 1)
                .pass(COLD, &rows_of(&[10.0, 20.0], 0));
            let last = bench
                .cell(tier, 1024, 1, 2)
                .pass(COLD, &rows_of(&[10.0, 20.0], 0));
            if tier == spoiled {
                last.verdict(VerdictStatus::Invalid, "no tier hits");
            }
        }
        let row = compare(&bench.run()).unwrap().rows.remove(0);
        assert_eq!(row.standing, Standing::Withheld(expected.to_owned()));
        assert_eq!((row.ttft.baseline, row.ttft.tier), (Some(15.0), Some(15.0)));
        assert_eq!((row.ttft.speedup, row.ttft.difference), (None, None));
        assert_eq!(
            (row.output.speedup, row.ttft.clarity),
            (None, Clarity::Untested)
        );
    }
}

#[test]
fn the_worst_verdict_brings_its_own_reason() {
    let mut bench = Bench::new();
    for (repeat, status) in (1..).zip([
        VerdictStatus::Inconclusive,
        VerdictStatus::Invalid,
        VerdictStatus::Valid,
    ]) {
        bench
            .cell("cpu", 1024, 1, repeat)
            .pass(COLD, &rows_of(&[10.0], 0))
            .verdict(status, status.name());
    }
    let pool = compare(&bench.run()).unwrap().pools.remove(0);
    assert_eq!(
        (pool.verdict, pool.reason.as_deref()),
        (VerdictStatus::Invalid, Some("invalid"))
    );
}

#[test]
fn only_equal_coordinates_are_compared() {
    let mut bench = Bench::new();
    bench
        .cell("baseline", 1024, 1, 1)
        .pass(COLD, &rows_of(&[10.0, 20.0], 0));
    bench
        .cell("cpu", 1024, 8, 1)
        .pass(COLD, &rows_of(&[10.0, 20.0], 0));
    bench
        .cell("cpu", 5120, 1, 1)
        .pass(COLD, &rows_of(&[10.0, 20.0], 0));
    bench
        .cell("cpu", 1024, 1, 1)
        .pass(CacheState::Tier, &rows_of(&[10.0, 20.0], 0));
    for row in compare(&bench.run()).unwrap().rows {
        let said = Standing::Withheld("no `baseline` at these coordinates".to_owned());
        assert_eq!(
            (row.standing, row.baseline_counts),
            (said, None),
            "{:?}",
            row.place
        );
    }
}

#[test]
fn simulated_and_measured_are_not_compared() {
    let mut bench = Bench::new();
    bench
        .cell("baseline", 1024, 1, 1)
        .pass(COLD, &rows_of(&[10.0, 20.0], 0));
    bench
        .cell("cpu", 1024, 1, 1)
        .source(Source::Measured)
        .pass(COLD, &rows_of(&[1.0, 2.0], 0));
    let row = compare(&bench.run()).unwrap().rows.remove(0);
    let said = "baseline is simulated and cpu is measured".to_owned();
    assert_eq!(row.standing, Standing::Withheld(said));
    assert_eq!(row.source, Source::Simulated);
}

#[test]
fn a_tier_without_answers_has_no_ratio() {
    let mut bench = Bench::new();
    bench
        .cell("baseline", 1024, 1, 1)
        .pass(COLD, &rows_of(&[10.0, 20.0], 0));
    bench.cell("cpu", 1024, 1, 1).pass(COLD, &rows_of(&[], 3));
    let row = compare(&bench.run()).unwrap().rows.remove(0);
    assert_eq!(
        row.standing,
        Standing::Withheld("no request of cpu was answered".to_owned())
    );
}
