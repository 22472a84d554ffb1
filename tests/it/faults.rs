//! What goes wrong is recorded, and the matrix goes on.

use serde_json::Value;

use crate::support::{Lab, SimPlan};

fn with_fault<'a>(sim: &'a str, server: &'a str) -> SimPlan<'a> {
    SimPlan {
        server,
        sim,
        ..SimPlan::default()
    }
}

fn passes(cell: &Value) -> &Vec<Value> {
    cell["passes"].as_array().unwrap()
}

#[test]
fn a_server_that_exits_while_loading_ends_the_cell_with_its_last_words() {
    let lab = Lab::new();
    let ended = lab
        .run_sim(&with_fault("faults = [\"exit-while-loading\"]", ""))
        .expect_code(1);
    assert!(ended.stderr.contains("FAILED in ready"), "{}", ended.stderr);
    let cells = lab.cells();
    assert_eq!(cells.len(), 2, "the matrix goes on");
    for (path, cell) in &cells {
        assert_eq!(cell["outcome"]["phase"], "ready", "{cell}");
        let error = cell["outcome"]["error"].as_str().unwrap();
        assert!(
            error.contains("exited with code 1 before it was ready"),
            "{error}"
        );
        assert!(
            !cell["outcome"]["log_tail"].as_array().unwrap().is_empty(),
            "{cell}"
        );
        assert!(path.join("server.log").is_file());
    }
    assert!(ended.stdout.contains("failed in ready"), "{}", ended.stdout);
    lab.assert_no_server_is_left();
}

#[test]
fn a_server_that_is_not_ready_in_time_ends_the_cell() {
    let lab = Lab::new();
    let plan = SimPlan {
        start_ms: 2_000,
        ..with_fault("faults = [\"slow-start\"]", "ready_timeout_s = 1")
    };
    lab.run_sim(&plan).expect_code(1);
    for (_, cell) in lab.cells() {
        let error = cell["outcome"]["error"].as_str().unwrap();
        assert!(error.contains("not ready after 1 s"), "{error}");
        assert!(error.contains("ready_timeout_s"), "{error}");
    }
    lab.assert_no_server_is_left();
}

#[test]
fn a_server_that_dies_under_load_keeps_what_was_measured() {
    let lab = Lab::new();
    let sim = "faults = [\"exit-mid-load\"]\nfault_after_requests = 5";
    lab.run_sim(&SimPlan {
        requests: 6,
        ..with_fault(sim, "")
    })
    .expect_code(1);
    for (_, cell) in lab.cells() {
        let outcome = &cell["outcome"];
        assert_eq!(outcome["kind"], "failed", "{cell}");
        assert_eq!(outcome["phase"], "load", "{outcome}");
        let counts = &passes(&cell)[0]["counts"];
        let count = |name: &str| counts[name].as_u64().unwrap();
        assert!(count("ok") > 0 && count("ok") < 6, "{counts}");
        assert_eq!(
            count("sent"),
            count("ok") + count("failed") + count("unfinished")
        );
    }
}

#[test]
fn failed_requests_are_counted_by_kind_and_never_hidden() {
    for (fault, kind) in [("http-500", "http-500"), ("cut-stream", "cut-stream")] {
        let lab = Lab::new();
        let sim =
            format!("faults = [\"{fault}\"]\nfault_after_requests = 3\nfault_every_requests = 3");
        let ended = lab.run_sim(&SimPlan {
            requests: 6,
            ..with_fault(&sim, "")
        });
        assert!(
            ended.code == Some(0) || ended.code == Some(1),
            "{}",
            ended.stderr
        );
        let mut seen = 0;
        for (_, cell) in lab.cells() {
            for pass in passes(&cell) {
                let count = |name: &str| pass["counts"][name].as_u64().unwrap();
                assert_eq!(count("sent"), 6);
                assert_eq!(
                    count("sent"),
                    count("ok") + count("failed") + count("unfinished")
                );
                assert_eq!(
                    pass["errors"][kind].as_u64().unwrap_or(0),
                    count("failed"),
                    "{pass}"
                );
                seen += count("failed");
            }
        }
        assert!(seen > 0, "no request met the fault {fault}");
    }
}

/// Runs a plan whose loads have a canary in them.
fn run_with_one_in_load(lab: &Lab, fault: &str) -> crate::support::Ended {
    let plan = SimPlan {
        requests: 16,
        sim: fault,
        ..SimPlan::default()
    };
    let text = plan.text();
    let text = text.replace("warmup = 1", "warmup = 1\ncanaries_in_load = 1");
    lab.write("plan.toml", &text);
    lab.labrun(&["plan.toml", "--out", "out"])
}

