//! Gauges on recorded readings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::gauges::{GaugeSampler, Kind};
use super::super::pcie::{Method, PcieSampler};
use super::super::{Call, NvmlSource, Reading, Record, Why};
use super::{metrics, over, play, record, recorded};
use crate::series::Series;
use crate::telemetry::budget::Budget;
use crate::telemetry::sample::Batch;
use crate::telemetry::summary::total;
use crate::telemetry::thread::Sampler;

fn gauges(records: &[Record], kind: Kind) -> GaugeSampler {
    let source = Box::new(recorded(records).source(0));
    GaugeSampler::new(source, 0, kind, Duration::from_millis(200))
}

#[test]
fn a_gpu_that_goes_away_ends_its_telemetry_with_one_warning() {
    let power = |milliwatts| Ok(Reading::Power { milliwatts });
    let records = [
        record(0.0, Call::Power, power(350_000)),
        record(0.2, Call::Power, power(360_000)),
        record(0.4, Call::Power, Err(Why::GpuLost)),
        record(0.6, Call::Power, power(1)),
    ];
    let (recording, why) = play(gauges(&records, Kind::Load));
    assert!(why.starts_with("GPU 0 was lost at"), "{why}");
    let summaries = over(&recording, 0.0, 1.0);
    assert_eq!(metrics(&summaries), ["power"]);
    assert_eq!((summaries[0].samples, summaries[0].mean), (2, Some(355.0)));
}

#[test]
fn what_a_gpu_does_not_report_is_one_warning_and_the_rest_goes_on() {
    let mut records = vec![
        record(0.0, Call::Energy, Err(Why::Unsupported)),
        record(0.0, Call::Throttle, Err(Why::Unsupported)),
        record(0.0, Call::NvLinks, Err(Why::Unsupported)),
        record(0.0, Call::NvLinkBytes, Err(Why::Unsupported)),
    ];
    for tick in 0..12 {
        let at_s = f64::from(tick);
        let used = 1 << 30;
        let memory = Reading::Memory {
            used,
            total: 2 << 30,
        };
        records.push(record(at_s, Call::Memory, Ok(memory)));
        // Fails now and then: left out, and asked again.
        let answer = if tick % 3 == 0 {
            Err(Why::Failed)
        } else {
            Ok(Reading::Temperature { celsius: 50 })
        };
        records.push(record(at_s, Call::Temperature, answer));
    }
    let (recording, _) = play(gauges(&records, Kind::State));
    assert_eq!(
        recording.warnings(),
        ["GPU 0 does not report: energy, throttle reasons"]
    );
    let summaries = over(&recording, 0.0, 20.0);
    let samples: Vec<_> = summaries
        .iter()
        .map(|summary| (summary.key.series.name(), summary.samples))
        .collect();
    assert_eq!(
        samples,
        [
            ("memory_total", 12),
            ("memory_used", 12),
            ("temperature", 8),
        ]
    );
}

#[test]
fn energy_is_the_growth_of_its_counter_and_throttling_has_a_reason() {
    let mut records = Vec::new();
    for (tick, bits) in [(0, 0x04), (1, 0x40), (2, 0), (3, 0x80)] {
        let at_s = f64::from(tick);
        let energy = Reading::Energy {
            millijoules: 1_000_000 + 300_000 * tick as u64,
        };
        records.push(record(at_s, Call::Energy, Ok(energy)));
        records.push(record(at_s, Call::Throttle, Ok(Reading::Throttle { bits })));
    }
    let (recording, _) = play(gauges(&records, Kind::State));
    let summaries = over(&recording, 0.0, 3.0);
    assert_eq!(
        total(&summaries, Series::GpuEnergy, 0.99),
        Some(900.0),
        "joules"
    );
    let of = |series| {
        let all = recording.series(|key| key.series == series);
        let points = all.values().flatten();
        points.map(|point| point.value).collect::<Vec<_>>()
    };
    assert_eq!(of(Series::GpuThrottledByPower), [100.0, 0.0, 0.0, 100.0]);
    assert_eq!(of(Series::GpuThrottledByHeat), [0.0, 100.0, 0.0, 0.0]);
}

#[test]
fn bytes_over_nvlink_are_the_growth_of_its_counters() {
    let mut records = Vec::new();
    for tick in 0..4 {
        let bytes = Reading::NvLinkBytes {
            tx_kib: 7 + 1_000_000 * tick,
            rx_kib: 9 + 2_000_000 * tick,
        };
        records.push(record(tick as f64, Call::NvLinkBytes, Ok(bytes)));
    }
    // One that failed: the next covers its time.
    records.insert(2, record(1.5, Call::NvLinkBytes, Err(Why::Failed)));
    let (recording, _) = play(gauges(&records, Kind::State));
    let summaries = over(&recording, 0.0, 3.0);
    let of = |series| total(&summaries, series, 0.99);
    assert_eq!(of(Series::GpuNvlinkTxCounters), Some(3_000_000.0 * 1024.0));
    assert_eq!(of(Series::GpuNvlinkRxCounters), Some(6_000_000.0 * 1024.0));
}

