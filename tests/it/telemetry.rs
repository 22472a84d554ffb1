//! What runs keep of the machine beside the load.

use crate::support::{Lab, SimPlan};
use labrun::internals::{Source, read_readings};
use serde_json::Value;

fn total(pass: &Value, source: &str, metric: &str) -> f64 {
    let rows = pass["telemetry"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["source"] == source && row["metric"] == metric)
        .unwrap_or_else(|| panic!("no {source} {metric} in {pass}"));
    let total = row["total"].as_f64();
    total.unwrap_or_else(|| panic!("{source} {metric} has no total: {row} in {pass}"))
}

/// The other phases are recorded on the same clock as the measured one of `pass`, which is the same as
/// in `cell.json`.
fn assert_phases_are_recorded(phases: &str, pass: &Value) {
    let rows = |begin: &str| phases.lines().filter(|row| row.starts_with(begin)).count();
    for phase in ["warm,tier,", "load,cold,", "load,tier,", "verify,cold,"] {
        assert!(rows(phase) > 5, "{phase} in {phases}");
    }
    let is_wanted =
        |row: &&str| row.starts_with("load,tier,") && row.contains(",engine,,prompt_tokens,");
    let row = phases.lines().find(is_wanted).unwrap();
    let columns: Vec<&str> = row.split(',').collect();
    let number = |at: usize| columns[at].parse::<f64>().unwrap();
    let ratio = number(11) / total(pass, "engine", "prompt_tokens");
    assert!((ratio - 1.0).abs() < 1e-9, "{ratio}");
    let (started, pass) = (number(2), pass["started_s"].as_f64().unwrap());
    assert!((started - pass).abs() < 1.0, "{started} {pass}");
}

#[test]
fn a_run_keeps_telemetry_on_the_clock_of_its_passes() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["disk"]"#,
        requests: 4,
        ..SimPlan::default()
    };
    lab.run_sim(&plan).expect_code(0);
    let cells = lab.cells();
    let (path, cell) = &cells[0];
    let passes = cell["passes"].as_array().unwrap();
    for pass in passes {
        let evidence = |name: &str| pass["evidence"][name].as_f64().unwrap();
        // The engine's counters, read by samplers around the pass, are those of the evidence.
        for (metric, name) in [
            ("prompt_tokens", "server_prompt_tokens"),
            ("output_tokens", "server_output_tokens"),
        ] {
            let ratio = total(pass, "engine", metric) / evidence(name);
            assert!((ratio - 1.0).abs() < 0.02, "{metric}: {ratio}");
        }
        let share = pass["client"]["telemetry_cpu_share_percent"].as_f64();
        assert!(share.unwrap() > 0.0);
        let name = pass["bottleneck"]["name"].as_str().unwrap();
        assert!(!name.is_empty() && pass["bottleneck"]["reasons"][0].is_string());
    }
    let read = total(&passes[1], "simulated", "disk_read");
    let ratio = read / passes[1]["evidence"]["disk_read_bytes"].as_f64().unwrap();
    assert!((ratio - 1.0).abs() < 0.02, "{ratio}");
    let readings = read_readings(&path.join("telemetry.parquet")).unwrap();
    for (at, pass) in passes.iter().enumerate() {
        let from = pass["started_s"].as_f64().unwrap();
        let to = from + pass["duration_s"].as_f64().unwrap();
        let of_disk = readings
            .iter()
            .filter(|(series, _)| series.source() == Source::Disk);
        let mut at_disk = of_disk.flat_map(|(_, devices)| devices.values().flatten());
        let is_inside = at_disk.any(|reading| (from..=to + 0.6).contains(&reading.time_s));
        assert!(is_inside, "pass {at} has readings of its own time");
    }
    assert!(
        readings.keys().all(|series| series.source() != Source::Gpu),
        "a simulated server has no GPU of this machine"
    );
    let named = |kind: &str| {
        let files = std::fs::read_dir(path).unwrap().flatten();
        let found = files.map(|entry| entry.path()).find(|file| {
            file.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(kind)
        });
        std::fs::read_to_string(found.unwrap()).unwrap()
    };
    let pcie = named("pcie_stats_");
    assert!(pcie.starts_with("gpu,rxpci,txpci,"), "{pcie}");
    assert!(pcie.contains(",simulated,"), "{pcie}");
    assert!(named("disk_io_stats_").starts_with("device,read_mb_s,"));
    assert_phases_are_recorded(&named("telemetry_phases"), &passes[1]);
}

