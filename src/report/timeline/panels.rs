//! What each source told, as panels of a timeline.

use super::model::{Colour, TimeLine, TimePanel};
use crate::record::telemetry_frame::{Devices, Reading, Readings};

pub(super) const IN: Colour = Colour::Blue;
pub(super) const OUT: Colour = Colour::Orange;

/// A stretch of time, in seconds, and the value in it.
type Step = (f64, f64, f64);

/// What a disk does with bytes, and what a Redis does.
const STORED: [&str; 2] = ["read", "written"];
const SERVED: [&str; 2] = ["sent", "received"];

/// What several devices make together.
#[derive(Clone, Copy)]
enum Together {
    /// What they move adds up.
    Sum,
    /// Shares do not.
    Mean,
}

/// A panel for each source that told anything.
pub(super) fn sources(readings: &Readings) -> Vec<TimePanel> {
    let simulated = readings.keys().any(|(source, _)| source == "simulated");
    let mut panels: Vec<TimePanel> = pcie(readings).into_iter().collect();
    if simulated {
        // What this machine does is not what the simulator pretends.
        for (name, read, write) in [
            ("disk", "disk_read", "disk_write"),
            ("Redis", "redis_read", "redis_write"),
        ] {
            let ways = [read, write].map(|metric| way(readings, ("simulated", metric), 1e6));
            let names = if name == "disk" { STORED } else { SERVED };
            panels.extend(moved(&format!("{name} (simulated), MB/s"), names, ways));
        }
    } else {
        panels.extend(measured(readings));
    }
    let said = if simulated { " (simulated)" } else { "" };
    let requests = [
        line("running", IN, way(readings, ("engine", "running"), 1.0)),
        line("waiting", OUT, way(readings, ("engine", "waiting"), 1.0)),
    ];
    panels.extend(panel(format!("requests in the engine{said}"), requests));
    panels
}

