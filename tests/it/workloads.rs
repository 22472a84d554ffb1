//! Every kind of workload, on the simulator: exact prompts, and verdicts that know what is shared.

use crate::support::Lab;

const PLAN: &str = r#"
name = "kinds"
model = "m"
[matrix]
tier = ["cpu"]
prompt_len = [1024]
gen_len = [4]
concurrency = [2]
label = ["agents", "unique", "loop", "trace", "dataset", "chat"]
[run]
requests = 6
warmup = 1
canaries = 1
[workload.agents]
kind = "multi-turn"
turns = 3
system_len = 300
turn_len = 100
[workload.unique]
kind = "unique"
[workload.loop]
kind = "evict-loop"
documents = 3
[workload.trace]
kind = "trace"
path = "trace.jsonl"
[workload.dataset]
kind = "dataset"
path = "dataset.jsonl"
endpoint = "chat"
[workload.chat]
kind = "shared-prefix"
endpoint = "chat"
prompt = "text"
[server]
launcher = "sim"
[server.sim]
start_ms = 1
"#;

const TRACE: &str = r#"{"timestamp":0,"input_length":600,"output_length":4,"hash_ids":[1,2]}
{"timestamp":100,"input_length":700,"output_length":4,"hash_ids":[1,3]}
{"timestamp":300,"input_length":600,"output_length":4,"hash_ids":[1,2]}
"#;

const DATASET: &str = r#"{"prompt":"hello world how are you today my friend"}
{"messages":[{"role":"user","content":"tell me a story about tokens"}]}
"#;

#[test]
fn every_kind_runs_and_its_verdict_knows_what_it_shares() {
    let lab = Lab::new();
    lab.write("plan.toml", PLAN);
    lab.write("trace.jsonl", TRACE);
    lab.write("dataset.jsonl", DATASET);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let cells = lab.cells();
    assert_eq!(cells.len(), 6);
    for (_, cell) in &cells {
        let label = cell["coordinates"]["label"].as_str().unwrap();
        for pass in cell["passes"].as_array().unwrap() {
            assert_eq!(pass["verdict"]["status"], "valid", "{label}: {pass}");
            let evidence = |name: &str| pass["evidence"][name].as_f64().unwrap();
            let server = evidence("server_prompt_tokens");
            assert!(
                (server - evidence("usage_prompt_tokens")).abs() < 0.5,
                "{label}"
            );
            let from_tier = pass["state"] == "tier";
            let shares = !["unique", "dataset"].contains(&label);
            assert_eq!(
                evidence("external_tokens") > 0.0,
                from_tier && shares,
                "{label}: {pass}"
            );
        }
        // The dataset's two prompts are sent three times each.
        let repeats = ["agents", "trace", "dataset"].contains(&label);
        let cold = &cell["passes"][0]["evidence"];
        assert_eq!(
            cold["repeated_tokens"].as_f64().unwrap() > 0.0,
            repeats,
            "{label}"
        );
    }
}

/// What `labrun plan` prints of a trace or dataset of these lines.
fn plan_of(lab: &Lab, kind: &str, file: &str, more: &str) -> crate::support::Ended {
    let plan = PLAN.replace(
        "label = [\"agents\", \"unique\", \"loop\", \"trace\", \"dataset\", \"chat\"]",
        "label = [\"file\"]",
    );
    let plan = format!("{plan}[workload.file]\nkind = \"{kind}\"\npath = \"{file}\"\n{more}");
    lab.write("one.toml", &plan);
    lab.labrun(&["plan", "one.toml"])
}

