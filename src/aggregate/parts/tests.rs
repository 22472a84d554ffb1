use super::*;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::aggregate::limit::limit;
use crate::aggregate::summarize;
use crate::record::schema::Bottleneck;

/// A cell of 4 requests whose mean TTFT is 100 ms, with this evidence.
fn parts_with(
    tier: &str,
    mode: Option<LmcacheMode>,
    evidence: &[(Evidence, f64)],
) -> (Option<Parts>, Option<String>) {
    let mut bench = Bench::new();
    bench
        .cell(tier, 1024, 1, 1)
        .pass(CacheState::Tier, &rows_of(&[100.0; 4], 0));
    let mut run = bench.run();
    let cell = &mut run.cells[0];
    cell.server.lmcache = mode;
    cell.passes[0].evidence = evidence
        .iter()
        .map(|(one, value)| (one.name().to_owned(), *value))
        .collect();
    let row = summarize(&run).unwrap().rows.remove(0);
    (row.parts, row.bottleneck)
}

fn values(parts: &Parts) -> [Option<f64>; 8] {
    Part::ALL.map(|part| parts.get(part).map(|ms| (ms * 1e6).round() / 1e6))
}

const ENGINE: [(Evidence, f64); 3] = [
    (Evidence::QueueTimeMeanMs, 2.0),
    (Evidence::PrefillTimeMeanMs, 90.0),
    (Evidence::ServerTtftMeanMs, 97.0),
];

/// The parts of a pass of which nothing says how long its loads took.
const LOAD_UNKNOWN: [Option<f64>; 8] = [
    Some(2.0),
    None,
    None,
    None,
    None,
    Some(3.0),
    Some(5.0),
    Some(90.0),
];

#[test]
fn parts_sum_to_the_mean_and_show_what_they_leave_unexplained() {
    let mut evidence = ENGINE.to_vec();
    evidence.extend([
        (Evidence::ExternalTokens, 4000.0),
        (Evidence::TierLoadMeanMs, 60.0),
        (Evidence::TierLoads, 4.0),
        (Evidence::TierStoreMeanMs, 8.0),
        (Evidence::TierStores, 2.0),
        (Evidence::KvBytesPerToken, 1e6),
        (Evidence::DiskReadBytes, 4e9),
        (Evidence::PcieRxBytes, 4e9),
    ]);
    let (parts, bottleneck) = parts_with("disk", Some(LmcacheMode::InProcess), &evidence);
    let parts = parts.unwrap();
    let expected = [2.0, 60.0, 26.0, 4.0, 0.0, 3.0, 5.0, 0.0].map(Some);
    assert_eq!(values(&parts), expected);
    let sum: f64 = Part::ALL
        .into_iter()
        .filter_map(|part| parts.get(part))
        .sum();
    assert!((sum - parts.ttft_ms).abs() < 1e-9);
    assert_eq!(parts.largest(), Some(Part::Load));
    assert_eq!(bottleneck.as_deref(), Some("load from disk"));
}

#[test]
fn what_others_load_in_the_same_prefill_is_not_called_compute() {
    let mut evidence = ENGINE.to_vec();
    evidence.extend([
        (Evidence::ExternalTokens, 4000.0),
        (Evidence::TierLoadMeanMs, 30.0),
        (Evidence::TierLoads, 4.0),
        (Evidence::StoredTokens, 0.0),
        (Evidence::RunningMaxRequests, 4.0),
    ]);
    let (parts, bottleneck) = parts_with("disk", Some(LmcacheMode::InProcess), &evidence);
    assert_eq!(
        values(&parts.unwrap()),
        [
            Some(2.0),
            Some(30.0),
            None,
            Some(0.0),
            Some(60.0),
            Some(3.0),
            Some(5.0),
            Some(0.0)
        ]
    );
    assert_eq!(bottleneck.as_deref(), Some("batch"));
    // The baseline's batch only computes.
    let (parts, _) = parts_with("baseline", None, &evidence);
    assert_eq!(parts.unwrap().get(Part::Compute), Some(90.0));
}