#[test]
fn canaries_within_the_load_are_in_no_statistic_and_find_what_changed() {
    let lab = Lab::new();
    run_with_one_in_load(&lab, "").expect_code(0);
    for (_, cell) in lab.cells() {
        for (at, pass) in passes(&cell).iter().enumerate() {
            assert_eq!(pass["verdict"]["status"], "valid", "{pass}");
            assert_eq!(pass["counts"]["sent"], 16, "{pass}");
            let evidence = &pass["evidence"];
            // The server counted the canary's tokens too.
            assert_eq!(
                evidence["server_prompt_tokens"],
                evidence["usage_prompt_tokens"]
            );
            assert!(evidence["usage_prompt_tokens"].as_f64().unwrap() > 16.0 * 1024.0);
            let same = evidence["in_load_canaries_same"].as_f64();
            assert_eq!(same, (at > 0).then_some(1.0), "{pass}");
        }
    }
    let lab = Lab::new();
    run_with_one_in_load(&lab, "faults = [\"wrong-place\"]");
    let cells = lab.cells().into_iter();
    let reasons = cells.map(|(_, cell)| passes(&cell)[1]["verdict"].to_string());
    let reasons = reasons.collect::<String>();
    assert!(
        reasons.contains("1 of 1 canary answers within the load changed"),
        "{reasons}"
    );
}

#[test]
fn the_blocks_of_the_gpu_are_overwritten_once_a_server_start() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["cpu"]"#,
        sim: "gpu_kv_tokens = 16384",
        ..SimPlan::default()
    };
    let text = plan
        .text()
        .replace("warmup = 1", "warmup = 1\noverwrite_gpu = true");
    lab.write("plan.toml", &text);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let cells = lab.cells();
    let tier = &passes(&cells[0].1)[1];
    assert_eq!(tier["verdict"]["status"], "valid", "{tier}");
    let evidence = |name: &str| tier["evidence"][name].as_f64().unwrap();
    assert!((evidence("gpu_kv_tokens") - 16384.0).abs() < 0.5);
    let overwritten = evidence("overwritten_tokens");
    assert!(
        (16384.0..16384.0 + 255.0).contains(&overwritten),
        "{overwritten}"
    );
    assert!(evidence("overwrite_s") > 0.0);
}

#[test]
fn a_hit_that_loads_nothing_is_invalid_and_enters_no_ratio() {
    let lab = Lab::new();
    let ended = lab
        .run_sim(&with_fault("faults = [\"false-hit\"]", ""))
        .expect_code(1);
    let cells = lab.cells();
    let (_, cpu) = cells
        .iter()
        .find(|(_, cell)| cell["coordinates"]["tier"] == "cpu")
        .unwrap();
    let verdict = &passes(cpu)[1]["verdict"];
    assert_eq!(verdict["status"], "invalid", "{verdict}");
    let reasons = verdict["reasons"].to_string();
    assert!(reasons.contains("not loaded"), "{reasons}");
    assert!(reasons.contains("canary answers changed"), "{reasons}");
    for expected in ["NOT PROVEN", "tier hit invalid: "] {
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    let table = lab.read("out/comparison.csv");
    let head: Vec<&str> = table.lines().next().unwrap().split(',').collect();
    let at = head
        .iter()
        .position(|name| name.contains("ttft") && name.contains("speedup"))
        .unwrap();
    let state = head.iter().position(|name| *name == "state").unwrap();
    for row in table
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>())
    {
        if row[state] == "tier" {
            assert_eq!(row[at], "", "an invalid pass has a ratio: {row:?}");
        }
    }
}

#[test]
fn ram_that_answers_for_the_disk_is_invalid() {
    for fault in ["page-cache-disk", "ram-answers-for-disk"] {
        let lab = Lab::new();
        let sim = format!("faults = [\"{fault}\"]");
        let plan = SimPlan {
            tiers: "[\"disk\"]",
            ..with_fault(&sim, "")
        };
        lab.run_sim(&plan).expect_code(1);
        let verdict = passes(&lab.cells()[0].1)[1]["verdict"].clone();
        assert_eq!(verdict["status"], "invalid", "{fault}: {verdict}");
        assert!(
            verdict["reasons"]
                .to_string()
                .contains("RAM answered for the disk"),
            "{verdict}"
        );
    }
}

#[test]
fn a_refused_reset_fails_the_cell_with_the_reason() {
    let lab = Lab::new();
    lab.run_sim(&with_fault("faults = [\"reset-refused\"]", ""))
        .expect_code(1);
    for (_, cell) in lab.cells() {
        let error = cell["outcome"]["error"].as_str().unwrap();
        assert!(error.contains("/reset_prefix_cache was refused"), "{error}");
        assert_eq!(passes(&cell).len(), 1, "the cold pass is stored");
    }
}
