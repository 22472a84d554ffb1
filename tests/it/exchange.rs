//! `labrun import`, `export` and `plot` on other tools' files.

use crate::support::Lab;

const CAPTURED: &str = include_str!(
    "../data/captures/vllm-bench-0.32.0/bench_serve_4_BENCH__random_input_len_2048.json"
);

/// A file with only the columns of the scripts that labrun replaces: 12 requests of a tier, times in seconds.
fn lab_file(tier: &str, ttft: f64) -> String {
    let mut text = "ttft,avg_itl,e2e,prompt_len,gen_len,tier,label\n".to_owned();
    for request in 0..12 {
        let ttft = ttft * (1.0 + 0.01 * f64::from(request * 5 % 12));
        let e2e = ttft + 0.9;
        text.push_str(&format!(
            "{ttft:.6},0.009000,{e2e:.6},5120,100,{tier},long_context\n"
        ));
    }
    text
}

/// The row of `diff` for the median TTFT of the first cell of two imported runs.
fn ttft_of_diff(lab: &Lab, old: &str, new: &str) -> serde_json::Value {
    let allow = ["--allow", "inconclusive", "--format", "json"];
    let ended = lab.labrun(&[&["diff", old, new], &allow[..]].concat());
    let diff: serde_json::Value = serde_json::from_str(&ended.expect_code(0).stdout).unwrap();
    diff["rows"][0]["measures"]["ttft_p50"].clone()
}

#[test]
fn files_of_the_scripts_that_labrun_replaces_are_plotted_as_before() {
    let lab = Lab::new();
    lab.write("metrics_baseline.csv", &lab_file("baseline", 0.6));
    lab.write("metrics_cpu.csv", &lab_file("cpu", 0.1));
    let plotted = lab
        .labrun(&[
            "plot",
            "--input",
            "metrics_*.csv",
            "--output-prefix",
            "comparison",
        ])
        .expect_code(0);
    for name in ["comparison_ttft.png", "comparison_e2e.png"] {
        assert!(
            plotted.stdout.lines().any(|line| line == name),
            "{}",
            plotted.stdout
        );
        let bytes = std::fs::read(lab.path(name)).unwrap();
        assert!(
            bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000,
            "{name}"
        );
    }
    let svg = lab.read("comparison_ttft.svg");
    assert!(
        svg.contains("baseline") && svg.contains("cpu") && svg.contains("5k"),
        "{svg}"
    );
}

#[test]
fn old_numbers_are_compared_after_import() {
    let lab = Lab::new();
    lab.write("old.csv", &lab_file("cpu", 0.1));
    lab.write("new.csv", &lab_file("cpu", 0.2));
    for name in ["old", "new"] {
        let file = format!("{name}.csv");
        let arguments = [
            "import", &file, "--out", name, "--state", "tier", "--model", "m",
        ];
        lab.labrun(&arguments).expect_code(0);
    }
    // They prove nothing: they enter only where that is allowed.
    let printed = lab.labrun(&["diff", "old", "new"]).expect_code(2).stdout;
    assert!(
        printed.contains("inconclusive: imported: no evidence"),
        "{printed}"
    );
    let ttft = ttft_of_diff(&lab, "old", "new");
    assert_eq!(
        (ttft["outcome"].as_str(), ttft["test"].as_str()),
        (Some("worse"), Some("requests"))
    );
    assert!(
        (ttft["change_percent"].as_f64().unwrap() - 100.0).abs() < 0.1,
        "{ttft}"
    );
    let report = lab.labrun(&["report", "new"]).expect_code(0).stdout;
    assert!(report.contains("inconclusive"), "{report}");
}

#[test]
fn what_is_exported_is_imported_again() {
    let lab = Lab::new();
    lab.write("old.csv", &lab_file("disk", 0.1));
    lab.labrun(&[
        "import",
        "old.csv",
        "--out",
        "old",
        "--state",
        "tier",
        "--source",
        "simulated",
    ])
    .expect_code(0);
    let exported = lab
        .labrun(&["export", "old", "--format", "vllm-bench", "--out", "json"])
        .expect_code(0)
        .stdout;
    let file = exported.trim();
    assert!(
        file.ends_with("-tier.json") && exported.lines().count() == 1,
        "{exported}"
    );
    lab.labrun(&["export", "old", "--format", "csv", "--out", "flat"])
        .expect_code(0);
    for (from, folder) in [(file, "again"), ("flat/requests.csv", "flat-again")] {
        lab.labrun(&["import", from, "--out", folder])
            .expect_code(0);
        let printed = lab
            .labrun(&[
                "diff",
                "old",
                folder,
                "--measure",
                "ttft_p50",
                "--force",
                "--format",
                "csv",
            ])
            .expect_code(0)
            .stdout;
        let row = printed.lines().nth(1).unwrap();
        assert!(
            row.starts_with("long_context,disk,tier,1,5120,100,simulated,ttft_p50,"),
            "{printed}"
        );
        assert!(row.contains(",same,1.0,"), "{printed}");
    }
    let twice = lab
        .labrun(&["import", file, "--out", "again"])
        .expect_code(2)
        .stderr;
    assert!(twice.contains("has a run already"), "{twice}");
}

