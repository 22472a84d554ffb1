//! What a profiler sees of labrun, through an NVTX injection library of the tests' own.

use serde_json::Value;

use crate::support::{Ended, Lab, SimPlan, SimServer};

/// Runs labrun with the library attached; returns what that counted.
fn counted(lab: &Lab, arguments: &[&str]) -> Value {
    let mut command = lab.command(arguments);
    command
        .env(
            "NVTX_INJECTION64_PATH",
            lab.c_library("counts.so", "nvtx/counts.c"),
        )
        .env("NVTX_COUNTS", lab.path("counts.json"));
    Ended::of(&command.output().unwrap()).expect_code(0);
    let counts: Value = serde_json::from_str(&lab.read("counts.json")).unwrap();
    assert_eq!(counts["domains"], "labrun ");
    assert_eq!(counts["categories"], "experiment phase request ");
    for none in ["pushed", "wrong_ends", "unnamed"] {
        assert_eq!(counts[none], 0, "{none}: {counts}");
    }
    assert_eq!(counts["registered"], 10, "messages are constant: {counts}");
    for (name, range) in counts["names"].as_object().unwrap() {
        assert_eq!(range["starts"], range["ends"], "{name}: {counts}");
    }
    counts
}

fn starts(counts: &Value, name: &str) -> u64 {
    counts["names"][name]["starts"].as_u64().unwrap()
}

#[test]
fn nvtx_sees_each_request_once_over_ten_thousand_and_memory_stays() {
    let lab = Lab::new();
    let server = SimServer::start(&lab);
    let counts = counted(
        &lab,
        &[
            "bench",
            &server.url(),
            "--model",
            "sim",
            "--prompt-len",
            "16",
            "--gen-len",
            "2",
            "--concurrency",
            "64",
            "--num-requests",
            "10000",
        ],
    );
    for name in ["Prefill", "Decode"] {
        let range = &counts["names"][name];
        assert_eq!(range["starts"], 10_000, "{name}: {counts}");
        assert_eq!(range["payloads"], 10_000, "its request's index: {counts}");
        assert_eq!(range["category"], 3, "{counts}");
    }
    assert_eq!(counts["repeated"], 0, "{counts}");
    // What grows is the record of each request; a message stored for each would show in `registered`.
    let rss = |name: &str| counts[name].as_u64().unwrap();
    let grown_kib = rss("rss_late_kib").saturating_sub(rss("rss_early_kib"));
    assert!(grown_kib < 32 * 1024, "{grown_kib} KiB over 8000 requests");
}

#[test]
fn nvtx_sees_run_cells_and_phases() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let counts = counted(&lab, &["plan.toml", "--out", "out"]);
    let cells = lab.cells();
    assert_eq!(starts(&counts, "Run"), 1);
    assert_eq!(starts(&counts, "Cell"), cells.len() as u64);
    let passes: usize = cells
        .iter()
        .map(|(_, cell)| cell["passes"].as_array().unwrap().len())
        .sum();
    assert_eq!(starts(&counts, "Load"), passes as u64);
    assert_eq!(starts(&counts, "Verify"), passes as u64);
    for phase in ["Launch", "Ready", "Warm", "Stop"] {
        assert!(starts(&counts, phase) > 0, "{phase}: {counts}");
    }
    // Warm-up, fill and canaries are requests too.
    let measured: u64 = cells
        .iter()
        .flat_map(|(_, cell)| cell["passes"].as_array().unwrap())
        .map(|pass| pass["counts"]["sent"].as_u64().unwrap())
        .sum();
    assert!(starts(&counts, "Prefill") > measured);
    assert_eq!(starts(&counts, "Prefill"), starts(&counts, "Decode"));
}
