//! Samplers on recorded readings. Each recording is made here, in the form that a live one has.

use std::time::{Duration, Instant};

use super::pcie::{GPM_LAG, Method, PcieSampler, Unwrap, link_bytes_per_s};
use super::{Call, ReadError, Reading, Record, Why};
use crate::config::PcieMethod;
use crate::series::Pcie;
use crate::telemetry::sample::{Batch, Recording};
use crate::telemetry::summary::{Summary, Window, summarize, total, total_bounds};
use crate::telemetry::thread::{Ended, Sampler};

mod gauges;
mod playback;

use playback::Recorded;

const GIB32: u64 = 1 << 32;

fn record(at_s: f64, call: Call, answer: Result<Reading, Why>) -> Record {
    let (reading, error) = match answer {
        Ok(reading) => (Some(reading), None),
        Err(why) => {
            let message = "not answered".to_owned();
            (None, Some(ReadError { why, message }))
        }
    };
    Record {
        at_s,
        took_s: 0.0006,
        gpu: 0,
        call,
        reading,
        error,
    }
}

/// The recording as a file has it.
fn recorded(records: &[Record]) -> Recorded {
    let lines: Vec<String> = records
        .iter()
        .map(|record| serde_json::to_string(record).unwrap())
        .collect();
    Recorded::parse(&lines.join("\n")).unwrap()
}

/// Lets `sampler` read until it ends; what it left and why it ended.
fn play(mut sampler: impl Sampler) -> (Recording, String) {
    let recording = Recording::new(Instant::now());
    for tick in 0..100_000 {
        let mut batch = Batch::new(Duration::from_millis(tick), false);
        let read = sampler.sample(&mut batch);
        for warning in batch.warnings.drain(..) {
            recording.warn(warning);
        }
        recording.add(&mut batch);
        if let Err(Ended(why)) = read {
            return (recording, why);
        }
    }
    panic!("it never ended");
}

fn pcie(records: &[Record], setting: PcieMethod) -> PcieSampler {
    let methods = Method::chains(setting, 1).remove(0);
    let intervals = (Duration::from_millis(200), Duration::from_millis(20));
    PcieSampler::new(Box::new(recorded(records).source(0)), 0, methods, intervals)
}

fn over(recording: &Recording, from_s: f64, to_s: f64) -> Vec<Summary> {
    let window = Window {
        from: Duration::from_secs_f64(from_s),
        to: Duration::from_secs_f64(to_s),
    };
    summarize(&recording.series(|_| true), window)
}

fn metrics(summaries: &[Summary]) -> Vec<&'static str> {
    summaries.iter().map(|one| one.key.series.name()).collect()
}

fn gpm(from_s: f64, rx: f64) -> Reading {
    Reading::Gpm {
        from_s,
        pcie_rx_mib_per_s: rx,
        pcie_tx_mib_per_s: 10.0,
        sm_percent: Some(40.0),
        tensor_percent: None,
        dram_percent: Some(20.0),
        nvlink_rx_mib_per_s: None,
        nvlink_tx_mib_per_s: None,
    }
}

#[test]
fn gpm_reports_bytes_between_samples_and_its_name() {
    let records = [
        record(1.0, Call::Gpm, Ok(Reading::GpmStarted)),
        record(2.0, Call::Gpm, Ok(gpm(1.0, 1000.0))),
        // A sample that could not be compared: the next one covers its time.
        record(3.0, Call::Gpm, Err(Why::Failed)),
        record(4.0, Call::Gpm, Ok(gpm(2.0, 500.0))),
    ];
    let (recording, why) = play(pcie(&records, PcieMethod::Auto));
    assert!(why.contains("GPU 0 was lost"), "{why}");
    let lag_s = GPM_LAG.as_secs_f64();
    let summaries = over(&recording, 1.0 - lag_s, 4.0 - lag_s);
    let rx = total(&summaries, Pcie::GPM.rx, 0.99);
    assert_eq!(rx, Some(2000.0 * 1_048_576.0));
    assert_eq!(
        metrics(&summaries),
        [
            "dram_active",
            "pcie_rx_gpm",
            "pcie_rx_gpm_payload",
            "pcie_tx_gpm",
            "pcie_tx_gpm_payload",
            "sm_active"
        ]
    );
    assert_eq!(recording.warnings(), [] as [String; 0]);
}

