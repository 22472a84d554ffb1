//! A matrix in parts, and the parts joined.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::resume::prompts;
use crate::support::{Lab, SimPlan};

/// Four loads of two tiers.
pub(crate) fn plan() -> SimPlan<'static> {
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
    let mut places = BTreeSet::new();
    for (path, cell) in lab.cells() {
        let (part, position) = (cell["part"].as_str().unwrap(), &cell["position"]);
        let name = path.file_name().unwrap().to_str().unwrap();
        let folder = format!("part{}", part.strip_suffix("/3").unwrap());
        let own = lab.read(&format!("{folder}/cells/{name}/cell.json"));
        let own: Value = serde_json::from_str(&own).unwrap();
        assert_eq!((&own["position"], &own["part"]), (position, &Value::Null));
        places.insert((part.to_owned(), position.as_u64().unwrap()));
    }
    assert_eq!(places.len(), 8, "a part and a position are of one cell");
    // What was joined is a run like any other.
    let gone = lab.cells()[0].0.clone();
    std::fs::remove_dir_all(&gone).unwrap();
    lab.labrun(&["run", "--resume", "out"]).expect_code(0);
    assert_eq!(prompts(&lab), prompts(&whole));
    let cells = lab.cells();
    let again = cells.iter().find(|(path, _)| *path == gone).unwrap();
    assert_eq!(again.1["part"], Value::Null, "it ran in no part");
}

#[test]
fn a_dry_run_of_a_shard_shows_the_shard() {
    let lab = Lab::new();
    lab.write("plan.toml", &plan().text());
    let shown = |shard: &str| {
        let run = lab.labrun(&["run", "plan.toml", "--shard", shard, "--dry-run"]);
        run.expect_code(0).stdout
    };
    for (shard, cells) in [("1/3", 4), ("2/3", 2), ("1/1", 8)] {
        let text = shown(shard);
        assert!(text.starts_with(&format!("t: {cells} cells")), "{text}");
        assert!(
            text.contains(&format!("shard {shard} of 8 cells")),
            "{text}"
        );
    }
}

#[test]
fn parts_whose_cells_are_all_of_one_plan_are_joined_though_their_plans_differ() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["baseline", "cpu"]"#,
        ..SimPlan::default()
    };
    let plan = plan
        .text()
        .replace("[run]", "[run]\norder = \"grouped\"\nreuse = \"server\"");
    // A plan may be divided otherwise: the numbers of its shards say nothing of another's.
    for (ram_gib, of) in [(1, 2), (2, 3)] {
        let text = format!("{plan}\n[tier.cpu]\nmax_local_cpu_size = {ram_gib}\n");
        let file = format!("ram{ram_gib}.toml");
        lab.write(&file, &text);
        for index in [1, 2] {
            let shard = format!("{index}/{of}");
            let out = format!("ram{ram_gib}-{index}");
            lab.labrun(&[&file, "--shard", &shard, "--out", &out])
                .expect_code(0);
        }
    }
    let of = |tier: &str, ram_gib: u32| {
        let parts = [1, 2].map(|shard| format!("ram{ram_gib}-{shard}"));
        let has_tier = |part: &&String| {
            let cells = std::fs::read_dir(lab.path(part).join("cells")).unwrap();
            let mut names = cells.map(|cell| cell.unwrap().file_name().into_string().unwrap());
            names.all(|name| name.contains(tier))
        };
        parts.iter().find(has_tier).unwrap().clone()
    };
    // The baseline has no RAM of a tier: its cells are those of both plans.
    let (baseline, cpu) = (of("baseline", 1), of("cpu", 2));
    let refused = lab
        .labrun(&["merge", "out", &baseline, &cpu])
        .expect_code(2);
    assert!(
        refused.stderr.contains("ran different plans") && refused.stderr.contains("the cell `"),
        "{}",
        refused.stderr
    );
    assert!(!lab.path("out").exists(), "nothing is written");
    lab.labrun(&["merge", "out", &cpu, &baseline])
        .expect_code(0);
    assert_eq!(lab.cells().len(), 2);
    assert_eq!(lab.read("out/plan.toml"), lab.read("ram2.toml"));
    lab.labrun(&["verify", "out"]).expect_code(0);
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