/// Counts how often it is asked for what.
struct Asked(Arc<Mutex<BTreeMap<Call, u32>>>);

impl NvmlSource for Asked {
    fn read(&mut self, call: Call) -> Record {
        *self.0.lock().unwrap().entry(call).or_default() += 1;
        record(0.0, call, Ok(Reading::Temperature { celsius: 50 }))
    }
}

#[test]
fn what_hardly_changes_is_asked_for_once_a_minute_and_at_edges() {
    let asked = Arc::<Mutex<BTreeMap<Call, u32>>>::default();
    let source = Box::new(Asked(Arc::clone(&asked)));
    let mut sampler = GaugeSampler::new(source, 0, Kind::State, Duration::from_secs(1));
    for tick in 0..120 {
        let mut batch = Batch::new(Duration::from_secs(tick), false);
        batch.at_edge = tick == 100;
        sampler.sample(&mut batch).unwrap();
    }
    let asked = asked.lock().unwrap();
    assert_eq!((asked[&Call::NvLinks], asked[&Call::Processes]), (3, 3));
    assert_eq!((asked[&Call::Energy], asked[&Call::Memory]), (120, 120));
    assert!(!asked.contains_key(&Call::Power), "the other kind's");
}

/// The clocks of a machine that is made up: the time, and the CPU time that calls have taken.
#[derive(Debug, Default)]
struct Clocks {
    now: Duration,
    cpu: Duration,
}

/// A library whose calls burn CPU: what an H100's take when it idles, four times that while it copies.
struct Burning(Arc<Mutex<Clocks>>);

impl NvmlSource for Burning {
    fn read(&mut self, call: Call) -> Record {
        let mut clocks = self.0.lock().unwrap();
        let idle_us = match call {
            Call::Energy => 3000,
            Call::Gpm => 700,
            _ => 250,
        };
        let cost = Duration::from_micros(if is_copying(clocks.now) {
            4 * idle_us
        } else {
            idle_us
        });
        clocks.now += cost;
        clocks.cpu += cost;
        record(clocks.now.as_secs_f64(), call, Ok(Reading::GpmStarted))
    }
}

fn is_copying(now: Duration) -> bool {
    (20..40).contains(&now.as_secs())
}

#[test]
fn samplers_whose_calls_burn_cpu_stay_within_one_percent_together() {
    let clocks = Arc::<Mutex<Clocks>>::default();
    let source = || Box::new(Burning(Arc::clone(&clocks)));
    let (fast, slow) = (Duration::from_millis(200), Duration::from_secs(1));
    let methods = vec![Method::Gpm];
    let samplers: [Box<dyn Sampler>; 3] = [
        Box::new(PcieSampler::new(source(), 0, methods, (fast, fast))),
        Box::new(GaugeSampler::new(source(), 0, Kind::Load, fast)),
        Box::new(GaugeSampler::new(source(), 0, Kind::State, slow)),
    ];
    *clocks.lock().unwrap() = Clocks::default();
    let budget = Arc::new(Budget::new(1.0));
    let begun = Duration::ZERO;
    let mut all = samplers.map(|sampler| (sampler, budget.join(begun)));
    let mut copying = Duration::ZERO;
    loop {
        let next = all.iter_mut().min_by_key(|(_, turns)| turns.planned());
        let (sampler, turns) = next.unwrap();
        let (began, before) = {
            let mut clocks = clocks.lock().unwrap();
            clocks.now = clocks.now.max(turns.planned());
            (clocks.now, clocks.cpu)
        };
        if began > Duration::from_secs(60) {
            break;
        }
        let interval = sampler.interval();
        let reading = turns.begin(began, true, interval);
        sampler.sample(&mut Batch::new(began, false)).unwrap();
        let Clocks { now, cpu } = *clocks.lock().unwrap();
        let spent = cpu.saturating_sub(before);
        turns.end(reading, now, spent, (interval, sampler.longest()));
        if is_copying(began) {
            copying += spent;
        }
    }
    let all_s = clocks.lock().unwrap().cpu.as_secs_f64();
    let copying_s = copying.as_secs_f64();
    // Unlimited it would be 1 % idle and 4 % while it copies.
    assert!(all_s < 0.6, "{all_s} s of 60");
    assert!(copying_s < 0.2, "{copying_s} s of 20 while it copied");
    assert!(
        copying_s > 0.1,
        "{copying_s} s: it reads as often as it may"
    );
}
