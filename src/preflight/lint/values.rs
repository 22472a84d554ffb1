//! Values of a plan that are valid one by one, and do not do what their author expects.

use serde_json::Value;

use super::Severity;
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::lmcache_keys::{self, Version};
use crate::plan::load_spec::Arrival;
use crate::plan::server::Launcher;
use crate::plan::tier::{TierKind, TierSpec};
use crate::server::{facts, vllm_arguments};
use crate::units::grouped;

/// A pool that is larger than this was meant in another unit, GiB.
const MAX_GIB: f64 = 1e6;
const GIB: f64 = 1_073_741_824.0;

/// The keys of tiers whose values are GiB.
const SIZES: [&str; 2] = ["max_local_cpu_size", "max_local_disk_size"];

/// Checks the values of one cell.
pub(super) fn check(
    cell: &Cell,
    settings: &Settings,
    machine_bytes: Option<u64>,
    add: &mut impl FnMut(Severity, String),
) {
    sizes(cell, machine_bytes, add);
    layers(&cell.tier, add);
    extra_config(&cell.tier, add);
    folder_in_container(cell, add);
    arguments(cell, settings, add);
    in_flight(cell, add);
}

/// Sizes in another unit, or of more memory than there is.
fn sizes(cell: &Cell, machine_bytes: Option<u64>, add: &mut impl FnMut(Severity, String)) {
    let (tier, server) = (&cell.tier, &cell.resolved.server);
    for key in SIZES {
        let size = tier.settings.get(key).and_then(Value::as_f64);
        if let Some(size) = size.filter(|size| *size > MAX_GIB) {
            let meant = match (size / GIB).round() as u64 {
                0 => String::new(),
                gib => format!(": write {gib}"),
            };
            let message = format!(
                "tier `{}`: `{key}` is {} GiB; the unit is GiB{meant}",
                tier.name,
                grouped(size as u64),
            );
            add(Severity::Problem, message);
            return;
        }
    }
    let starts_here = matches!(server.launcher, Launcher::Process | Launcher::Docker);
    if !starts_here || server.is_simulated() || !tier.kind.uses_ram() {
        return;
    }
    let pool = tier.ram_gib() * GIB;
    if let Some(total) = machine_bytes.filter(|total| pool > *total as f64) {
        let message = format!(
            "tier `{}`: `max_local_cpu_size` is {} GiB, and this machine has {:.1} GiB of RAM: it will not start here",
            tier.name,
            tier.ram_gib(),
            total as f64 / GIB
        );
        // The plan may be for another machine; on this one, the run looks at what is free.
        add(Severity::Note, message);
    }
    let limit = server
        .docker
        .as_ref()
        .and_then(|docker| docker.memory_bytes);
    if let Some(limit) = limit.filter(|limit| pool > *limit as f64) {
        let message = format!(
            "tier `{}`: `max_local_cpu_size` is {} GiB, and `memory` in [server] lets the container have \
             {:.1} GiB: raise that, or lower this",
            tier.name,
            tier.ram_gib(),
            limit as f64 / GIB
        );
        add(Severity::Problem, message);
    }
}

/// A layer that answers besides the one that the tier is named after.
fn layers(tier: &TierSpec, add: &mut impl FnMut(Severity, String)) {
    let is_set = |key: &str| tier.settings.get(key).is_some_and(|value| !value.is_null());
    let second = match tier.kind {
        TierKind::Cpu if is_set("local_disk") => {
            Some(("local_disk", "name a tier of kind `cpu+disk`"))
        }
        TierKind::Cpu | TierKind::Disk | TierKind::CpuDisk if is_set("remote_url") => {
            Some(("remote_url", "name a tier of kind `redis`"))
        }
        _ => None,
    };
    if let Some((key, instead)) = second {
        let message = format!(
            "tier `{}`: with `{key}` a second store answers, and nothing shows which one did; {instead}, \
             or leave it out",
            tier.name
        );
        add(Severity::Problem, message);
    }
}

/// Keys that LMCache reads from the top of its file alone.
fn extra_config(tier: &TierSpec, add: &mut impl FnMut(Severity, String)) {
    let extra = tier.settings.get("extra_config").and_then(Value::as_object);
    let known = lmcache_keys::in_process();
    for key in extra.into_iter().flat_map(|extra| extra.keys()) {
        if known.contains(&key.as_str()) {
            let message = format!(
                "tier `{0}`: `{key}` has no effect in `extra_config`: it is a key of [tier.{0}] itself",
                tier.name
            );
            add(Severity::Problem, message);
        }
    }
}

/// Chunks in a folder that the container alone has.
fn folder_in_container(cell: &Cell, add: &mut impl FnMut(Severity, String)) {
    let (tier, server) = (&cell.tier, &cell.resolved.server);
    let Some(docker) = server.docker.as_ref().filter(|docker| !docker.simulator) else {
        return;
    };
    let Some(folder) = tier.settings.get("local_disk").and_then(Value::as_str) else {
        return;
    };
    let folder = folder.strip_prefix("file://").unwrap_or(folder);
    let is_mounted = docker
        .mounts
        .iter()
        .any(|mount| std::path::Path::new(folder).starts_with(&mount.target));
    if !is_mounted {
        let message = format!(
            "tier `{}`: `local_disk` is `{folder}`, which is a folder of the container: its chunks go to \
             Docker's own storage; add it to `mounts` in [server], or leave it out",
            tier.name
        );
        add(Severity::Problem, message);
    }
}

/// Arguments that contradict each other, or that vLLM does not have.
fn arguments(cell: &Cell, settings: &Settings, add: &mut impl FnMut(Severity, String)) {
    let server = &cell.resolved.server;
    for name in server.args.keys() {
        if server.args.contains_key(&format!("no-{name}")) {
            let message =
                format!("[server.args] has both `{name}` and `no-{name}`: remove one of them");
            add(Severity::Problem, message);
        }
    }
    if server.launcher == Launcher::External {
        return;
    }
    let listed = vllm_arguments::version();
    let installed = facts::vllm_version(cell, settings);
    for name in server.args.keys().filter(|name| !vllm_arguments::has(name)) {
        let meant = vllm_arguments::meant(name);
        let (severity, who) = unknown_argument(installed, listed);
        let message = match meant {
            Some(meant) => format!("{who} has no argument `{name}`: did you mean `{meant}`?"),
            None => format!("{who} has no argument `{name}`"),
        };
        add(severity, message);
    }
}

/// How bad an argument is that the listed vLLM does not have, and whom to name.
fn unknown_argument(installed: Option<Version>, listed: Version) -> (Severity, String) {
    if installed == Some(listed) {
        return (Severity::Problem, format!("vLLM {listed}"));
    }
    let who = match installed {
        Some(installed) => {
            format!(
                "[server.args]: labrun does not know the arguments of vLLM {installed}; {listed}"
            )
        }
        None => format!("[server.args]: vLLM {listed}"),
    };
    (Severity::Note, who)
}

/// More requests in flight than there are.
fn in_flight(cell: &Cell, add: &mut impl FnMut(Severity, String)) {
    let requests = cell.resolved.run.requests.get();
    let concurrency = cell.coordinates.concurrency.get();
    if cell.resolved.load.arrival == Arrival::Closed && concurrency > requests {
        let message = format!(
            "`concurrency` {concurrency} is never reached: a pass has {requests} requests; raise `requests` \
             in [run]"
        );
        add(Severity::Note, message);
    }
}
