//! A plan in, tables and figures out, on the simulator.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Ended, Lab, SimPlan, wait_until};

/// vLLM's own tiers, rehearsed: in RAM nothing outlives a restart, files behind RAM do.
#[test]
fn vllms_own_tiers_are_rehearsed_and_files_behind_ram_outlive_a_restart() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["native+fs", "simple", "simple+disk"]"#,
        requests: 4,
        ..SimPlan::default()
    };
    let states = "warmup = 1\nstates = [\"cold\", \"tier\", \"restart\"]";
    lab.write("plan.toml", &plan.text().replace("warmup = 1", states));
    lab.labrun(&["plan.toml", "--out", "out", "--force"])
        .expect_code(0);
    let cells = lab.cells();
    let mut seen = 0;
    for (_, cell) in &cells {
        let tier = cell["coordinates"]["tier"].as_str().unwrap();
        if tier == "baseline" {
            continue;
        }
        assert!(
            !cell["warnings"].to_string().contains("not proven"),
            "{cell}"
        );
        for pass in cell["passes"].as_array().unwrap() {
            assert_eq!(pass["verdict"]["status"], "valid", "{tier}: {pass}");
            let state = pass["state"].as_str().unwrap();
            let serves = state == "tier" || (state == "restart" && tier == "native+fs");
            let evidence = |name: &str| pass["evidence"][name].as_f64().unwrap_or(0.0);
            assert_eq!(evidence("external_tokens") > 0.0, serves, "{tier} {state}");
            let rows = pass["ledger"].as_array().unwrap().iter();
            let moved = rows.filter(|row| row["moved_bytes"].as_f64() > Some(0.0));
            let moved: Vec<_> = moved.map(|row| row["path"].as_str().unwrap()).collect();
            let reads = serves && tier != "simple";
            assert_eq!(moved.contains(&"disk-read"), reads, "{tier} {state}");
            let counts = serves && tier == "native+fs";
            assert_eq!(moved.contains(&"engine-load"), counts, "{tier} {state}");
            seen += 1;
        }
    }
    assert_eq!(seen, 9);
    lab.assert_no_server_is_left();
}

#[test]
fn a_run_leaves_every_file_and_is_marked_as_simulated() {
    let lab = Lab::new();
    let tiers = r#"["baseline", "cpu", "disk"]"#;
    let plan = SimPlan {
        tiers,
        requests: 4,
        ..SimPlan::default()
    };
    let ended = lab.run_sim(&plan).expect_code(0);
    assert!(ended.stdout.contains("SIMULATED"), "{}", ended.stdout);
    assert!(ended.stderr.contains("[3/3]"), "{}", ended.stderr);
    for file in [
        "manifest.json",
        "plan.toml",
        "events.jsonl",
        "summary.csv",
        "summary.md",
        "comparison.csv",
        "report.html",
        "report.md",
        "figures/comparison_ttft.png",
        "figures/comparison_ttft.svg",
        "figures/comparison_e2e.png",
        "figures/comparison_e2e.svg",
    ] {
        assert!(lab.path("out").join(file).is_file(), "no {file}");
    }
    assert!(
        !lab.path("out/servers").exists(),
        "server folders are removed"
    );
    assert_eq!(lab.read("out/plan.toml"), plan.text());
    for text in [
        "summary.md",
        "summary.csv",
        "comparison.csv",
        "report.html",
        "report.md",
        "figures/comparison_ttft.svg",
    ] {
        let text = lab.read(&format!("out/{text}")).to_lowercase();
        assert!(text.contains("simulated"), "{text}");
    }
    let cells = lab.cells();
    assert_eq!(cells.len(), 3);
    for (path, cell) in &cells {
        check_cell(path, cell);
    }
    assert_eq!(lab.read("out/summary.csv").lines().count(), 1 + 3 * 2);
    lab.assert_no_server_is_left();
}

