//! KV bytes per token by formula, from a model's `config.json`.
//!
//! Each attention layer keeps, per token, a key and a value of `head_dim` numbers for each KV head
//! (`2 * heads * head_dim`); a layer of multi-head latent attention (MLA) keeps one latent of
//! `kv_lora_rank + qk_rope_head_dim` numbers. Layers of linear attention or state-space models keep
//! a state per request and nothing per token. Where a configuration has something that this formula
//! does not know, the size is [`Unknown`], never a guess.

use serde_json::Value;

use super::{Source, Statement};
use crate::units::Bounds;

/// Why a configuration does not give the size; a sentence without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unknown(pub String);

impl std::fmt::Display for Unknown {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

/// What the server was asked to do that changes the size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serving {
    /// `--kv-cache-dtype`, where it was given.
    pub kv_cache_dtype: Option<String>,
    /// `--dtype`, where it was given.
    pub dtype: Option<String>,
    /// `--tensor-parallel-size`; 0 or 1: not parallel.
    pub tensor_parallel: u64,
    /// Whether something else divides or adds KV in a way that the formula does not know
    /// (`--decode-context-parallel-size`, `--speculative-config`), by the argument's name.
    pub unsupported: Option<String>,
}

/// Model types whose `kv_lora_rank` vLLM serves as MLA, one latent per token and layer.
const MLA_TYPES: &[&str] = &[
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_mtp",
    "glm4_moe_lite",
    "kimi_k2",
    "mistral4",
    "pangu_ultra_moe",
];

/// The statement of `config` (the text of a `config.json`) for a server that runs as `serving`.
pub(crate) fn model(config: &str, serving: &Serving) -> Result<Statement, Unknown> {
    let config: Value =
        serde_json::from_str(config).map_err(|error| Unknown(format!("not JSON: {error}")))?;
    if let Some(argument) = &serving.unsupported {
        return unknown(format!(
            "`--{argument}` changes it in a way labrun does not know"
        ));
    }
    if config.get("is_encoder_decoder").and_then(Value::as_bool) == Some(true) {
        return unknown("an encoder-decoder model keeps KV of its encoder too");
    }
    let text = language_model(&config);
    let value_bytes = value_bytes(&config, text, serving)?;
    let layers = Layers::read(text)?;
    let ranks = serving.tensor_parallel.max(1);
    let (device, stored) = match latent(text)? {
        // Every rank keeps the same latent; whether the tier keeps one or all is the tier's choice.
        Some(latent) => {
            let one = latent * value_bytes;
            let all = one * ranks;
            (layers.bytes(all, all), layers.bytes(one, all))
        }
        None => {
            let token = heads(text, ranks)? * value_bytes;
            (layers.bytes(token, token), layers.bytes(token, token))
        }
    };
    Ok(Statement {
        source: Source::ModelConfig,
        device: Some(device),
        stored: Some(stored),
    })
}

/// Token ids of the vocabulary in `config` (the text of a `config.json`).
pub(crate) fn vocabulary(config: &str) -> Option<u32> {
    let config: Value = serde_json::from_str(config).ok()?;
    let text = language_model(&config);
    let size = number(text, "vocab_size").or_else(|| number(&config, "vocab_size"));
    u32::try_from(size?).ok().filter(|size| *size > 0)
}

/// Positions in `config` (the text of a `config.json`), with its own scaling; `None` where vLLM would
/// take them from elsewhere.
pub(crate) fn positions(config: &str) -> Option<u64> {
    let config: Value = serde_json::from_str(config).ok()?;
    let text = language_model(&config);
    let own = number(text, "max_position_embeddings")?;
    let scaling = text
        .get("rope_scaling")
        .or_else(|| text.get("rope_parameters"));
    let Some(scaling) = scaling.filter(|scaling| scaling.is_object()) else {
        return Some(own);
    };
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
    match kind.and_then(Value::as_str) {
        None | Some("default" | "llama3" | "mrope" | "longrope" | "su") => Some(own),
        // Others multiply; whether the number above is before or after that differs.
        Some(_) => {
            let factor = scaling.get("factor").and_then(Value::as_f64)?;
            Some((own as f64 * factor.max(1.0)) as u64)
        }
    }
}

fn unknown<T>(why: impl Into<String>) -> Result<T, Unknown> {
    Err(Unknown(why.into()))
}

/// The part of `config` that describes the language model: multimodal models nest it.
fn language_model(config: &Value) -> &Value {
    if config.get("num_hidden_layers").is_some() {
        return config;
    }
    let nested = [
        "text_config",
        "llm_config",
        "language_config",
        "thinker_config",
    ];
    let nested = nested.iter().find_map(|name| config.get(name));
    nested
        .filter(|part| part.is_object())
        .map_or(config, language_model)
}

fn number(config: &Value, name: &str) -> Option<u64> {
    config.get(name).and_then(Value::as_u64)
}

