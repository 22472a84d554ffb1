//! The readings of each source as panels of a timeline.

use super::model::{Colour, TimeLine, TimePanel};
use crate::record::telemetry_frame::{Devices, Reading, Readings};
use crate::series::{Pcie, Series, Source};

pub(super) const IN: Colour = Colour::Blue;
pub(super) const OUT: Colour = Colour::Orange;

/// A stretch of time, in seconds, and the value in it.
type Step = (f64, f64, f64);

/// What several devices make together.
#[derive(Clone, Copy)]
enum Together {
    /// What they move adds up.
    Sum,
    /// Shares do not.
    Mean,
}

/// A panel for each source with readings.
pub(super) fn sources(readings: &Readings) -> Vec<TimePanel> {
    let simulated = readings
        .keys()
        .any(|series| series.source() == Source::Simulated);
    let mut panels: Vec<TimePanel> = pcie(readings).into_iter().collect();
    if simulated {
        // What this machine does is not what the simulator pretends.
        for (name, read, write) in [
            (
                "disk",
                Series::SimulatedDiskRead,
                Series::SimulatedDiskWrite,
            ),
            (
                "Redis",
                Series::SimulatedRedisRead,
                Series::SimulatedRedisWrite,
            ),
        ] {
            let lines = ways(readings, [read, write], 1e6);
            panels.extend(moved(&format!("{name} (simulated), MB/s"), lines));
        }
    } else {
        panels.extend(measured(readings));
    }
    let mark = if simulated { " (simulated)" } else { "" };
    let requests = ways(
        readings,
        [Series::EngineRunning, Series::EngineWaiting],
        1.0,
    );
    panels.extend(panel(format!("requests in the engine{mark}"), requests));
    panels
}

