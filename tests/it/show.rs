//! `labrun ls`, `show` and `open`, and how a run is named on the command line.

use crate::support::{Lab, SimPlan};

/// Two runs of the plan `t` below `results`, the later one with disk; their ids.
fn two_runs(lab: &Lab) -> Vec<String> {
    for tiers in [r#"["baseline", "cpu"]"#, r#"["baseline", "disk"]"#] {
        let plan = SimPlan {
            tiers,
            requests: 6,
            ..SimPlan::default()
        };
        lab.write("plan.toml", &plan.text());
        lab.labrun(&["plan.toml", "--quiet"]).expect_code(0);
    }
    let runs = std::fs::read_dir(lab.path("results/t")).unwrap();
    let mut ids: Vec<String> = runs
        .map(|run| run.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    ids.sort();
    ids
}

#[test]
fn runs_are_listed_shown_opened_and_named_in_each_way() {
    let lab = Lab::new();
    let none = lab.labrun(&["ls"]).expect_code(0);
    assert!(none.stderr.contains("no run below"), "{}", none.stderr);
    let ids = two_runs(&lab);
    let [first, last] = ids.as_slice() else {
        panic!("{ids:?}");
    };

    lists(&lab, first, last);
    shows(&lab, first, last);
    names(&lab, first);
}

fn lists(lab: &Lab, first: &str, last: &str) {
    let listed = lab.labrun(&["ls"]).expect_code(0).stdout;
    let lines: Vec<&str> = listed.lines().collect();
    let at = |id: &str| lines.iter().position(|line| line.contains(id)).unwrap();
    assert!(at(last) < at(first), "the latest first:\n{listed}");
    assert!(lines[at(first)].contains("2/2") && lines[at(first)].contains("4/4"));
    assert!(lines[at(first)].contains("cpu "), "{listed}");
    assert!(lines.iter().all(|line| line.chars().count() <= 120));
    let json = lab.labrun(&["ls", "--json"]).expect_code(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[1]["run"], first);
    assert_eq!(
        (&json[1]["cells"], &json[1]["proven"]),
        (&2.into(), &4.into())
    );
}

fn shows(lab: &Lab, first: &str, last: &str) {
    // The latest, by each of its names.
    let shown = lab.labrun(&["show"]).expect_code(0).stdout;
    assert!(
        shown.contains("disk: ") && shown.contains("SIMULATED"),
        "{shown}"
    );
    assert!(shown.contains(&format!("report: results/t/{last}/report.html")));
    assert!(!shown.contains("Every cell and cache state"), "{shown}");
    assert!(shown.lines().count() < 24);
    for word in ["latest", "latest:t", last, &format!("results/t/{last}")] {
        assert_eq!(
            lab.labrun(&["show", word]).expect_code(0).stdout,
            shown,
            "{word}"
        );
    }
    let tables = lab
        .labrun(&["show", first, "--tables"])
        .expect_code(0)
        .stdout;
    assert!(
        tables.contains("Each tier against the baseline"),
        "{tables}"
    );
    assert!(tables.contains("Every cell and cache state"), "{tables}");

    let cell = lab
        .labrun(&["show", "latest", "disk"])
        .expect_code(0)
        .stdout;
    assert!(
        cell.contains("mean TTFT ") && cell.contains("unexplained "),
        "{cell}"
    );
    assert!(cell.contains("files: results/t/"), "{cell}");
    let several = lab.labrun(&["show", "latest", "p1024"]).expect_code(2);
    assert!(several.stderr.contains("2 cells of "), "{}", several.stderr);
    let absent = lab.labrun(&["show", "latest", "redis"]).expect_code(2);
    assert!(absent.stderr.contains("has no cell `redis`; it has `"));

    let mut open = lab.command(&["open", first]);
    open.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    let opened = open.output().unwrap();
    let path = String::from_utf8(opened.stdout).unwrap();
    assert!(
        path.ends_with(&format!("results/t/{first}/report.html\n")),
        "{path}"
    );
}

fn names(lab: &Lab, first: &str) {
    // The same words for the commands that read a run, and one error for a word that is none.
    for command in [
        &["verify", "latest"][..],
        &["report", "latest:t"],
        &["diff", first, "latest"],
    ] {
        lab.labrun(command).expect_code(0);
    }
    let begin = &first[..4];
    let several = lab.labrun(&["show", begin]).expect_code(2).stderr;
    assert!(several.contains("2 runs begin with `"), "{several}");
    for command in ["show", "open", "verify", "report", "keep"] {
        let refused = lab.labrun(&[command, "nope"]).expect_code(2).stderr;
        assert!(
            refused.contains("the latest are `results/t/"),
            "{command}: {refused}"
        );
    }
}

#[test]
fn the_end_of_a_run_is_a_screen_and_progress_is_plain_where_it_is_piped() {
    let lab = Lab::new();
    let plan = SimPlan {
        requests: 6,
        ..SimPlan::default()
    };
    let ended = lab.run_sim(&plan).expect_code(0);
    assert!(ended.stdout.lines().count() < 24, "{}", ended.stdout);
    assert!(!ended.stdout.contains("Every cell and cache state"));
    assert!(
        ended.stdout.contains("report: out/report.html"),
        "{}",
        ended.stdout
    );
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        lines[0].starts_with("2 cells, about ") && lines[0].ends_with(", writing to out"),
        "{}",
        ended.stderr
    );
    let cell = lines
        .iter()
        .find(|line| line.starts_with("[2/2] "))
        .unwrap();
    assert!(cell.contains("1,024 tokens  x1  cold "), "{cell}");
    assert!(
        cell.contains("tier hit ") && cell.contains("  proven  "),
        "{cell}"
    );
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains('\u{1b}'));
    let again = lab.labrun(&["report", "out", "--tables"]).expect_code(0);
    assert!(again.stdout.contains("Every cell and cache state"));
}
