//! `docs/faults.md` is true, and nothing that is sound is called otherwise.

use labrun::internals::Fault;

use crate::fault_doc::{end_of, rows};
use crate::support::{Lab, SimPlan};

/// What a row's plan has under `[server]` and `[server.sim]`, and after them.
fn plan_of(what: &str) -> (&'static str, String) {
    let name = what.trim_matches('`');
    let fault = format!("faults = [\"{name}\"]");
    match name {
        "slow-start" => ("ready_timeout_s = 1", fault),
        "exit-mid-load" => ("", format!("{fault}\nfault_after_requests = 5")),
        "stall" => (
            "",
            format!("{fault}\nfault_after_requests = 4\n[load]\nfirst_token_timeout_s = 1"),
        ),
        "http-500" | "cut-stream" => ("", format!("{fault}\nfault_every_requests = 3")),
        // It must hit the same document in the cold pass and in the one behind it.
        "full-write-buffer" => ("", format!("{fault}\nfault_every_requests = 4")),
        "degraded" => ("", format!("{fault}\n[tier.cpu]\nlookup_timeout_ms = 50")),
        "tier too small" => ("", "[tier.cpu]\nmax_local_cpu_size = 0.2".to_owned()),
        "buffered reads" => (
            "",
            "[tier.disk]\nextra_config = { use_odirect = false }".to_owned(),
        ),
        "GPU too small" => ("", "gpu_kv_tokens = 2048".to_owned()),
        "stale-blocks" => ("", format!("{fault}\ngpu_kv_tokens = 16384")),
        "blind-model`, text optional" => (
            "",
            "faults = [\"blind-model\"]\n[verdict]\ntext = \"optional\"".to_owned(),
        ),
        "nothing" => ("", String::new()),
        known if Fault::ALL.map(Fault::name).contains(&known) => ("", fault),
        unknown => panic!("`{unknown}` of docs/faults.md is not known to its test"),
    }
}