fn required(config: &Value, name: &str) -> Result<u64, Unknown> {
    let value = number(config, name).filter(|number| (1..1 << 32).contains(number));
    value.ok_or_else(|| Unknown(format!("config.json has no `{name}`")))
}

/// Numbers of a layer's latent, where the model has multi-head latent attention.
fn latent(text: &Value) -> Result<Option<u64>, Unknown> {
    if text.get("kv_lora_rank").is_none_or(Value::is_null) {
        return Ok(None);
    }
    let model_type = text.get("model_type").and_then(Value::as_str);
    if text.get("index_topk").is_some_and(|value| !value.is_null()) {
        return unknown("sparse attention keeps an index beside the latent");
    }
    match model_type {
        Some(model_type) if MLA_TYPES.contains(&model_type) => Ok(Some(
            required(text, "kv_lora_rank")? + required(text, "qk_rope_head_dim")?,
        )),
        other => unknown(format!(
            "labrun does not know whether models of type `{}` keep the latent or whole heads",
            other.unwrap_or("?")
        )),
    }
}

/// Numbers of keys and values that all ranks together keep in one layer.
fn heads(text: &Value, ranks: u64) -> Result<u64, Unknown> {
    if text.get("global_head_dim").is_some() || text.get("num_global_key_value_heads").is_some() {
        return unknown("its layers have heads of different sizes");
    }
    let query_heads = required(text, "num_attention_heads")?;
    let kv_heads = match text.get("num_key_value_heads") {
        None | Some(Value::Null)
            if text.get("multi_query").and_then(Value::as_bool) == Some(true) =>
        {
            1
        }
        None | Some(Value::Null) => query_heads,
        Some(_) => required(text, "num_key_value_heads")?,
    };
    let head_dim = match text.get("head_dim") {
        None | Some(Value::Null) => {
            let hidden = required(text, "hidden_size")?;
            if !hidden.is_multiple_of(query_heads) {
                return unknown("`hidden_size` is not a multiple of `num_attention_heads`");
            }
            hidden / query_heads
        }
        Some(_) => required(text, "head_dim")?,
    };
    let value_dim = number(text, "v_head_dim")
        .filter(|dim| *dim > 0)
        .unwrap_or(head_dim);
    if kv_heads % ranks != 0 && !ranks.is_multiple_of(kv_heads) {
        return unknown(format!(
            "{kv_heads} KV heads cannot be divided over {ranks} ranks"
        ));
    }
    // With more ranks than heads each rank keeps a copy of one head.
    Ok(kv_heads.max(ranks) * (head_dim + value_dim))
}

/// Layers of a model by what they keep.
struct Layers {
    /// Layers that keep every token.
    full: u64,
    /// Layers of sliding or chunked attention: they need the last tokens only, and whether a tier
    /// stores more of them depends on engine and connector.
    local: u64,
}

impl Layers {
    fn read(text: &Value) -> Result<Self, Unknown> {
        let all = required(text, "num_hidden_layers")?;
        // The last layers of Gemma 3n read the KV of earlier ones.
        let shared = number(text, "num_kv_shared_layers").unwrap_or(0);
        let Some(own) = all.checked_sub(shared).filter(|own| *own > 0) else {
            return unknown("`num_kv_shared_layers` is not below `num_hidden_layers`");
        };
        if let Some(kinds) = text.get("layer_types").and_then(Value::as_array) {
            return Self::of_kinds(kinds, all, own);
        }
        if let Some(layers) = Self::hybrid(text, own)? {
            return Ok(layers);
        }
        Self::windowed(text, own)
    }

    fn of_kinds(kinds: &[Value], all: u64, own: u64) -> Result<Self, Unknown> {
        if kinds.len() as u64 != all {
            return unknown("`layer_types` has another length than `num_hidden_layers`");
        }
        let mut layers = Self { full: 0, local: 0 };
        for kind in &kinds[..own as usize] {
            match kind.as_str() {
                Some("full_attention" | "attention") => layers.full += 1,
                Some("sliding_attention" | "chunked_attention" | "local_attention") => {
                    layers.local += 1;
                }
                Some(
                    "linear_attention" | "mamba" | "mamba2" | "conv" | "recurrent" | "mlp" | "moe",
                ) => {}
                other => {
                    return unknown(format!(
                        "labrun does not know layers of type `{}`",
                        other.unwrap_or("?")
                    ));
                }
            }
        }
        layers.checked()
    }

