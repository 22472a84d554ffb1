//! Every reader of a run reports whether it is whole; several commands at once do not disturb each other.

use std::time::Duration;

use crate::support::{Kill, Lab, SimPlan, wait_until};

const PLAN: SimPlan<'_> = SimPlan {
    tiers: r#"["baseline", "cpu", "disk"]"#,
    concurrency: "1, 2",
    requests: 4,
    server: "",
    start_ms: 5,
    sim: "",
};

#[test]
fn a_run_that_was_killed_is_reported_so_until_it_is_finished() {
    let lab = Lab::new();
    lab.write("plan.toml", &PLAN.text());
    let mut command = lab.command(&["plan.toml", "--out", "out", "--quiet"]);
    let mut run = Kill(command.spawn().unwrap());
    assert!(wait_until(Duration::from_secs(60), || !lab
        .cells()
        .is_empty()));
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    let have = lab.cells().len();
    assert!(have < 6, "it was too fast");
    let message = format!("{have} of 6 cells: the run was killed");
    let report = lab.labrun(&["report", "out"]).expect_code(0);
    let how_many = format!("{have} of 6 cells");
    assert!(report.stderr.contains(&message) && report.stdout.contains(&how_many));
    for file in ["out/report.md", "out/summary.md", "out/report.html"] {
        assert!(lab.read(file).contains(&message), "{file}");
    }
    let refused = lab
        .labrun(&["keep", "out", "--into", "tables"])
        .expect_code(2);
    assert!(refused.stderr.contains(&message) && refused.stderr.contains("--partial"));
    assert!(!lab.path("tables").exists());
    let partial = ["keep", "out", "--into", "tables", "--partial"];
    let partial = lab.labrun(&partial).expect_code(0);
    assert!(partial.stderr.contains(&message));
    let export = ["export", "out", "--format", "csv", "--out", "exported"];
    assert!(lab.labrun(&export).expect_code(0).stderr.contains(&message));
    let diff = lab.labrun(&["diff", "out", "out"]);
    assert!(
        diff.stdout.contains("the run was killed"),
        "{}",
        diff.stdout
    );

    lab.labrun(&["run", "--resume", "out", "--quiet"])
        .expect_code(0);
    let report = lab.labrun(&["report", "out"]).expect_code(0);
    assert!(!report.stderr.contains("of 6 cells"), "{}", report.stderr);
    lab.labrun(&["keep", "out", "--into", "tables"])
        .expect_code(0);
}

#[test]
fn reports_of_one_run_at_once_all_succeed() {
    let lab = Lab::new();
    lab.run_sim(&SimPlan::default()).expect_code(0);
    for _round in 0..2 {
        let reports: Vec<_> = (0..5)
            .map(|_| {
                lab.command(&["report", "out"])
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut report in reports {
            assert!(report.wait().unwrap().success());
        }
    }
    let left = lab.files("out");
    let mut names = left
        .iter()
        .map(|(path, _)| path.file_name().unwrap().to_string_lossy());
    assert!(!names.any(|name| name.starts_with(".tmp-")));
}

#[test]
fn a_folder_that_is_removed_in_the_midst_is_reported_and_not_made_up() {
    let lab = Lab::new();
    lab.write("plan.toml", &PLAN.text());
    let mut command = lab.command(&["plan.toml", "--out", "out", "--quiet"]);
    let run = command
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert!(wait_until(Duration::from_secs(60), || !lab
        .cells()
        .is_empty()));
    std::fs::rename(lab.path("out"), lab.path("moved")).unwrap();
    std::fs::remove_dir_all(lab.path("moved")).unwrap();
    let ended = run.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("the run's folder `out` is gone"),
        "{stderr}"
    );
    assert!(!stderr.contains("finished cells are"), "{stderr}");
    assert!(!lab.path("out").exists());
    lab.assert_no_server_is_left();
}