#[test]
fn plan_reads_the_files_that_workloads_name() {
    let lab = Lab::new();
    lab.write("trace.jsonl", TRACE);
    lab.write("bad.jsonl", &format!("{TRACE}{{}}\n"));
    for (kind, file, expected) in [
        ("trace", "bad.jsonl", "line 4: missing field `input_length`"),
        ("trace", "none.jsonl", "none.jsonl`: No such file"),
        ("dataset", "trace.jsonl", "line 1: it must hold `prompt`"),
        (
            "dataset",
            "/dev/zero",
            "`/dev/zero`: it is a device: name a regular file",
        ),
        ("trace", ".", "is a folder: name a regular file"),
    ] {
        let printed = plan_of(&lab, kind, file, "").expect_code(2).stderr;
        assert!(printed.contains(expected), "{printed}");
        assert!(
            printed.contains(&format!("path = \"{file}\"")),
            "the plan's own line: {printed}"
        );
    }
    let doctor = lab.labrun(&["doctor", "one.toml"]).expect_code(2).stderr;
    assert!(doctor.contains("is a folder"), "{doctor}");
}

#[test]
fn plan_counts_a_traces_requests_and_its_span() {
    let lab = Lab::new();
    // An hour.
    let line = |at: u32| {
        format!("{{\"timestamp\":{at},\"input_length\":600,\"output_length\":4,\"model\":1}}\n")
    };
    let few: String = [0, 3_600_000].map(line).concat();
    lab.write("few.jsonl", &few);
    let many: String = (0..9).map(|at| line(at * 100)).collect();
    lab.write("many.jsonl", &many);
    let load = "[load]\narrival = \"trace\"\n";
    let printed = plan_of(&lab, "trace", "few.jsonl", load)
        .expect_code(0)
        .stdout;
    assert!(
        printed.contains("about 2.0 h"),
        "an hour for each of two states: {printed}"
    );
    assert!(
        printed.contains("`few.jsonl` holds 2 requests, fewer than the 6 of the plan: 2 are sent"),
        "{printed}"
    );
    assert!(
        printed.contains("`few.jsonl`: unused fields: `model`"),
        "{printed}"
    );
    let printed = plan_of(&lab, "trace", "many.jsonl", load)
        .expect_code(0)
        .stdout;
    assert!(
        printed.contains("`many.jsonl` holds 9 requests: a pass sends the first 6"),
        "{printed}"
    );
}

#[test]
fn repetition_within_a_file_is_not_a_leak_and_its_prompts_are_proven() {
    let lab = Lab::new();
    let words = |name: &str, count: u32| -> String {
        let words: Vec<_> = (0..count).map(|at| format!("{name}{at} ")).collect();
        words.concat()
    };
    let prompt = |name: &str| {
        format!(
            "{{\"prompt\":\"{}{}\"}}\n",
            words("front", 300),
            words(name, 400)
        )
    };
    lab.write("d", &["a", "b", "c"].map(prompt).concat());
    lab.write(
        "grows",
        "timestamp_ms,input_length,output_length,session\n\
         0,600,4,a\n20,900,4,a\n40,1200,4,a\n60,600,4,b\n",
    );
    lab.write(
        "blocks",
        "{\"timestamp\":0,\"input_length\":600,\"output_length\":4,\"hash_ids\":[1,2]}\n\
         {\"timestamp\":50,\"input_length\":1000,\"output_length\":4,\"hash_ids\":[1,2]}\n",
    );
    let plan = PLAN.replace(
        "label = [\"agents\", \"unique\", \"loop\", \"trace\", \"dataset\", \"chat\"]",
        "label = [\"d\", \"grows\", \"blocks\"]",
    );
    let plan = format!(
        "{plan}[workload.d]\nkind = \"dataset\"\npath = \"d\"\n[workload.grows]\nkind = \"trace\"\n\
         path = \"grows\"\n[workload.blocks]\nkind = \"trace\"\npath = \"blocks\"\n"
    )
    .replace("concurrency = [2]", "concurrency = [1]");
    lab.write("plan.toml", &plan);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    for (_, cell) in lab.cells() {
        for pass in cell["passes"].as_array().unwrap() {
            let evidence = &pass["evidence"];
            assert_eq!(pass["verdict"]["status"], "valid", "{pass}");
            assert!(
                evidence["repeated_tokens"].as_f64().unwrap() > 0.0,
                "{pass}"
            );
            let from_tier = evidence["external_tokens"].as_f64().unwrap();
            assert_eq!(from_tier > 0.0, pass["state"] == "tier", "{pass}");
        }
    }
}
