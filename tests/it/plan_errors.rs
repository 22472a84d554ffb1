//! Bad input: a clear error, exit code 2, and nothing changes.

use crate::support::{Lab, SimPlan};

/// Runs a wrong plan and returns its standard error; nothing may have been written.
#[track_caller]
fn refused(lab: &Lab, plan: &str) -> String {
    lab.write("plan.toml", plan);
    for arguments in [&["plan.toml", "--out", "out"][..], &["plan", "plan.toml"]] {
        let ended = lab.labrun(arguments).expect_code(2);
        assert_eq!(ended.stdout, "");
        assert!(!lab.path("out").exists(), "a refused plan made a folder");
        assert!(
            !lab.path("results").exists(),
            "a refused plan made a folder"
        );
        if arguments[0] == "plan" {
            return ended.stderr;
        }
    }
    unreachable!("the loop returns")
}

#[test]
fn every_problem_is_shown_with_file_line_and_column() {
    let lab = Lab::new();
    let plan = SimPlan::default()
        .text()
        .replace("prompt_len", "promt_len")
        .replace("gen_len = [4]", "gen_len = [0]")
        .replace("label = [\"rag\"]", "label = [\"rag\", \"chat\"]");
    let stderr = refused(&lab, &plan);
    for expected in [
        "unknown key `promt_len` in [matrix]",
        "did you mean `prompt_len`?",
        "each item of `gen_len` in [matrix] must be an integer",
        "workload `chat` is not defined",
        "plan.toml:6:1",
        "plan.toml:7:12",
    ] {
        assert!(stderr.contains(expected), "no `{expected}` in:\n{stderr}");
    }
}

#[test]
fn zero_cells_duplicates_and_missing_definitions_are_refused() {
    let lab = Lab::new();
    let good = SimPlan::default().text();
    for (from, to, expected) in [
        (
            "prompt_len = [1024]",
            "prompt_len = []",
            "must be an array that is not empty",
        ),
        (
            "gen_len = [4]",
            "gen_len = [4, 4]",
            "`4` stands twice on axis `gen_len`",
        ),
        (
            "concurrency = [1]",
            "concurrency = [-1]",
            "each item of `concurrency` in [matrix] must be an integer",
        ),
        ("\"cpu\"", "\"gpu\"", "tier `gpu` is not defined"),
        ("[\"rag\"]", "[\"chat\"]", "workload `chat` is not defined"),
        (
            "[run]",
            "[[matrix.exclude]]\nlabel = \"rag\"\n[run]",
            "the matrix has no cell",
        ),
        (
            "launcher = \"sim\"",
            "launcher = \"warp\"",
            "`launcher` in [server] is `warp`",
        ),
        (
            "name = \"t\"",
            "name = \"../t\"",
            "`name` in the plan must be letters",
        ),
        ("start_ms = 1", "start_mz = 1", "did you mean `start_ms`?"),
        ("start_ms = 1", "faults = [\"nope\"]", "nope"),
        (
            "[run]",
            "[run]\nrepeats = 10000\n[run]",
            "`run` stands twice in one table",
        ),
        (
            "concurrency = [1]",
            "concurrency = [1]\n\"run.seed\" = [1, 2]\n\
             include = [{ \"run.seed\" = 3 }]",
            "is not on axis `run.seed`",
        ),
        (
            "launcher = \"sim\"",
            "launcher = \"sim\"\nenv = { HF_TOKEN = \"x\" }",
            "`HF_TOKEN` in [server.env] looks like a secret",
        ),
    ] {
        assert!(good.contains(from), "the plan has no `{from}`");
        let stderr = refused(&lab, &good.replace(from, to));
        assert!(stderr.contains(expected), "no `{expected}` in:\n{stderr}");
        assert!(stderr.contains("plan.toml:"), "{stderr}");
    }
}

#[test]
fn an_undefined_template_variable_is_refused_before_anything_is_written() {
    let lab = Lab::new();
    lab.write("templates/own.yaml.j2", "chunk_size: {{ chunk }}\n");
    lab.write("box.toml", "[paths]\ntemplates = \"templates\"\n");
    let plan = SimPlan::default().text() + "[tier.cpu]\ntemplate = \"own.yaml.j2\"\n";
    lab.write("plan.toml", &plan);
    let arguments = ["plan.toml", "--config", "box.toml", "--out", "out"];
    let ended = lab.labrun(&arguments).expect_code(2);
    assert!(ended.stderr.contains("own.yaml.j2:1"), "{}", ended.stderr);
    assert!(ended.stderr.contains("chunk"), "{}", ended.stderr);
    assert!(!lab.path("out").exists());
}

#[test]
fn missing_files_unknown_flags_and_full_folders_are_refused() {
    let lab = Lab::new();
    let ended = lab.labrun(&["nope.toml"]).expect_code(2);
    assert!(
        ended.stderr.contains("reading the plan `nope.toml`"),
        "{}",
        ended.stderr
    );
    lab.labrun(&["--nope"]).expect_code(2);
    let ended = lab.labrun(&[]).expect_code(2);
    assert!(ended.stderr.contains("Examples:"), "{}", ended.stderr);
    lab.write("out/precious", "data");
    let ended = lab.run_sim(&SimPlan::default()).expect_code(2);
    assert!(ended.stderr.contains("not empty"), "{}", ended.stderr);
    assert_eq!(lab.read("out/precious"), "data");
    let plan = SimPlan::default().text();
    lab.write("plan.toml", &plan);
    lab.write("box.toml", "[paths]\nresult = \"x\"\n");
    let ended = lab
        .labrun(&["plan.toml", "--config", "box.toml"])
        .expect_code(2);
    assert!(ended.stderr.contains("result"), "{}", ended.stderr);
}

#[test]
fn plan_shows_cells_and_rendered_files_and_touches_nothing() {
    let lab = Lab::new();
    lab.write(
        "plan.toml",
        &SimPlan {
            tiers: "[\"baseline\", \"disk\"]",
            ..Default::default()
        }
        .text(),
    );
    let before = lab.files("").len();
    let shown = ["plan", "plan.toml", "--cells", "--commands"];
    let ended = lab.labrun(&shown).expect_code(0);
    assert!(
        ended.stdout.contains("t: 2 cells, 2 server starts"),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stdout.contains("rag-disk-p1024-g4-c1-r1-"),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stdout.contains("local_cpu: false"),
        "{}",
        ended.stdout
    );
    assert_eq!(lab.files("").len(), before);
}
