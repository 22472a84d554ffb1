//! What a report takes from what a run recorded: its manifest, the kinds of its tiers; runs of 0.1.

use std::path::Path;
use std::process::Command;

use labrun::internals::manifest::{Gpu, Gpus, MANIFEST_FILE, Manifest};
use labrun::internals::{TierKind, read_run};

use crate::support::{Lab, SimPlan, copy};

fn git(folder: &Path, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=n", "-c", "user.email=e@x"];
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(who)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The value of a fact at the head of the report, as the page has it.
fn fact(page: &str, name: &str) -> Option<String> {
    let (_, after) = page.split_once(&format!("<span>{name} <b>"))?;
    let (value, _) = after.split_once("</b>")?;
    Some(value.to_owned())
}

#[test]
fn a_report_names_the_commit_of_the_plan_and_the_gpu() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let here = lab.path("");
    git(&here, &["init", "-q"]);
    git(&here, &["add", "plan.toml"]);
    git(&here, &["commit", "-qm", "m"]);
    let commit = git(&here, &["rev-parse", "HEAD"]);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let page = lab.read("out/report.html");
    assert_eq!(
        fact(&page, "plan at"),
        Some(format!("commit {}", &commit[..12]))
    );
    assert_eq!(fact(&page, "launcher").as_deref(), Some("sim"));

    // As on a machine with GPUs, in the manifest that the run wrote.
    let out = lab.path("out");
    let mut manifest = Manifest::read(&out).unwrap().unwrap();
    let gpu = |index, name: &str| Gpu {
        index,
        name: Some(name.to_owned()),
        ..Gpu::default()
    };
    manifest.host.gpu = Some(Gpus {
        devices: vec![gpu(0, "NVIDIA H100"), gpu(1, "NVIDIA H100"), gpu(2, "L4")],
        ..Gpus::default()
    });
    let text = serde_json::to_vec(&manifest).unwrap();
    std::fs::write(out.join(MANIFEST_FILE), text).unwrap();
    lab.labrun(&["report", "out"]).expect_code(0);
    let gpus = fact(&lab.read("out/report.html"), "GPU");
    assert_eq!(gpus.as_deref(), Some("L4, 2 x NVIDIA H100"));
}

/// The lines of a table, in an order that does not depend on that of the tiers.
fn sorted(table: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = table.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_run_of_version_0_1_gives_the_numbers_that_it_gave() {
    let lab = Lab::new();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/run_0.1");
    copy(&old, &lab.path("out"));
    lab.labrun(&["report", "out"]).expect_code(0);
    for name in ["summary.csv", "comparison.csv"] {
        let before = std::fs::read_to_string(old.join(name)).unwrap();
        let now = lab.read(&format!("out/{name}"));
        // New columns stand behind those that there were.
        for (now, before) in sorted(&now).into_iter().zip(sorted(&before)) {
            assert!(
                now.starts_with(before),
                "{name}: {now}\nand before: {before}"
            );
        }
        assert_eq!(now.lines().count(), before.lines().count(), "{name}");
    }
    let big = read_run(&old).unwrap();
    let big = big.cells.iter().find(|cell| cell.coordinates.tier == "big");
    let big = big.unwrap();
    assert_eq!(big.tier_kind, None);
    assert_eq!(big.kind_of_tier(), Some(TierKind::Cpu));
}

#[test]
fn a_tier_of_ram_and_disk_is_recorded_and_stands_among_the_built_in_ones() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["native", "cpu+disk", "baseline"]"#,
        ..SimPlan::default()
    };
    lab.run_sim(&plan).expect_code(0);
    let run = read_run(&lab.path("out")).unwrap();
    for cell in &run.cells {
        let built_in = TierKind::built_in(&cell.coordinates.tier);
        assert!(built_in.is_some() && cell.tier_kind == built_in, "{cell:?}");
    }
    let summary = lab.read("out/summary.csv");
    let at = |tier: &str| summary.find(&format!(",{tier},1,")).unwrap();
    assert!(at("baseline") < at("cpu+disk") && at("cpu+disk") < at("native"));
    // Its colour is its own, in every figure that has it: no spare one.
    let figure = lab.read("out/figures/comparison_ttft.svg");
    assert!(
        figure.contains("#56B4E9"),
        "{}",
        &figure[..figure.len().min(3000)]
    );
    assert!(!figure.contains("#E69F00"));
}