#[test]
fn what_is_not_known_is_empty_and_not_zero() {
    assert_eq!(parts_with("cpu", Some(LmcacheMode::InProcess), &[]).0, None);
    // Nothing logs what LMCache loads: the prefill holds it, and is not called compute.
    let mut evidence = ENGINE.to_vec();
    evidence.push((Evidence::ExternalTokens, 4000.0));
    let (parts, bottleneck) = parts_with("cpu", Some(LmcacheMode::InProcess), &evidence);
    assert_eq!(values(&parts.unwrap()), LOAD_UNKNOWN);
    assert_eq!(bottleneck, None);
    // vLLM's own offloading loads while the request waits.
    evidence[0].1 = 80.0;
    evidence[1].1 = 10.0;
    let (parts, bottleneck) = parts_with("native", None, &evidence);
    assert_eq!(parts.unwrap().get(Part::Load), None);
    assert_eq!(bottleneck.as_deref(), Some("queue and load"));
}

#[test]
fn what_the_api_server_adds_is_a_part_where_its_clock_and_the_engines_are_known() {
    let mut evidence = ENGINE;
    evidence[2].1 = 99.0;
    let frontend = |evidence: &[(Evidence, f64)]| {
        let parts = parts_with("baseline", None, evidence).0.unwrap();
        (parts.get(Part::Frontend), parts.get(Part::Unexplained))
    };
    assert_eq!(frontend(&evidence), (Some(7.0), Some(0.0)));
    // A mean of other requests may be less than the engine's: that is no part.
    evidence[2].1 = 91.0;
    assert_eq!(frontend(&evidence), (None, Some(-1.0)));
    assert_eq!(frontend(&evidence[..2]), (None, Some(8.0)));
    let (_, limit) = parts_with(
        "baseline",
        None,
        &[
            (Evidence::QueueTimeMeanMs, 1.0),
            (Evidence::PrefillTimeMeanMs, 20.0),
            (Evidence::ServerTtftMeanMs, 99.0),
        ],
    );
    assert_eq!(limit.as_deref(), Some("frontend"));
}

#[test]
fn canaries_within_the_load_are_in_the_mean_as_they_are_in_the_engines() {
    let mut evidence = ENGINE.to_vec();
    // Four requests of 100 ms, and a canary of 600 ms.
    evidence[1].1 = 190.0;
    evidence[2].1 = 197.0;
    let of = |evidence: &[(Evidence, f64)]| parts_with("baseline", None, evidence).0.unwrap();
    assert_eq!(of(&evidence).get(Part::Unexplained), Some(-97.0));
    evidence.push((Evidence::ClientTtftMeanMs, 200.0));
    let parts = of(&evidence);
    assert_eq!(
        (parts.ttft_ms, parts.get(Part::Network)),
        (200.0, Some(3.0))
    );
    assert_eq!(parts.get(Part::Unexplained), Some(0.0));
}

#[test]
fn a_baseline_neither_loads_nor_stores() {
    let (parts, bottleneck) = parts_with("baseline", None, &ENGINE);
    let expected = [2.0, 0.0, 90.0, 0.0, 0.0, 3.0, 5.0, 0.0].map(Some);
    assert_eq!(values(&parts.unwrap()), expected);
    assert_eq!(bottleneck.as_deref(), Some("compute"));
}

#[test]
fn a_server_of_its_own_loads_in_the_queue() {
    let evidence = [
        (Evidence::QueueTimeMeanMs, 70.0),
        (Evidence::PrefillTimeMeanMs, 20.0),
        (Evidence::ExternalTokens, 4000.0),
        (Evidence::TierLoadMeanMs, 65.0),
        (Evidence::TierLoads, 4.0),
    ];
    let (parts, bottleneck) = parts_with("redis", Some(LmcacheMode::MultiProcess), &evidence);
    assert_eq!(
        values(&parts.unwrap()),
        [
            Some(5.0),
            Some(65.0),
            Some(20.0),
            None,
            Some(0.0),
            None,
            None,
            Some(10.0)
        ]
    );
    assert_eq!(bottleneck.as_deref(), Some("load"));
    // It times the way from its RAM alone: what it fetches from Redis before that is in the queue too.
    let mut fetched = evidence;
    fetched[3].1 = 10.0;
    let (parts, bottleneck) = parts_with("redis", Some(LmcacheMode::MultiProcess), &fetched);
    assert_eq!(parts.unwrap().get(Part::Queue), Some(60.0));
    assert_eq!(bottleneck.as_deref(), Some("queue and load"));
}