#[test]
fn without_gpm_the_counters_are_unwrapped_at_full_speed_and_in_bursts() {
    // 51.6 GB/s into the GPU for 50 ms in every 200 ms, read every 20 ms: the counter wraps each
    // 83 ms of full speed. Its start is just below a wrap.
    let mut records = vec![record(0.0, Call::Gpm, Err(Why::Unsupported))];
    let start = GIB32 - 1000;
    let moved_by = |at_ms: u64| (at_ms / 200 * 50 + (at_ms % 200).min(50)) * 51_600_000;
    for at_ms in (0..=10_000).step_by(20) {
        let moved = moved_by(at_ms);
        let reading = Reading::Counters {
            tx: (start + moved / 10) % GIB32,
            rx: (start + moved) % GIB32,
        };
        records.push(record(at_ms as f64 / 1e3, Call::Counters, Ok(reading)));
    }
    let (recording, _) = play(pcie(&records, PcieMethod::Auto));
    let summaries = over(&recording, 0.0, 10.0);
    let rx = total(&summaries, Pcie::COUNTERS.rx, 0.99).unwrap();
    let truth = moved_by(10_000) as f64;
    assert!(truth > 5.0 * GIB32 as f64, "many wraps");
    assert!((rx / truth - 1.0).abs() < 1e-6, "{rx} of {truth}");
    let tx = total(&summaries, Pcie::COUNTERS.tx, 0.99).unwrap();
    assert!((tx / truth - 0.1).abs() < 1e-6);
}

#[test]
fn counters_read_too_late_are_not_guessed() {
    let link = link_bytes_per_s(5, 16);
    let mut unwrap = Unwrap::default();
    assert_eq!(unwrap.growth(0.0, [5, 5], link), None);
    let (span_s, grown) = unwrap.growth(0.06, [4, GIB32 - 1], link).unwrap();
    assert_eq!((span_s, grown), (0.06, [GIB32 - 1, GIB32 - 6]));
    assert_eq!(
        unwrap.growth(0.14, [5, 5], link),
        None,
        "80 ms at 63 GB/s can wrap twice"
    );
    assert!(unwrap.growth(0.16, [6, 6], link).is_some());
    assert_eq!(
        unwrap.growth(0.18, [5, 6], link),
        None,
        "a counter that fell by one did not grow by 4 GB in 20 ms"
    );
    // A wide counter does not wrap, however late it is read.
    let mut wide = Unwrap::default();
    wide.growth(0.0, [GIB32 * 5, GIB32 * 7], link);
    let grown = wide.growth(9.0, [GIB32 * 6, GIB32 * 9], link);
    assert_eq!(grown, Some((9.0, [GIB32, GIB32 * 2])));
    // A slower link leaves more time.
    assert!(link_bytes_per_s(3, 16) < 16e9 && link_bytes_per_s(4, 8) < 16e9);
}

#[test]
fn the_throughput_sample_is_the_last_resort_and_has_no_total() {
    let records = [
        record(0.0, Call::Gpm, Err(Why::Unsupported)),
        record(0.0, Call::Counters, Err(Why::Unsupported)),
        record(
            1.0,
            Call::Throughput,
            Ok(Reading::Throughput {
                tx_kb_per_s: 5,
                rx_kb_per_s: 600,
            }),
        ),
    ];
    let (recording, _) = play(pcie(&records, PcieMethod::Auto));
    let summaries = over(&recording, 0.0, 2.0);
    assert_eq!(
        metrics(&summaries),
        ["pcie_rx_throughput", "pcie_tx_throughput"]
    );
    assert_eq!((summaries[0].mean, summaries[0].total), (Some(600e3), None));
    let warnings = recording.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("bytes over PCIe are not known"),
        "{warnings:?}"
    );
}

#[test]
fn a_method_that_was_asked_for_is_not_replaced() {
    let records = [record(0.0, Call::Gpm, Err(Why::Unsupported))];
    let (recording, why) = play(pcie(&records, PcieMethod::Gpm));
    assert_eq!(
        why,
        "GPU 0 does not report bytes over PCIe by gpm: not answered"
    );
    assert!(recording.take().is_empty());
    assert_eq!(Method::chains(PcieMethod::All, 1).len(), 3);
    assert_eq!(Method::chains(PcieMethod::Off, 1).len(), 0);
}