#[test]
fn every_fault_ends_as_in_the_table() {
    let rows = rows("Faults and verdicts");
    for fault in Fault::ALL {
        let name = format!("`{fault}`");
        assert!(rows.iter().any(|row| row.what == name), "no row of {name}");
    }
    let mut wrong = Vec::new();
    for row in &rows {
        let (server, sim) = plan_of(&row.what);
        let lab = Lab::new();
        let tiers = format!("[\"{}\"]", row.tier);
        let plan = SimPlan {
            tiers: &tiers,
            server,
            start_ms: if row.what.contains("slow") { 500 } else { 1 },
            sim: &sim,
            ..SimPlan::default()
        };
        let with_gpu = "warmup = 1\nstates = [\"cold\", \"gpu\", \"tier\"]";
        let mut text = plan.text().replace("warmup = 1", with_gpu);
        if row.what.contains("stale-blocks") {
            text = text.replace("warmup = 1", "warmup = 1\noverwrite_gpu = true");
        }
        lab.write("plan.toml", &text);
        let ended = lab.labrun(&["plan.toml", "--out", "out", "--force"]);
        let cells = lab.cells();
        let Some((_, cell)) = cells.first() else {
            wrong.push(format!("{row:?}: no cell\n{}", ended.stderr));
            continue;
        };
        let (ends_as, messages) = end_of(cell);
        if !row.is_true_of(&ends_as, &messages) {
            wrong.push(format!("{row:?}\n  is: {ends_as}\n{messages}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Faults that leave a pass from the tier to judge, and its tier.
const WITNESSED: [(&str, &str); 22] = [
    ("nothing", "cpu"),
    ("nothing", "disk"),
    ("nothing", "redis"),
    ("nothing", "native"),
    ("nothing", "native+fs"),
    ("nothing", "simple+disk"),
    ("`false-hit`", "cpu"),
    ("`false-hit`", "redis"),
    ("`wrong-place`", "cpu"),
    ("`blind-model`", "cpu"),
    ("`page-cache-disk`", "disk"),
    ("`ram-answers-for-disk`", "disk"),
    ("`half-loaded`", "cpu"),
    ("`half-loaded`", "disk"),
    ("`half-loaded`", "native"),
    ("`half-loaded`", "native+fs"),
    ("`ram-answers-for-disk`", "native+fs"),
    ("`impossible-speed`", "cpu"),
    ("`full-write-buffer`", "disk"),
    ("`silent-store-failure`", "disk"),
    ("`reset-ignored`", "cpu"),
    ("`degraded`", "cpu"),
];

const WITNESSES: [&str; 7] = [
    "counters", "bytes", "text", "clients", "state", "logs", "limits",
];

/// One row of the table of witnesses: the pass from the tier, judged by each of them.
fn witnessed(what: &str, tier: &str) -> String {
    let (server, sim) = plan_of(what);
    let lab = Lab::new();
    let tiers = format!("[\"{tier}\"]");
    let plan = SimPlan {
        tiers: &tiers,
        server,
        sim: &sim,
        ..SimPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    lab.labrun(&["plan.toml", "--out", "out", "--force"]);
    let (_, cell) = lab.cells().remove(0);
    let passes = cell["passes"].as_array().unwrap();
    let pass = passes.iter().find(|pass| pass["state"] == "tier").unwrap();
    let verdict = &pass["verdict"];
    let shown = WITNESSES.map(|witness| match verdict["witnesses"][witness].as_str() {
        None => "-",
        Some("valid") => "ok",
        Some("inconclusive") => "?",
        Some(_) => "bad",
    });
    let status = verdict["status"].as_str().unwrap();
    format!("| {what} | {tier} | {} | {status} |\n", shown.join(" | "))
}

#[test]
fn each_witness_shows_of_each_fault_what_the_table_has() {
    let mut table = format!("| fault | tier | {} | verdict |\n", WITNESSES.join(" | "));
    table.push_str("|:--|:--|:--|:--|:--|:--|:--|:--|:--|:--|\n");
    for (what, tier) in WITNESSED {
        table.push_str(&witnessed(what, tier));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
    let docs = std::fs::read_to_string(path).unwrap();
    assert!(docs.contains(&table), "docs/faults.md must have:\n{table}");
}

/// Ten repeats of each kind of tier: fifty cells and more, with none but valid passes.
#[test]
fn no_clean_run_is_called_anything_but_valid() {
    let plan = r#"
name = "clean"
model = "m"
[matrix]
tier = ["baseline", "cpu", "disk", "redis", "cpu+disk", "native", "native+fs", "simple", "simple+disk"]
prompt_len = [700]
gen_len = [2]
concurrency = [2]
label = ["rag"]
[run]
requests = 3
repeats = 9
states = ["cold", "gpu", "tier"]
order = "grouped"
reuse = "server"
warmup = 1
canaries = 1
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "sim"
[server.sim]
start_ms = 1
kv_bytes_per_token = 8192
"#;
    let lab = Lab::new();
    lab.write("plan.toml", plan);
    lab.labrun(&["plan.toml", "--out", "out", "--force"])
        .expect_code(0);
    let cells = lab.cells();
    assert!(cells.len() >= 50, "{} cells", cells.len());
    for (_, cell) in &cells {
        for pass in cell["passes"].as_array().unwrap() {
            let verdict = &pass["verdict"];
            let tier = &cell["coordinates"]["tier"];
            assert_eq!(
                verdict["status"], "valid",
                "{tier} {}: {verdict}",
                pass["state"]
            );
            for row in pass["ledger"].as_array().unwrap() {
                let (Some(expected), Some(moved)) =
                    (row["expected_bytes"].as_f64(), row["moved_bytes"].as_f64())
                else {
                    continue;
                };
                assert!((moved / expected - 1.0).abs() < 0.05, "{tier}: {row}");
            }
        }
    }
}

#[test]
fn controls_are_measured_where_they_are_asked_for_and_enter_no_headline() {
    let lab = Lab::new();
    let with_controls = "warmup = 1\ncontrols = true\nstates = [\"cold\", \"gpu\", \"tier\"]";
    let text = SimPlan::default().text();
    lab.write("plan.toml", &text.replace("warmup = 1", with_controls));
    let ended = lab
        .labrun(&["plan.toml", "--out", "out", "--tables"])
        .expect_code(0);
    let cells = lab.cells();
    let labels = cells
        .iter()
        .map(|(_, cell)| cell["coordinates"]["label"].as_str().unwrap());
    let controls: Vec<&str> = labels
        .filter(|label| label.starts_with("control-"))
        .collect();
    assert_eq!((cells.len(), controls.len()), (6, 4), "two of each tier");
    for (_, cell) in &cells {
        for pass in cell["passes"].as_array().unwrap() {
            assert_eq!(pass["verdict"]["status"], "valid", "{pass}");
        }
    }
    for label in ["control-fits-gpu", "control-no-reuse"] {
        // A slow machine adds warnings, each about a cell.
        let lines = ended
            .stdout
            .lines()
            .filter(|line| !line.starts_with("cell `"));
        let count = lines.filter(|line| line.contains(label)).count();
        assert_eq!(count, 1, "one line each: {}", ended.stdout);
    }
}