fn check_cell(path: &std::path::Path, cell: &serde_json::Value) {
    assert_eq!(cell["outcome"]["kind"], "completed", "{cell}");
    assert_eq!(cell["source"], "simulated");
    let tier = cell["coordinates"]["tier"].as_str().unwrap();
    assert_eq!(path.join("lmcache.yaml").is_file(), tier != "baseline");
    let log = std::fs::read_to_string(path.join("server.log")).unwrap();
    assert!(log.contains("Application startup complete."), "{log}");
    assert!(path.join("requests.parquet").is_file());
    for (pass, state) in cell["passes"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["cold", "tier"])
    {
        assert_eq!(pass["state"], state);
        assert_eq!(pass["verdict"]["status"], "valid", "{pass}");
        let count = |name: &str| pass["counts"][name].as_u64().unwrap();
        assert_eq!(count("sent"), 4);
        assert_eq!(
            count("sent"),
            count("ok") + count("failed") + count("unfinished")
        );
        let evidence = |name: &str| pass["evidence"][name].as_f64().unwrap();
        for side in ["prompt_tokens", "output_tokens"] {
            let server = evidence(&format!("server_{side}"));
            assert!(
                (server - evidence(&format!("usage_{side}"))).abs() < 0.5,
                "{pass}"
            );
        }
        let csv = format!("metrics_rag_{tier}_p1024_g4_c1_r1_{state}.csv");
        let rows = std::fs::read_to_string(path.join(csv)).unwrap();
        check_csv(&rows, tier, state);
    }
}

/// The columns of the scripts that labrun replaces come first: one row a request, cached tokens only from a tier.
fn check_csv(text: &str, tier: &str, state: &str) {
    let mut lines = text.lines();
    let head = lines.next().unwrap();
    assert!(
        head.starts_with("ttft,avg_itl,e2e,prompt_len,gen_len,tier,label,"),
        "{head}"
    );
    let names: Vec<&str> = head.split(',').collect();
    let rows: Vec<BTreeMap<&str, &str>> = lines
        .map(|line| names.iter().copied().zip(line.split(',')).collect())
        .collect();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(
            (row["tier"], row["prompt_len"], row["gen_len"]),
            (tier, "1024", "4")
        );
        let ttft: f64 = row["ttft"].parse().unwrap();
        let e2e: f64 = row["e2e"].parse().unwrap();
        assert!(0.0 < ttft && ttft < e2e, "{row:?}");
        assert_eq!((row["prompt_tokens"], row["output_tokens"]), ("1024", "4"));
        // 992 shared tokens are three whole chunks.
        let cached = if state == "tier" && tier != "baseline" {
            "768"
        } else {
            "0"
        };
        assert_eq!(row["cached_tokens"], cached, "{row:?}");
    }
}