#[test]
fn clocks_that_contradict_each_other_name_no_part() {
    let mut evidence = ENGINE.to_vec();
    evidence.extend([
        (Evidence::ExternalTokens, 4000.0),
        (Evidence::TierLoadMeanMs, 160.0),
        (Evidence::TierLoads, 4.0),
        (Evidence::StoredTokens, 0.0),
    ]);
    let (parts, _) = parts_with("cpu", Some(LmcacheMode::InProcess), &evidence);
    assert_eq!(values(&parts.unwrap()), LOAD_UNKNOWN);
}

#[test]
fn a_run_of_labrun_0_1_counted_no_loads_or_stores() {
    let mut evidence = ENGINE.to_vec();
    evidence.extend([
        (Evidence::ExternalTokens, 4000.0),
        (Evidence::TierLoadMeanMs, 60.0),
        (Evidence::TierStoreMeanMs, 8.0),
    ]);
    let (parts, _) = parts_with("cpu", Some(LmcacheMode::InProcess), &evidence);
    let parts = parts.unwrap();
    assert_eq!(parts.get(Part::Load), Some(60.0));
    assert_eq!(
        (parts.get(Part::Store), parts.get(Part::Compute)),
        (None, None)
    );
}

#[test]
fn repeats_are_taken_together_by_their_requests() {
    let of = |ttft_ms: f64, queue: Option<f64>| Parts {
        ttft_ms,
        known: [
            queue,
            Some(0.0),
            Some(10.0),
            None,
            Some(0.0),
            Some(1.0),
            Some(0.0),
        ],
        queue_holds_loads: false,
    };
    let pooled = Parts::pooled(&[
        (Some(of(20.0, Some(4.0))), 1),
        (Some(of(40.0, Some(8.0))), 3),
    ]);
    let pooled = pooled.unwrap();
    assert_eq!((pooled.ttft_ms, pooled.get(Part::Queue)), (35.0, Some(7.0)));
    assert_eq!(pooled.get(Part::Unexplained), Some(17.0));
    let half_known = Parts::pooled(&[(Some(of(20.0, Some(4.0))), 1), (Some(of(40.0, None)), 3)]);
    assert_eq!(half_known.unwrap().get(Part::Queue), None);
    assert_eq!(Parts::pooled(&[(Some(of(20.0, None)), 1), (None, 3)]), None);
}

#[test]
fn telemetry_names_what_carries_a_part_where_bytes_do_not() {
    let recorded = |name: &str| Bottleneck {
        name: name.to_owned(),
        reasons: vec![],
    };
    let of = |known| Parts {
        ttft_ms: 100.0,
        known,
        queue_holds_loads: false,
    };
    let loads = of([
        Some(1.0),
        Some(80.0),
        Some(9.0),
        Some(0.0),
        Some(0.0),
        Some(1.0),
        Some(0.0),
    ]);
    let named = |parts, name| limit(Some(parts), Some(&recorded(name)), None).unwrap();
    assert_eq!(named(&loads, "redis"), "load from redis");
    assert_eq!(named(&loads, "compute"), "load");
    assert_eq!(
        named(&loads, "client"),
        "load",
        "the client added 1 ms of 100"
    );
    let apart = |network| {
        of([
            Some(1.0),
            Some(60.0),
            Some(9.0),
            Some(0.0),
            Some(0.0),
            network,
            Some(0.0),
        ])
    };
    let [unknown, slow] = [apart(None), apart(Some(20.0))];
    assert_eq!(named(&unknown, "client"), "client");
    assert_eq!(named(&slow, "client"), "client");
    let even = of([
        Some(30.0),
        Some(30.0),
        Some(30.0),
        Some(0.0),
        Some(0.0),
        Some(1.0),
        Some(0.0),
    ]);
    assert_eq!(named(&even, "unknown"), "mixed");
    let outside = of([
        Some(1.0),
        Some(20.0),
        Some(9.0),
        Some(0.0),
        Some(0.0),
        Some(1.0),
        Some(0.0),
    ]);
    assert_eq!(outside.largest(), Some(Part::Unexplained));
    assert_eq!(named(&outside, "unknown"), "unexplained");
    assert_eq!(named(&even, "disk"), "disk");
}