/// What this machine's parts did.
fn measured(readings: &Readings) -> Vec<TimePanel> {
    let of = |source, metric, scale| way(readings, (source, metric), scale);
    let one = |source, metric, device: &str, scale| {
        let found = devices(readings, (source, metric)).and_then(|all| all.get(device));
        found.map_or(vec![], |all| own_steps(all, scale))
    };
    let disk = ["read", "write"].map(|metric| {
        let all = devices(readings, ("disk", metric));
        all.map_or(vec![], |all| {
            steps(&without_stacked(all), 1e6, Together::Sum)
        })
    });
    let redis = ["read", "write"].map(|metric| of("redis", metric, 1e6));
    let network = ["redis_rx", "redis_tx"].map(|metric| of("network", metric, 1e6));
    let lmcache = [
        line("RAM", IN, of("lmcache", "ram_hit_tokens", 1e3)),
        line("second tier", OUT, of("lmcache", "second_hit_tokens", 1e3)),
        // In the engine's process it does not tell tiers apart.
        line("all tiers", IN, of("engine", "lmcache_hit_tokens", 1e3)),
    ];
    let shares = |metric| {
        let all = devices(readings, ("gpu", metric));
        all.map(|all| steps(all, 1.0, Together::Mean))
    };
    let gpu = shares("sm_active").or_else(|| shares("utilization"));
    let memory = [
        line("GPU, used", IN, of("gpu", "memory_used", 1e9)),
        line("page cache", OUT, one("memory", "page_cache", "", 1e9)),
    ];
    let machine = [
        line("busy", IN, one("cpu", "busy", "all", 1.0)),
        line("waits for I/O", OUT, one("pressure", "some", "io", 1.0)),
    ];
    let server = [line("used", IN, of("server", "cpu", 100.0))];
    [
        moved("disk, MB/s", STORED, disk),
        moved("Redis, MB/s", SERVED, redis),
        moved("network to Redis, MB/s", ["received", "sent"], network),
        panel("LMCache's hits, thousand tokens/s".to_owned(), lmcache),
        panel(
            "GPU, % busy".to_owned(),
            [line("busy", IN, gpu.unwrap_or_default())],
        ),
        panel("the server's CPU, cores".to_owned(), server),
        panel("the machine's CPU, % of the time".to_owned(), machine),
        panel("memory, GB".to_owned(), memory),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Both ways of what moves bytes, in MB/s; none where hardly any moved.
fn moved(title: &str, names: [&'static str; 2], [one, other]: [Vec<Step>; 2]) -> Option<TimePanel> {
    let most = one.iter().chain(&other).map(|step| step.2);
    if most.fold(0.0, f64::max) <= 0.1 {
        return None;
    }
    let lines = [line(names[0], IN, one), line(names[1], OUT, other)];
    panel(title.to_owned(), lines)
}

/// PCIe by the best method that answered.
fn pcie(readings: &Readings) -> Option<TimePanel> {
    let of = |way: &str, method: &str| {
        let wanted = format!("pcie_{way}_{method}");
        let (_, all) = readings.iter().find(|((_, metric), _)| *metric == wanted)?;
        Some(steps(all, 1e9, Together::Sum))
    };
    let (method, said) = [
        ("gpm", ", by GPM"),
        ("counters", ", by NVML's counters"),
        ("simulated", " (simulated)"),
    ]
    .into_iter()
    .find(|(method, _)| of("rx", method).is_some())?;
    let of = |way: &str| of(way, method).unwrap_or_default();
    let lines = [
        line("into the GPU", IN, of("rx")),
        line("out of it", OUT, of("tx")),
    ];
    panel(format!("PCIe{said}, GB/s"), lines)
}

/// A panel of the lines that say anything; none where none does.
fn panel<const N: usize>(title: String, lines: [TimeLine; N]) -> Option<TimePanel> {
    let told = lines.into_iter().filter(|line| !line.steps.is_empty());
    let lines: Vec<TimeLine> = told.collect();
    (!lines.is_empty()).then_some(TimePanel {
        title,
        lines,
        dots: Vec::new(),
        ticks: Vec::new(),
    })
}

fn line(name: &'static str, colour: Colour, steps: Vec<Step>) -> TimeLine {
    TimeLine {
        name,
        colour,
        steps,
    }
}

fn devices<'r>(readings: &'r Readings, (source, metric): (&str, &str)) -> Option<&'r Devices> {
    readings.get(&(source.to_owned(), metric.to_owned()))
}

/// What the devices of a series did together.
fn way(readings: &Readings, series: (&str, &str), scale: f64) -> Vec<Step> {
    devices(readings, series).map_or(vec![], |all| steps(all, scale, Together::Sum))
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
    let each: Vec<Vec<Step>> = all.values().map(|all| own_steps(all, scale)).collect();
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
    let mut found = Vec::new();
    for pair in ends.windows(2) {
        let middle = f64::midpoint(pair[0], pair[1]);
        let (mut sum, mut told) = (0.0, 0.0);
        for (steps, place) in each.iter().zip(&mut places) {
            while steps.get(*place).is_some_and(|step| step.1 <= middle) {
                *place += 1;
            }
            if let Some(step) = steps.get(*place).filter(|step| step.0 <= middle) {
                sum += step.2;
                told += 1.0;
            }
        }
        if told > 0.0 {
            let value = match together {
                Together::Sum => sum,
                Together::Mean => sum / told,
            };
            found.push((pair[0], pair[1], value));
        }
    }
    found
}

/// Stretches of one device's series. A level holds from the reading before it.
fn own_steps(readings: &[Reading], scale: f64) -> Vec<Step> {
    let mut ordered = readings.to_vec();
    ordered.sort_by(|a, b| a.time_s.total_cmp(&b.time_s));
    let mut found: Vec<Step> = Vec::new();
    for read in ordered {
        let from = match found.last() {
            Some(last) if read.span_s == 0.0 => last.1,
            _ => read.time_s - read.span_s,
        };
        found.push((from, read.time_s, read.value / scale));
    }
    found
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
        let found = steps(&disks, 1e6, Together::Sum);
        assert_eq!(found, [(0.5, 1.0, 5.0), (1.0, 1.5, 1.0)]);
    }

    #[test]
    fn devices_that_are_read_apart_add_up_where_both_tell() {
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
        assert_eq!(mean[1], (0.5, 1.0, 20.0), "shares are no sum");
    }

    #[test]
    fn a_level_holds_from_the_reading_before() {
        let found = own_steps(&[read(1.0, 0.0, 4.0), read(3.0, 0.0, 6.0)], 1.0);
        assert_eq!(found, [(1.0, 1.0, 4.0), (1.0, 3.0, 6.0)]);
    }

    #[test]
    fn a_volume_on_a_disk_does_not_count_its_bytes_again() {
        let all = |names: &[&str]| -> Devices {
            let one = |name: &&str| ((*name).to_owned(), vec![read(1.0, 1.0, 1.0)]);
            names.iter().map(one).collect()
        };
        let names = |found: Devices| found.into_keys().collect::<Vec<_>>();
        let found = without_stacked(&all(&["dm-0", "loop3", "nvme0n1"]));
        assert_eq!(names(found), ["nvme0n1"]);
        assert_eq!(names(without_stacked(&all(&["dm-0"]))), ["dm-0"]);
    }
}