#[test]
fn a_report_of_the_files_alone_is_the_same_to_the_byte() {
    let lab = Lab::new();
    lab.run_sim(&SimPlan::default()).expect_code(0);
    let before = lab.files("out");
    std::fs::remove_dir_all(lab.path("out/figures")).unwrap();
    std::fs::rename(lab.path("out"), lab.path("moved")).unwrap();
    let ended = lab.labrun(&["report", "moved"]).expect_code(0);
    assert!(ended.stdout.contains("SIMULATED"), "{}", ended.stdout);
    std::fs::rename(lab.path("moved"), lab.path("out")).unwrap();
    for (path, bytes) in before {
        let again = std::fs::read(&path).unwrap();
        assert!(again == bytes, "{} differs", path.display());
    }
    let ended = lab.labrun(&["report", "."]).expect_code(2);
    assert!(
        ended.stderr.contains("is not a run folder"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_same_plan_sends_the_same_prompts() {
    let prompt_files = |lab: &Lab| {
        let log = lab
            .files("out/cells")
            .into_iter()
            .find(|(path, _)| path.ends_with("cell.json"));
        let cell: serde_json::Value = serde_json::from_slice(&log.unwrap().1).unwrap();
        let corpora = cell["passes"].as_array().unwrap().iter();
        corpora
            .map(|pass| pass["corpus"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (first, second) = (Lab::new(), Lab::new());
    first.run_sim(&SimPlan::default()).expect_code(0);
    second.run_sim(&SimPlan::default()).expect_code(0);
    assert_eq!(prompt_files(&first), prompt_files(&second));
    assert_eq!(prompt_files(&first).len(), 2);
}

#[test]
fn cells_that_differ_only_in_load_can_share_a_server() {
    let lab = Lab::new();
    let plan = SimPlan {
        concurrency: "1, 2",
        ..SimPlan::default()
    };
    let text = plan.text().replace(
        "warmup = 1",
        "warmup = 1\nreuse = \"server\"\norder = \"grouped\"",
    );
    lab.write("plan.toml", &text);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let cells = lab.cells();
    assert_eq!(cells.len(), 4);
    let reused = cells
        .iter()
        .filter(|(_, cell)| cell["server"]["reused"] == true)
        .count();
    assert_eq!(reused, 2, "two servers, two cells each");
    for (path, cell) in &cells {
        for pass in cell["passes"].as_array().unwrap() {
            assert_eq!(pass["verdict"]["status"], "valid", "{pass}");
        }
        let log = std::fs::read_to_string(path.join("server.log")).unwrap();
        let is_marked = log.starts_with("# labrun: this server was started by an earlier cell");
        assert_eq!(is_marked, cell["server"]["reused"] == true);
    }
}

#[test]
fn plot_draws_the_metrics_files_of_a_run() {
    let lab = Lab::new();
    lab.run_sim(&SimPlan::default()).expect_code(0);
    let pattern = "out/cells/*/metrics_*_tier.csv";
    lab.labrun(&["plot", "--input", pattern, "--output-prefix", "old"])
        .expect_code(0);
    for file in ["old_ttft.png", "old_e2e.png", "old_ttft.svg", "old_e2e.svg"] {
        assert!(lab.path(file).is_file(), "no {file}");
    }
    let ended = lab
        .labrun(&["plot", "--input", "nothing_*.csv"])
        .expect_code(2);
    assert!(
        ended.stderr.contains("no file matches `nothing_*.csv`"),
        "{}",
        ended.stderr
    );
}

#[test]
fn without_out_the_run_has_a_folder_of_its_own_under_results() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let ended = lab.labrun(&["plan.toml"]).expect_code(0);
    let runs: Vec<_> = std::fs::read_dir(lab.path("results/t"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(runs.len(), 1);
    assert!(runs[0].join("summary.md").is_file());
    let name = runs[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(ended.stderr.contains(&name), "{}", ended.stderr);
    // What the next run will take is better told by this one than by a guess.
    let plan = lab.labrun(&["plan", "plan.toml"]).expect_code(0).stdout;
    let earlier = plan.lines().find(|line| line.contains("earlier run"));
    let earlier = earlier.unwrap_or_else(|| panic!("{plan}"));
    assert!(earlier.contains("2 cells in"), "{earlier}");
    assert!(
        earlier.contains(&name) && earlier.ends_with("for these 2"),
        "{earlier}"
    );
}

#[test]
fn quiet_prints_the_folder_alone_and_writes_everything() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let ended = lab
        .labrun(&["plan.toml", "--quiet", "--out", "out"])
        .expect_code(0);
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("out\n", "")
    );
    assert_eq!(lab.cells().len(), 2);
}

/// Small images have no `ca-certificates`.
#[test]
fn plain_http_needs_no_certificates() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let none = lab.path("none");
    let mut command = lab.command(&["plan.toml", "--quiet", "--out", "out"]);
    command
        .env("SSL_CERT_FILE", &none)
        .env("SSL_CERT_DIR", &none);
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(lab.cells().len(), 2);
}

#[test]
fn a_run_goes_on_starting_simulators_when_its_program_was_rebuilt() {
    let lab = Lab::new();
    let plan = SimPlan {
        start_ms: 500,
        ..SimPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    // A name of its own for the same file, beside it: a link cannot leave its file system.
    let beside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = beside.path().join("labrun");
    std::fs::hard_link(env!("CARGO_BIN_EXE_labrun"), &program).unwrap();
    let mut command = lab.command_of(&program, &["plan.toml", "--out", "out"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = command.spawn().unwrap();
    let started = wait_until(Duration::from_secs(60), || !lab.servers().is_empty());
    assert!(started, "no simulator was started");
    let named = || {
        let names = lab.servers().into_iter().map(|id| {
            let comm = std::fs::read_to_string(format!("/proc/{id}/comm"));
            comm.unwrap_or_default().trim().to_owned()
        });
        names.collect::<Vec<_>>() == ["labrun"]
    };
    let is_named = wait_until(Duration::from_secs(10), named);
    // As a build does it: the old file loses its name, another one gets it.
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "another build").unwrap();
    Ended::of(&run.wait_with_output().unwrap()).expect_code(0);
    assert_eq!(lab.cells().len(), 2, "each on a simulator of its own");
    assert!(is_named, "process lists say whose it is");
}

#[test]
fn an_invalid_pass_names_the_problem_that_foretold_it() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["cpu"]"#,
        sim: "[tier.cpu]\nmax_local_cpu_size = 0.2",
        ..SimPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let ended = lab.labrun(&["plan.toml", "--out", "out", "--force"]);
    let (_, cell) = lab.cells().remove(0);
    let passes = cell["passes"].as_array().unwrap();
    assert_eq!(passes[1]["verdict"]["status"], "invalid");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let foretold = "foretold before the start: the documents are 0.4 GiB of KV, more than the 0.2 GiB \
                    that `max_local_cpu_size` holds";
    assert!(words(&ended.stderr).contains(foretold), "{}", ended.stderr);
    assert!(words(&ended.stdout).contains(foretold), "{}", ended.stdout);
    assert!(lab.read("out/summary.csv").contains(foretold));
    lab.labrun(&["verify", "out"]).expect_code(0);
}

#[test]
fn a_sweep_of_a_tiers_setting_compares_each_value_with_one_baseline() {
    let lab = Lab::new();
    let plan = SimPlan::default().text();
    let axis = "label = [\"rag\"]\n\"tier.cpu.chunk_size\" = [64, 256]";
    lab.write("plan.toml", &plan.replace("label = [\"rag\"]", axis));
    let shown = lab.labrun(&["plan", "plan.toml"]).expect_code(0).stdout;
    let once = "Measured once for all values of `tier.cpu.chunk_size`: baseline.";
    assert!(shown.contains(once), "{shown}");
    for row in [
        "  tier                baseline, cpu\n",
        "  tier.cpu.chunk_size 64, 256\n",
    ] {
        assert!(shown.contains(row), "values below each other:\n{shown}");
    }
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    assert_eq!(lab.cells().len(), 3);
    let comparison = lab.read("out/comparison.csv");
    let compared = comparison
        .lines()
        .filter(|line| line.contains(",compared,"));
    assert_eq!(compared.count(), 4, "2 values, 2 states:\n{comparison}");
    let ended = lab.labrun(&["run", "--resume", "out"]).expect_code(0);
    assert!(
        ended.stderr.contains("3 of 3 cells are finished"),
        "{}",
        ended.stderr
    );
    lab.labrun(&["verify", "out"]).expect_code(0);
    lab.run_halves();
    lab.labrun(&["merge", "whole", "part1", "part2"])
        .expect_code(0);
    let whole = lab.read("whole/comparison.csv");
    let compared = whole.lines().filter(|line| line.contains(",compared,"));
    assert_eq!(compared.count(), 4, "{whole}");
    let diff = lab.labrun(&["diff", "out", "whole"]).expect_code(0).stdout;
    assert!(!diff.contains("only in"), "{diff}");
}
