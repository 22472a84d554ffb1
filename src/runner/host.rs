//! The machine's state when a cell begins, and waiting until it has cooled down.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use rustix::fs::statvfs;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::nvml;

/// The unit is last in each name; what cannot be read is absent.
pub(crate) fn state() -> BTreeMap<String, f64> {
    let mut state = BTreeMap::new();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    if let Some(load) = load.split(' ').next().and_then(|load| load.parse().ok()) {
        state.insert("load_average_1min_processes".to_owned(), load);
    }
    if let Some(hottest) = hottest_cpu_c(Path::new("/sys/class/hwmon")) {
        state.insert("cpu_temperature_c".to_owned(), hottest);
    }
    for gpu in gpus() {
        for (name, value) in [
            ("temperature_c", gpu.temperature_c),
            ("sm_clock_mhz", gpu.sm_clock_mhz),
            ("memory_clock_mhz", gpu.memory_clock_mhz),
            ("power_w", gpu.power_w),
        ] {
            if let Some(value) = value {
                state.insert(format!("gpu{}_{name}", gpu.index), value);
            }
        }
    }
    state
}

struct Gpu {
    index: u32,
    temperature_c: Option<f64>,
    sm_clock_mhz: Option<f64>,
    memory_clock_mhz: Option<f64>,
    power_w: Option<f64>,
}

fn gpus() -> Vec<Gpu> {
    nvml::ask(all_gpus).unwrap_or_default()
}

fn all_gpus(nvml: &Nvml) -> Vec<Gpu> {
    let read = |index| {
        let device = nvml.device_by_index(index).ok()?;
        let clock = |clock| device.clock_info(clock).ok().map(f64::from);
        Some(Gpu {
            index,
            temperature_c: device
                .temperature(TemperatureSensor::Gpu)
                .ok()
                .map(f64::from),
            sm_clock_mhz: clock(Clock::SM),
            memory_clock_mhz: clock(Clock::Memory),
            power_w: device.power_usage().ok().map(|mw| f64::from(mw) / 1e3),
        })
    };
    let count = nvml.device_count().unwrap_or(0);
    (0..count).filter_map(read).collect()
}

/// The hottest GPU, degrees Celsius.
pub(crate) fn hottest_gpu_c() -> Option<f64> {
    let temperatures = gpus().into_iter().filter_map(|gpu| gpu.temperature_c);
    temperatures.reduce(f64::max)
}

/// The hottest sensor of a CPU's driver under `/sys/class/hwmon`, in millidegrees there.
fn hottest_cpu_c(hwmon: &Path) -> Option<f64> {
    const DRIVERS: [&str; 4] = ["coretemp", "k10temp", "zenpower", "cpu_thermal"];
    let pattern = hwmon.join("hwmon*/temp*_input");
    let sensors = glob::glob(&pattern.to_string_lossy()).ok()?.flatten();
    sensors
        .filter(|sensor| {
            let name = fs::read_to_string(sensor.with_file_name("name")).unwrap_or_default();
            DRIVERS.contains(&name.trim())
        })
        .filter_map(|sensor| fs::read_to_string(sensor).ok()?.trim().parse::<f64>().ok())
        .map(|milli| milli / 1e3)
        .reduce(f64::max)
}

/// A field of `/proc/meminfo`, bytes.
pub(crate) fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// Bytes that this user may still write to the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let found = statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// What is wrong where a folder has too little room; `None` where it has enough, or where that
/// is unknown.
pub(crate) fn too_little_room<'a>(
    folders: impl IntoIterator<Item = &'a Path>,
    min_free_mib: u64,
) -> Option<String> {
    let folders = folders.into_iter().filter(|path| path.exists());
    folders
        .filter_map(|path| Some((path, free_bytes(path)? >> 20)))
        .find(|(_, free)| *free < min_free_mib)
        .map(|(path, free)| {
            format!(
                "{free} MiB are free in `{}`, and `limits.min_free_mib` asks for {min_free_mib}",
                path.display()
            )
        })
}

/// Distance of two readings while a GPU cools down.
const COOLING_STEP: Duration = Duration::from_secs(1);

/// How waiting for a cool machine ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cooled {
    /// It is cool, after this long.
    After(Duration),
    /// It was still this hot when the limit was over.
    StillHot(f64),
    /// No temperature is known here.
    Unknown,
}

/// Waits until `read` gives less than `below_c`, at most `limit`, or until the run is to stop.
pub(crate) async fn cool_down(
    read: impl Fn() -> Option<f64>,
    below_c: f64,
    limit: Duration,
    stop: &CancellationToken,
) -> Cooled {
    let began = Instant::now();
    loop {
        match read() {
            None => return Cooled::Unknown,
            Some(now_c) if now_c < below_c => return Cooled::After(began.elapsed()),
            Some(now_c) if began.elapsed() >= limit || stop.is_cancelled() => {
                return Cooled::StillHot(now_c);
            }
            Some(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(COOLING_STEP) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "paused-clock")]
    #[tokio::test(start_paused = true)]
    async fn a_hot_machine_is_waited_for_and_not_for_ever() {
        let stop = CancellationToken::new();
        let degrees = std::cell::Cell::new(70.0);
        let cooling = || {
            degrees.set(degrees.get() - 2.0);
            Some(degrees.get())
        };
        let limit = Duration::from_secs(60);
        let cooled = cool_down(cooling, 61.0, limit, &stop).await;
        assert_eq!(cooled, Cooled::After(Duration::from_secs(4)));
        let hot = cool_down(|| Some(80.0), 61.0, limit, &stop).await;
        assert_eq!(hot, Cooled::StillHot(80.0));
        let unknown = cool_down(|| None, 61.0, limit, &stop).await;
        assert_eq!(unknown, Cooled::Unknown);
        stop.cancel();
        let stopped = cool_down(|| Some(80.0), 61.0, Duration::MAX, &stop).await;
        assert_eq!(stopped, Cooled::StillHot(80.0));
    }

    #[test]
    fn the_hottest_sensor_of_the_cpu_counts_and_no_other_chip() {
        let dir = tempfile::tempdir().unwrap();
        for (chip, name, temperatures) in [
            ("hwmon0", "coretemp", ["41000", "57500"]),
            ("hwmon1", "nvme", ["80000", "81000"]),
        ] {
            let folder = dir.path().join(chip);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("name"), format!("{name}\n")).unwrap();
            for (index, text) in temperatures.iter().enumerate() {
                fs::write(folder.join(format!("temp{index}_input")), text).unwrap();
            }
        }
        assert_eq!(hottest_cpu_c(dir.path()), Some(57.5));
    }

    #[test]
    fn a_field_of_meminfo_is_read_in_bytes() {
        assert!(meminfo("MemTotal") > meminfo("MemAvailable"));
        assert_eq!(meminfo("Mem"), None, "the start of a name is not the name");
    }

    #[test]
    fn room_is_told_by_folder() {
        let here = Path::new("/proc/self/..");
        assert!(free_bytes(Path::new("/tmp")).is_some());
        assert_eq!(too_little_room([here, Path::new("/nonexistent")], 0), None);
        let reason = too_little_room([Path::new("/tmp")], u64::MAX).unwrap();
        assert!(reason.contains("`/tmp`"), "{reason}");
    }
}
