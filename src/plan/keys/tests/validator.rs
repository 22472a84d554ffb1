//! As much of JSON Schema as labrun's schemas use. An unknown keyword panics.

use serde_json::Value;

/// What of `value` does not fit `schema`; empty where all does.
pub(super) fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "plan", &mut found);
    found
}

fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let mut found = Vec::new();
    check(root, schema, value, "", &mut found);
    found.is_empty()
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        let good = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "examples" | "$defs" | "then"
            | "patternProperties" => true,
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                check(root, root.pointer(pointer).unwrap(), value, at, found);
                true
            }
            "type" => is_of_type(value, rule.as_str().unwrap()),
            "enum" => rule.as_array().unwrap().contains(value),
            "const" => rule == value,
            "minimum" => number(value).is_none_or(|n| n >= number(rule).unwrap()),
            "maximum" => number(value).is_none_or(|n| n <= number(rule).unwrap()),
            "exclusiveMinimum" => number(value).is_none_or(|n| n > number(rule).unwrap()),
            "minItems" => {
                let least = rule.as_u64().unwrap() as usize;
                value.as_array().is_none_or(|items| items.len() >= least)
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    check(root, rule, item, at, found);
                }
                true
            }
            "required" => {
                let has = |name: &Value| value.get(name.as_str().unwrap()).is_some();
                !value.is_object() || rule.as_array().unwrap().iter().all(has)
            }
            "anyOf" => rule
                .as_array()
                .unwrap()
                .iter()
                .any(|one| fits(root, one, value)),
            "allOf" => {
                for one in rule.as_array().unwrap() {
                    check(root, one, value, at, found);
                }
                true
            }
            "if" => !fits(root, rule, value) || fits(root, &schema["then"], value),
            "properties" | "additionalProperties" => {
                if keyword == "additionalProperties" || schema.get("additionalProperties").is_none()
                {
                    members(root, schema, value, at, found);
                }
                true
            }
            other => panic!("the validator knows no `{other}`"),
        };
        if !good {
            found.push(format!("{at}: {value} breaks {keyword} {rule}"));
        }
    }
}

fn members(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (name, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        let dotted = schema["patternProperties"].get("\\.");
        let own = schema["properties"].get(name);
        let rule = own.or(dotted.filter(|_| name.contains('.')));
        match rule.unwrap_or(&schema["additionalProperties"]) {
            Value::Bool(false) => found.push(format!("{at}: unknown key")),
            rule @ Value::Object(_) => check(root, rule, member, &at, found),
            _ => {}
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("the validator knows no type `{other}`"),
    }
}
