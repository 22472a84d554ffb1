//! Where a run took place: commit, host, GPUs, driver, limits of its container.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::runner::host::meminfo;
use crate::telemetry::nvml::live::library;

/// The state of the repository that holds `folder`: its commit, and a hash of what was changed
/// since. Null outside a repository.
pub fn repository(folder: &Path) -> Value {
    let git = |args: &[&str]| -> Option<Vec<u8>> {
        let mut command = Command::new("git");
        let output = command.arg("-C").arg(folder).args(args).output().ok()?;
        output.status.success().then_some(output.stdout)
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else {
        return Value::Null;
    };
    let patch = git(&["diff", "--binary", "--no-ext-diff", "HEAD"]).unwrap_or_default();
    json!({
        "commit": String::from_utf8_lossy(&commit).trim(),
        "dirty": !patch.is_empty(),
        "dirty_patch_blake3":
            (!patch.is_empty()).then(|| blake3::hash(&patch).to_hex().to_string()),
    })
}

/// This labrun.
pub fn labrun() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("LABRUN_COMMIT"),
        "debug_build": cfg!(debug_assertions),
    })
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The machine.
pub fn host() -> Value {
    let cpu = read("/proc/cpuinfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let memory_kib = meminfo("MemTotal").map(|bytes| bytes >> 10);
    json!({
        "name": read("/proc/sys/kernel/hostname"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": cpu,
        "cpus": std::thread::available_parallelism().map(usize::from).ok(),
        "memory_kib": memory_kib,
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "container": container(),
        "gpu": gpus(),
    })
}

/// The limits of this process's control group (cgroups(7), version 2, else 1).
fn container() -> Value {
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("/");
    let unified = |file: &str| {
        let folder = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
        read(folder.join(file)).or_else(|| read(Path::new("/sys/fs/cgroup").join(file)))
    };
    let in_container =
        Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists();
    json!({
        "in_container": in_container,
        "cpu_max": unified("cpu.max").or_else(|| read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")),
        "memory_max_bytes": unified("memory.max")
            .or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes")),
        "cpuset": unified("cpuset.cpus.effective"),
    })
}

/// GPUs with driver; null where the library is not there.
fn gpus() -> Value {
    let Ok(nvml) = library() else {
        return Value::Null;
    };
    let devices = (0..nvml.device_count().unwrap_or(0)).filter_map(|index| {
        let device = nvml.device_by_index(index).ok()?;
        Some(json!({
            "index": index,
            "name": device.name().ok(),
            "memory_bytes": device.memory_info().ok().map(|memory| memory.total),
            "power_limit_mw": device.enforced_power_limit().ok(),
        }))
    });
    let cuda = nvml.sys_cuda_driver_version().ok();
    let cuda = cuda.map(|version| format!("{}.{}", version / 1000, version % 1000 / 10));
    json!({
        "driver": nvml.sys_driver_version().ok(),
        "cuda_of_driver": cuda,
        "devices": devices.collect::<Vec<_>>(),
    })
}

/// Takes the host's name and the paths of the user out of all texts in `value`.
pub fn anonymize(value: &mut Value) {
    let host = read("/proc/sys/kernel/hostname").unwrap_or_default();
    let here = std::env::current_dir().unwrap_or_default();
    let home = std::env::var("HOME").unwrap_or_default();
    let mut replaced = vec![
        (here.display().to_string(), "."),
        (home, "~"),
        (host, "(host)"),
    ];
    // A root folder or a one-letter name stands in too much that is nobody's.
    replaced.retain(|(from, _)| from.len() > 2);
    anonymize_with(value, &replaced);
}

fn anonymize_with(value: &mut Value, replaced: &[(String, &str)]) {
    match value {
        Value::String(text) => {
            for (from, to) in replaced {
                *text = text.replace(from.as_str(), to);
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| anonymize_with(item, replaced)),
        Value::Object(table) => table
            .values_mut()
            .for_each(|item| anonymize_with(item, replaced)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_told_with_a_hash_of_its_changes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(repository(dir.path()), Value::Null);
        let git = |args: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(dir.path()).args(args);
            assert!(command.output().unwrap().status.success(), "{args:?}");
        };
        std::fs::write(dir.path().join("plan.toml"), "a").unwrap();
        git(&["init", "-q"]);
        git(&["add", "-A"]);
        let who = ["-c", "user.name=n", "-c", "user.email=e@x"];
        git(&[&who[..], &["commit", "-qm", "m"]].concat());
        let clean = repository(dir.path());
        assert_eq!(clean["dirty"], false);
        assert_eq!(clean["commit"].as_str().unwrap().len(), 40);
        std::fs::write(dir.path().join("plan.toml"), "b").unwrap();
        let dirty = repository(dir.path());
        assert_eq!(dirty["dirty_patch_blake3"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn texts_lose_what_names_a_person_or_a_machine() {
        let mut value = json!({"a": ["/home/me/x", "box7:1"], "n": 1});
        let replaced = [("/home/me".to_owned(), "~"), ("box7".to_owned(), "(host)")];
        anonymize_with(&mut value, &replaced);
        assert_eq!(value, json!({"a": ["~/x", "(host):1"], "n": 1}));
    }
}
