//! What is known of a cell's KV size before its server starts.

use std::path::PathBuf;

use serde_json::Value;

use super::config::{self, Serving};
use super::{KvSize, Source, Statement};
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::models;
use crate::plan::server::ServerSpec;
use crate::server::facts;
use crate::units::Bounds;

/// Largest `config.json` that is read; those of real models are a few KiB.
const CONFIG_LIMIT_BYTES: u64 = 4 << 20;

/// The KV size of `cell`'s model, from its `config.json` on this machine and from the plan. A
/// simulated server has the simulator's own.
pub(crate) fn of_cell(cell: &Cell, settings: &Settings) -> KvSize {
    let server = &cell.resolved.server;
    if server.is_simulated() {
        let bytes = Bounds::exact(server.sim.kv_bytes_per_token as f64);
        return KvSize::new(vec![both(Source::Simulator, bytes)], Vec::new());
    }
    let mut statements = Vec::new();
    let mut unknown = Vec::new();
    match of_model(cell, settings) {
        Ok(statement) => statements.push(statement),
        Err(why) => unknown.push(why),
    }
    if let Some(bytes) = server.kv_bytes_per_token {
        statements.push(both(Source::Plan, Bounds::exact(f64::from(bytes.get()))));
    }
    KvSize::new(statements, unknown)
}

fn both(source: Source, bytes: Bounds) -> Statement {
    Statement {
        source,
        device: Some(bytes),
        stored: Some(bytes),
    }
}

/// Token ids of the vocabulary of `cell`'s model, where its `config.json` is on this machine.
pub(crate) fn vocabulary(cell: &Cell, settings: &Settings) -> Option<u32> {
    let server = &cell.resolved.server;
    if server.is_simulated() {
        return Some(server.sim.vocab_size);
    }
    let (_, text) = config_of_model(cell, settings).ok()?;
    config::vocabulary(&text)
}

/// Positions of `cell`'s model and who states them: its `config.json` on this machine, else its
/// publisher.
pub(crate) fn positions(cell: &Cell, settings: &Settings) -> Option<(u64, &'static str)> {
    let server = &cell.resolved.server;
    let stated = || {
        let (_, text) = config_of_model(cell, settings).ok()?;
        config::positions(&text)
    };
    if !server.is_simulated()
        && let Some(positions) = stated()
    {
        return Some((positions, "its config.json"));
    }
    // With values of the plan's own in place of the published ones, these are no longer known.
    if server.args.contains_key("hf-overrides") || server.args.contains_key("rope-scaling") {
        return None;
    }
    let geometry = models::published(&cell.resolved.model)?;
    Some((geometry.positions, "as published"))
}

fn of_model(cell: &Cell, settings: &Settings) -> Result<Statement, String> {
    let (path, text) = config_of_model(cell, settings)?;
    config::model(&text, &serving(&cell.resolved.server))
        .map_err(|why| format!("`{}`: {why}", path.display()))
}

/// The text of the model's `config.json`, and where it is.
fn config_of_model(cell: &Cell, settings: &Settings) -> Result<(PathBuf, String), String> {
    let model = &cell.resolved.model;
    let Some(folder) = facts::model_path(cell, settings) else {
        return Err(format!("no config.json of `{model}` is on this machine"));
    };
    let path = folder.join("config.json");
    let text = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= CONFIG_LIMIT_BYTES => {
            std::fs::read_to_string(&path)
        }
        Ok(_) => {
            return Err(format!(
                "`{}` is not the configuration of a model",
                path.display()
            ));
        }
        Err(error) => Err(error),
    };
    let text = text.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    Ok((path, text))
}

/// What the arguments of `vllm serve` change of the size.
fn serving(server: &ServerSpec) -> Serving {
    let text = |name: &str| server.args.get(name).and_then(Value::as_str);
    let is_set = |name: &&&str| {
        let off = |value: &Value| value.is_null() || value.as_u64() == Some(1);
        server.args.get(**name).is_some_and(|value| !off(value))
    };
    let unsupported = [
        "decode-context-parallel-size",
        "speculative-config",
        "speculative-model",
    ];
    let ranks = server
        .args
        .get("tensor-parallel-size")
        .and_then(Value::as_u64);
    Serving {
        kv_cache_dtype: text("kv-cache-dtype").map(str::to_owned),
        dtype: text("dtype").map(str::to_owned),
        tensor_parallel: ranks.unwrap_or(1),
        unsupported: unsupported
            .iter()
            .find(is_set)
            .map(|name| (*name).to_owned()),
    }
}
