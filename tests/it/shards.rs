//! A matrix in parts, and the parts joined: by hand, and by a real Slurm.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::resume::prompts;
use crate::support::{Ended, Lab, SimPlan, wait_until};

fn plan() -> SimPlan<'static> {
    SimPlan {
        tiers: r#"["baseline", "cpu"]"#,
        concurrency: "1, 2, 3, 4",
        ..SimPlan::default()
    }
}

fn run_shard(lab: &Lab, index: u32, of: u32, plan: &str) {
    let shard = format!("{index}/{of}");
    let out = format!("part{index}");
    lab.labrun(&[plan, "--shard", &shard, "--out", &out])
        .expect_code(0);
}

#[test]
fn shards_joined_are_the_run_that_was_never_split() {
    let whole = Lab::new();
    whole.run_sim(&plan()).expect_code(0);
    let lab = Lab::new();
    lab.write("plan.toml", &plan().text());
    for index in 1..=3 {
        run_shard(&lab, index, 3, "plan.toml");
    }
    let refused = lab
        .labrun(&["merge", "out", "part1", "part3"])
        .expect_code(2);
    assert!(
        refused.stderr.contains("missing of 3 shards: 2")
            && refused
                .stderr
                .contains("of the plan's cells are in none of these runs"),
        "{}",
        refused.stderr
    );
    assert!(!lab.path("out").exists(), "nothing is written");
    let twice = lab
        .labrun(&["merge", "out", "part1", "part1", "part2"])
        .expect_code(2);
    assert!(
        twice.stderr.contains("shard 1/3 is there twice"),
        "{}",
        twice.stderr
    );
    lab.labrun(&["merge", "out", "part1", "part2", "part3"])
        .expect_code(0);
    assert_eq!(prompts(&lab), prompts(&whole));
    assert_eq!(
        lab.read("out/summary.csv").lines().count(),
        whole.read("out/summary.csv").lines().count()
    );
    let manifest: Value = serde_json::from_str(&lab.read("out/manifest.json")).unwrap();
    assert_eq!(manifest["merged_from"].as_array().unwrap().len(), 3);
    assert!(lab.read("out/events.jsonl").contains(r#""part":"2/3""#));
    // What was joined is a run like any other.
    std::fs::remove_dir_all(&lab.cells()[0].0).unwrap();
    lab.labrun(&["run", "--resume", "out"]).expect_code(0);
    assert_eq!(prompts(&lab), prompts(&whole));
}

#[test]
fn parts_of_different_plans_or_folders_are_not_joined() {
    let lab = Lab::new();
    lab.write("plan.toml", &plan().text());
    lab.write(
        "other.toml",
        &plan().text().replace("requests = 3", "requests = 2"),
    );
    run_shard(&lab, 1, 4, "plan.toml");
    run_shard(&lab, 2, 4, "other.toml");
    let refused = lab
        .labrun(&["merge", "out", "part1", "part2", "--allow-missing"])
        .expect_code(2);
    assert!(
        refused.stderr.contains("ran different plans"),
        "{}",
        refused.stderr
    );
    let refused = lab
        .labrun(&["plan.toml", "--shard", "3/4", "--out", "part1", "--resume"])
        .expect_code(2);
    assert!(
        refused
            .stderr
            .contains("`part1` holds another part of the matrix"),
        "{}",
        refused.stderr
    );
    let joined = lab.labrun(&["merge", "out", "part1", "--allow-missing"]);
    joined.expect_code(0);
    assert_eq!(lab.cells().len(), 2);
}

/// A Slurm cluster of this machine, stopped at the end.
struct Cluster {
    conf: String,
}

impl Cluster {
    fn script(name: &str) -> Command {
        Command::new(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/slurm")
                .join(name),
        )
    }

    fn start() -> Self {
        let started = Self::script("start").output().unwrap();
        assert!(started.status.success(), "{started:?}");
        let said = String::from_utf8(started.stdout).unwrap();
        let conf = said.trim().strip_prefix("export SLURM_CONF=").unwrap();
        Self {
            conf: conf.to_owned(),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(Self::script("stop").status());
    }
}

#[test]
#[ignore = "needs root and Debian's slurm-wlm, which tests/slurm/start installs"]
fn slurm_runs_an_array_resumes_a_killed_task_and_joins_the_shards() {
    let whole = Lab::new();
    whole.run_sim(&plan()).expect_code(0);
    let cluster = Cluster::start();
    let lab = Lab::new();
    let slower = SimPlan {
        start_ms: 700,
        ..plan()
    };
    lab.write("plan.toml", &slower.text());
    let arguments = [
        "submit",
        "plan.toml",
        "--slurm",
        "--shards",
        "4",
        "--out",
        "out",
        "--poll-s",
        "0.3",
    ];
    let mut command = lab.command(&arguments);
    command.env("SLURM_CONF", &cluster.conf);
    let watching = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let shard = lab.path("out/shards/2");
    assert!(wait_until(Duration::from_secs(60), || shard
        .join("manifest.json")
        .exists()));
    kill_task_of(&lab, 2);
    let ended = Ended::of(&watching.wait_with_output().unwrap()).expect_code(0);
    assert!(
        ended.stderr.contains("shard 2 was lost") && ended.stderr.contains("submitting it again"),
        "{}",
        ended.stderr
    );
    let submission: Value = serde_json::from_str(&lab.read("out/submit/submission.json")).unwrap();
    assert_eq!(
        submission["submitted"],
        serde_json::json!({"1": 1, "2": 2, "3": 1, "4": 1}),
        "only what was lost ran again"
    );
    // The cells' ids hold the start's time of the simulator, which is longer here.
    let of = |lab: &Lab| prompts(lab).into_values().collect::<Vec<_>>();
    let slugs = |lab: &Lab| {
        let cells = lab.cells();
        let at = cells
            .iter()
            .map(|(_, cell)| cell["coordinates"].to_string());
        at.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(slugs(&lab), slugs(&whole));
    let sorted = |mut corpora: Vec<Vec<String>>| {
        corpora.sort();
        corpora
    };
    assert_eq!(sorted(of(&lab)), sorted(of(&whole)));
    lab.assert_no_server_is_left();
    let again = lab
        .command(&["submit", "out", "--slurm", "--resume"])
        .env("SLURM_CONF", &cluster.conf)
        .output()
        .unwrap();
    Ended::of(&again).expect_code(0);
}

/// Kills the batch script of a shard and its labrun, as a node that fails does.
fn kill_task_of(lab: &Lab, shard: u32) {
    let out = format!("--out\0{}/", lab.path("out/shards").display());
    let mut killed = false;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        if !command.contains(&format!("{out}{shard}\0")) {
            continue;
        }
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split(' ').nth(2));
        let pid = entry.file_name().to_string_lossy().into_owned();
        let status = Command::new("kill")
            .args(["-KILL", parent.unwrap(), &pid])
            .status()
            .unwrap();
        killed |= status.success();
    }
    assert!(killed, "no labrun of shard {shard} runs");
}
