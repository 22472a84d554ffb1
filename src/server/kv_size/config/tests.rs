//! The formula against the published configurations of models. Only fields that matter are here;
//! their values are those of the models' `config.json`.

use serde_json::json;

use super::*;

fn size(config: &Value, serving: &Serving) -> Result<Statement, Unknown> {
    model(&config.to_string(), serving)
}

fn bytes(config: &Value) -> Bounds {
    size(config, &Serving::default()).unwrap().device.unwrap()
}

fn exact(config: &Value) -> u64 {
    let bytes = bytes(config);
    assert!((bytes.high - bytes.low).abs() < f64::EPSILON, "{bytes:?}");
    bytes.low as u64
}

fn llama_3_8b() -> Value {
    json!({"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "hidden_size": 4096, "torch_dtype": "bfloat16"})
}

fn deepseek_v3() -> Value {
    json!({"model_type": "deepseek_v3", "num_hidden_layers": 61, "num_attention_heads": 128,
        "num_key_value_heads": 128, "hidden_size": 7168, "kv_lora_rank": 512,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
        "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})
}

#[test]
fn dense_and_expert_models_keep_every_layer() {
    let attention = |layers: u64, heads: u64, kv: u64, dim: u64| {
        json!({"model_type": "x", "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv, "head_dim": dim, "hidden_size": 4096,
            "torch_dtype": "bfloat16"})
    };
    for (name, config, expected) in [
        ("Llama-3-8B", llama_3_8b(), 131_072),
        ("Llama-3.1-70B", attention(80, 64, 8, 128), 327_680),
        ("Qwen2.5-7B", attention(28, 28, 4, 128), 57_344),
        ("Qwen3-32B", attention(64, 64, 8, 128), 262_144),
        ("Qwen3-30B-A3B", attention(48, 32, 4, 128), 98_304),
        ("Qwen3-235B-A22B", attention(94, 64, 4, 128), 192_512),
        ("GLM-4.5", attention(92, 96, 8, 128), 376_832),
        ("MiniMax-M2", attention(62, 48, 8, 128), 253_952),
        ("Phi-4", attention(40, 40, 10, 128), 204_800),
    ] {
        assert_eq!(exact(&config), expected, "{name}");
    }
}

#[test]
fn a_window_that_is_not_used_changes_nothing() {
    // Qwen2.5-7B-Instruct.
    let config = json!({"model_type": "qwen2", "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "hidden_size": 3584, "torch_dtype": "bfloat16",
        "sliding_window": 131_072, "use_sliding_window": false, "max_window_layers": 28});
    assert_eq!(exact(&config), 57_344);
}

#[test]
fn latent_attention_keeps_one_latent() {
    assert_eq!(exact(&deepseek_v3()), 61 * 576 * 2);
    // Kimi-K2-Instruct, and DeepSeek-V2-Lite with 27 layers.
    let mut kimi = deepseek_v3();
    kimi["model_type"] = json!("kimi_k2");
    assert_eq!(exact(&kimi), 70_272);
    let lite = json!({"model_type": "deepseek_v2", "num_hidden_layers": 27,
        "num_attention_heads": 16, "hidden_size": 2048, "kv_lora_rank": 512,
        "qk_rope_head_dim": 64, "torch_dtype": "bfloat16"});
    assert_eq!(exact(&lite), 31_104);
}

#[test]
fn ranks_copy_the_latent_and_divide_the_heads() {
    let serving = Serving {
        tensor_parallel: 8,
        ..Serving::default()
    };
    let latent = size(&deepseek_v3(), &serving).unwrap();
    assert_eq!(latent.device, Some(Bounds::exact(8.0 * 70_272.0)));
    let stored = latent.stored.unwrap();
    assert_eq!((stored.low, stored.high), (70_272.0, 8.0 * 70_272.0));
    let divided = size(&llama_3_8b(), &serving).unwrap();
    assert_eq!(divided.device, Some(Bounds::exact(131_072.0)));
    let sixteen = Serving {
        tensor_parallel: 16,
        ..Serving::default()
    };
    let copied = size(&llama_3_8b(), &sixteen).unwrap();
    assert_eq!(copied.device, Some(Bounds::exact(262_144.0)));
    let three = Serving {
        tensor_parallel: 3,
        ..Serving::default()
    };
    let odd = size(&llama_3_8b(), &three).unwrap_err();
    assert_eq!(odd.0, "8 KV heads cannot be divided over 3 ranks");
}

#[test]
fn multimodal_models_nest_their_language_model() {
    // Mistral-Small-3.1-24B-Instruct.
    let config = json!({"model_type": "mistral3", "torch_dtype": "bfloat16",
        "text_config": {"model_type": "mistral", "num_hidden_layers": 40, "head_dim": 128,
            "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 5120,
            "sliding_window": null},
        "vision_config": {"num_hidden_layers": 24}});
    assert_eq!(exact(&config), 163_840);
    // Qwen3-Omni nests twice.
    let config = json!({"thinker_config": {"text_config": {"num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "hidden_size": 2048, "dtype": "bfloat16"}}});
    assert_eq!(exact(&config), 98_304);
}

#[test]
fn sliding_layers_count_in_the_upper_end_alone() {
    // gpt-oss-20b: every second layer slides.
    let kinds: Vec<&str> = (0..24)
        .map(|layer| ["sliding_attention", "full_attention"][layer % 2])
        .collect();
    let config = json!({"model_type": "gpt_oss", "num_hidden_layers": 24, "head_dim": 64,
        "num_attention_heads": 64, "num_key_value_heads": 8, "hidden_size": 2880,
        "torch_dtype": "bfloat16", "sliding_window": 128, "layer_types": kinds});
    let layer = 2.0 * 8.0 * 64.0 * 2.0;
    let bounds = bytes(&config);
    assert_eq!((bounds.low, bounds.high), (12.0 * layer, 24.0 * layer));
    // Gemma-3-27b-it: five of six slide.
    let config = json!({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text",
        "num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 16,
        "head_dim": 128, "hidden_size": 5376, "sliding_window": 1024,
        "sliding_window_pattern": 6}, "torch_dtype": "bfloat16"});
    let layer = 2.0 * 16.0 * 128.0 * 2.0;
    let bounds = bytes(&config);
    assert_eq!((bounds.low, bounds.high), (10.0 * layer, 62.0 * layer));
    // Llama-4-Scout: layers without rotary embedding see everything.
    let rope: Vec<u64> = (1..=48).map(|layer| u64::from(layer % 4 != 0)).collect();
    let config = json!({"model_type": "llama4", "text_config": {"num_hidden_layers": 48,
        "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
        "hidden_size": 5120, "attention_chunk_size": 8192, "no_rope_layers": rope,
        "torch_dtype": "bfloat16"}});
    let bounds = bytes(&config);
    assert_eq!((bounds.low, bounds.high), (49_152.0, 196_608.0));
}

#[test]
fn hybrids_keep_kv_in_their_attention_layers_alone() {
    let hybrid = |layers: u64, kv: u64, dim: u64, extra: Value| {
        let mut config = json!({"model_type": "x", "num_hidden_layers": layers,
            "num_attention_heads": 32, "num_key_value_heads": kv, "head_dim": dim,
            "hidden_size": 4096, "torch_dtype": "bfloat16"});
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    // Qwen3-Next-80B-A3B: every fourth of 48 layers attends.
    let next = hybrid(48, 2, 256, json!({"full_attention_interval": 4}));
    assert_eq!(exact(&next), 12 * 2 * 2 * 256 * 2);
    // Jamba-1.5-Mini: layers 4, 12, 20 and 28 of 32.
    let jamba = json!({"attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16});
    assert_eq!(exact(&hybrid(32, 8, 128, jamba)), 4 * 2 * 8 * 128 * 2);
    // Nemotron-H-8B: four `*` in 52 layers.
    let pattern = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-";
    let nemotron = hybrid(52, 8, 128, json!({"hybrid_override_pattern": pattern}));
    assert_eq!(exact(&nemotron), 4 * 2 * 8 * 128 * 2);
}

#[test]
fn the_served_format_decides_the_bytes_of_a_value() {
    let with = |kv: Option<&str>, dtype: Option<&str>| {
        let serving = Serving {
            kv_cache_dtype: kv.map(str::to_owned),
            dtype: dtype.map(str::to_owned),
            ..Serving::default()
        };
        size(&llama_3_8b(), &serving).map(|statement| statement.device.unwrap().low as u64)
    };
    assert_eq!(with(Some("fp8"), None), Ok(65_536));
    assert_eq!(with(Some("fp8_e4m3"), Some("float32")), Ok(65_536));
    assert_eq!(with(Some("auto"), Some("float32")), Ok(262_144));
    assert_eq!(with(None, Some("auto")), Ok(131_072));
    assert!(with(Some("nvfp4"), None).is_err());
    // A checkpoint in 32 bits is served in 16.
    let mut config = llama_3_8b();
    config["torch_dtype"] = json!("float32");
    assert_eq!(exact(&config), 131_072);
    // Newer files call it `dtype`.
    config.as_object_mut().unwrap().remove("torch_dtype");
    config["dtype"] = json!("torch.bfloat16");
    assert_eq!(exact(&config), 131_072);
}

#[test]
fn what_the_formula_does_not_know_is_unknown() {
    let with = |key: &str, value: Value| {
        let mut config = llama_3_8b();
        config[key] = value;
        size(&config, &Serving::default())
    };
    let why = |result: Result<Statement, Unknown>| result.unwrap_err().0;
    // MiniCPM3 has a `kv_lora_rank` and keeps whole heads.
    let minicpm = with("kv_lora_rank", json!(256));
    assert!(why(minicpm).contains("models of type `llama`"));
    // DeepSeek-V3.2 and GLM-5 keep an index too.
    let mut sparse = deepseek_v3();
    sparse["index_topk"] = json!(2048);
    assert!(why(size(&sparse, &Serving::default())).contains("index"));
    assert!(why(with("layers_block_type", json!(["mamba"]))).contains("layers_block_type"));
    assert!(why(with("layer_types", json!(["full_attention"]))).contains("another length"));
    assert!(why(with("layer_types", json!(vec!["odd"; 32]))).contains("`odd`"));
    assert!(why(with("sliding_window", json!(4096))).contains("window"));
    assert!(why(with("is_encoder_decoder", json!(true))).contains("encoder"));
    assert!(why(with("global_head_dim", json!(512))).contains("different sizes"));
    let scheme = json!({"kv_cache_scheme": {"num_bits": 8}});
    assert!(why(with("quantization_config", scheme)).contains("kv-cache-dtype"));
    assert!(why(with("num_attention_heads", json!(0))).contains("num_attention_heads"));
    assert!(why(with("num_hidden_layers", json!(null))).contains("num_hidden_layers"));
    assert!(why(model("<html>", &Serving::default())).contains("not JSON"));
    let drafted = Serving {
        unsupported: Some("speculative-config".into()),
        ..Serving::default()
    };
    assert!(why(size(&llama_3_8b(), &drafted)).contains("--speculative-config"));
}

#[test]
fn the_vocabulary_is_the_language_models() {
    let nested =
        json!({"vocab_size": 7, "text_config": {"num_hidden_layers": 1, "vocab_size": 1024}});
    let outer = json!({"vocab_size": 32_000, "text_config": {"num_hidden_layers": 1}});
    let flat = json!({"num_hidden_layers": 1, "vocab_size": 151_936});
    for (config, expected) in [
        (nested.to_string(), Some(1024)),
        (outer.to_string(), Some(32_000)),
        (flat.to_string(), Some(151_936)),
        (json!({"vocab_size": 0}).to_string(), None),
        ("no JSON".to_owned(), None),
    ] {
        assert_eq!(vocabulary(&config), expected, "{config}");
    }
}

#[test]
fn positions_are_those_of_the_language_model_with_its_own_scaling() {
    let of = |config: &Value| positions(&config.to_string());
    let mut config = json!({"num_hidden_layers": 2, "max_position_embeddings": 8192});
    assert_eq!(of(&config), Some(8_192));
    config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0});
    assert_eq!(of(&config), Some(8_192));
    config["rope_scaling"] = json!({"type": "yarn", "factor": 4.0});
    assert_eq!(of(&config), Some(32_768));
    let nested = json!({"text_config": config});
    assert_eq!(of(&nested), Some(32_768));
    assert_eq!(of(&json!({"num_hidden_layers": 2})), None);
}

#[test]
fn the_published_sizes_are_those_of_the_formula() {
    let attention = |layers: u64, heads: u64, kv: u64, dim: u64| {
        json!({"num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv, "head_dim": dim, "hidden_size": 4096,
            "torch_dtype": "bfloat16"})
    };
    for (name, config) in [
        ("Meta-Llama-3-8B-Instruct", llama_3_8b()),
        ("meta-llama/Llama-3.2-1B", attention(16, 32, 8, 64)),
        ("Llama-3.2-3B", attention(28, 24, 8, 128)),
        ("Llama-2-13b-chat-hf", attention(40, 40, 40, 128)),
        ("Qwen2.5-0.5B-Instruct", attention(24, 14, 2, 64)),
        ("Qwen2.5-1.5B-Instruct", attention(28, 12, 2, 128)),
        ("Qwen2.5-3B-Instruct", attention(36, 16, 2, 128)),
        ("Qwen2.5-14B-Instruct", attention(48, 40, 8, 128)),
        ("Qwen3-8B", attention(36, 32, 8, 128)),
        ("Qwen3-14B", attention(40, 40, 8, 128)),
        ("TinyLlama-1.1B-Chat-v1.0", attention(22, 32, 4, 64)),
        ("opt-125m", attention(12, 12, 12, 64)),
        ("SmolLM2-135M-Instruct", attention(30, 9, 3, 64)),
        ("DeepSeek-V3", deepseek_v3()),
    ] {
        let listed = crate::plan::models::published(name).unwrap();
        assert_eq!(listed.kv_bytes_per_token, exact(&config), "{name}");
    }
}
