//! The settings as JSON Schema, from the commented file of defaults.

use clap::ValueEnum as _;
use serde_json::{Map, Value, json};

use super::{DEFAULTS, PcieMethod};

/// The schema of a settings file.
pub(crate) fn schema() -> Value {
    let defaults: toml::Table = toml::from_str(DEFAULTS).unwrap_or_default();
    let mut sections: Map<String, Value> = Map::new();
    for (name, values) in &defaults {
        let values = values.as_table().into_iter().flatten();
        let keys: Map<String, Value> = values
            .map(|(key, default)| (key.clone(), property(name, key, default)))
            .collect();
        let section = if name == "env" {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        } else {
            json!({ "type": "object", "properties": keys, "additionalProperties": false })
        };
        sections.insert(name.clone(), section);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "labrun settings",
        "type": "object",
        "properties": sections,
        "additionalProperties": false,
    })
}

fn property(section: &str, key: &str, default: &toml::Value) -> Value {
    let mut schema = match default {
        toml::Value::Integer(_) => json!({ "type": "integer", "minimum": 0 }),
        toml::Value::Float(_) => json!({ "type": "number" }),
        toml::Value::Boolean(_) => json!({ "type": "boolean" }),
        toml::Value::Array(_) => json!({ "type": "array", "items": { "type": "string" } }),
        _ => json!({ "type": "string" }),
    };
    if (section, key) == ("telemetry", "pcie") {
        let words = PcieMethod::value_variants().iter();
        let words = words.filter_map(|word| Some(word.to_possible_value()?.get_name().to_owned()));
        schema["enum"] = words.collect::<Vec<_>>().into();
    }
    schema["description"] = comment(section, key).into();
    schema["default"] = serde_json::to_value(default).unwrap_or_default();
    schema
}

/// The comment above `key` of `section` in the file of defaults.
fn comment(section: &str, key: &str) -> String {
    let head = format!("[{section}]");
    let lines = DEFAULTS.lines().skip_while(|line| *line != head);
    let mut words: Vec<&str> = Vec::new();
    let mut in_comment = false;
    for line in lines.skip(1) {
        let comment = line.strip_prefix("# ");
        // One comment may stand above several keys.
        if comment.is_some() && !in_comment {
            words.clear();
        }
        in_comment = comment.is_some();
        words.extend(comment);
        if line.split_once(" = ").is_some_and(|(name, _)| name == key) {
            break;
        }
    }
    words.join(" ")
}