/// What this machine's parts did.
fn measured(readings: &Readings) -> Vec<TimePanel> {
    let both = |series: [Series; 2], scale| ways(readings, series, scale);
    let of = |series, colour, scale| line(series, colour, way(readings, series, scale));
    let one = |series, colour, device: &str, scale| {
        let device = readings.get(&series).and_then(|all| all.get(device));
        line(
            series,
            colour,
            device.map_or(vec![], |all| device_steps(all, scale)),
        )
    };
    let disk = |series, colour| {
        let all = readings.get(&series).map(without_stacked);
        let steps = all.map_or(vec![], |all| steps(&all, 1e6, Together::Sum));
        line(series, colour, steps)
    };
    let disk = [disk(Series::DiskRead, IN), disk(Series::DiskWrite, OUT)];
    let redis = both([Series::RedisRead, Series::RedisWrite], 1e6);
    let network = both([Series::NetworkRedisRx, Series::NetworkRedisTx], 1e6);
    let lmcache = [
        of(Series::LmcacheRamHitTokens, IN, 1e3),
        of(Series::LmcacheSecondHitTokens, OUT, 1e3),
        // In the engine's process one counter covers all tiers.
        of(Series::EngineLmcacheHitTokens, IN, 1e3),
    ];
    let gpu = [Series::GpuSmActive, Series::GpuUtilization]
        .into_iter()
        .find_map(|series| Some((series, readings.get(&series)?)))
        .map(|(series, all)| line(series, IN, steps(all, 1.0, Together::Mean)));
    let memory = [
        of(Series::GpuMemoryUsed, IN, 1e9),
        one(Series::MemoryPageCache, OUT, "", 1e9),
    ];
    let machine = [
        one(Series::CpuBusy, IN, "all", 1.0),
        one(Series::PressureSome, OUT, "io", 1.0),
    ];
    let server = [of(Series::ServerCpu, IN, 100.0)];
    [
        moved("disk, MB/s", disk),
        moved("Redis, MB/s", redis),
        moved("network to Redis, MB/s", network),
        panel("LMCache's hits, thousand tokens/s".to_owned(), lmcache),
        gpu.and_then(|gpu| panel("GPU, % busy".to_owned(), [gpu])),
        panel("the server's CPU, cores".to_owned(), server),
        panel("the machine's CPU, % of the time".to_owned(), machine),
        panel("memory, GB".to_owned(), memory),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Both ways of what moves bytes; none where hardly any moved, MB/s.
fn moved(title: &str, lines: [TimeLine; 2]) -> Option<TimePanel> {
    let most = lines.iter().flat_map(|line| &line.steps).map(|step| step.2);
    if most.fold(0.0, f64::max) <= 0.1 {
        return None;
    }
    panel(title.to_owned(), lines)
}

/// PCIe by the best method that answered.
fn pcie(readings: &Readings) -> Option<TimePanel> {
    let methods = [
        (Pcie::GPM, ", by GPM"),
        (Pcie::COUNTERS, ", by NVML's counters"),
        (Pcie::SIMULATED, " (simulated)"),
    ];
    let (pcie, method) = methods
        .into_iter()
        .find(|(pcie, _)| readings.contains_key(&pcie.rx))?;
    let lines = ways(readings, [pcie.rx, pcie.tx], 1e9);
    panel(format!("PCIe{method}, GB/s"), lines)
}

/// A panel of the lines with readings; none without any.
fn panel<const N: usize>(title: String, lines: [TimeLine; N]) -> Option<TimePanel> {
    let filled = lines.into_iter().filter(|line| !line.steps.is_empty());
    let lines: Vec<TimeLine> = filled.collect();
    (!lines.is_empty()).then_some(TimePanel {
        title,
        lines,
        dots: Vec::new(),
        ticks: Vec::new(),
    })
}

fn line(series: Series, colour: Colour, steps: Vec<Step>) -> TimeLine {
    TimeLine {
        name: series.label(),
        colour,
        steps,
    }
}

/// Both ways of something.
fn ways(readings: &Readings, [one, other]: [Series; 2], scale: f64) -> [TimeLine; 2] {
    [
        line(one, IN, way(readings, one, scale)),
        line(other, OUT, way(readings, other, scale)),
    ]
}

/// What the devices of a series did together.
fn way(readings: &Readings, series: Series, scale: f64) -> Vec<Step> {
    let all = readings.get(&series);
    all.map_or(vec![], |all| steps(all, scale, Together::Sum))
}

/// Without disks that lie on others (LVM, md, loop): those count the same bytes.
fn without_stacked(all: &Devices) -> Devices {
    let is_stacked = |name: &str| {
        ["dm-", "md", "loop"]
            .iter()
            .any(|kind| name.starts_with(kind))
    };
    if all.keys().all(|name| is_stacked(name)) {
        return all.clone();
    }
    let below = all.iter().filter(|(name, _)| !is_stacked(name));
    below
        .map(|(name, all)| (name.clone(), all.clone()))
        .collect()
}

/// Stretches of a series over all its devices, each read in its own time.
fn steps(all: &Devices, scale: f64, together: Together) -> Vec<Step> {
    let each: Vec<Vec<Step>> = all.values().map(|all| device_steps(all, scale)).collect();
    let [first, rest @ ..] = each.as_slice() else {
        return Vec::new();
    };
    if rest.is_empty() {
        return first.clone();
    }
    let ends = each.iter().flatten().flat_map(|step| [step.0, step.1]);
    let mut ends: Vec<f64> = ends.collect();
    ends.sort_by(f64::total_cmp);
    ends.dedup_by(|b, a| *b - *a < 1e-6);
    let mut places = vec![0; each.len()];
    let mut steps = Vec::new();
    for pair in ends.windows(2) {
        let middle = f64::midpoint(pair[0], pair[1]);
        let (mut sum, mut devices) = (0.0, 0.0);
        for (own, place) in each.iter().zip(&mut places) {
            while own.get(*place).is_some_and(|step| step.1 <= middle) {
                *place += 1;
            }
            if let Some(step) = own.get(*place).filter(|step| step.0 <= middle) {
                sum += step.2;
                devices += 1.0;
            }
        }
        if devices > 0.0 {
            let value = match together {
                Together::Sum => sum,
                Together::Mean => sum / devices,
            };
            steps.push((pair[0], pair[1], value));
        }
    }
    steps
}

/// Stretches of one device's series. A level holds from the reading before it.
fn device_steps(readings: &[Reading], scale: f64) -> Vec<Step> {
    let mut ordered = readings.to_vec();
    ordered.sort_by(|a, b| a.time_s.total_cmp(&b.time_s));
    let mut steps: Vec<Step> = Vec::new();
    for read in ordered {
        let from = match steps.last() {
            Some(last) if read.span_s == 0.0 => last.1,
            _ => read.time_s - read.span_s,
        };
        steps.push((from, read.time_s, read.value / scale));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(time_s: f64, span_s: f64, value: f64) -> Reading {
        Reading {
            time_s,
            span_s,
            value,
        }
    }

    fn two(a: &[Reading], b: &[Reading]) -> Devices {
        Devices::from([("0".to_owned(), a.to_vec()), ("1".to_owned(), b.to_vec())])
    }

    #[test]
    fn devices_that_are_read_together_add_up() {
        let disks = two(
            &[read(1.0, 0.5, 3e6), read(1.5, 0.5, 1e6)],
            &[read(1.0, 0.5, 2e6)],
        );
        let summed = steps(&disks, 1e6, Together::Sum);
        assert_eq!(summed, [(0.5, 1.0, 5.0), (1.0, 1.5, 1.0)]);
    }

    #[test]
    fn devices_that_are_read_apart_add_up_where_both_have_readings() {
        let gpus = two(
            &[read(1.0, 1.0, 10.0), read(2.0, 1.0, 10.0)],
            &[read(1.5, 1.0, 30.0)],
        );
        let sum = [
            (0.0, 0.5, 10.0),
            (0.5, 1.0, 40.0),
            (1.0, 1.5, 40.0),
            (1.5, 2.0, 10.0),
        ];
        assert_eq!(steps(&gpus, 1.0, Together::Sum), sum);
        let mean = steps(&gpus, 1.0, Together::Mean);
        assert_eq!(mean[1], (0.5, 1.0, 20.0), "shares are averaged");
    }

    #[test]
    fn a_level_holds_from_the_reading_before() {
        let levels = device_steps(&[read(1.0, 0.0, 4.0), read(3.0, 0.0, 6.0)], 1.0);
        assert_eq!(levels, [(1.0, 1.0, 4.0), (1.0, 3.0, 6.0)]);
    }

    #[test]
    fn a_volume_on_a_disk_does_not_count_its_bytes_again() {
        let all = |names: &[&str]| -> Devices {
            let one = |name: &&str| ((*name).to_owned(), vec![read(1.0, 1.0, 1.0)]);
            names.iter().map(one).collect()
        };
        let names = |devices: Devices| devices.into_keys().collect::<Vec<_>>();
        let disks = without_stacked(&all(&["dm-0", "loop3", "nvme0n1"]));
        assert_eq!(names(disks), ["nvme0n1"]);
        assert_eq!(names(without_stacked(&all(&["dm-0"]))), ["dm-0"]);
    }
}
