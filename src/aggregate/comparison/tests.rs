use super::*;
use crate::aggregate::fixture::{Bench, gpu_total, rows_of};
use crate::aggregate::slo::Slos;
use crate::plan::state::CacheState;
use crate::series::Series;

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
        let withheld = Standing::Withheld("no `baseline` at these coordinates".to_owned());
        assert_eq!(
            (row.standing, row.baseline_counts),
            (withheld, None),
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
    let reason = "baseline is simulated and cpu is measured".to_owned();
    assert_eq!(row.standing, Standing::Withheld(reason));
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

/// The interval of each side is from its least to its most value: 6 requests each.
#[test]
fn the_interval_of_a_speedup_is_made_of_those_of_both_medians() {
    let around = |low: f64, middle: f64, high: f64| [low, middle, middle, middle, middle, high];
    let mut bench = Bench::new();
    bench
        .cell("baseline", 1024, 1, 1)
        .pass(COLD, &rows_of(&around(64.0, 128.0, 512.0), 0));
    bench
        .cell("cpu", 1024, 1, 1)
        .pass(COLD, &rows_of(&around(2.0, 16.0, 32.0), 0));
    bench
        .cell("disk", 1024, 1, 1)
        .pass(COLD, &rows_of(&[16.0; 5], 0));
    let rows = compare(&bench.run()).unwrap().rows;
    let ttft = &rows[0].ttft;
    assert_eq!(ttft.speedup, Some(8.0));
    // In powers of two: 1 below and 2 above the baseline's median, 3 below and 1 above the tier's.
    let interval = ttft.interval.unwrap();
    let (low, high) = (8.0 / 2f64.sqrt().exp2(), 8.0 * 13f64.sqrt().exp2());
    assert!((interval.low - low).abs() < 1e-9, "{interval:?}");
    assert!((interval.high - high).abs() < 1e-9, "{interval:?}");
    // Five requests are too few for the interval of a median.
    assert_eq!(
        (rows[1].ttft.speedup, rows[1].ttft.interval),
        (Some(8.0), None)
    );
}

#[test]
fn energy_a_token_is_compared_where_every_repeat_reported_it() {
    let mut bench = Bench::new();
    // Two requests of four tokens a pass.
    for (tier, repeats) in [("baseline", 2), ("cpu", 1), ("disk", 2)] {
        for repeat in 1..=repeats {
            bench
                .cell(tier, 1024, 1, repeat)
                .pass(COLD, &rows_of(&[10.0, 20.0], 0));
        }
    }
    let mut run = bench.run();
    for (at, joules) in [(0, 1000.0), (1, 600.0), (2, 200.0), (3, 300.0)] {
        run.cells[at].passes[0].telemetry = vec![gpu_total("0", Series::GpuPower, joules)];
    }
    let rows = compare(&run).unwrap().rows;
    // 1600 J for 16 tokens against 200 J for 8.
    let energy = &rows[0].energy;
    assert_eq!((energy.baseline, energy.tier), (Some(100.0), Some(25.0)));
    assert_eq!(
        (energy.difference, energy.speedup),
        (Some(-75.0), Some(4.0))
    );
    assert_eq!((energy.interval, energy.clarity), (None, Clarity::Untested));
    // One of the two repeats of disk was not sampled.
    let energy = &rows[1].energy;
    assert_eq!((energy.baseline, energy.tier), (Some(100.0), None));
    assert_eq!(energy.speedup, None);
}

/// Goodput of cpu against the baseline under `slos`; each inner list is a repeat of 2 s.
fn goodput(slos: &str, baseline: &[&[f64]], cpu: &[&[f64]]) -> Contrast {
    let mut bench = Bench::new();
    for (tier, repeats) in [("baseline", baseline), ("cpu", cpu)] {
        for (repeat, ttft_ms) in (1..).zip(repeats) {
            bench
                .cell(tier, 1024, 1, repeat)
                .pass(COLD, &rows_of(ttft_ms, 0));
        }
    }
    let slos = slos.parse::<Slos>().unwrap().0;
    compare_under(&bench.run(), &slos)
        .unwrap()
        .rows
        .remove(0)
        .goodput
}

#[test]
fn goodput_is_compared_with_the_baselines() {
    let cpu: &[&[f64]] = &[&[10.0, 20.0, 25.0, 90.0]];
    let of = goodput("ttft=30ms", &[&[10.0, 50.0], &[20.0, 60.0]], cpu);
    // 2 requests in 4 s against 3 in 2 s.
    assert_eq!((of.baseline, of.tier), (Some(0.5), Some(1.5)));
    assert_eq!((of.difference, of.speedup), (Some(1.0), Some(3.0)));
    assert_eq!(of.interval, None);
    // The second repeat breaks an objective on itself: its time counts, its requests do not.
    let of = goodput("ttft_p50=30ms", &[&[10.0, 20.0], &[40.0, 60.0]], cpu);
    assert_eq!((of.baseline, of.tier), (Some(0.5), Some(2.0)));
    assert_eq!(of.speedup, Some(4.0));
}

#[test]
fn goodput_that_is_unknown_or_zero_has_no_ratio() {
    let cpu: &[&[f64]] = &[&[10.0, 20.0]];
    let nothing = goodput("ttft=30ms", &[&[40.0, 50.0]], cpu);
    assert_eq!((nothing.baseline, nothing.tier), (Some(0.0), Some(1.0)));
    assert_eq!((nothing.difference, nothing.speedup), (Some(1.0), None));
    let lost = goodput("ttft=30ms", cpu, &[&[40.0, 50.0]]);
    assert_eq!((lost.tier, lost.speedup), (Some(0.0), Some(0.0)));
    let unknown = goodput("ttft_p99=30ms", cpu, cpu);
    assert_eq!(
        (unknown.baseline, unknown.tier, unknown.speedup),
        (None, None, None)
    );
    let mut bench = Bench::new();
    for tier in ["baseline", "cpu"] {
        bench
            .cell(tier, 1024, 1, 1)
            .pass(COLD, &rows_of(&[10.0, 20.0], 0));
    }
    let without = compare(&bench.run()).unwrap().rows.remove(0).goodput;
    assert_eq!((without.baseline, without.tier), (None, None));
}

#[test]
fn repeats_give_goodput_and_its_ratio_an_interval() {
    let baseline: &[&[f64]] = &[&[90.0, 20.0], &[10.0, 20.0], &[10.0, 90.0]];
    let of = goodput("ttft=30ms", baseline, &[&[10.0; 8], &[10.0; 8], &[10.0; 8]]);
    // 4 of 6 requests in 6 s against 24.
    assert_eq!(of.speedup, Some(6.0));
    let interval = of.interval.unwrap();
    assert!(interval.low < 6.0 && interval.high > 6.0, "{interval:?}");
    // Each repeat of the baseline has a goodput of 0.5 or 1, each of cpu 4.
    assert!(
        interval.low >= 4.0 - 1e-9 && interval.high <= 8.0 + 1e-9,
        "{interval:?}"
    );
}

#[test]
fn a_baseline_that_was_measured_once_is_compared_with_every_setting_of_a_tier() {
    let around = |ms: f64| -> Vec<f64> { (0..6).map(|i| ms + f64::from(i)).collect() };
    let mut bench = Bench::new();
    bench
        .cell("baseline", 1024, 1, 1)
        .pass(COLD, &rows_of(&around(100.0), 0));
    for (chunk, ms) in [("64", 50.0), ("256", 20.0)] {
        bench
            .cell("cpu", 1024, 1, 1)
            .on_axis("tier.cpu.chunk_size", chunk)
            .pass(COLD, &rows_of(&around(ms), 0));
    }
    let comparison = compare(&bench.run()).unwrap();
    let seen: Vec<_> = comparison
        .rows
        .iter()
        .map(|row| {
            let chunk = row.place.extra["tier.cpu.chunk_size"].as_str();
            (chunk, row.ttft.baseline, row.ttft.tier, &row.standing)
        })
        .collect();
    let compared = &Standing::Compared;
    assert_eq!(
        seen,
        [
            ("256", Some(102.5), Some(22.5), compared),
            ("64", Some(102.5), Some(52.5), compared),
        ]
    );
    assert!(
        comparison
            .pools
            .iter()
            .all(|pool| !pool.place.extra.is_empty()),
        "no place with the baseline alone"
    );
}

#[test]
fn a_baseline_is_lent_over_keys_of_tiers_alone_and_never_beside_one_that_is_there() {
    let mut bench = Bench::new();
    bench
        .cell("baseline", 1024, 1, 1)
        .pass(COLD, &rows_of(&[100.0, 110.0], 0));
    bench
        .cell("cpu", 1024, 1, 1)
        .on_axis("server.args.max-num-seqs", "8")
        .pass(COLD, &rows_of(&[50.0, 55.0], 0));
    for (tier, ms) in [("baseline", 200.0), ("disk", 20.0)] {
        bench
            .cell(tier, 1024, 1, 1)
            .on_axis("tier.disk.chunk_size", "64")
            .pass(COLD, &rows_of(&[ms, ms + 2.0], 0));
    }
    let rows = compare(&bench.run()).unwrap().rows;
    let baseline = |tier: &str| {
        let row = rows.iter().find(|row| row.tier == tier).unwrap();
        (row.ttft.baseline, row.standing == Standing::Compared)
    };
    assert_eq!(baseline("cpu"), (None, false), "another server");
    assert_eq!(baseline("disk"), (Some(201.0), true), "its own");
}