    /// Hybrids that name their attention layers in ways of their own.
    fn hybrid(text: &Value, own: u64) -> Result<Option<Self>, Unknown> {
        let of = |full| Ok(Some(Self { full, local: 0 }.checked()?));
        if let Some(pattern) = text.get("hybrid_override_pattern").and_then(Value::as_str) {
            return of(pattern.matches('*').count() as u64);
        }
        if let Some(interval) = number(text, "full_attention_interval").filter(|every| *every > 1) {
            return of(own / interval);
        }
        if let Some(indices) = text.get("attn_layer_indices").and_then(Value::as_array) {
            return of(indices.len() as u64);
        }
        if let Some(kinds) = text.get("attn_type_list").and_then(Value::as_array) {
            return of(kinds.iter().filter(|kind| kind.as_u64() == Some(1)).count() as u64);
        }
        if let Some(period) = number(text, "attn_layer_period").filter(|period| *period > 0) {
            let offset = number(text, "attn_layer_offset").unwrap_or(0);
            return of((0..own).filter(|layer| layer % period == offset).count() as u64);
        }
        let others = [
            "layers_block_type",
            "linear_attn_config",
            "mamba_d_state",
            "ssm_cfg",
            "state_size",
        ];
        match others
            .iter()
            .find(|name| text.get(**name).is_some_and(|value| !value.is_null()))
        {
            Some(name) => unknown(format!(
                "labrun cannot tell its attention layers from `{name}`"
            )),
            None => Ok(None),
        }
    }

    /// Models whose layers are all attention, some of them over a window.
    fn windowed(text: &Value, own: u64) -> Result<Self, Unknown> {
        let has_window = number(text, "sliding_window").is_some_and(|window| window > 0)
            && text.get("use_sliding_window").and_then(Value::as_bool) != Some(false);
        let chunked = number(text, "attention_chunk_size").is_some_and(|size| size > 0);
        if !has_window && !chunked {
            return Ok(Self {
                full: own,
                local: 0,
            });
        }
        // Every `pattern`-th layer attends to everything.
        match number(text, "sliding_window_pattern").filter(|pattern| *pattern > 1) {
            Some(pattern) => {
                let full = own / pattern;
                Self {
                    full,
                    local: own - full,
                }
                .checked()
            }
            None if chunked => match text.get("no_rope_layers").and_then(Value::as_array) {
                // Llama 4: layers without rotary embedding attend to everything.
                Some(rope) => {
                    let full = rope.iter().filter(|has| has.as_u64() == Some(0)).count() as u64;
                    let full = full.min(own);
                    Self {
                        full,
                        local: own - full,
                    }
                    .checked()
                }
                None => unknown("config.json does not say which layers attend to chunks only"),
            },
            None => Self {
                full: 0,
                local: own,
            }
            .checked(),
        }
    }

    fn checked(self) -> Result<Self, Unknown> {
        if self.full == 0 && self.local == 0 {
            return unknown("no layer keeps KV per token");
        }
        if self.full == 0 {
            return unknown(
                "every layer attends to a window only: how much of it a tier stores depends on the engine",
            );
        }
        Ok(self)
    }

    /// `low` and `high` bytes a layer, over the layers: local ones count in the upper end alone.
    fn bytes(&self, low: u64, high: u64) -> Bounds {
        Bounds {
            low: (self.full * low) as f64,
            high: ((self.full + self.local) * high) as f64,
        }
    }
}

/// Bytes that one number of the KV cache takes.
fn value_bytes(config: &Value, text: &Value, serving: &Serving) -> Result<u64, Unknown> {
    let given = |dtype: &Option<String>| dtype.clone().filter(|dtype| dtype != "auto");
    if let Some(dtype) = given(&serving.kv_cache_dtype) {
        return bytes_of(&dtype);
    }
    if quantized_kv(config) {
        return unknown("the checkpoint states its own KV format: set `kv-cache-dtype`");
    }
    if let Some(dtype) = given(&serving.dtype) {
        return bytes_of(&dtype);
    }
    let stated = |part: &Value| {
        let dtype = part.get("dtype").or_else(|| part.get("torch_dtype"));
        dtype
            .and_then(Value::as_str)
            .map(|dtype| dtype.trim_start_matches("torch.").to_owned())
    };
    match stated(text).or_else(|| stated(config)).as_deref() {
        // vLLM serves float32 checkpoints with 16 bits where no `dtype` is given.
        None | Some("float32") => Ok(2),
        Some(dtype) => bytes_of(dtype),
    }
}

fn bytes_of(dtype: &str) -> Result<u64, Unknown> {
    match dtype {
        "float32" | "float" => Ok(4),
        "bfloat16" | "float16" | "half" => Ok(2),
        "fp8" | "fp8_e4m3" | "fp8_e5m2" | "fp8_inc" => Ok(1),
        other => unknown(format!("labrun does not know the KV format `{other}`")),
    }
}

/// Whether the checkpoint's quantization covers KV, which `auto` then follows.
fn quantized_kv(config: &Value) -> bool {
    let Some(quantization) = config.get("quantization_config") else {
        return false;
    };
    ["kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_dtype"]
        .iter()
        .any(|name| quantization.get(name).is_some_and(|value| !value.is_null()))
}

#[cfg(test)]
mod tests;
