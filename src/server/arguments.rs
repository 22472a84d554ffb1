//! Plan values to command lines.

use serde_json::{Map, Value};

/// Plan values as command line arguments: `true` is the flag alone, `false` its `--no-` form, a
/// table is JSON, a list repeats its items after the flag. A text that begins with a dash is one word with
/// its flag: it is not a flag itself.
pub(super) fn of(values: &Map<String, Value>) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in values {
        match value {
            Value::Bool(true) => all.push(format!("--{name}")),
            Value::Bool(false) => all.push(format!("--no-{name}")),
            Value::Array(items) => {
                all.push(format!("--{name}"));
                all.extend(items.iter().map(text));
            }
            Value::String(text) if text.starts_with('-') => all.push(format!("--{name}={text}")),
            other => all.extend([format!("--{name}"), text(other)]),
        }
    }
    all
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plan_values_become_arguments() {
        let values = json!({
            "enforce-eager": true, "enable-prefix-caching": false, "max-model-len": 8192,
            "middleware": ["a", "b"], "profiler-config": {"profiler": "torch"}, "note": "-rf",
        });
        assert_eq!(
            of(values.as_object().unwrap()),
            [
                "--enforce-eager",
                "--no-enable-prefix-caching",
                "--max-model-len",
                "8192",
                "--middleware",
                "a",
                "b",
                "--profiler-config",
                "{\"profiler\":\"torch\"}",
                "--note=-rf",
            ]
        );
    }
}
