//! NVIDIA GPUs through a management library of the tests' own (`nvml/fake.c`), whose answers follow
//! from the time.

use serde_json::Value;

use crate::support::{Ended, Lab};

/// Watches the two GPUs of the fake library with `arguments`; what labrun printed, and its summary.
fn watched(lab: &Lab, arguments: &[&str], env: &[(&str, &str)]) -> (Ended, Value) {
    lab.c_library("libnvidia-ml.so.1", "nvml/fake.c");
    let mut command = lab.command(&["telemetry", "--out", "seen"]);
    command
        .args(arguments)
        .env("LD_LIBRARY_PATH", lab.path(""))
        .envs(env.iter().copied());
    let ended = Ended::of(&command.output().unwrap()).expect_code(0);
    let summary = serde_json::from_str(&lab.read("seen/summary.json")).unwrap();
    (ended, summary)
}

/// The row of the summary for a metric of a GPU.
fn row<'a>(summary: &'a Value, gpu: &str, metric: &str) -> &'a Value {
    let rows = summary["metrics"].as_array().unwrap();
    rows.iter()
        .find(|row| row["source"] == "gpu" && row["device"] == gpu && row["metric"] == metric)
        .unwrap_or_else(|| panic!("no {metric} of GPU {gpu}: {summary:#}"))
}

fn assert_mean(summary: &Value, gpu: &str, metric: &str, expected: f64) {
    let mean = row(summary, gpu, metric)["mean"].as_f64().unwrap();
    let off = (mean / expected - 1.0).abs();
    assert!(off < 0.02, "{metric} of GPU {gpu}: {mean}, not {expected}");
}

fn warnings(summary: &Value) -> Vec<&str> {
    let all = summary["warnings"].as_array().unwrap();
    all.iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn gpus_are_recorded_by_the_calls_that_their_library_answers() {
    let lab = Lab::new();
    let free = [("LABRUN_TELEMETRY__BUDGET_PERCENT", "0")];
    let (_, summary) = watched(&lab, &["--seconds", "3"], &free);
    for gpu in ["0", "1"] {
        // Without GPM the counters answer; they wrap every 0.9 s here.
        assert_mean(&summary, gpu, "pcie_rx_counters", 5e9);
        assert_mean(&summary, gpu, "pcie_tx_counters", 1e9);
        // As one sum, or link by link.
        assert_mean(&summary, gpu, "nvlink_rx_counters", 3.0 * 1_073_741_824.0);
        assert_mean(&summary, gpu, "nvlink_tx_counters", 1_073_741_824.0);
        assert_mean(&summary, gpu, "energy", 200.0);
        assert_mean(&summary, gpu, "power", 200.0);
        assert_eq!(row(&summary, gpu, "nvlinks")["max"], 2.0);
        assert_eq!(row(&summary, gpu, "pcie_generation")["max"], 3.0);
        let memory = (1000.0 + gpu.parse::<f64>().unwrap()) * 1_048_576.0;
        assert_mean(&summary, gpu, "memory_used", memory);
        let missing = format!("GPU {gpu} does not report: clocks, throttle reasons, processes");
        assert!(
            warnings(&summary).contains(&missing.as_str()),
            "{summary:#}"
        );
    }
}

#[test]
fn several_gpus_use_gpm_one_after_the_other() {
    let lab = Lab::new();
    let mut gpm = vec![
        ("FAKE_NVML_GPM", "1"),
        ("LABRUN_TELEMETRY__BUDGET_PERCENT", "0"),
        ("LABRUN_TELEMETRY__INTERVAL_MS", "20"),
    ];
    // Only on request: a driver was seen to abort the process in it, with two GPUs.
    let (_, summary) = watched(&lab, &["--seconds", "0.5"], &gpm);
    let rows = summary["metrics"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["metric"] != "pcie_rx_gpm"));
    assert!(rows.iter().any(|row| row["metric"] == "pcie_rx_counters"));
    gpm.push(("LABRUN_TELEMETRY__PCIE", "gpm"));
    let (_, summary) = watched(&lab, &["--seconds", "2"], &gpm);
    for gpu in ["0", "1"] {
        assert_mean(&summary, gpu, "pcie_rx_gpm", 5000.0 * 1_048_576.0);
        assert_mean(&summary, gpu, "pcie_tx_gpm", 1000.0 * 1_048_576.0);
        let row = row(&summary, gpu, "pcie_rx_gpm");
        assert!(row["samples"].as_u64().unwrap() > 5, "{row}");
    }
}

#[test]
fn the_gpus_that_are_asked_for_are_watched() {
    let lab = Lab::new();
    let (_, summary) = watched(&lab, &["--seconds", "0.5", "--gpu", "1"], &[]);
    let rows = summary["metrics"].as_array().unwrap();
    let gpus = rows.iter().filter(|row| row["source"] == "gpu");
    let devices: Vec<&str> = gpus.map(|row| row["device"].as_str().unwrap()).collect();
    assert!(
        !devices.is_empty() && devices.iter().all(|gpu| *gpu == "1"),
        "{devices:?}"
    );
}

#[test]
fn a_gpu_that_is_lost_ends_its_own_telemetry_only() {
    let lab = Lab::new();
    let lost = [
        ("FAKE_NVML_LOST_MS", "1000"),
        ("LABRUN_TELEMETRY__BUDGET_PERCENT", "0"),
    ];
    let (_, summary) = watched(&lab, &["--seconds", "3"], &lost);
    let all = warnings(&summary);
    for what in [
        "its PCIe telemetry ends there",
        "its load and power end there",
        "its energy, memory and clocks end there",
    ] {
        let about = |gpu: &str| {
            let lost = format!("GPU {gpu} was lost at");
            let ends = all.iter().filter(|text| text.contains(what));
            ends.filter(|text| text.starts_with(&lost)).count()
        };
        assert_eq!((about("0"), about("1")), (0, 1), "{all:?}");
    }
    let samples = |gpu| row(&summary, gpu, "power")["samples"].as_u64().unwrap();
    assert!(samples("1") > 0, "its earlier readings stay");
    assert!(samples("0") > samples("1"));
}

#[test]
fn costly_calls_are_made_less_often_and_are_marked() {
    let lab = Lab::new();
    let burn = ("FAKE_NVML_BURN_US", "2000");
    let run = |budget| {
        let env = [burn, ("LABRUN_TELEMETRY__BUDGET_PERCENT", budget)];
        watched(&lab, &["--seconds", "5", "--pcie", "off"], &env)
    };
    let (ended, within) = run("1");
    let slowed = |summary: &Value| row(summary, "0", "power")["slowed"].as_u64().unwrap();
    assert!(slowed(&within) > 0, "{within:#}");
    // No witness needed them.
    let text = warnings(&within).join("\n");
    assert!(!text.contains("less often"), "{text}");
    assert!(
        ended.stdout.contains("(1 % is allowed)"),
        "{}",
        ended.stdout
    );
    let (ended, free) = run("0");
    assert_eq!(slowed(&free), 0);
    assert!(
        ended.stdout.contains("(without a limit)"),
        "{}",
        ended.stdout
    );
    let every = |summary: &Value| row(summary, "0", "power")["every_s"].as_f64().unwrap();
    assert!(every(&within) > 1.5 * every(&free), "{within:#} {free:#}");
}
