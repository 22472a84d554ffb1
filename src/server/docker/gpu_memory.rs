//! Waits until a stopped container's GPU memory is free again: the driver takes a moment, and the
//! next cell would find too little.

use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::nvml;

/// Longest wait for the memory to be free.
const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// What other programs may take meanwhile without being waited for, bytes.
const SLACK: u64 = 512 << 20;

/// The memory in use on each GPU before a container was started.
#[derive(Debug)]
pub(crate) struct GpuMemory {
    used_bytes: Vec<u64>,
}

impl GpuMemory {
    /// What is in use now; `None` on machines without NVML.
    pub(crate) fn now() -> Option<Self> {
        let used_bytes = nvml::ask(used).ok()?;
        Some(Self { used_bytes })
    }

    /// Waits until no more is in use than before. Returns a warning that names the processes
    /// that hold memory where the wait is over before.
    pub(crate) async fn wait_until_free(self, at_once: &CancellationToken) -> Option<String> {
        let began = Instant::now();
        loop {
            let now = nvml::ask(used).unwrap_or_default();
            let in_use = still_in_use(&self.used_bytes, &now);
            if in_use == 0 {
                return None;
            }
            if began.elapsed() > LIMIT || at_once.is_cancelled() {
                return Some(format!(
                    "{:.1} GiB of GPU memory were still in use {:.0} s after the server ended, by {}",
                    in_use as f64 / f64::from(1 << 30),
                    began.elapsed().as_secs_f64(),
                    nvml::ask(holders).unwrap_or_default()
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Bytes over what was in use before, on all GPUs together; growth within [`SLACK`] does not count.
fn still_in_use(before: &[u64], now: &[u64]) -> u64 {
    let grown = before
        .iter()
        .zip(now)
        .map(|(before, now)| now.saturating_sub(*before));
    grown.filter(|bytes| *bytes > SLACK).sum()
}

fn used(nvml: &Nvml) -> Vec<u64> {
    let count = nvml.device_count().unwrap_or(0);
    let of = |index| Some(nvml.device_by_index(index).ok()?.memory_info().ok()?.used);
    (0..count).map(|index| of(index).unwrap_or(0)).collect()
}

/// The processes that hold GPU memory, by name.
fn holders(nvml: &Nvml) -> String {
    let mut all = Vec::new();
    for index in 0..nvml.device_count().unwrap_or(0) {
        let processes = nvml
            .device_by_index(index)
            .and_then(|device| device.running_compute_processes());
        for process in processes.unwrap_or_default() {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", process.pid));
            let name = name.unwrap_or_else(|_| "a process of another user or container".to_owned());
            let gib = match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => {
                    format!(", {:.1} GiB", bytes as f64 / f64::from(1 << 30))
                }
                UsedGpuMemory::Unavailable => String::new(),
            };
            all.push(format!("{} (pid {}{gib})", name.trim(), process.pid));
        }
    }
    if all.is_empty() {
        return "no process that the driver names".to_owned();
    }
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_by_much_is_waited_for() {
        let gib = 1 << 30;
        assert_eq!(still_in_use(&[gib, 0], &[gib + 1000, 100 << 20]), 0);
        assert_eq!(still_in_use(&[gib, 0], &[9 * gib, 2 * gib]), 10 * gib);
        assert_eq!(still_in_use(&[], &[]), 0);
    }

    #[test]
    fn a_machine_without_nvml_waits_for_nothing() {
        if nvml::ask(|_| ()).is_err() {
            assert!(GpuMemory::now().is_none());
        }
    }
}
