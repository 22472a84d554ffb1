//! Ctrl-C, SIGTERM and SIGKILL: finished cells stay, and no server survives.

use std::io::Write as _;
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
    let mut command = lab.command(&["plan.toml", "--out", "out", "--force"]);
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
fn a_ctrl_c_at_a_terminal_leaves_no_stale_line_and_the_terminal_as_it_was() {
    let lab = Lab::new();
    let plan = SimPlan {
        concurrency: "1, 2",
        requests: 12,
        ..SimPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    // The terminal's signal reaches the shell too. With a trap it lives on; what it starts is as without.
    let echo = "stty -a | tr ' ' '\\n' | grep echoctl";
    let run = format!(
        "trap : INT; {echo}; {} plan.toml --out out; {echo}",
        env!("CARGO_BIN_EXE_labrun")
    );
    let mut terminal = Command::new("script")
        .args(["--quiet", "--command", &run, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .current_dir(lab.path("."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = terminal.stdin.take().unwrap();
    assert!(wait_until(Duration::from_secs(60), || !lab
        .cells()
        .is_empty()));
    keyboard.write_all(b"\x03").unwrap();
    keyboard.flush().unwrap();
    let output = terminal.wait_with_output().unwrap();
    drop(keyboard);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("stopping: requests in flight"), "{text}");
    assert!(!text.contains("^C"), "{text}");
    let cut_short = ["inconclusive: ", "invalid: "];
    assert!(!cut_short.iter().any(|why| text.contains(why)), "{text}");
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|word| word.ends_with("echoctl"))
        .collect();
    assert_eq!(words, ["echoctl", "echoctl"], "before and after");
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
    let mut command = lab.command(&["plan.toml", "--out", "out", "--force"]);
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

/// A process that carries the mark of the labrun with this pid, which is gone. `last_beat` is when that
/// labrun is known to have lived last, clock ticks since boot.
fn marked(pid: u32, run: &str, last_beat: Option<&str>) -> Kill {
    let owner = format!("{pid}-1-{}", pid_namespace());
    let orphan = Command::new("sleep")
        .arg("300")
        .env("LABRUN_RUN", run)
        .env("LABRUN_OWNER", &owner)
        .spawn();
    if let Some(ticks) = last_beat {
        // A labrun beside this test that looked at all processes before there was this one would take the file
        // for one that nobody needs.
        std::thread::sleep(Duration::from_secs(2));
        std::fs::write(format!("/dev/shm/labrun_{owner}_alive"), ticks).unwrap();
    }
    Kill(orphan.unwrap())
}

#[test]
fn clean_ends_what_began_while_its_labrun_lived_and_asks_for_what_may_be_anothers() {
    let lab = Lab::new();
    let mut late = marked(4_194_306, "test-of-clean-late", Some("1"));
    let mut unknown = marked(4_194_307, "test-of-clean-unknown", None);
    let ends = |orphan: &mut Kill| {
        wait_until(Duration::from_secs(5), || {
            orphan.0.try_wait().unwrap().is_some()
        })
    };
    let lives = |orphan: &mut Kill| orphan.0.try_wait().unwrap().is_none();
    let line = |run: &str, orphan: &Kill| {
        let pid = orphan.0.id();
        format!("left process {pid} of run `test-of-clean-{run}`")
    };
    for arguments in [&["clean", "--dry-run"][..], &["clean"]] {
        let listed = lab.labrun(arguments).expect_code(0).stdout;
        for expected in [
            &line("late", &late),
            &line("unknown", &unknown),
            "began when that labrun was gone; `labrun clean --yes` removes it",
            "nothing shows when that labrun ended; `labrun clean --yes` removes it",
        ] {
            assert!(listed.contains(expected), "{expected}: {listed}");
        }
    }
    // A run leaves them alone too, and says so.
    let ran = lab.run_sim(&SimPlan::default()).expect_code(0).stderr;
    assert!(ran.contains(&line("late", &late)), "{ran}");
    assert!(lives(&mut late) && lives(&mut unknown));
    lab.labrun(&["clean", "--yes"]).expect_code(0);
    assert!(ends(&mut late) && ends(&mut unknown));
    // Other runs of these tests remove it as well as this `clean` does.
    let mut own = marked(4_194_305, "test-of-clean-own", Some("9000000000000"));
    lab.labrun(&["clean"]).expect_code(0);
    assert!(ends(&mut own));
    // A later command removes what no process needs any longer.
    lab.labrun(&["clean"]).expect_code(0);
    for pid in [4_194_305, 4_194_306] {
        let file = format!("/dev/shm/labrun_{pid}-1-{}_alive", pid_namespace());
        assert!(!std::path::Path::new(&file).exists(), "{file}");
    }
}

#[test]
fn a_server_that_outlives_its_killed_labrun_is_its_own() {
    let vllm = "trap '' TERM HUP; sleep 300";
    let lab = crate::process::lab_with(vllm, "exit 9", "in-process");
    let plan = lab.read("plan.toml");
    let patient = plan.replace("ready_timeout_s = 2", "ready_timeout_s = 60");
    lab.write("plan.toml", &patient);
    let mut command = lab.command(&crate::process::RUN);
    let mut run = Kill(command.stderr(Stdio::null()).spawn().unwrap());
    let starts = || !lab.servers().is_empty();
    assert!(wait_until(Duration::from_secs(20), starts));
    let servers = lab.servers();
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    let said = lab.labrun(&["clean"]).expect_code(0).stdout;
    for server in servers {
        assert!(!said.contains(&format!("left process {server} ")), "{said}");
    }
    lab.assert_no_server_is_left();
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
    let mut command = lab.command(&["plan.toml", "--out", "out", "--force"]);
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

#[test]
fn a_signal_before_the_run_has_begun_is_reported_and_ends_it() {
    // A server that takes connections and never answers.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for name in ["INT", "TERM", "HUP"] {
        let lab = Lab::new();
        let text = SimPlan::default().text();
        let external = format!("launcher = \"external\"\nurl = \"{url}\"");
        let text = text.replace("launcher = \"sim\"", &external);
        let text = text.split("[server.sim]").next().unwrap();
        lab.write("plan.toml", text);
        let mut command = lab.command(&["plan.toml", "--out", "out"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = command.spawn().unwrap();
        let _asking = silent.accept().unwrap();
        signal(run.id(), name);
        let ended = Ended::of(&run.wait_with_output().unwrap()).expect_code(130);
        let expected = "interrupted before the run began: no cell was measured";
        assert!(ended.stderr.contains(expected), "{name}: {}", ended.stderr);
        assert!(!lab.path("out").exists());
    }
}
