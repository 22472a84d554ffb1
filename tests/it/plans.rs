//! The plans that labrun ships: each says what it is for, fits its model, and runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use labrun::internals::{Matrix, Plan, WorkloadKind};

use crate::support::Lab;

/// Positions of the models that shipped plans name: prompt and answer together.
const POSITIONS: [(&str, u64); 4] = [
    ("Qwen/Qwen2.5-7B-Instruct", 32_768),
    ("llama-3-8b", 131_072), // of scripts/make-gpu-check-model.py
    ("tiny-llama", 32_768),  // of scripts/make-tiny-model.py
    ("sim", 131_072),
];

fn shipped() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let files = std::fs::read_dir(folder).unwrap();
    let mut plans: Vec<(PathBuf, String)> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    plans.sort();
    plans
}

/// The longest prompt and answer together of a cell, tokens.
fn longest(kind: &WorkloadKind, prompt_len: u64, gen_len: u64) -> u64 {
    match kind {
        WorkloadKind::MultiTurn {
            turns, turn_len, ..
        } => prompt_len + u64::from(turns - 1) * (gen_len + u64::from(*turn_len)) + gen_len,
        // Lines of plans/trace.jsonl; questions are part of the prompt.
        WorkloadKind::Trace { .. } => 8574 + 160,
        _ => prompt_len + gen_len,
    }
}

#[test]
fn every_shipped_plan_expands_explains_itself_and_fits_its_model() {
    for (path, text) in shipped() {
        let shown = path.display();
        let comment = text
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("# "));
        assert!(
            (2..9).contains(&comment.count()),
            "{shown}: two or three lines on top"
        );
        let plan = Plan::parse(&text, &path.display().to_string()).unwrap();
        assert_eq!(path.file_stem().unwrap(), plan.name.as_str(), "{shown}");
        let matrix = Matrix::expand(&plan).unwrap();
        assert!(!matrix.cells.is_empty(), "{shown}");
        for cell in &matrix.cells {
            let (_, positions) = POSITIONS
                .iter()
                .find(|(model, _)| *model == cell.resolved.model)
                .unwrap_or_else(|| panic!("{shown}: no positions of {}", cell.resolved.model));
            let args = &cell.resolved.server.args;
            let model_len = args
                .get("max-model-len")
                .and_then(serde_json::Value::as_u64);
            let model_len = model_len.unwrap_or(*positions);
            let (prompt_len, gen_len) = (
                u64::from(cell.coordinates.prompt_len.get()),
                u64::from(cell.coordinates.gen_len.get()),
            );
            let needed = longest(&cell.workload.kind, prompt_len, gen_len);
            assert!(
                needed <= model_len,
                "{shown}: {needed} of {model_len} tokens"
            );
            assert!(
                model_len <= *positions,
                "{shown}: {model_len} of {positions}"
            );
        }
    }
}

/// A plan for the simulator of the same tiers, workloads and load, with short prompts and few requests.
fn reduced(text: &str) -> String {
    let mut plan: toml::Table = toml::from_str(text).unwrap();
    let set = |plan: &mut toml::Table, section: &str, key: &str, value: toml::Value| {
        let table = plan.get_mut(section).and_then(toml::Value::as_table_mut);
        table.unwrap().insert(key.to_owned(), value);
    };
    let array = |value: i64| toml::Value::Array(vec![value.into()]);
    set(&mut plan, "matrix", "prompt_len", array(800));
    set(&mut plan, "matrix", "gen_len", array(2));
    set(&mut plan, "matrix", "concurrency", array(2));
    let matrix = plan["matrix"].as_table_mut().unwrap();
    matrix.remove("exclude");
    for (key, values) in matrix.iter_mut().filter(|(key, _)| key.contains('.')) {
        let values = values.as_array_mut().unwrap();
        values.truncate(2);
        if key == "load.rate_rps" {
            *values = vec![20.into(), 40.into()];
        }
    }
    for (key, value) in [
        ("requests", 4.into()),
        ("repeats", 1.into()),
        ("warmup", 1.into()),
        ("canaries", 1.into()),
        ("controls", false.into()),
        ("reuse", "server".into()),
    ] {
        set(&mut plan, "run", key, value);
    }
    let workloads = plan["workload"].as_table_mut().unwrap();
    for (_, workload) in workloads.iter_mut() {
        let workload = workload.as_table_mut().unwrap();
        for (key, value) in [
            ("documents", toml::Value::from(2)),
            ("turns", 2.into()),
            ("system_len", 200.into()),
            ("turn_len", 32.into()),
            ("think_s", 0.01.into()),
            ("speed", 100.0.into()),
        ] {
            if workload.contains_key(key) {
                workload.insert(key.to_owned(), value);
            }
        }
    }
    let server: toml::Table = toml::from_str("launcher = \"sim\"\nsim = { start_ms = 1 }").unwrap();
    plan.insert("server".to_owned(), server.into());
    toml::to_string(&plan).unwrap()
}

/// What a plan runs: plans that differ in sizes and launchers alone are run once.
fn kind_of(text: &str) -> String {
    let plan: toml::Table = toml::from_str(text).unwrap();
    let workloads = plan["workload"].as_table().unwrap();
    let kinds: Vec<_> = workloads
        .values()
        .map(|workload| &workload["kind"])
        .collect();
    let axes = plan["matrix"].as_table().unwrap();
    let further: Vec<_> = axes.keys().filter(|key| key.contains('.')).collect();
    format!(
        "{:?} {kinds:?} {further:?} {:?}",
        axes["tier"],
        plan.get("load")
    )
}

#[test]
fn every_shipped_plan_runs_on_the_simulator_and_its_tiers_are_proven() {
    let mut seen = BTreeSet::new();
    let mut plans = shipped();
    // The simulator has no connector but its own.
    plans.retain(|(_, text)| !text.contains("kind = \"connector\""));
    plans.retain(|(_, text)| seen.insert(kind_of(text)));
    assert!(plans.len() > 8, "{plans:?}");
    let plans = Mutex::new(plans);
    // Most of a run is waiting.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let next = || plans.lock().unwrap().pop();
                while let Some((path, text)) = next() {
                    run_reduced(&path, &text);
                }
            });
        }
    });
}

fn run_reduced(path: &Path, text: &str) {
    let lab = Lab::new();
    lab.write("trace.jsonl", include_str!("../../plans/trace.jsonl"));
    lab.write("plan.toml", &reduced(text));
    lab.labrun(&["plan.toml", "--out", "out", "--quiet"])
        .expect_code(0);
    let cells = lab.cells();
    let shown = path.display();
    assert!(!cells.is_empty(), "{shown}");
    for (_, cell) in cells {
        for pass in cell["passes"].as_array().unwrap() {
            assert_eq!(pass["verdict"]["status"], "valid", "{shown}: {pass}");
        }
    }
}
