//! KV bytes a token, from a model's `config.json`.

use std::path::Path;

use serde::Deserialize;

use crate::config::Settings;
use crate::matrix::Cell;

/// The fields of a Hugging Face `config.json` that decide the size of a token's KV.
#[derive(Debug, Deserialize)]
struct ModelConfig {
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    hidden_size: u64,
    #[serde(alias = "dtype")]
    torch_dtype: Option<String>,
}

/// Bytes of KV that one token takes, all layers, all ranks: 2 (K and V) x layers x KV heads x head
/// size x bytes a value. `None` where the folder has no `config.json` that says it. `dtype` is what
/// the server was told, over the model's own.
fn kv_bytes_per_token(model_folder: &Path, dtype: Option<&str>) -> Option<u64> {
    let text = std::fs::read_to_string(model_folder.join("config.json")).ok()?;
    let config: ModelConfig = serde_json::from_str(&text).ok()?;
    let kv_heads = config
        .num_key_value_heads
        .unwrap_or(config.num_attention_heads);
    let head_size = config
        .head_dim
        .or_else(|| config.hidden_size.checked_div(config.num_attention_heads))?;
    let told = dtype.filter(|dtype| *dtype != "auto");
    let value_bytes = match told.or(config.torch_dtype.as_deref()) {
        Some("float32" | "float") => 4,
        Some("bfloat16" | "float16" | "half") | None => 2,
        Some("fp8" | "fp8_e4m3" | "fp8_e5m2") => 1,
        Some(_) => return None,
    };
    Some(2 * config.num_hidden_layers * kv_heads * head_size * value_bytes)
}

/// KV bytes a token of `cell`'s model, from its `config.json` where that is at hand.
pub fn of_cell(cell: &Cell, settings: &Settings) -> Option<f64> {
    let server = &cell.resolved.server;
    if server.is_simulated() {
        return Some(server.sim.kv_bytes_per_token as f64);
    }
    let says = |name: &str| server.args.get(name).and_then(|value| value.as_str());
    let dtype = says("kv-cache-dtype")
        .filter(|dtype| *dtype != "auto")
        .or(says("dtype"));
    let models: &Path = &settings.paths.models;
    let bytes = kv_bytes_per_token(&models.join(&cell.resolved.model), dtype);
    bytes.map(|bytes| bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_3_8b_takes_128_kib_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let config = r#"{"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096,
            "num_key_value_heads": 8, "torch_dtype": "bfloat16"}"#;
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        assert_eq!(kv_bytes_per_token(dir.path(), None), Some(131_072));
        assert_eq!(
            kv_bytes_per_token(dir.path(), Some("float32")),
            Some(262_144)
        );
        assert_eq!(kv_bytes_per_token(dir.path(), Some("fp8")), Some(65_536));
        assert_eq!(kv_bytes_per_token(dir.path(), Some("odd")), None);
        assert_eq!(kv_bytes_per_token(Path::new("/nonexistent"), None), None);
    }
}
