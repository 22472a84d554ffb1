//! Memory, limits, ports, clock and CPU of this machine.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::cgroup_memory::{self, Limit};
use super::line::{Level, Line, gib};
use super::needs::Needs;
use crate::runner::host::meminfo;

/// Ports that are tried.
const PORTS: usize = 16;
/// A clock that moves in larger steps cannot time tokens.
const COARSE: Duration = Duration::from_micros(10);

/// Examines memory, limits, ports, clock and CPU.
pub(super) fn look(needs: &Needs) -> Vec<Line> {
    vec![memory(needs), memlock(needs), ports(), clock(), governor()]
}

/// What every server of a plan needs of this machine: memory and ports.
pub(super) fn for_start(needs: &Needs) -> Vec<Line> {
    if needs.engine {
        vec![memory(needs), ports()]
    } else {
        Vec::new()
    }
}

fn memory(needs: &Needs) -> Line {
    let (total, available) = (meminfo("MemTotal"), meminfo("MemAvailable"));
    let (Some(total), Some(available)) = (total, available) else {
        return Line::warning("memory", "`/proc/meminfo` does not say", "");
    };
    // Containers are in cgroups of their own.
    let limit = if needs.docker {
        None
    } else {
        cgroup_memory::tightest(Path::new("/"))
    };
    memory_within(needs, total, available, limit)
}

/// The line of memory that may be used, where a cgroup may limit it further.
fn memory_within(needs: &Needs, total: u64, available: u64, limit: Option<Limit>) -> Line {
    let topic = "memory";
    let tight = limit.filter(|limit| limit.left() < available);
    let (message, left) = match tight {
        Some(limit) => (
            format!(
                "{:.1} of {:.1} GiB available: the cgroup of this session limits it (the machine has {:.1})",
                gib(limit.left()),
                gib(limit.max_bytes),
                gib(total)
            ),
            limit.left(),
        ),
        None => (
            format!("{:.1} of {:.1} GiB available", gib(available), gib(total)),
            available,
        ),
    };
    if needs.ram_gib <= gib(left) {
        return Line::good(topic, message);
    }
    let fix = match tight {
        Some(_) => {
            "lower `max_local_cpu_size` of the tier, or raise the limit (Slurm's `--mem`, a \
                    container's memory)"
        }
        None => "lower `max_local_cpu_size` of the tier, or free memory",
    };
    let message = format!("{message}; the tier's pool takes {:.1}", needs.ram_gib);
    Line::of(topic, Level::Error, message, fix)
}

fn memlock(needs: &Needs) -> Line {
    let topic = "memlock";
    let fix = "raise it (`ulimit -l unlimited`; in a container `ulimits = { memlock = -1 }`)";
    match getrlimit(Resource::Memlock).current {
        None => Line::good(topic, "no limit"),
        Some(bytes) => {
            let message = format!("{:.3} GiB may be locked", gib(bytes));
            if needs.ram_gib == 0.0 || gib(bytes) >= needs.ram_gib {
                Line::good(topic, message)
            } else {
                Line::warning(
                    topic,
                    format!("{message}; the tier's pool takes {:.1}", needs.ram_gib),
                    fix,
                )
            }
        }
    }
}

fn ports() -> Line {
    let listeners: Vec<TcpListener> = (0..PORTS)
        .filter_map(|_| TcpListener::bind(("127.0.0.1", 0)).ok())
        .collect();
    if listeners.len() == PORTS {
        let range =
            fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let range: Vec<&str> = range.split_whitespace().collect();
        return Line::good(
            "free ports",
            format!("there are some on 127.0.0.1 ({})", range.join(" to ")),
        );
    }
    let fix = "free ports of 127.0.0.1: every server needs one";
    Line::of("free ports", Level::Error, "the machine gives none", fix)
}

fn clock() -> Line {
    let source =
        fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.unwrap_or_default();
    let mut step = Duration::MAX;
    for _ in 0..1000 {
        let (a, b) = (Instant::now(), Instant::now());
        let moved = b.duration_since(a);
        if !moved.is_zero() {
            step = step.min(moved);
        }
    }
    let message = format!(
        "source `{}`, steps of {} ns",
        source.trim(),
        step.as_nanos().min(1_000_000_000)
    );
    let slow = ["hpet", "acpi_pm", "refined-jiffies", "jiffies"].contains(&source.trim());
    if slow || step > COARSE {
        return Line::warning(
            "clock",
            message,
            "boot with `tsc=reliable`, or use another machine: reading this clock costs microseconds",
        );
    }
    Line::good("clock", message)
}

fn governor() -> Line {
    let topic = "CPU governor";
    let pattern = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor";
    let files = glob::glob(pattern).into_iter().flatten().flatten();
    let governors: BTreeSet<String> = files
        .filter_map(|file| fs::read_to_string(file).ok())
        .map(|text| text.trim().to_owned())
        .collect();
    let names: Vec<&str> = governors.iter().map(String::as_str).collect();
    match names.as_slice() {
        [] => Line::good(topic, "not this machine's to set (a virtual machine)"),
        ["performance"] => Line::good(topic, "performance"),
        others => Line::warning(
            topic,
            others.join(", "),
            "`cpupower frequency-set -g performance`: clocks that change are noise",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_does_not_hold_the_pool_is_bad() {
        let needs = Needs {
            ram_gib: 1e9,
            ..Needs::default()
        };
        let line = memory(&needs);
        assert_eq!(line.level, Level::Error);
        assert!(line.fix.contains("max_local_cpu_size"));
        assert_eq!(memory(&Needs::default()).level, Level::Good);
        let pool = Needs {
            ram_gib: 3.0,
            ..Needs::default()
        };
        let limit = |max_gib: u64| {
            Some(Limit {
                max_bytes: max_gib << 30,
                used_bytes: 1 << 30,
            })
        };
        let within = |limit| memory_within(&pool, 24 << 30, 20 << 30, limit);
        assert_eq!(within(None).level, Level::Good);
        assert_eq!(within(limit(4)).level, Level::Good);
        assert_eq!(within(limit(64)).message, within(None).message);
        let tight = within(limit(2));
        assert_eq!(tight.level, Level::Error);
        assert!(
            tight.message.starts_with("1.0 of 2.0 GiB available"),
            "{tight:?}"
        );
    }
}
