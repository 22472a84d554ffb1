//! Files that fail: short writes, a full disk, death in the middle of a write. Whatever happens,
//! finished cells stay and the run can be resumed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::resume::{check_whole, prompts};
use crate::support::{Ended, Lab, SimPlan};

/// The library that makes files fail.
fn library(lab: &Lab) -> PathBuf {
    lab.c_library("faulty.so", "faulty.c")
}

/// Runs with files that fail whose path begins with `path` in the run's folder, or, where `path` begins
/// with a dash, whose name ends so: names that are not in place yet hold the process before it.
fn run(lab: &Lab, library: &Path, kind: &str, path: &str, at: u32) -> Output {
    let path = if path.starts_with('-') {
        PathBuf::from(path)
    } else {
        lab.path("out").join(path)
    };
    lab.command(&["plan.toml", "--out", "out", "--resume"])
        .env("LD_PRELOAD", library)
        .env("FAULT_KIND", kind)
        .env("FAULT_PATH", path)
        .env("FAULT_AT", at.to_string())
        .output()
        .unwrap()
}

fn plan() -> SimPlan<'static> {
    SimPlan::default()
}

#[test]
fn short_writes_lose_no_byte() {
    let whole = Lab::new();
    whole.run_sim(&plan()).expect_code(0);
    let lab = Lab::new();
    lab.write("plan.toml", &plan().text());
    Ended::of(&run(&lab, &library(&lab), "short", "", 1)).expect_code(0);
    check_whole(&lab, &prompts(&whole));
}

#[test]
fn a_full_disk_ends_the_run_is_reported_and_leaves_what_is_finished() {
    let whole = Lab::new();
    whole.run_sim(&plan()).expect_code(0);
    // Somewhere in the first cell, somewhere in the second, and in the log of events.
    for (path, at) in [("cells", 2), ("cells", 14), ("events.jsonl", 6)] {
        let lab = Lab::new();
        lab.write("plan.toml", &plan().text());
        let ended = Ended::of(&run(&lab, &library(&lab), "enospc", path, at)).expect_code(1);
        assert!(
            ended.stderr.contains("No space left on device")
                && ended.stderr.contains("finished cells are saved")
                && ended.stderr.contains("labrun run --resume out"),
            "{path} {at}: {}",
            ended.stderr
        );
        lab.assert_no_server_is_left();
        lab.labrun(&["run", "--resume", "out"]).expect_code(0);
        check_whole(&lab, &prompts(&whole));
    }
}

#[test]
#[ignore = "takes half a minute"]
fn faulty_death_at_any_write_of_a_cell_is_survived() {
    let whole = Lab::new();
    whole.run_sim(&plan()).expect_code(0);
    let expected = prompts(&whole);
    let shared = Lab::new();
    let library = library(&shared);
    for (path, calls) in [
        (
            "cells",
            vec![1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26],
        ),
        ("-manifest.json", vec![1, 2]),
        (".tmp-", vec![1, 2, 3]),
        ("events.jsonl", vec![1, 3, 8]),
    ] {
        for at in calls {
            let lab = Lab::new();
            lab.write("plan.toml", &plan().text());
            let killed = run(&lab, &library, "kill", path, at);
            assert!(!killed.status.success(), "{path} {at} was not reached");
            lab.assert_no_server_is_left();
            lab.labrun(&["plan.toml", "--out", "out", "--resume"])
                .expect_code(0);
            check_whole(&lab, &expected);
        }
    }
}

/// A file system of its own, unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, options: &str) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(path)
            .status()
            .unwrap();
        assert!(done.success(), "mounting needs root");
        Self(path.to_owned())
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(done.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}

#[test]
#[ignore = "needs root, for file systems of its own"]
fn faulty_small_and_read_only_file_systems_lose_nothing() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["baseline", "cpu", "disk", "native"]"#,
        requests: 6,
        ..SimPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let disk = Mount::new(&lab.path("out"), "size=100k");
    let arguments = ["plan.toml", "--out", "out", "--resume"];
    let full = |lab: &Lab| {
        let mut command = lab.command(&arguments);
        command.env("LABRUN_LIMITS__MIN_FREE_MIB", "0");
        Ended::of(&command.output().unwrap())
    };
    let ended = full(&lab).expect_code(1);
    assert!(ended.stderr.contains("No space left"), "{}", ended.stderr);
    let finished = lab.cells().len();
    assert!(finished < 4, "{finished} cells fit");
    disk.remount("ro");
    let ended = full(&lab).expect_code(2);
    assert!(
        ended
            .stderr
            .contains("cannot write in the run folder `out`")
            && ended.stderr.contains("Read-only file system"),
        "{}",
        ended.stderr
    );
    assert_eq!(lab.cells().len(), finished);
    disk.remount("rw,size=64m");
    full(&lab).expect_code(0);
    assert_eq!(lab.cells().len(), 4);
    lab.assert_no_server_is_left();
}
