//! Disks that are full: the tier's, and the run's own.

use std::process::Command;

use super::faults::{CASE, Case, assert_failed};
use super::{Docker, DockerPlan};
use crate::support::{Ended, Lab};

/// A small file system that is unmounted with the test.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: std::path::PathBuf, options: &str) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "labrun-test"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(mounted.success());
        Self(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _busy = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

const RUN: [&str; 6] = [
    "plan.toml",
    "--out",
    "out",
    "--force",
    "--config",
    "box.toml",
];

#[test]
#[ignore = "needs Docker, and root to mount a small file system"]
fn full_disks() {
    let docker = Docker::new();
    // The disk tier's folder: no file more fits.
    let lab = Lab::new();
    let small = Small::mount(lab.path("small"), "size=64k,nr_inodes=1");
    let settings = format!(
        "[paths]\nscratch = \"{}\"\n[limits]\nmin_free_mib = 0\n",
        small.0.display()
    );
    lab.write("box.toml", &settings);
    let plan = DockerPlan {
        matrix: r#"tier = ["disk", "cpu"]"#,
        ..DockerPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    lab.labrun(&RUN).expect_code(1);
    let cells = lab.cells();
    let of = |tier: &str| {
        &cells
            .iter()
            .find(|(_, c)| c["coordinates"]["tier"] == tier)
            .unwrap()
            .1
    };
    let case = Case {
        name: "the tier's disk is full",
        message: "No space left on device",
        ..CASE
    };
    assert_failed(&case, of("disk"));
    assert_eq!(
        of("cpu")["outcome"]["kind"],
        "completed",
        "the matrix goes on"
    );
    docker.assert_as_before();

    // The run's own folder: what cannot be stored ends the run, and nothing stays.
    let lab = Lab::new();
    let small = Small::mount(lab.path("out"), "size=2m");
    let plan = DockerPlan {
        server: r#"command = ["sh", "-c", "head -c 8000000 /dev/zero | tr '\\0' x; exec labrun \"$@\"", "sh"]"#,
        ..DockerPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    lab.write("box.toml", "[limits]\nmin_free_mib = 0\n");
    let ended: Ended = lab.labrun(&RUN);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("No space left on device"),
        "{}",
        ended.stderr
    );
    docker.assert_as_before();
    drop(small);
}
