//! Killed anywhere, continued exactly: the same cells, each once, and nothing else left.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Ended, Kill, Lab, SimPlan, wait_until};

/// Six short cells.
fn plan() -> SimPlan<'static> {
    SimPlan {
        tiers: r#"["baseline", "cpu", "disk"]"#,
        concurrency: "1, 2",
        ..SimPlan::default()
    }
}

/// What must be equal of an interrupted and an uninterrupted run: the cells by id, with the hashes
/// of the prompts of each pass.
pub(crate) fn prompts(lab: &Lab) -> BTreeMap<String, Vec<String>> {
    let corpora = |cell: &Value| {
        let passes = cell["passes"].as_array().unwrap().iter();
        passes
            .map(|pass| pass["corpus"].as_str().unwrap().to_owned())
            .collect()
    };
    let cells = lab.cells();
    let named = cells.iter().map(|(path, cell)| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(name, cell["id"].as_str().unwrap());
        (name, corpora(cell))
    });
    named.collect()
}

/// Kills a run after `delay`, unless it ended before; returns whether it was killed.
fn run_and_kill(lab: &Lab, arguments: &[&str], delay: Duration) -> bool {
    let mut command = lab.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = Kill(command.spawn().unwrap());
    let began = Instant::now();
    while began.elapsed() < delay {
        if let Some(status) = run.0.try_wait().unwrap() {
            assert_eq!(status.code(), Some(0), "a resumed run failed");
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    true
}

/// All that a finished run must be, however often it was killed.
pub(crate) fn check_whole(lab: &Lab, expected: &BTreeMap<String, Vec<String>>) {
    assert_eq!(&prompts(lab), expected);
    let mut positions: Vec<u64> = lab
        .cells()
        .iter()
        .map(|(_, cell)| cell["position"].as_u64().unwrap())
        .collect();
    positions.sort_unstable();
    let all: Vec<u64> = (1..=expected.len() as u64).collect();
    assert_eq!(positions, all, "each cell once, in one order");
    for (path, bytes) in lab.files("out") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let whole = path.to_string_lossy().into_owned();
        assert!(!whole.contains(".tmp-") && name != ".lock", "left: {whole}");
        if path.extension().is_some_and(|ending| ending == "json") {
            serde_json::from_slice::<Value>(&bytes).unwrap();
        }
    }
    assert!(!lab.path("out/servers").exists());
    assert!(!lab.path("out/superseded").exists());
    for line in lab.read("out/events.jsonl").lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    let rows = lab.read("out/summary.csv").lines().count();
    assert_eq!(rows, 1 + 2 * expected.len());
    lab.labrun(&["report", "out"]).expect_code(0);
    lab.assert_no_server_is_left();
}

/// Numbers that look random and are the same in every run of the tests.
fn delays(seed: u64, most_ms: u64) -> impl Iterator<Item = Duration> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((state >> 33) % most_ms)
    })
}

/// Kills runs of `plan` until `kills` were killed, each run resumed to its end.
fn kill_and_resume(plan: &SimPlan<'_>, kills: u32, most_ms: u64) {
    let whole = Lab::new();
    whole.run_sim(plan).expect_code(0);
    let expected = prompts(&whole);
    let mut delays = delays(7, most_ms);
    let mut killed = 0;
    while killed < kills {
        let lab = Lab::new();
        lab.write("plan.toml", &plan.text());
        let resume = ["plan.toml", "--out", "out", "--resume"];
        while killed < kills && run_and_kill(&lab, &resume, delays.next().unwrap()) {
            killed += 1;
        }
        lab.labrun(&resume).expect_code(0);
        check_whole(&lab, &expected);
    }
}

#[test]
fn a_run_killed_again_and_again_ends_as_one_that_never_was() {
    kill_and_resume(&plan(), 12, 900);
}

#[test]
#[ignore = "takes a minute or two"]
fn resume_hundred_kills() {
    let thirty = SimPlan {
        tiers: r#"["baseline", "cpu", "disk", "redis", "native"]"#,
        concurrency: "1, 2, 3, 4, 5, 6",
        ..SimPlan::default()
    };
    kill_and_resume(&thirty, 100, 1500);
}