#[test]
fn evidence_shows_a_queue_that_was_gone_before_the_pass_ended() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["baseline"]"#,
        concurrency: "6",
        requests: 6,
        sim: "max_num_seqs = 1",
        ..SimPlan::default()
    };
    let text = plan.text().replace("gen_len = [4]", "gen_len = [128]");
    lab.write("plan.toml", &text);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let (_, cell) = &lab.cells()[0];
    let evidence = |name: &str| {
        let value = cell["passes"][0]["evidence"][name].as_f64();
        value.unwrap_or_else(|| panic!("no {name}: {cell}"))
    };
    let (most, mean) = (
        evidence("waiting_max_requests"),
        evidence("waiting_mean_requests"),
    );
    // Five wait at first; a busy machine may read a little later than that.
    assert!((2.0..=5.0).contains(&most), "{most} of 6, one runs");
    assert!(mean > 0.5 && mean < most, "{mean}");
    assert!((evidence("running_max_requests") - 1.0).abs() < 1e-9);
    let (most, end) = (
        evidence("kv_usage_max_percent"),
        evidence("kv_usage_end_percent"),
    );
    assert!(most > 0.1 && most > end, "{most} % and {end} %");
}

#[test]
fn telemetry_can_be_turned_off() {
    let lab = Lab::new();
    let config = lab.path("off.toml");
    std::fs::write(&config, "[telemetry]\nenabled = false\n").unwrap();
    let plan = lab.path("plan.toml");
    let text = SimPlan {
        tiers: r#"["baseline"]"#,
        requests: 2,
        ..SimPlan::default()
    };
    std::fs::write(&plan, text.text()).unwrap();
    let out = lab.path("out");
    lab.labrun(&[
        plan.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ])
    .expect_code(0);
    let cells = lab.cells();
    let (path, cell) = &cells[0];
    assert!(!path.join("telemetry.parquet").exists());
    assert_eq!(cell["passes"][0]["telemetry"], Value::Array(Vec::new()));
    assert_eq!(cell["passes"][0]["bottleneck"], Value::Null);
}

#[test]
fn the_machine_alone_is_watched_and_its_own_cost_printed() {
    let lab = Lab::new();
    let out = lab.path("machine");
    let replay = lab.path("replay.jsonl");
    let ended = lab
        .labrun(&[
            "telemetry",
            "--seconds",
            "1",
            "--out",
            out.to_str().unwrap(),
            "--record-replay",
            replay.to_str().unwrap(),
        ])
        .expect_code(0);
    assert!(ended.stdout.contains("% of one core"), "{}", ended.stdout);
    let summary = lab.read("machine/summary.json");
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert!(summary["epoch_monotonic_s"].as_f64().unwrap() > 0.0);
    assert!(summary["samplers_cpu_share_percent"].as_f64().unwrap() > 0.0);
    let readings = read_readings(&out.join("telemetry.parquet")).unwrap();
    assert!(readings.keys().any(|series| series.source() == Source::Cpu));
    let warnings = summary["warnings"].as_array().unwrap();
    let about_gpus = warnings
        .iter()
        .filter(|text| text.as_str().unwrap().contains("no telemetry of GPUs"));
    let has_driver = std::path::Path::new("/proc/driver/nvidia/version").exists();
    assert_eq!(about_gpus.count(), usize::from(!has_driver), "{warnings:?}");
    lab.labrun(&["telemetry", "--seconds", "0"]).expect_code(2);
}