#[test]
fn several_gpus_are_read_by_counters_unless_gpm_is_asked_for() {
    let first = |setting, gpus| Method::chains(setting, gpus).remove(0).remove(0);
    assert_eq!(first(PcieMethod::Auto, 1), Method::Gpm);
    assert_eq!(first(PcieMethod::Auto, 2), Method::Counters);
    assert_eq!(first(PcieMethod::Gpm, 2), Method::Gpm);
}

#[test]
fn counters_are_never_read_later_than_their_link_could_wrap_them_twice() {
    let identity = |generation| Reading::Identity {
        name: "GPU".to_owned(),
        uuid: "GPU-1".to_owned(),
        max_link_generation: generation,
        max_link_width: 16,
    };
    for (generation, longest_ms) in [(5, 40), (4, 81), (3, 163)] {
        let records = [
            record(0.0, Call::Identity, Ok(identity(generation))),
            record(0.0, Call::Counters, Ok(Reading::Counters { tx: 5, rx: 5 })),
            record(
                0.1,
                Call::Counters,
                Ok(Reading::Counters { tx: GIB32, rx: 5 }),
            ),
        ];
        let mut sampler = pcie(&records, PcieMethod::Counters);
        assert_eq!(sampler.longest().as_millis(), longest_ms);
        let mut batch = Batch::new(Duration::ZERO, false);
        sampler.sample(&mut batch).unwrap();
        assert_eq!(sampler.longest().as_millis(), longest_ms);
        // One that does not wrap can wait.
        sampler.sample(&mut batch).unwrap();
        assert_eq!(sampler.longest(), Duration::from_secs(5));
    }
}

#[test]
fn an_error_of_a_torn_recording_names_the_line() {
    let error = Recorded::parse("{\"at_s\":1").unwrap_err();
    assert!(format!("{error:#}").contains("in line 1"), "{error:#}");
}

/// What a program copied on an H100 80GB (driver 580) while both methods were read
/// (`tests/gpu/check`): from, to, bytes into the GPU, bytes out of it. The last two moved in bursts
/// of 50 ms.
const COPIES: [(f64, f64, f64, f64); 5] = [
    (13.9873, 16.0449, 107_374_182_400.0, 0.0),
    (17.045, 19.1093, 0.0, 107_374_182_400.0),
    (20.1095, 22.7162, 107_374_182_400.0, 107_374_182_400.0),
    (23.7164, 27.3251, 44_056_969_216.0, 0.0),
    (28.3253, 31.7331, 0.0, 44_157_632_512.0),
];

fn assert_known_copies(setting: PcieMethod, pcie: Pcie, limit: f64) {
    let recorded = Recorded::parse(include_str!("../../../tests/data/h100_pcie.jsonl")).unwrap();
    let intervals = (Duration::from_millis(200), Duration::from_millis(20));
    let methods = Method::chains(setting, 1).remove(0);
    let source = Box::new(recorded.source(0));
    let (recording, _) = play(PcieSampler::new(source, 0, methods, intervals));
    for (from_s, to_s, into, out_of) in COPIES {
        let summaries = over(&recording, from_s, to_s);
        for (series, truth) in [(pcie.rx, into), (pcie.tx, out_of)] {
            let seen = total(&summaries, series, 0.95).unwrap();
            // Where nothing was copied, little is reported.
            let base = truth.max(into.max(out_of) / 2.0);
            let off = (seen - truth).abs() / base;
            assert!(off < limit, "{series:?} at {from_s} s: {seen} for {truth}");
            // Counted between quiet readings, both ends are within 2 % of the truth.
            let bounds = total_bounds(&summaries, series, 0.95).unwrap();
            for end in [bounds.low, bounds.high] {
                let off = (end - truth).abs() / base;
                assert!(off < 0.02, "{series:?} at {from_s} s: {end} for {truth}");
            }
        }
    }
}

#[test]
fn gpm_measures_known_copies_within_5_percent() {
    assert_known_copies(PcieMethod::Gpm, Pcie::GPM_PAYLOAD, 0.05);
}

#[test]
fn the_counters_measure_known_copies_within_10_percent() {
    assert_known_copies(PcieMethod::Counters, Pcie::COUNTERS_PAYLOAD, 0.10);
}