#[test]
fn the_second_run_on_a_folder_is_refused_with_the_process_that_has_it() {
    let lab = Lab::new();
    let plan = SimPlan {
        start_ms: 2000,
        ..plan()
    };
    lab.write("plan.toml", &plan.text());
    let mut command = lab.command(&["plan.toml", "--out", "out"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut first = Kill(command.spawn().unwrap());
    assert!(wait_until(Duration::from_secs(20), || lab
        .path("out/manifest.json")
        .exists()));
    let ended = lab
        .labrun(&["plan.toml", "--out", "out", "--resume"])
        .expect_code(2);
    let who = format!(
        "another labrun writes to `out`: process {} on",
        first.0.id()
    );
    assert!(ended.stderr.contains(&who), "{}", ended.stderr);
    let ended = lab.labrun(&["plan.toml", "--out", "out"]).expect_code(2);
    assert!(ended.stderr.contains("not empty"), "{}", ended.stderr);
    assert!(first.0.try_wait().unwrap().is_none(), "the first goes on");
    Command::new("kill")
        .args(["-INT", &first.0.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(first.0.wait().unwrap().code(), Some(130));
}

#[test]
fn a_finished_run_is_not_measured_again_and_a_missing_cell_is() {
    let lab = Lab::new();
    lab.run_sim(&plan()).expect_code(0);
    let before = lab.files("out/cells");
    let ended = lab.labrun(&["run", "--resume", "out"]).expect_code(0);
    assert!(
        ended.stderr.contains("6 of 6 cells are finished, 0 to run"),
        "{}",
        ended.stderr
    );
    assert_eq!(lab.files("out/cells"), before);
    let gone = lab.cells()[2].0.clone();
    std::fs::remove_dir_all(&gone).unwrap();
    lab.labrun(&["run", "--resume", "out"]).expect_code(0);
    assert!(gone.join("cell.json").is_file());
    let manifest: Value = serde_json::from_str(&lab.read("out/manifest.json")).unwrap();
    assert_eq!(manifest["attempt"], 3);
    assert_eq!(manifest["earlier_attempts"].as_array().unwrap().len(), 2);
    assert_eq!(manifest["ended"]["how"], "finished");
}

#[test]
fn a_changed_value_is_named_and_its_cells_are_put_aside_and_run_again() {
    let lab = Lab::new();
    lab.run_sim(&plan()).expect_code(0);
    let changed = plan()
        .text()
        .replace("[server.sim]", "[tier.cpu]\nchunk_size = 128\n[server.sim]");
    lab.write("plan.toml", &changed);
    let ended = lab
        .labrun(&["plan.toml", "--out", "out", "--resume"])
        .expect_code(0);
    assert!(
        ended
            .stderr
            .contains("changed: plan.tier.settings.chunk_size: (none) -> 128"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("4 of 6 cells are finished, 2 to run"));
    let aside: Vec<_> = std::fs::read_dir(lab.path("out/superseded"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let cells = aside.iter().filter(|name| name.contains("-cpu-")).count();
    assert_eq!(
        (cells, aside.len()),
        (2, 3),
        "two cells and the plan: {aside:?}"
    );
    assert_eq!(lab.cells().len(), 6);
    assert_eq!(lab.read("out/plan.toml"), changed);
    let rows = lab.read("out/summary.csv").lines().count();
    assert_eq!(
        rows,
        1 + 2 * 6,
        "the report reads no cell that was put aside"
    );
}

#[test]
fn a_value_that_is_changed_back_brings_back_the_cells_that_were_measured_with_it() {
    let lab = Lab::new();
    let original = plan().text();
    let chunks = "[tier.cpu]\nchunk_size = 128\n[server.sim]";
    let changed = original.replace("[server.sim]", chunks);
    lab.run_sim(&plan()).expect_code(0);
    let first = lab.files("out/cells");
    let resume_with = |text: &str| {
        lab.write("plan.toml", text);
        let resume = ["plan.toml", "--out", "out", "--resume"];
        lab.labrun(&resume).expect_code(0).stderr
    };
    let stderr = resume_with(&changed);
    assert!(!stderr.contains("brought back"), "{stderr}");
    let second = lab.files("out/cells");
    for (text, cells) in [(&original, &first), (&changed, &second)] {
        let stderr = resume_with(text);
        assert!(
            stderr.contains("6 of 6 cells are finished, 0 to run"),
            "{stderr}"
        );
        assert_eq!(
            stderr.matches("which is brought back").count(),
            2,
            "{stderr}"
        );
        assert!(&lab.files("out/cells") == cells, "as they were measured");
    }
    let mut positions = Vec::new();
    for (path, text) in lab.files("out") {
        if path.ends_with("cell.json") {
            let cell: Value = serde_json::from_slice(&text).unwrap();
            positions.push(cell["position"].as_u64().unwrap());
        }
    }
    positions.sort_unstable();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6, 7, 8], "none is given twice");
}

#[test]
fn more_repeats_and_longer_waits_keep_what_is_finished() {
    let lab = Lab::new();
    lab.run_sim(&plan()).expect_code(0);
    let more = plan()
        .text()
        .replace("warmup = 1", "warmup = 1\nrepeats = 2")
        .replace("[server.sim]", "ready_timeout_s = 77\n[server.sim]");
    lab.write("plan.toml", &more);
    let ended = lab
        .labrun(&["plan.toml", "--out", "out", "--resume"])
        .expect_code(0);
    assert!(
        ended
            .stderr
            .contains("6 of 12 cells are finished, 6 to run"),
        "{}",
        ended.stderr
    );
    assert_eq!(lab.cells().len(), 12);
}

#[test]
fn retry_chooses_which_finished_cells_run_again() {
    let lab = Lab::new();
    let failing = SimPlan {
        sim: r#"faults = ["exit-mid-load"]"#,
        tiers: r#"["cpu"]"#,
        ..SimPlan::default()
    };
    lab.run_sim(&failing).expect_code(1);
    let retry = |which: &str| {
        lab.labrun(&["run", "--resume", "out", "--retry", which])
            .expect_code(1)
            .stderr
    };
    assert!(retry("none").contains("1 of 1 cells are finished, 0 to run"));
    assert!(!lab.path("out/superseded").exists());
    let stderr = retry("failed");
    assert!(stderr.contains(": failed in load"), "{stderr}");
    let none_left = "0 of 1 cells are finished, 1 to run";
    assert!(stderr.contains(none_left), "{stderr}");
    let stderr = retry("failed");
    assert!(
        stderr.contains(none_left),
        "a failed one is brought back: {stderr}"
    );
    assert_eq!(lab.cells().len(), 1);
}

#[test]
fn a_cell_that_is_not_proven_is_run_again_when_asked() {
    // How the verdict is, what asks for it, and what does not.
    for (fault, asking, why, not_asking) in [
        ("false-hit", "invalid", "a pass is invalid", "failed"),
        ("false-hit", "unproven", "a pass is not proven", "failed"),
        ("blind-model", "unproven", "a pass is not proven", "invalid"),
    ] {
        let lab = Lab::new();
        let sim = format!("faults = [\"{fault}\"]");
        let plan = SimPlan {
            sim: &sim,
            tiers: r#"["cpu"]"#,
            ..SimPlan::default()
        };
        lab.run_sim(&plan);
        let retry = |which: &str| {
            lab.labrun(&["run", "--resume", "out", "--retry", which])
                .stderr
        };
        let stderr = retry(not_asking);
        let message = format!("{fault}, {not_asking}: {stderr}");
        assert!(
            stderr.contains("1 of 1 cells are finished, 0 to run"),
            "{message}"
        );
        // The second time, one that is no better was put aside.
        for _ in 0..2 {
            let stderr = retry(asking);
            let message = format!("{fault}, {asking}: {stderr}");
            assert!(stderr.contains(why), "{message}");
            assert!(
                stderr.contains("0 of 1 cells are finished, 1 to run"),
                "{message}"
            );
        }
    }
}

#[test]
fn without_out_the_latest_run_of_the_plan_is_continued() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let first = lab.labrun(&["plan.toml", "--resume"]).expect_code(0);
    assert!(!first.stderr.contains("continuing"), "{}", first.stderr);
    let ended = lab.labrun(&["plan.toml", "--resume"]).expect_code(0);
    assert!(
        ended.stderr.contains("2 of 2 cells are finished, 0 to run"),
        "{}",
        ended.stderr
    );
    let runs = std::fs::read_dir(lab.path("results/t")).unwrap().count();
    assert_eq!(runs, 1);
}

#[test]
fn a_run_is_continued_by_the_names_that_every_command_takes() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let none = lab.labrun(&["run", "--resume", "latest"]).expect_code(2);
    assert!(
        none.stderr.contains("no run to continue"),
        "{}",
        none.stderr
    );
    lab.labrun(&["plan.toml", "--quiet"]).expect_code(0);
    for word in ["latest", "latest:t"] {
        let ended = lab.labrun(&["run", "--resume", word]).expect_code(0);
        let continued = "2 of 2 cells are finished, 0 to run";
        assert!(ended.stderr.contains(continued), "{}", ended.stderr);
    }
    let other = lab.labrun(&["run", "--resume", "latest:u"]).expect_code(2);
    assert!(other.stderr.contains("`latest:u`"), "{}", other.stderr);
    let runs = std::fs::read_dir(lab.path("results/t")).unwrap().count();
    assert_eq!(runs, 1);
}

#[test]
fn torn_files_of_a_killed_run_are_removed_and_the_torn_event_with_them() {
    let lab = Lab::new();
    lab.run_sim(&SimPlan::default()).expect_code(0);
    let events = lab.read("out/events.jsonl");
    lab.write(
        "out/events.jsonl",
        &format!("{events}{{\"event\":\"cell-fin"),
    );
    lab.write("out/cells/.tmp-x/cell.json", "{");
    lab.write("out/.tmp-manifest.json", "{");
    lab.write("out/servers/1/server.log", "x");
    let ended = lab.labrun(&["run", "--resume", "out"]).expect_code(0);
    assert!(ended.stderr.contains("`events.jsonl`"), "{}", ended.stderr);
    assert!(lab.read("out/events.jsonl").starts_with(&events));
    let left = lab.files("out");
    let torn = |path: &Path| path.to_string_lossy().contains(".tmp-");
    assert!(!left.iter().any(|(path, _)| torn(path)));
    assert!(!lab.path("out/servers").exists());
}

#[test]
fn a_folder_of_a_newer_format_is_refused_and_not_touched() {
    let lab = Lab::new();
    lab.run_sim(&SimPlan::default()).expect_code(0);
    let manifest = lab.read("out/manifest.json");
    let newer = manifest.replace("\"format\": 1", "\"format\": 9");
    assert_ne!(newer, manifest);
    lab.write("out/manifest.json", &newer);
    let before = lab.files("out");
    let ended = lab.labrun(&["run", "--resume", "out"]).expect_code(2);
    assert!(ended.stderr.contains("format 9"), "{}", ended.stderr);
    assert_eq!(lab.files("out"), before);
}

#[test]
fn an_interrupted_run_prints_how_to_resume_it() {
    let lab = Lab::new();
    lab.write(
        "plan.toml",
        &SimPlan {
            start_ms: 1500,
            ..plan()
        }
        .text(),
    );
    let mut command = lab.command(&["plan.toml", "--out", "out"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = command.spawn().unwrap();
    assert!(wait_until(Duration::from_secs(20), || !lab
        .servers()
        .is_empty()));
    Command::new("kill")
        .args(["-INT", &run.id().to_string()])
        .status()
        .unwrap();
    let ended = Ended::of(&run.wait_with_output().unwrap()).expect_code(130);
    assert!(
        ended.stderr.contains("go on with: labrun run --resume out"),
        "{}",
        ended.stderr
    );
}
