//! This machine's floor, as `bench --calibrate` measured it: stored beside the runs, copied into each
//! manifest.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::provenance::host;
use super::writer::write_synced;
use crate::load::selftest::Calibration;
use crate::record::manifest::Host;
use crate::units::WallClock;

fn path(results: &Path) -> PathBuf {
    results.join("client-floor.json")
}

/// Stores what was measured. Returns where.
pub(crate) fn store(floor: &Calibration, results: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(results)
        .with_context(|| format!("making the folder `{}`", results.display()))?;
    let stored = json!({
        "host": host(), "measured_at": WallClock::now().rfc3339(), "floor": floor,
    });
    let path = path(results);
    write_synced(&path, &serde_json::to_vec_pretty(&stored)?)?;
    Ok(path)
}

/// What was stored, if it is of this machine.
pub(crate) fn of_this_machine(results: &Path) -> Option<Value> {
    let stored = std::fs::read(path(results)).ok()?;
    let stored: Value = serde_json::from_slice(&stored).ok()?;
    let measured: Host = serde_json::from_value(stored["host"].clone()).ok()?;
    let here = host();
    let same = |host: &Host| (host.name.clone(), host.cpu.clone(), host.cpus);
    (same(&measured) == same(&here))
        .then(|| json!({"measured_at": stored["measured_at"], "floor": stored["floor"]}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_counts_on_its_own_machine_only() {
        let folder = tempfile::tempdir().unwrap();
        let results = folder.path().join("results");
        assert_eq!(of_this_machine(&results), None);
        let floor = Calibration {
            streams: 64,
            cpu_per_1000_chunks_ms: 7.0,
            bare_cpu_per_1000_chunks_ms: 5.0,
            ttft_error_p50_us: 4.0,
            ttft_error_p99_us: 9.0,
            gap_error_p99_us: 12.0,
            bare_gap_error_p99_us: 80.0,
            burst_chunks_per_s: 1e5,
            bare_burst_chunks_per_s: 2e5,
            streams_for_a_core: 2857.0,
        };
        let file = store(&floor, &results).unwrap();
        let stored = of_this_machine(&results).unwrap();
        assert_eq!(stored["floor"]["ttft_error_p50_us"], 4.0);
        let elsewhere = std::fs::read_to_string(&file).unwrap();
        let elsewhere = elsewhere.replace("\"cpus\": ", "\"cpus\": 9");
        std::fs::write(&file, elsewhere).unwrap();
        assert_eq!(of_this_machine(&results), None);
    }
}
