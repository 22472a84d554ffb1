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
        let repeats = ["agents", "trace"].contains(&label);
        let cold = &cell["passes"][0]["evidence"];
        assert_eq!(
            cold["repeated_tokens"].as_f64().unwrap() > 0.0,
            repeats,
            "{label}"
        );
    }
}
