//! `labrun keep` and `labrun diff`, as a user has them: tables in git, revisions, exit codes.

use std::process::Command;

use crate::support::Lab;

const PLAN: &str = r#"
name = "t"
model = "m"
[matrix]
tier = ["baseline", "cpu"]
prompt_len = [1024]
gen_len = [4]
concurrency = [1]
label = ["rag"]
[run]
requests = 3
repeats = 4
reuse = "server"
states = ["tier"]
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "sim"
[server.sim]
start_ms = 1
lookup_us = @LOOKUP@
"#;

/// A repository in the lab's folder.
struct Repository<'a>(&'a Lab);

impl Repository<'_> {
    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(arguments)
            .current_dir(self.0.path("."))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "git {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
    }

    /// Runs the plan into `results/t/<id>` and stores its tables.
    fn measure(&self, id: &str, lookup_us: u32) {
        let plan = PLAN.replace("@LOOKUP@", &lookup_us.to_string());
        self.0.write("plan.toml", &plan);
        let out = format!("results/t/{id}");
        self.0
            .labrun(&["plan.toml", "--quiet", "--out", &out])
            .expect_code(0);
        let stored = self.0.labrun(&["keep", id]).expect_code(0);
        assert!(
            stored.stdout.contains("results/t/measures.csv"),
            "{}",
            stored.stdout
        );
    }
}

#[test]
fn revisions_runs_and_tables_are_compared_and_a_regression_exits_with_3() {
    let lab = Lab::new();
    let repository = Repository(&lab);
    repository.git(&["init", "--quiet"]);
    lab.write(".gitignore", "/results/*/*/\n");
    repository.commit("plan");
    repository.measure("one", 1500);
    repository.commit("before");
    // A lookup in the tier takes 40 ms more: only the cpu tier's first token comes later.
    repository.measure("two", 41_500);
    repository.commit("after");

    let rule = "ttft_p50 > 30% where tier=cpu";
    let message = lab
        .labrun(&["diff", "HEAD~1", "HEAD", "--fail-on", rule])
        .expect_code(3)
        .stdout;
    for expected in [
        "Simulated: these numbers come from the built-in simulator",
        "A is `HEAD~1`: `results/t` at commit ",
        "plan.server.sim.lookup_us",
        "41500",
        "worse",
        "FAIL `ttft_p50 > 30% where tier=cpu`: rag cpu tier-hit p1024 g4 c1: +",
    ] {
        assert!(
            message.contains(expected),
            "{expected} is not in\n{message}"
        );
    }
    assert_eq!(repository.git(&["status", "--porcelain"]), "");

    // The same from run ids, from a revision that only a run's manifest carries, and the other
    // way round, where nothing became worse.
    let json = |a: &str, b: &str| -> serde_json::Value {
        let ended = lab
            .labrun(&["diff", a, b, "--format", "json"])
            .expect_code(0);
        serde_json::from_str(&ended.stdout).unwrap()
    };
    let ttft = |diff: &serde_json::Value, row: usize| {
        let of = &diff["rows"][row]["measures"]["ttft_p50"];
        (
            diff["rows"][row]["tier"].clone(),
            of["outcome"].clone(),
            of["p"].as_f64().unwrap(),
        )
    };
    let by_id = json("one", "two");
    let (tier, outcome, p) = ttft(&by_id, 1);
    assert_eq!((tier, outcome), ("cpu".into(), "worse".into()));
    assert!((p - 2.0 / 70.0).abs() < 1e-9, "{p}");
    assert_eq!(ttft(&json("results/t/one", "HEAD"), 1).1, "worse");
    assert_eq!(ttft(&json("HEAD~2", "two"), 1).1, "worse");
    let back = lab.labrun(&["diff", "two", "one", "--fail-on", "ttft_p50 > 30%"]);
    assert!(back.expect_code(0).stdout.contains("better"));
    several_plans(&lab, &repository);
}

/// With the tables of two plans at a revision, the other side determines the plan.
fn several_plans(lab: &Lab, repository: &Repository<'_>) {
    std::fs::create_dir(lab.path("results/other")).unwrap();
    for file in [
        "cells.csv",
        "measures.csv",
        "samples.csv",
        "provenance.json",
    ] {
        let of = |plan: &str| lab.path(&format!("results/{plan}/{file}"));
        std::fs::copy(of("t"), of("other")).unwrap();
    }
    repository.commit("another plan");
    for (a, b, outcome) in [
        ("results/t/one", "HEAD", "worse"),
        ("HEAD", "one", "better"),
    ] {
        let message = lab.labrun(&["diff", a, b]).expect_code(0).stdout;
        assert!(message.contains(outcome), "{message}");
    }
    let changed = lab
        .labrun(&["diff", "HEAD~2", "HEAD"])
        .expect_code(0)
        .stdout;
    assert!(
        changed.contains("B is `HEAD`: `results/t` at commit "),
        "{changed}"
    );
    lab.labrun(&["diff", "HEAD~1", "HEAD"]).expect_code(0);
    let message = lab.labrun(&["diff", "HEAD", "HEAD"]).expect_code(2).stderr;
    assert!(message.contains("name one with --plan"), "{message}");
}

#[test]
fn a_side_that_does_not_exist_is_refused() {
    let lab = Lab::new();
    Repository(&lab).git(&["init", "--quiet"]);
    let message = lab
        .labrun(&["diff", "nowhere", "HEAD"])
        .expect_code(2)
        .stderr;
    assert!(
        message.contains(
            "`nowhere` is neither a run folder, nor a run below `results`, nor a git revision"
        ),
        "{message}"
    );
    lab.write("x", "");
    Repository(&lab).commit("nothing");
    let message = lab.labrun(&["diff", "HEAD", "HEAD"]).expect_code(2).stderr;
    assert!(
        message.contains("has no tables below `results`"),
        "{message}"
    );
    let message = lab
        .labrun(&["diff", "a", "b", "--fail-on", "ttft_p50 5%"])
        .expect_code(2)
        .stderr;
    assert!(message.contains("no comparison at column 10"), "{message}");
}
