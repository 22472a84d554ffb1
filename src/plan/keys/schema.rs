//! The table of keys as JSON Schema (draft 2020-12), for editors.

use serde_json::{Map, Value, json};

use super::{Default, Key, LMCACHE_DOCS, SECTIONS, Section, Type, other_lmcache_keys, section};

/// The dialect of labrun's schemas.
pub(crate) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of a plan.
pub(crate) fn schema() -> Value {
    let definitions = SECTIONS.iter().filter(|one| !one.id.is_empty());
    let definitions: Map<String, Value> = definitions
        .filter(|one| !["plan", "docker"].contains(&one.id) && !one.id.starts_with("tier."))
        .map(|one| (one.id.to_owned(), table(one)))
        .collect();
    let mut root = Map::new();
    root.insert("$schema".to_owned(), json!(DIALECT));
    root.insert("title".to_owned(), json!("labrun plan"));
    if let Some(Value::Object(plan)) = section("plan").map(table) {
        root.extend(plan);
    }
    root.insert("$defs".to_owned(), Value::Object(definitions));
    Value::Object(root)
}

/// One section as a schema; `[server]` with the keys of containers, a tier with those of all kinds.
fn table(one: &Section) -> Value {
    let docker = section("docker").filter(|_| one.id == "server");
    let of_docker = docker.iter().flat_map(|docker| {
        let keys = docker.keys.iter();
        keys.map(|key| key.only(docker.only))
    });
    let of_kinds = SECTIONS.iter().filter(|other| {
        let is_kind = other.id.starts_with("tier.");
        is_kind && one.id == "tier"
    });
    let of_kinds = of_kinds.flat_map(|kind| kind.keys.iter().copied());
    let own = one.keys.iter().copied();
    let keys: Vec<Key> = own.chain(of_docker).chain(of_kinds).collect();
    let mut properties = Map::new();
    let mut patterns = Map::new();
    for key in &keys {
        if key.name.starts_with('"') {
            patterns.insert("\\.".to_owned(), property(&[key]));
        } else if !properties.contains_key(key.name) {
            let namesakes: Vec<&Key> = keys.iter().filter(|k| k.name == key.name).collect();
            properties.insert(key.name.to_owned(), property(&namesakes));
        }
    }
    if one.id == "tier" {
        for name in other_lmcache_keys() {
            let about = format!("LMCache's own key: {LMCACHE_DOCS}");
            properties.insert(name.to_owned(), json!({ "description": about }));
        }
    }
    let mut table = Map::new();
    table.insert("type".to_owned(), json!("object"));
    table.insert("description".to_owned(), json!(one.about));
    table.insert("properties".to_owned(), Value::Object(properties));
    if !patterns.is_empty() {
        table.insert("patternProperties".to_owned(), Value::Object(patterns));
    }
    table.insert("additionalProperties".to_owned(), json!(false));
    let always = required(&keys, "");
    if !always.is_empty() {
        table.insert("required".to_owned(), json!(always));
    }
    let conditions = conditions(&keys);
    if !conditions.is_empty() {
        table.insert("allOf".to_owned(), Value::Array(conditions));
    }
    Value::Object(table)
}

/// The names that a table must hold where `only` is as it says.
fn required(keys: &[Key], only: &str) -> Vec<&'static str> {
    let must = |key: &&Key| key.only == only && key.default == Default::Required;
    keys.iter().filter(must).map(|key| key.name).collect()
}

/// What is required beside the value of another key.
fn conditions(keys: &[Key]) -> Vec<Value> {
    let mut all = Vec::new();
    let mut seen = Vec::new();
    for key in keys.iter().filter(|key| !key.only.is_empty()) {
        let names = required(keys, key.only);
        let Some((other, value)) = key.only.split_once(" = ") else {
            continue;
        };
        if seen.contains(&key.only) || names.is_empty() {
            continue;
        }
        seen.push(key.only);
        all.push(json!({
            "if": {
                "properties": { other: { "const": value.trim_matches('"') } },
                "required": [other],
            },
            "then": { "required": names },
        }));
    }
    all
}

/// The keys of one name, which differ in what another key must be.
fn property(keys: &[&Key]) -> Value {
    let mut property = keys.first().map_or_else(Map::new, |key| of_type(key.takes));
    let mut about: Vec<String> = keys.iter().map(|key| about(key)).collect();
    about.dedup();
    property.insert("description".to_owned(), json!(about.join("\n\n")));
    let [key] = keys else {
        return Value::Object(property);
    };
    if let Default::Value(text) = key.default
        && let Some(value) = value_of(text)
    {
        property.insert("default".to_owned(), value);
    }
    if let Some(value) = value_of(key.example) {
        property.insert("examples".to_owned(), json!([value]));
    }
    Value::Object(property)
}

fn about(key: &Key) -> String {
    let mut text = key.about.to_owned();
    if !key.unit.is_empty() {
        text.push_str(&format!(" In {}.", key.unit));
    }
    if let Default::Else(words) = key.default {
        text.push_str(&format!(" Default: {words}."));
    }
    if !key.only.is_empty() {
        text.push_str(&format!(" Only with `{}`.", key.only));
    }
    text
}

/// A value as TOML writes it, as JSON.
fn value_of(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}

fn of_type(takes: Type) -> Map<String, Value> {
    let reference = |id: &str| format!("#/$defs/{id}");
    let value = match takes {
        Type::Text => json!({ "type": "string" }),
        Type::Flag => json!({ "type": "boolean" }),
        Type::Count(least, u64::MAX) => json!({ "type": "integer", "minimum": least }),
        Type::Count(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Type::Positive => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Type::Within(least, f64::MAX) => json!({ "type": "number", "minimum": least }),
        Type::Within(least, most) => {
            json!({ "type": "number", "minimum": least, "maximum": most })
        }
        Type::OneOf(words) => json!({ "type": "string", "enum": words }),
        Type::List(item) => {
            json!({ "type": "array", "minItems": 1, "items": of_type(*item) })
        }
        Type::Either(types) => {
            let types: Vec<_> = types.iter().map(|one| of_type(*one)).collect();
            json!({ "anyOf": types })
        }
        Type::Section(id) => json!({ "$ref": reference(id) }),
        Type::Sections(id) => json!({ "type": "array", "items": { "$ref": reference(id) } }),
        Type::Named(id) => {
            json!({ "type": "object", "additionalProperties": { "$ref": reference(id) } })
        }
        Type::Foreign => json!({ "type": "object" }),
        Type::Texts => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Type::Any => json!({}),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