#[test]
fn results_of_vllm_bench_are_repeats_of_one_cell() {
    let lab = Lab::new();
    let mut files = Vec::new();
    for at in 1..=4 {
        // As four runs, each a little slower.
        let slower = CAPTURED.replace("156.8471464997856", &format!("15{at}.8"));
        files.push(lab.write(&format!("bench{at}.json"), &slower));
    }
    let mut arguments = vec!["import", "--out", "run"];
    arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
    let printed = lab.labrun(&arguments).expect_code(0).stderr;
    assert!(printed.starts_with("4 cells in run"), "{printed}");
    let ttft = ttft_of_diff(&lab, "run", "run");
    assert_eq!(
        (ttft["a_repeats"].as_u64(), ttft["outcome"].as_str()),
        (Some(4), Some("same"))
    );
    assert!((ttft["a"].as_f64().unwrap() - 153.3).abs() < 0.1, "{ttft}");
    let printed = lab
        .labrun(&["import", "bench1.json", "x.csv", "--out", "y"])
        .expect_code(2)
        .stderr;
    assert!(printed.contains("reading `x.csv`"), "{printed}");
}

#[test]
fn a_result_without_details_shows_its_summary_and_what_it_lacks() {
    let lab = Lab::new();
    lab.write("bench.json", CAPTURED);
    // One that was run without E2E, and by a tool that keeps no latencies at all.
    let mut older: serde_json::Value = serde_json::from_str(CAPTURED).unwrap();
    let fields = older.as_object_mut().unwrap();
    fields.retain(|name, _| name != "latencies" && !name.ends_with("e2el_ms"));
    lab.write("older.json", &older.to_string());
    for name in ["bench", "older"] {
        let file = format!("{name}.json");
        lab.labrun(&["import", &file, "--out", name]).expect_code(0);
    }
    let slo = ["report", "bench", "--tables", "--slo", "ttft=500ms"];
    let printed = lab.labrun(&slo).expect_code(0).stdout;
    let note = "the imported file's own summary of 20 ok requests, without an interval";
    assert!(printed.contains("TTFT, ITL, TPOT: "), "{printed}");
    assert!(lab.read("bench/summary.md").contains(note));
    assert!(
        printed.contains("no values of single requests for: TTFT <= 500 ms"),
        "{printed}"
    );
    let field = |run: &str, name: &str| -> String {
        let csv = lab.read(&format!("{run}/summary.csv"));
        let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let (head, row) = (lines.next().unwrap(), lines.next().unwrap());
        row[head.iter().position(|known| *known == name).unwrap()].to_owned()
    };
    for (name, value) in [
        ("ttft_n", "20"),
        ("ttft_p50_ms", "156.847"),
        ("ttft_p50_low_ms", ""),
        ("ttft_p99_ms", ""),
        ("itl_n", "620"),
        ("itl_p99_ms", "48.387"),
        ("e2e_p50_ms", "321.423"),
        ("output_tokens_per_s", "390.375"),
        ("goodput_per_s", ""),
    ] {
        assert_eq!(field("bench", name), value, "{name}");
    }
    // E2E comes from single requests, hence its interval.
    assert_ne!(field("bench", "e2e_p50_low_ms"), "");
    lab.labrun(&["report", "older"]).expect_code(0);
    assert_eq!(field("older", "e2e_p50_ms"), "");
    assert!(lab.read("older/summary.md").contains("; nothing about E2E"));
    assert!(lab.read("older/report.html").contains("nothing about E2E"));
    // As diff sees it: the summary, its n, and no test.
    let ttft = ttft_of_diff(&lab, "bench", "older");
    assert_eq!(
        (ttft["test"].as_str(), ttft["a_n"].as_u64()),
        (Some("untested"), Some(20))
    );
    let diff = ["diff", "bench", "older", "--allow", "inconclusive"];
    let printed = lab.labrun(&diff).expect_code(0).stdout;
    assert!(
        printed.contains("TTFT, TPOT: some numbers are summaries of imported files"),
        "{printed}"
    );
}
