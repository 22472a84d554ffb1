//! What stops a run besides a signal, and what a run repeats.

use serde_json::Value;

use crate::support::{Lab, SimPlan};

fn failing() -> SimPlan<'static> {
    SimPlan {
        sim: r#"faults = ["exit-mid-load"]"#,
        tiers: r#"["baseline", "cpu", "disk", "native"]"#,
        ..SimPlan::default()
    }
}

fn with_run(plan: &SimPlan<'_>, keys: &str) -> String {
    plan.text()
        .replace("warmup = 1", &format!("warmup = 1\n{keys}"))
}

#[test]
fn fail_fast_and_max_failures_stop_the_run_and_say_how_to_go_on() {
    for (flags, cells) in [
        (&["--fail-fast"][..], 1),
        (&["--max-failures", "1"], 2),
        (&[], 4),
    ] {
        let lab = Lab::new();
        lab.write("plan.toml", &failing().text());
        let arguments = [&["plan.toml", "--out", "out"], flags].concat();
        let ended = lab.labrun(&arguments).expect_code(1);
        assert_eq!(lab.cells().len(), cells, "{flags:?}");
        assert!(
            ended.stderr.contains("go on with: labrun run --resume out"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_cell_that_takes_too_long_has_failed_and_the_next_one_runs() {
    let lab = Lab::new();
    let slow = SimPlan {
        tiers: r#"["baseline", "cpu"]"#,
        start_ms: 60_000,
        ..SimPlan::default()
    };
    lab.write("plan.toml", &with_run(&slow, "cell_time_limit_s = 0.5"));
    let ended = lab.labrun(&["plan.toml", "--out", "out"]).expect_code(1);
    let cells = lab.cells();
    assert_eq!(cells.len(), 2, "{}", ended.stderr);
    for (_, cell) in cells {
        assert_eq!(cell["outcome"]["kind"], "failed");
        assert_eq!(cell["outcome"]["phase"], "ready");
        let error = cell["outcome"]["error"].as_str().unwrap();
        assert!(error.contains("`cell_time_limit_s` of 0.5 s"), "{error}");
    }
    lab.assert_no_server_is_left();
}

#[test]
fn the_plans_time_limit_stops_the_run_which_can_go_on() {
    let lab = Lab::new();
    let slow = SimPlan {
        start_ms: 60_000,
        ..SimPlan::default()
    };
    lab.write("plan.toml", &with_run(&slow, "time_limit_s = 1"));
    let ended = lab.labrun(&["plan.toml", "--out", "out"]).expect_code(1);
    assert!(
        ended.stderr.contains("`time_limit_s` of 1 s is over")
            && ended.stderr.contains("labrun run --resume out"),
        "{}",
        ended.stderr
    );
    assert!(lab.cells().is_empty());
    lab.assert_no_server_is_left();
}

#[test]
fn a_run_without_room_does_not_begin() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let mut command = lab.command(&["plan.toml", "--out", "out"]);
    command.env("LABRUN_LIMITS__MIN_FREE_MIB", "9000000000000");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("MiB are free in `out`"), "{stderr}");
    assert!(!lab.path("out/manifest.json").exists());
}

#[test]
fn an_aa_pair_measures_one_cell_of_the_baseline_twice() {
    let lab = Lab::new();
    lab.write("plan.toml", &with_run(&SimPlan::default(), "aa = true"));
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let mut cells: Vec<String> = lab
        .cells()
        .iter()
        .map(|(_, cell)| {
            format!(
                "{} {}",
                cell["coordinates"]["tier"], cell["coordinates"]["repeat"]
            )
        })
        .collect();
    cells.sort();
    assert_eq!(cells, [r#""baseline" 1"#, r#""baseline" 2"#, r#""cpu" 1"#]);
}

#[test]
fn auto_repeats_end_at_their_maximum_or_when_the_interval_is_narrow() {
    let auto = |width: &str| {
        format!(
            "repeats = \"auto\"\n[run.auto]\nmetric = \"ttft\"\nrelative_width = {width}\n\
             min_repeats = 2\nmax_repeats = 4\n"
        )
    };
    for (width, least, most) in [("0.0000001", 4, 4), ("1.0", 2, 4)] {
        let lab = Lab::new();
        let plan = SimPlan {
            tiers: r#"["baseline"]"#,
            ..SimPlan::default()
        };
        let text = plan
            .text()
            .replace("canaries = 1", &format!("canaries = 1\n{}", auto(width)));
        lab.write("plan.toml", &text);
        lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
        let count = lab.cells().len();
        assert!((least..=most).contains(&count), "{width}: {count} cells");
        let events = lab.read("out/events.jsonl");
        let skipped = events.matches("cell-skipped").count();
        assert_eq!(count + skipped, 4, "{events}");
        // What was skipped stays so: the medians are read from the finished cells.
        lab.labrun(&["run", "--resume", "out"]).expect_code(0);
        assert_eq!(lab.cells().len(), count);
    }
}

#[test]
fn the_record_holds_the_machines_state_and_the_manifest_where_it_came_from() {
    let lab = Lab::new();
    lab.run_sim(&SimPlan::default()).expect_code(0);
    for (_, cell) in lab.cells() {
        let machine = &cell["machine"];
        assert!(machine["load_average_1min_processes"].is_f64(), "{machine}");
        assert_eq!(machine["run_attempt"], 1.0);
        assert_eq!(cell["identity"]["plan.model"], "m");
        assert_eq!(cell["identity"]["hash"].as_str().unwrap().len(), 32);
    }
    let manifest: Value = serde_json::from_str(&lab.read("out/manifest.json")).unwrap();
    assert_eq!(manifest["seed"], 42);
    assert_eq!(manifest["software"]["version.server"], "0.32.0+labrun-sim");
    assert!(manifest["host"]["name"].is_string() && manifest["host"]["kernel"].is_string());
    assert!(manifest["host"]["container"]["in_container"].is_boolean());
    assert_eq!(manifest["ended"]["corpus"].as_str().unwrap().len(), 64);
}

#[test]
fn an_anonymous_manifest_names_no_host_and_no_folder_of_the_user() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let mut command = lab.command(&["plan.toml", "--out", "out", "--anonymous"]);
    command
        .env("HOME", lab.path(""))
        .env("LABRUN_PATHS__MODELS", lab.path("models"));
    assert!(command.output().unwrap().status.success());
    let manifest = lab.read("out/manifest.json");
    let folder = lab.path("").display().to_string();
    assert!(
        !manifest.contains(folder.trim_end_matches('/')),
        "{manifest}"
    );
    let parsed: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(parsed["host"]["name"], Value::Null);
    lab.labrun(&["run", "--resume", "out"]).expect_code(0);
    let again: Value = serde_json::from_str(&lab.read("out/manifest.json")).unwrap();
    assert_eq!(again["host"]["name"], Value::Null, "it stays so");
}
