//! Ctrl-C, SIGTERM and SIGKILL: finished cells stay, and no server survives.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Ended, Kill, Lab, SimPlan, wait_until};

/// A run long enough to be interrupted: six cells.
fn long_run(lab: &Lab) -> std::process::Child {
    let tiers = r#"["baseline", "cpu", "disk"]"#;
    let plan = SimPlan {
        tiers,
        concurrency: "1, 2",
        requests: 12,
        ..SimPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let mut command = lab.command(&["plan.toml", "--out", "out"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

#[test]
fn the_first_signal_stops_the_servers_and_keeps_finished_cells() {
    for name in ["INT", "TERM", "HUP"] {
        let lab = Lab::new();
        let run = long_run(&lab);
        assert!(wait_until(Duration::from_secs(60), || !lab
            .cells()
            .is_empty()));
        signal(run.id(), name);
        let ended = Ended::of(&run.wait_with_output().unwrap()).expect_code(130);
        assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
        let finished = lab.cells();
        assert!(
            !finished.is_empty() && finished.len() < 6,
            "{} cells",
            finished.len()
        );
        assert!(
            finished
                .iter()
                .all(|(_, cell)| cell["outcome"]["kind"] == "completed")
        );
        let leftover = lab
            .files("out/cells")
            .iter()
            .any(|(path, _)| path.to_string_lossy().contains(".tmp-"));
        assert!(!leftover, "a torn cell is left");
        assert!(
            lab.path("out/summary.csv").is_file(),
            "what was measured is summed up"
        );
        assert!(lab.servers().is_empty(), "left behind: {:?}", lab.servers());
    }
}

#[test]
fn two_signals_stop_at_once() {
    let lab = Lab::new();
    let run = long_run(&lab);
    assert!(wait_until(Duration::from_secs(60), || !lab
        .servers()
        .is_empty()));
    signal(run.id(), "INT");
    signal(run.id(), "INT");
    Ended::of(&run.wait_with_output().unwrap()).expect_code(130);
    assert!(lab.servers().is_empty(), "left behind: {:?}", lab.servers());
}

#[test]
fn one_signal_ends_a_run_whose_server_hangs() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["cpu"]"#,
        requests: 400,
        ..SimPlan::default()
    };
    // Limits that nobody would wait for.
    let text = plan.text() + "\n[load]\ndrain_s = 3600\n";
    lab.write(
        "plan.toml",
        &text.replace("[server]\n", "[server]\nstop_grace_s = 3600\n"),
    );
    let mut command = lab.command(&["plan.toml", "--out", "out"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = Kill(command.spawn().unwrap());
    let measures = || {
        let events = std::fs::read_to_string(lab.path("out/events.jsonl")).unwrap_or_default();
        events.contains(r#""phase":"load","state":"cold""#)
    };
    assert!(wait_until(Duration::from_secs(60), measures));
    for server in lab.servers() {
        signal(server.parse().unwrap(), "STOP");
    }
    signal(run.0.id(), "TERM");
    let ends = || run.0.try_wait().unwrap().is_some();
    assert!(
        wait_until(Duration::from_secs(60), ends),
        "it waits for a server that hangs"
    );
    assert!(lab.servers().is_empty(), "left behind: {:?}", lab.servers());
}

#[test]
fn a_killed_labrun_leaves_no_simulator_behind() {
    let lab = Lab::new();
    let mut run = Kill(long_run(&lab));
    assert!(wait_until(Duration::from_secs(60), || !lab
        .servers()
        .is_empty()));
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    lab.assert_no_server_is_left();
    let complete = lab.cells();
    assert!(complete.iter().all(|(_, cell)| cell["outcome"].is_object()));
    assert!(!lab.path("out/summary.csv").exists());
}

/// The third part of a mark; the pid before it is above the kernel's highest.
fn pid_namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect();
    digits(&link.to_string_lossy())
}

#[test]
fn clean_removes_a_marked_process_whose_labrun_is_gone() {
    let lab = Lab::new();
    let orphan = Command::new("sleep")
        .arg("300")
        .env("LABRUN_RUN", "test-of-clean")
        .env("LABRUN_OWNER", format!("4194304-1-{}", pid_namespace()))
        .spawn()
        .unwrap();
    let mut orphan = Kill(orphan);
    let listed = lab.labrun(&["clean", "--dry-run"]).expect_code(0);
    let line = format!(
        "would remove process {} of run `test-of-clean`",
        orphan.0.id()
    );
    assert!(listed.stdout.contains(&line), "{}", listed.stdout);
    assert!(
        orphan.0.try_wait().unwrap().is_none(),
        "a dry run removes nothing"
    );
    let removed = lab.labrun(&["clean"]).expect_code(0);
    assert!(
        removed.stdout.contains("test-of-clean"),
        "{}",
        removed.stdout
    );
    assert!(wait_until(Duration::from_secs(5), || orphan
        .0
        .try_wait()
        .unwrap()
        .is_some()));
}

#[test]
fn a_signal_ends_the_cell_and_does_not_begin_its_next_pass() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["cpu"]"#,
        requests: 400,
        ..SimPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let mut command = lab.command(&["plan.toml", "--out", "out"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = command.spawn().unwrap();
    let measures = || {
        let events = std::fs::read_to_string(lab.path("out/events.jsonl")).unwrap_or_default();
        events.contains(r#""phase":"load","state":"cold""#)
    };
    assert!(wait_until(Duration::from_secs(60), measures));
    signal(run.id(), "INT");
    let ended = Ended::of(&run.wait_with_output().unwrap()).expect_code(130);
    assert!(
        ended.stderr.contains("stopping: requests in flight"),
        "{}",
        ended.stderr
    );
    let events = lab.read("out/events.jsonl");
    assert!(
        !events.contains(r#""phase":"load","state":"tier""#),
        "{events}"
    );
    assert!(events.contains(r#""event":"stopped""#), "{events}");
    assert!(
        lab.cells().is_empty(),
        "a cell that was cut short is discarded"
    );
}
