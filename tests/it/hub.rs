//! A model that is named by its hub id and lies in Hugging Face's cache alone: the tiers whose bytes
//! are counted reach a verdict, against a stand-in for vLLM with a real disk and a real Redis.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::Lab;

const PLAN: &str = r#"
name = "hub"
model = "org/tiny"
[matrix]
tier = ["@TIER@"]
prompt_len = [1100]
gen_len = [4]
concurrency = [1]
label = ["rag"]
[run]
requests = 3
canaries = 2
states = ["cold", "tier"]
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "process"
prompt_token_ids = [1000, 30000]
ready_timeout_s = 20
stop_grace_s = 5
[server.args]
max-model-len = 8192
"#;

/// KV of 1,024 bytes a token, as the stand-in stores it.
const CONFIG: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "hidden_size": 256,
  "vocab_size": 32000, "torch_dtype": "bfloat16"
}"#;

/// A plan of the only `tier`.
pub(crate) fn plan(tier: &str) -> String {
    PLAN.replace("@TIER@", tier)
}

/// A lab with the stand-in, and the model in a cache of Hugging Face's.
pub(crate) fn lab(tier: &str) -> Lab {
    let lab = Lab::new();
    let vllm = lab.write("bin/vllm", include_str!("hub/vllm.py"));
    std::fs::set_permissions(&vllm, std::fs::Permissions::from_mode(0o755)).unwrap();
    let model = "hf/hub/models--org--tiny";
    lab.write(&format!("{model}/refs/main"), "c0ffee\n");
    lab.write(&format!("{model}/snapshots/c0ffee/config.json"), CONFIG);
    lab.write("box.toml", "[process]\nbin_dir = \"bin\"\n");
    lab.write("plan.toml", &plan(tier));
    lab
}

/// The passes of the only cell.
pub(crate) fn passes(lab: &Lab, with_model: bool) -> Vec<Value> {
    let mut command = lab.command(&["plan.toml", "--config", "box.toml", "--out", "out"]);
    let home = if with_model { "hf" } else { "none" };
    let ended = command.env("HF_HOME", lab.path(home)).output().unwrap();
    let cells = lab.cells();
    let (_, cell) = cells.first().unwrap_or_else(|| panic!("{ended:?}"));
    assert_eq!(cell["outcome"]["kind"], "completed", "{cell}");
    cell["passes"].as_array().unwrap().clone()
}

#[track_caller]
fn assert_all_valid(passes: &[Value], row: &str) {
    assert_eq!(passes.len(), 2);
    for pass in passes {
        assert_eq!(pass["verdict"]["status"], "valid", "{pass}");
        assert_eq!(pass["evidence"]["kv_bytes_per_token"], 1024.0, "{pass}");
    }
    let ledger = passes[1]["ledger"].as_array().unwrap();
    let leg = ledger.iter().find(|leg| leg["path"] == row).unwrap();
    // Three requests, and the canary within the load.
    assert_eq!(leg["expected_bytes"], 4.0 * 1024.0 * 1024.0, "{leg}");
}

#[test]
#[ignore = "needs python3"]
fn a_disk_tier_of_a_model_in_the_hubs_cache_reaches_a_verdict() {
    assert_all_valid(&passes(&lab("disk"), true), "disk-read");
}

#[test]
#[ignore = "needs python3 and redis-server"]
fn a_redis_tier_of_a_model_in_the_hubs_cache_reaches_a_verdict() {
    assert_all_valid(&passes(&lab("redis"), true), "redis-read");
}

#[test]
#[ignore = "needs python3"]
fn without_the_model_the_verdict_says_what_is_missing() {
    let passes = passes(&lab("disk"), false);
    let verdict = &passes[1]["verdict"];
    assert_eq!(verdict["status"], "inconclusive", "{verdict}");
    let reasons = verdict["reasons"].to_string();
    assert!(reasons.contains("kv_bytes_per_token"), "{reasons}");
}

/// vLLM's own tier of files behind RAM, in all of its states.
fn fs_lab(env: &str) -> Lab {
    let lab = lab("native+fs");
    let plan =
        plan("native+fs").replace("[\"cold\", \"tier\"]", "[\"cold\", \"tier\", \"restart\"]");
    let more = format!("[tier.\"native+fs\"]\nblock_size = 256\n[server.env]\n{env}");
    lab.write("plan.toml", &(plan + &more));
    lab
}

#[test]
#[ignore = "needs python3"]
fn files_behind_vllms_own_ram_serve_alone_also_after_a_restart() {
    let lab = fs_lab("");
    let passes = passes(&lab, true);
    assert_all_valid(&passes[..2], "disk-read");
    let restart = &passes[2];
    assert_eq!(restart["state"], "restart");
    assert_eq!(restart["verdict"]["status"], "valid", "{restart}");
    let reasons = restart["verdict"]["reasons"].to_string();
    assert!(reasons.contains("read with O_DIRECT"), "{reasons}");
    let (_, cell) = lab.cells().remove(0);
    assert!(
        !cell["warnings"].to_string().contains("not proven"),
        "{cell}"
    );
    lab.assert_no_server_is_left();
}

#[test]
#[ignore = "needs python3"]
fn ram_that_answers_for_vllms_own_files_makes_the_pass_invalid() {
    let passes = passes(&fs_lab("STAND_IN_KEEPS_RAM = \"1\""), true);
    let verdict = &passes[1]["verdict"];
    assert_eq!(verdict["status"], "invalid", "{verdict}");
    let reasons = verdict["reasons"].to_string();
    assert!(reasons.contains("RAM answered for the disk"), "{reasons}");
}
