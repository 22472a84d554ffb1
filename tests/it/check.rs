//! `labrun check`: right, wrong and not loaded, on the simulator.

use serde_json::Value;

use crate::support::Lab;

/// A plan whose own matrix a check leaves out.
fn plan(faults: &str) -> String {
    format!(
        "model = \"m\"\n[matrix]\ntier = [\"baseline\", \"cpu\"]\nprompt_len = [2080]\nconcurrency = [64]\n\
         [run]\nrequests = 500\n[server]\nlauncher = \"sim\"\n[server.sim]\nstart_ms = 1\n{faults}"
    )
}

/// Checks at one length, alone.
fn arguments<'a>(file: &'a str, out: &'a str) -> [&'a str; 10] {
    [
        "check",
        file,
        "--prompt-len",
        "544",
        "--concurrency",
        "1",
        "--rounds",
        "1",
        "--out",
        out,
    ]
}

#[test]
fn a_stack_that_gives_back_what_it_took_is_right() {
    let lab = Lab::new();
    lab.write("good.toml", &plan(""));
    let run = lab.labrun(&arguments("good.toml", "out")).expect_code(0);
    assert!(
        run.stdout.contains("Right at all 1 places"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("SIMULATED"), "{}", run.stdout);
    let check: Value = serde_json::from_str(&lab.read("out/check.json")).unwrap();
    assert_eq!(check["findings"][0]["answer"], "right", "{check}");
    assert_eq!(
        check["findings"][0]["evidence"]["canaries_asked"], 4.0,
        "{check}"
    );
    assert!(lab.read("out/check.html").contains("right</span>"));
    lab.labrun(&["verify", "out"]).expect_code(0);
    // The stored plan is what ran: it can be run again as it is.
    assert!(lab.read("out/plan.toml").contains("canaries_in_load"));
}

#[test]
fn a_stack_that_counts_hits_and_loads_nothing_is_wrong() {
    let lab = Lab::new();
    lab.write("bad.toml", &plan("faults = [\"false-hit\"]\n"));
    let run = lab.labrun(&arguments("bad.toml", "out")).expect_code(1);
    assert!(
        run.stdout.contains("WRONG: cpu, tier hit"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("canary"), "{}", run.stdout);
}

#[test]
fn several_stacks_are_checked_in_turn_and_stand_in_one_table() {
    let lab = Lab::new();
    lab.write("plan.toml", &plan(""));
    lab.write(
        "pairs.toml",
        "[[pair]]\nname = \"new pair\"\n[[pair]]\nname = \"old/pair\"\n\
         [pair.set]\n\"server.sim.faults\" = [\"false-hit\"]\n",
    );
    let with_pairs = [
        &arguments("plan.toml", "out")[..],
        &["--pairs", "pairs.toml"],
    ]
    .concat();
    let run = lab.labrun(&with_pairs).expect_code(1);
    assert!(run.stdout.contains("new pair  right"), "{}", run.stdout);
    assert!(
        run.stdout.contains("old/pair  WRONG (1 of 1)"),
        "{}",
        run.stdout
    );
    assert!(
        lab.read("out/compatibility.md")
            .contains("| old/pair | WRONG (1 of 1) |")
    );
    // A folder that is there is another check's.
    lab.labrun(&with_pairs).expect_code(2);

    // Finished checks stand in a table of their own, whoever measured them.
    lab.write(
        "finished.toml",
        "[[pair]]\nname = \"new\"\nrun = \"out/new_pair\"\n[[pair]]\nname = \"old\"\nrun = \"out/old_pair\"\n",
    );
    let finished = ["check", "--pairs", "finished.toml", "--out", "table"];
    let run = lab.labrun(&finished).expect_code(1);
    assert!(run.stdout.contains("new    right"), "{}", run.stdout);
    assert!(run.stdout.contains("old    WRONG"), "{}", run.stdout);
    assert!(!run.stderr.contains("checking"), "{}", run.stderr);
}

#[test]
fn what_cannot_be_checked_is_refused_and_nothing_is_written() {
    let lab = Lab::new();
    lab.write("good.toml", &plan(""));
    lab.write("pairs.toml", "[[pair]]\nnam = 1\n");
    lab.write("gone.toml", "[[pair]]\nname = \"a\"\nrun = \"nowhere\"\n");
    lab.write(
        "both.toml",
        "[[pair]]\nname = \"a\"\nrun = \"nowhere\"\ntiers = [\"cpu\"]\n",
    );
    for (arguments, words) in [
        (&["check"][..], "no plan"),
        (
            &["check", "--pairs", "gone.toml", "--out", "out"],
            "`run` of `a`",
        ),
        (
            &["check", "--pairs", "both.toml", "--out", "out"],
            "remove `config`, `tiers` and `set`",
        ),
        (
            &["check", "good.toml", "--tier", "cpuu", "--out", "out"],
            "no tier `cpuu`",
        ),
        (
            &["check", "good.toml", "--tier", "baseline", "--out", "out"],
            "no tier to check",
        ),
        (
            &["check", "good.toml", "--model", "m"],
            "cannot be used with",
        ),
        (
            &[
                "check",
                "good.toml",
                "--pairs",
                "pairs.toml",
                "--out",
                "out",
            ],
            "line 2",
        ),
        (&["check", "good.toml", "--rounds", "0"], "0 is not in"),
    ] {
        let refused = lab.labrun(arguments).expect_code(2);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
        assert!(!lab.path("out").exists(), "{}", refused.stderr);
    }
}
