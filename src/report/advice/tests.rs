use super::*;
use crate::aggregate::compare;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::record::schema::VerdictStatus;

/// 12 requests about a time.
fn around(ms: f64) -> Vec<crate::record::schema::RequestRow> {
    let times: Vec<f64> = (0..12)
        .map(|at| ms * (0.97 + 0.005 * f64::from(at)))
        .collect();
    rows_of(&times, 0)
}

const LENGTHS: [u32; 3] = [512, 1024, 4096];

/// Tiers at three lengths: cold, from the GPU and warm.
fn bench(tiers: &[(&str, [f64; 3])]) -> Bench {
    let mut bench = Bench::new();
    for (tier, warm) in tiers {
        for (at, length) in LENGTHS.into_iter().enumerate() {
            let computed = 10.0 + 0.025 * f64::from(length);
            let extra = if *tier == BASELINE {
                0.0
            } else {
                7.0 + at as f64 * 3.0
            };
            bench
                .cell(tier, length, 1, 1)
                .pass(CacheState::Cold, &around(computed + extra))
                .pass(CacheState::Gpu, &around(20.0 + extra))
                .pass(CacheState::Tier, &around(warm[at]));
        }
    }
    bench
}

const COMPUTED: [f64; 3] = [22.8, 35.6, 112.4];

fn told(bench: &Bench) -> Vec<(String, Advice, String)> {
    let comparison = compare(&bench.run()).unwrap();
    let answer = answer(&comparison).unwrap();
    let evens = break_evens(&comparison);
    let words = |tier: &TierAnswer| {
        let even = evens
            .iter()
            .find(|even| even.tier == tier.tier && even.place.state == answer.place.state);
        answer.words(tier, even.map(|even| &even.crossing))
    };
    let tiers = answer.tiers.iter();
    tiers
        .map(|tier| (tier.tier.clone(), tier.advice, words(tier)))
        .collect()
}

#[test]
fn a_tier_is_recommended_from_where_it_pays() {
    let told = told(&bench(&[
        (BASELINE, COMPUTED),
        ("cpu", [25.0, 27.0, 38.0]),
        ("disk", [60.0, 90.0, 271.0]),
        ("redis", [20.0, 30.0, 90.0]),
    ]));
    let lines: Vec<_> = told.iter().map(|(_, _, words)| words.as_str()).collect();
    assert_eq!(
        lines,
        [
            "use it from about 609 tokens on (3.0x at 4,096 tokens)",
            "do not use it here: slower at every length up to 4,096 tokens (0.4x there)",
            "use it at every measured length (1.2x at 4,096 tokens)",
        ]
    );
    let advice: Vec<_> = told.iter().map(|(_, advice, _)| *advice).collect();
    assert_eq!(advice, [Advice::Partly, Advice::Not, Advice::Use]);
}

#[test]
fn what_a_miss_and_a_gpu_hit_cost_is_shown_beside_it() {
    let comparison = compare(&bench(&[(BASELINE, COMPUTED), ("cpu", [25.0, 27.0, 38.0])]).run());
    let answer = answer(&comparison.unwrap()).unwrap();
    let cpu = &answer.tiers[0];
    assert_eq!(cpu.miss.unwrap().text(), "+7..13 ms");
    assert_eq!(cpu.gpu_hit.unwrap().text(), "+7..13 ms");
    assert_eq!(answer.lengths.len(), 3);
    assert_eq!(answer.baseline_ms[2].map(f64::round), Some(112.0));
}

#[test]
fn time_that_nothing_explains_is_never_named_as_the_limit() {
    let limit_of = |prefill_ms: f64| {
        let mut run = bench(&[(BASELINE, COMPUTED), ("cpu", [25.0, 27.0, 38.0])]).run();
        for pass in run.cells.iter_mut().flat_map(|cell| &mut cell.passes) {
            let timed = [
                ("queue_time_mean_ms", 2.0),
                ("prefill_time_mean_ms", prefill_ms),
            ];
            pass.evidence = timed.map(|(name, ms)| (name.to_owned(), ms)).into();
        }
        let answer = answer(&compare(&run).unwrap()).unwrap();
        answer.tiers[0].limit.clone().unwrap()
    };
    assert_eq!(
        limit_of(6.0),
        "not known (79 % of TTFT is unexplained, compute 16 %)"
    );
    assert_eq!(
        limit_of(17.0),
        "not known (50 % of TTFT is unexplained, compute 45 %)"
    );
    assert_eq!(limit_of(30.0), "compute");
}

#[test]
fn what_is_not_proven_is_never_recommended() {
    let mut bench = bench(&[(BASELINE, COMPUTED)]);
    for length in LENGTHS {
        bench
            .cell("cpu", length, 1, 1)
            .pass(CacheState::Cold, &around(10.0))
            .pass(CacheState::Tier, &around(1.0))
            .verdict(VerdictStatus::Invalid, "nothing was loaded");
    }
    let told = told(&bench);
    assert_eq!(told[0].1, Advice::Open);
    assert_eq!(
        told[0].2,
        "no answer: no pass of it is proven beside a proven baseline"
    );
}

#[test]
fn a_length_that_is_not_proven_is_counted_and_not_used() {
    let mut bench = bench(&[(BASELINE, COMPUTED)]);
    for (length, warm) in [(512, 10.0), (1024, 12.0), (4096, 1.0)] {
        let cell = bench
            .cell("cpu", length, 1, 1)
            .pass(CacheState::Tier, &around(warm));
        if length == 4096 {
            cell.verdict(VerdictStatus::Inconclusive, "no counters");
        }
    }
    let told = told(&bench);
    assert_eq!(
        told[0].2,
        "use it at every proven length (3.0x at 1,024 tokens); 1 of 3 lengths not proven"
    );
}

#[test]
fn noise_is_no_difference() {
    let told = told(&bench(&[
        (BASELINE, COMPUTED),
        ("cpu", [22.8, 35.6, 112.4]),
    ]));
    assert_eq!(told[0].1, Advice::Open);
    assert!(
        told[0].2.starts_with("no clear difference"),
        "{}",
        told[0].2
    );
}

#[test]
fn the_lowest_concurrency_is_shown_and_the_others_in_a_line() {
    let mut bench = bench(&[(BASELINE, COMPUTED), ("cpu", [25.0, 27.0, 38.0])]);
    for (tier, ms) in [(BASELINE, 200.0), ("cpu", 100.0)] {
        bench
            .cell(tier, 1024, 4, 1)
            .pass(CacheState::Tier, &around(ms));
    }
    let answer = answer(&compare(&bench.run()).unwrap()).unwrap();
    assert_eq!(answer.place.concurrency.get(), 1);
    assert_eq!(answer.elsewhere, ["4 at a time: cpu 2.0x"]);
}
