//! Where a run took place: commit, host, GPUs, driver, limits of its container.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use nvml_wrapper::Nvml;
use serde_json::Value;

use crate::nvml;
use crate::record::manifest::{Container, Gpu, Gpus, Host, Labrun, Manifest, Repository};
use crate::runner::host::meminfo;

/// The state of the repository that holds `folder`: its commit, and a hash of what was changed
/// since. `None` outside a repository.
pub(crate) fn repository(folder: &Path) -> Option<Repository> {
    let git = |args: &[&str]| -> Option<Vec<u8>> {
        let mut command = Command::new("git");
        let output = command.arg("-C").arg(folder).args(args).output().ok()?;
        output.status.success().then_some(output.stdout)
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let patch = git(&["diff", "--binary", "--no-ext-diff", "HEAD"]).unwrap_or_default();
    let dirty = !patch.is_empty();
    Some(Repository {
        commit: String::from_utf8_lossy(&commit).trim().to_owned(),
        dirty,
        dirty_patch_blake3: dirty.then(|| blake3::hash(&patch).to_hex().to_string()),
    })
}

/// This labrun.
pub(crate) fn labrun() -> Labrun {
    Labrun {
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        commit: option_env!("LABRUN_COMMIT").map(str::to_owned),
        debug_build: cfg!(debug_assertions),
        ..Labrun::default()
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The machine.
pub(crate) fn host() -> Host {
    let cpu = read("/proc/cpuinfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    Host {
        name: read("/proc/sys/kernel/hostname"),
        kernel: read("/proc/sys/kernel/osrelease"),
        cpu,
        cpus: std::thread::available_parallelism().map(usize::from).ok(),
        memory_kib: meminfo("MemTotal").map(|bytes| bytes >> 10),
        governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        container: Some(container()),
        gpu: gpus(),
        ..Host::default()
    }
}

/// The limits of this process's control group (cgroups(7), version 2, else 1).
fn container() -> Container {
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("/");
    let unified = |file: &str| {
        let folder = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
        read(folder.join(file)).or_else(|| read(Path::new("/sys/fs/cgroup").join(file)))
    };
    Container {
        in_container: Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists(),
        cpu_max: unified("cpu.max").or_else(|| read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")),
        memory_max_bytes: unified("memory.max")
            .or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes")),
        cpuset: unified("cpuset.cpus.effective"),
    }
}

/// GPUs with driver; `None` where the library is not there.
fn gpus() -> Option<Gpus> {
    nvml::ask(listed).ok()
}

fn listed(nvml: &Nvml) -> Gpus {
    let devices = (0..nvml.device_count().unwrap_or(0)).filter_map(|index| {
        let device = nvml.device_by_index(index).ok()?;
        Some(Gpu {
            index,
            name: device.name().ok(),
            memory_bytes: device.memory_info().ok().map(|memory| memory.total),
            power_limit_mw: device.enforced_power_limit().ok(),
        })
    });
    let cuda = nvml.sys_cuda_driver_version().ok();
    Gpus {
        driver: nvml.sys_driver_version().ok(),
        cuda_of_driver: cuda.map(|version| format!("{}.{}", version / 1000, version % 1000 / 10)),
        devices: devices.collect(),
    }
}

/// `manifest` without the host's name and the user's paths.
pub(crate) fn anonymous(mut manifest: Manifest) -> Result<Manifest> {
    manifest.host.name = None;
    manifest.plan.folder = None;
    let mut value = serde_json::to_value(manifest)?;
    anonymize(&mut value);
    Ok(serde_json::from_value(value)?)
}

/// Takes the host's name and the paths of the user out of all texts in `value`.
fn anonymize(value: &mut Value) {
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
    use serde_json::json;

    #[test]
    fn a_repository_is_told_with_a_hash_of_its_changes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(repository(dir.path()), None);
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
        let clean = repository(dir.path()).unwrap();
        assert!(!clean.dirty && clean.dirty_patch_blake3.is_none());
        assert_eq!(clean.commit.len(), 40);
        std::fs::write(dir.path().join("plan.toml"), "b").unwrap();
        let dirty = repository(dir.path()).unwrap();
        assert_eq!(dirty.dirty_patch_blake3.unwrap().len(), 64);
    }

    #[test]
    fn texts_lose_what_names_a_person_or_a_machine() {
        let mut value = json!({"a": ["/home/me/x", "box7:1"], "n": 1});
        let replaced = [("/home/me".to_owned(), "~"), ("box7".to_owned(), "(host)")];
        anonymize_with(&mut value, &replaced);
        assert_eq!(value, json!({"a": ["~/x", "(host):1"], "n": 1}));
    }
}
