//! The geometry of models that people name most, as their publishers' `config.json` states it.
//!
//! It serves rehearsals and checks before a start. Nothing that is measured is judged by it.

use toml::de::DeTable;

use super::server::ServerSpec;

/// What is published of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Bytes of KV that a token takes with 16 bits a number, all layers.
    pub kv_bytes_per_token: u64,
    /// Positions without any scaling that the user adds.
    pub positions: u64,
}

/// Name without the owner, bytes of KV a token, positions.
const PUBLISHED: [(&str, u64, u64); 47] = [
    ("DeepSeek-R1", 70_272, 163_840),
    ("DeepSeek-V3", 70_272, 163_840),
    ("GLM-4.5", 376_832, 131_072),
    ("Kimi-K2-Instruct", 70_272, 131_072),
    ("Llama-2-13b-chat-hf", 819_200, 4_096),
    ("Llama-2-7b-chat-hf", 524_288, 4_096),
    ("Llama-2-7b-hf", 524_288, 4_096),
    ("Llama-3.1-70B", 327_680, 131_072),
    ("Llama-3.1-70B-Instruct", 327_680, 131_072),
    ("Llama-3.1-8B", 131_072, 131_072),
    ("Llama-3.1-8B-Instruct", 131_072, 131_072),
    ("Llama-3.2-1B", 32_768, 131_072),
    ("Llama-3.2-1B-Instruct", 32_768, 131_072),
    ("Llama-3.2-3B", 114_688, 131_072),
    ("Llama-3.2-3B-Instruct", 114_688, 131_072),
    ("Llama-3.3-70B-Instruct", 327_680, 131_072),
    ("Meta-Llama-3-70B", 327_680, 8_192),
    ("Meta-Llama-3-70B-Instruct", 327_680, 8_192),
    ("Meta-Llama-3-8B", 131_072, 8_192),
    ("Meta-Llama-3-8B-Instruct", 131_072, 8_192),
    ("Meta-Llama-3.1-70B-Instruct", 327_680, 131_072),
    ("Meta-Llama-3.1-8B", 131_072, 131_072),
    ("Meta-Llama-3.1-8B-Instruct", 131_072, 131_072),
    ("Mistral-7B-Instruct-v0.3", 131_072, 32_768),
    ("Mistral-7B-v0.3", 131_072, 32_768),
    ("Qwen2.5-0.5B-Instruct", 12_288, 32_768),
    ("Qwen2.5-1.5B-Instruct", 28_672, 32_768),
    ("Qwen2.5-3B-Instruct", 36_864, 32_768),
    ("Qwen2.5-7B", 57_344, 131_072),
    ("Qwen2.5-7B-Instruct", 57_344, 32_768),
    ("Qwen2.5-14B", 196_608, 131_072),
    ("Qwen2.5-14B-Instruct", 196_608, 32_768),
    ("Qwen2.5-32B-Instruct", 262_144, 32_768),
    ("Qwen2.5-72B-Instruct", 327_680, 32_768),
    ("Qwen3-0.6B", 114_688, 40_960),
    ("Qwen3-1.7B", 114_688, 40_960),
    ("Qwen3-4B", 147_456, 40_960),
    ("Qwen3-8B", 147_456, 40_960),
    ("Qwen3-14B", 163_840, 40_960),
    ("Qwen3-32B", 262_144, 40_960),
    ("Qwen3-30B-A3B", 98_304, 40_960),
    ("Qwen3-235B-A22B", 192_512, 40_960),
    ("SmolLM2-135M-Instruct", 23_040, 8_192),
    ("TinyLlama-1.1B-Chat-v1.0", 22_528, 2_048),
    ("opt-125m", 36_864, 2_048),
    ("phi-4", 204_800, 16_384),
    ("vicuna-7b-v1.5", 524_288, 4_096),
];

/// The geometry of the model `name`, with or without its owner; `None` where it is not listed.
pub(crate) fn published(name: &str) -> Option<Geometry> {
    let own = name.rsplit('/').next().unwrap_or(name);
    let (_, kv_bytes_per_token, positions) =
        PUBLISHED.iter().find(|(listed, ..)| *listed == own)?;
    Some(Geometry {
        kv_bytes_per_token: *kv_bytes_per_token,
        positions: *positions,
    })
}

/// Lets the simulator take the KV size of the model that it stands for, unless the plan (`document`) sets
/// one.
pub(super) fn fit_simulator(server: &mut ServerSpec, model: &str, document: &DeTable<'_>) {
    let sim = document
        .get("server")
        .and_then(|server| server.get_ref().get("sim"));
    let is_set = sim.is_some_and(|sim| sim.get_ref().get("kv_bytes_per_token").is_some());
    if let Some(geometry) = published(model).filter(|_| server.is_simulated() && !is_set) {
        server.sim.kv_bytes_per_token = geometry.kv_bytes_per_token;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::*;

    fn simulated_bytes(model: &str, more: &str) -> u64 {
        let text = format!(
            "name = \"t\"\nmodel = \"{model}\"\n[matrix]\ntier = [\"cpu\"]\nprompt_len = [1000]\n\
             gen_len = [4]\nconcurrency = [1]\nlabel = [\"rag\"]\n[workload.rag]\n\
             kind = \"shared-prefix\"\n[server]\nlauncher = \"sim\"\n[server.sim]\n{more}"
        );
        let plan = Plan::parse(&text, "t.toml").unwrap_or_else(|problems| panic!("{problems}"));
        plan.variants[0].resolved.server.sim.kv_bytes_per_token
    }

    #[test]
    fn the_simulator_has_the_kv_size_of_the_model_that_it_stands_for() {
        assert_eq!(simulated_bytes("Qwen/Qwen2.5-7B-Instruct", ""), 57_344);
        assert_eq!(
            simulated_bytes("Qwen/Qwen2.5-7B-Instruct", "kv_bytes_per_token = 9"),
            9
        );
        assert_eq!(simulated_bytes("somebody/else", ""), 131_072);
    }

    #[test]
    fn names_are_listed_once() {
        for (index, (name, ..)) in PUBLISHED.iter().enumerate() {
            let first = PUBLISHED.iter().position(|(other, ..)| other == name);
            assert_eq!(first, Some(index), "{name}");
        }
        assert_eq!(
            published("Meta-Llama-3-8B-Instruct").unwrap().positions,
            8_192
        );
    }
}
