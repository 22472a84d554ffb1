//! The whole job on a real vLLM and a real LMCache, as `tests/real-stack/install` makes them.

use std::path::PathBuf;

use crate::support::Lab;

fn stack() -> PathBuf {
    let named = std::env::var_os("LABRUN_REAL_STACK").map(PathBuf::from);
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    named.unwrap_or_else(|| home.join(".cache/labrun-real-stack"))
}

#[test]
#[ignore = "needs tests/real-stack/install, and takes minutes"]
fn every_tier_of_the_real_stack_is_measured_and_proven() {
    let lab = Lab::new();
    let plan = concat!(env!("CARGO_MANIFEST_DIR"), "/plans/real_cpu.toml");
    let config = stack().join("labrun.toml");
    let arguments = [plan, "--config", config.to_str().unwrap(), "--out", "out"];
    let ended = lab.labrun(&arguments).expect_code(0);
    assert!(!ended.stdout.contains("imulated"), "{}", ended.stdout);
    let cells = lab.cells();
    assert_eq!(cells.len(), 12);
    let starts = cells
        .iter()
        .filter(|(_, cell)| cell["server"]["reused"] == false)
        .count();
    assert_eq!(starts, 3, "cells that differ only in load share a server");
    for (path, cell) in &cells {
        assert_eq!(cell["outcome"]["kind"], "completed", "{cell}");
        assert_eq!(cell["source"], "measured");
        assert!(
            cell["server"]["version"]
                .as_str()
                .unwrap()
                .starts_with("0.32")
        );
        let log = std::fs::metadata(path.join("server.log")).unwrap().len();
        assert!(log > 0, "{} has no server log", path.display());
        check_passes(cell);
    }
    // One row a cell and cache state.
    assert_eq!(lab.read("out/summary.csv").lines().count(), 1 + 24);
    lab.assert_no_server_is_left();
}

fn check_passes(cell: &serde_json::Value) {
    let tier = cell["coordinates"]["tier"].as_str().unwrap();
    let prompt_len = cell["coordinates"]["prompt_len"].as_u64().unwrap();
    for pass in cell["passes"].as_array().unwrap() {
        assert_eq!(pass["verdict"]["status"], "valid", "{tier}: {pass}");
        assert_eq!(pass["counts"]["ok"], 10, "{pass}");
        let evidence = |name: &str| pass["evidence"][name].as_f64().unwrap();
        let hits = (prompt_len - 32) / 256 * 256 * 10;
        let warm = pass["state"] == "tier" && tier != "baseline";
        let expected = if warm { hits as f64 } else { 0.0 };
        assert!(
            (evidence("external_tokens") - expected).abs() < 1.0,
            "{tier}: {pass}"
        );
        // Every token that the server counted was counted here, and none besides.
        for side in ["prompt_tokens", "output_tokens"] {
            let (server, usage) = (
                evidence(&format!("server_{side}")),
                evidence(&format!("usage_{side}")),
            );
            assert!((server - usage).abs() < 0.5, "{side}: {server} and {usage}");
        }
        assert!((evidence("usage_prompt_tokens") - prompt_len as f64 * 10.0).abs() < 0.5);
        assert!((evidence("usage_output_tokens") - 160.0).abs() < 0.5);
        if warm && tier == "disk" {
            let needed = evidence("external_tokens") * evidence("kv_bytes_per_token");
            let read = evidence("disk_read_bytes");
            assert!(
                (read / needed - 1.0).abs() < 0.05,
                "{read} bytes read for {needed}"
            );
        }
    }
}
