//! `labrun submit --slurm`: on programs that speak as Slurm's do, and on a real Slurm with accounts.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::resume::prompts;
use crate::shards::plan;
use crate::support::{Ended, Kill, Lab, SimPlan, wait_until};

/// Runs each task of an array at once, but those that a file `skip-<task>` keeps from it, once.
const SBATCH: &str = r#"#!/bin/bash
for word in "$@"; do case $word in --array=*) tasks=${word#--array=} ;; esac; script=$word; done
job=$(($(cat jobs 2> /dev/null || echo 11) + 1))
echo "$job" > jobs
for task in ${tasks//,/ }; do
  if [ -e "skip-$task" ]; then rm "skip-$task"; continue; fi
  SLURM_ARRAY_TASK_ID=$task bash "$script" > "out/submit/shard-$task.log" 2>&1
done
echo "$job"
"#;

/// Knows no task: all left the queue long ago.
const SQUEUE: &str = r#"#!/bin/bash
echo "slurm_load_jobs error: Invalid job id specified" >&2
exit 1
"#;

/// Answers with the lines of the file `accounts`.
const SACCT: &str = r#"#!/bin/bash
grep "^${!#}_" accounts
exit 0
"#;

/// labrun in `lab`, with programs in PATH that stand for Slurm's.
fn submit(lab: &Lab, arguments: &[&str]) -> Ended {
    for (name, text) in [("sbatch", SBATCH), ("squeue", SQUEUE), ("sacct", SACCT)] {
        let path = lab.write(&format!("bin/{name}"), text);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", lab.path("bin").display());
    let output = lab.command(arguments).env("PATH", path).output().unwrap();
    Ended::of(&output)
}

const FIRST: [&str; 8] = [
    "submit",
    "plan.toml",
    "--slurm",
    "--shards=4",
    "--out",
    "out",
    "--poll-s",
    "0.1",
];
const AGAIN: [&str; 6] = ["submit", "out", "--slurm", "--resume", "--poll-s", "0.1"];

fn submitted(lab: &Lab) -> Value {
    let text = lab.read("out/submit/submission.json");
    serde_json::from_str::<Value>(&text).unwrap()["submitted"].clone()
}

#[test]
fn tasks_that_left_the_queue_long_ago_are_judged_by_the_accounts() {
    let lab = Lab::new();
    lab.write("plan.toml", &plan().text());
    for task in 2..=4 {
        lab.write(&format!("skip-{task}"), "");
    }
    lab.write(
        "accounts",
        "12_1|COMPLETED|0:0\n12_2|NODE_FAIL|1:0\n12_[3-4]|CANCELLED by 1000|0:0\n",
    );
    let stderr = submit(&lab, &FIRST).expect_code(2).stderr;
    for part in [
        "shard 2 was lost: it was killed (Slurm: NODE_FAIL); submitting it again",
        "shard 3 is not submitted again: it was cancelled (Slurm: CANCELLED by 1000)",
        "2 of 4 shards finished, 2 cancelled",
        "shard 3 did not run: it was cancelled (Slurm: CANCELLED by 1000), and 1 more",
        "--resume",
    ] {
        assert!(stderr.contains(part), "no `{part}` in:\n{stderr}");
    }
    assert_eq!(submitted(&lab), json!({"1": 1, "2": 2, "3": 1, "4": 1}));
    let stderr = submit(&lab, &AGAIN).expect_code(0).stderr;
    let again = "it was cancelled (Slurm: CANCELLED by 1000); submitting it again";
    assert_eq!(stderr.matches(again).count(), 2, "{stderr}");
    assert_eq!(submitted(&lab), json!({"1": 1, "2": 2, "3": 2, "4": 2}));
    assert_eq!(lab.cells().len(), 8);
    // What a script wrote may be lost, or not be seen on this machine yet.
    std::fs::remove_file(lab.path("out/submit/exit-1")).unwrap();
    submit(&lab, &AGAIN).expect_code(0);
    assert_eq!(submitted(&lab)["1"], 1, "it had ended well");
    lab.write("accounts", "12_1|TIMEOUT|0:0\n");
    let stderr = submit(&lab, &AGAIN).expect_code(0).stderr;
    assert!(
        stderr.contains("its time was over (Slurm: TIMEOUT)"),
        "{stderr}"
    );
    assert_eq!(submitted(&lab)["1"], 2);
}

/// A Slurm cluster of this machine, stopped at the end.
struct Cluster {
    conf: String,
    /// Clusters have the same ports.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Cluster {
    fn script(name: &str) -> Command {
        Command::new(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/slurm")
                .join(name),
        )
    }

    fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Self::script("start").output().unwrap();
        assert!(started.status.success(), "{started:?}");
        let printed = String::from_utf8(started.stdout).unwrap();
        let conf = printed.trim().strip_prefix("export SLURM_CONF=").unwrap();
        Self {
            conf: conf.to_owned(),
            _alone: alone,
        }
    }

    /// A command of `lab` that finds the cluster.
    fn labrun(&self, lab: &Lab, arguments: &[&str]) -> Command {
        let mut command = lab.command(arguments);
        command.env("SLURM_CONF", &self.conf);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).env("SLURM_CONF", &self.conf);
        command.output().unwrap()
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
    let watching = cluster.labrun(&lab, &FIRST).spawn().unwrap();
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
    assert_eq!(
        submitted(&lab),
        json!({"1": 1, "2": 2, "3": 1, "4": 1}),
        "only what was lost ran again"
    );
    // The cells' ids hold the start's time of the simulator, which is longer here.
    let of = |lab: &Lab| prompts(lab).into_values().collect::<Vec<_>>();
    let slugs = |lab: &Lab| {
        let cells = lab.cells();
        let at = cells
            .iter()
            .map(|(_, cell)| cell["coordinates"].to_string());
        at.collect::<BTreeSet<_>>()
    };
    assert_eq!(slugs(&lab), slugs(&whole));
    let sorted = |mut corpora: Vec<Vec<String>>| {
        corpora.sort();
        corpora
    };
    assert_eq!(sorted(of(&lab)), sorted(of(&whole)));
    lab.assert_no_server_is_left();
    let again = cluster.labrun(&lab, &AGAIN).output().unwrap();
    Ended::of(&again).expect_code(0);
}

#[test]
#[ignore = "needs root and Debian's slurm-wlm, which tests/slurm/start installs; takes two minutes"]
fn slurm_accounts_report_how_tasks_ended_that_left_the_queue_long_ago() {
    let cluster = Cluster::start();
    let lab = Lab::new();
    let slower = SimPlan {
        start_ms: 2000,
        ..plan()
    };
    lab.write("plan.toml", &slower.text());
    let watching = Kill(cluster.labrun(&lab, &FIRST).spawn().unwrap());
    let all_run = || {
        (1..=4).all(|shard| {
            lab.path(&format!("out/shards/{shard}/manifest.json"))
                .exists()
        })
    };
    assert!(wait_until(Duration::from_secs(60), all_run));
    drop(watching);
    let submission: Value = serde_json::from_str(&lab.read("out/submit/submission.json")).unwrap();
    let job = submission["jobs"]["3"].as_str().unwrap();
    let cancelled = cluster.ask("scancel", &[&format!("{job}_3")]);
    assert!(cancelled.status.success(), "{cancelled:?}");
    let exit_files = [1, 2, 4].map(|shard| lab.path(&format!("out/submit/exit-{shard}")));
    let all_ended = || exit_files.iter().all(|file| file.exists());
    assert!(wait_until(Duration::from_secs(60), all_ended));
    // As if they had been written where this machine does not see them.
    for file in &exit_files {
        std::fs::remove_file(file).unwrap();
    }
    let forgotten = || !cluster.ask("squeue", &["--jobs", job]).status.success();
    assert!(wait_until(Duration::from_secs(180), forgotten));
    let again = cluster.labrun(&lab, &AGAIN).output().unwrap();
    let stderr = Ended::of(&again).expect_code(0).stderr;
    let how = "shard 3 was lost: it was cancelled (Slurm: CANCELLED by 0); submitting it again";
    assert!(stderr.contains(how), "{stderr}");
    assert_eq!(submitted(&lab), json!({"1": 1, "2": 1, "3": 2, "4": 1}));
    assert_eq!(lab.cells().len(), 8);
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
