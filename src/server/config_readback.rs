//! Compares the configuration that LMCache reports with the one that it was given.
//!
//! LMCache only warns of an unknown key and uses its default. A variable in its environment overrides
//! its file. Only its own report proves the configuration.

use crate::foreign::without_colours;
use crate::plan::lmcache_keys::KEYS_OF_EVERY_ADAPTER;

use serde_json::{Map, Value};

/// The line of the in-process engine that ends in its whole configuration, a Python dict.
const ENGINE_LINE: &str = "Creating LMCacheEngine with config: ";

/// The in-process engine's configuration, from its log; the last one where it was started twice.
pub(crate) fn from_log(log: &str) -> Option<Map<String, Value>> {
    let line = log.lines().rev().find(|line| line.contains(ENGINE_LINE))?;
    let line = without_colours(line);
    let (_, dict) = line.split_once(ENGINE_LINE)?;
    let mut python = Python { rest: dict };
    match python.value()? {
        Value::Object(config) => Some(config),
        _ => None,
    }
}

/// Keys of an in-process file that did not take, one sentence each.
pub(crate) fn differences(given: &Value, runs_with: &Map<String, Value>) -> Vec<String> {
    let Value::Object(given) = given else {
        return Vec::new();
    };
    given
        .iter()
        .filter_map(|(key, given)| match runs_with.get(key) {
            None => Some(format!("it does not know `{key}`")),
            Some(now) if same(key, given, now) => None,
            Some(now) => Some(format!("`{key}` is {now}, not {given}")),
        })
        .collect()
}

/// Whether `now` is what LMCache makes of `given`. It converts each value of its file to the type of
/// the key (`lmcache/v1/config_base.py`), and the type of a key is that of its value in `now`.
fn same(key: &str, given: &Value, now: &Value) -> bool {
    match (given, now) {
        (given, Value::Bool(now)) => boolean(given) == Some(*now),
        (given, Value::Number(now)) => number(given)
            .zip(now.as_f64())
            .is_some_and(|(given, now)| nearly(given, now)),
        (Value::Array(given), Value::Array(now)) => {
            given.len() == now.len()
                && given
                    .iter()
                    .zip(now)
                    .all(|(given, now)| same(key, given, now))
        }
        // A list may be written as one value, or as text with commas.
        (Value::String(given), Value::Array(now)) => {
            let items: Vec<Value> = parts(given).map(Value::from).collect();
            items.len() == now.len()
                && items
                    .iter()
                    .zip(now)
                    .all(|(given, now)| same(key, given, now))
        }
        (Value::Number(_), Value::Array(now)) => {
            matches!(now.as_slice(), [now] if same(key, given, now))
        }
        // It takes a table as JSON too.
        (Value::String(given), Value::Object(now)) => {
            serde_json::from_str::<Map<String, Value>>(given)
                .is_ok_and(|given| unconverted(&given, now))
        }
        (Value::Object(given), Value::Object(now)) => unconverted(given, now),
        (Value::String(given), Value::String(now)) if key == "local_disk" => {
            parts(given).map(folder).eq(parts(now).map(folder))
        }
        // An empty path, or an empty list, is none.
        (Value::String(given), Value::Null) if key == "local_disk" => parts(given).next().is_none(),
        // It masks a password when it shows a URL.
        (Value::String(given), Value::String(now)) if given.contains('@') => {
            let host = |text: &str| text.rsplit('@').next().unwrap_or_default().to_owned();
            host(given) == host(now)
        }
        (Value::String(given), Value::String(now)) => given.eq_ignore_ascii_case(now),
        (Value::Bool(given), Value::String(now)) => given.to_string().eq_ignore_ascii_case(now),
        (Value::Number(given), Value::String(now)) => given
            .as_f64()
            .zip(now.parse().ok())
            .is_some_and(|(given, now)| nearly(given, now)),
        (given, now) => given == now,
    }
}

/// Compares `extra_config`, which LMCache passes on as it is: each given key has its unconverted value.
fn unconverted(given: &Map<String, Value>, now: &Map<String, Value>) -> bool {
    given.iter().all(|(key, given)| {
        now.get(key).is_some_and(|now| match (given, now) {
            (Value::Object(given), Value::Object(now)) => unconverted(given, now),
            (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => {
                same(key, given, now)
            }
            (given, now) => given == now,
        })
    })
}

/// The value of a key that is on or off, also in the spellings of YAML 1.1, which LMCache reads. It
/// reads any other word as off: that counts as a difference.
fn boolean(given: &Value) -> Option<bool> {
    match given {
        Value::Bool(given) => Some(*given),
        Value::Number(_) | Value::String(_) => {
            let text = given
                .as_str()
                .map_or_else(|| given.to_string(), str::to_ascii_lowercase);
            match text.trim() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            }
        }
        _ => None,
    }
}

fn number(given: &Value) -> Option<f64> {
    match given {
        Value::Number(given) => given.as_f64(),
        // Python reads `1_000` as a number.
        Value::String(given) => given.trim().replace('_', "").parse().ok(),
        _ => None,
    }
}

fn nearly(given: f64, now: f64) -> bool {
    (given - now).abs() <= 1e-9 * given.abs().max(1.0)
}

/// The items of text with commas.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn folder(text: &str) -> &str {
    let text = text.strip_prefix("file://").unwrap_or(text);
    text.trim_end_matches('/')
}

/// Arguments of an `lmcache server` that did not take, from its `GET /config`.
pub(crate) fn server_differences(arguments: &[String], config: &Value) -> Vec<String> {
    let storage = &config["storage_manager"];
    let l1 = &storage["l1_manager_config"];
    let gib = |value: &Value| value.as_f64().map(|bytes| bytes / f64::from(1 << 30));
    let mut wrong = Vec::new();
    for pair in arguments.windows(2) {
        let [name, given] = pair else { continue };
        let number = |now: Option<f64>| match (given.parse::<f64>(), now) {
            (Ok(given), Some(now)) => Some(((given - now).abs() < 1e-6, now.to_string())),
            _ => None,
        };
        let word = |now: &Value| {
            let now = now.as_str()?;
            Some((given.eq_ignore_ascii_case(now), now.to_owned()))
        };
        let compared = match name.as_str() {
            "--chunk-size" => number(config["mp"]["chunk_size"].as_f64()),
            "--l1-size-gb" => number(gib(&l1["memory_config"]["size_in_bytes"])),
            "--eviction-policy" => word(&l1["eviction"]["eviction_policy"]),
            "--l2-store-policy" => word(&storage["store_policy"]),
            "--l2-prefetch-policy" => word(&storage["prefetch_policy"]),
            "--l2-adapter" => {
                wrong.extend(adapter_differences(given, storage));
                continue;
            }
            _ => continue,
        };
        if let Some((false, now)) = compared {
            wrong.push(format!("`{name}` is {now}, not {given}"));
        }
    }
    wrong
}

/// Types of adapters that report every key they accept, under the same name.
const ADAPTERS_REPORTING_ALL_KEYS: [&str; 5] = ["fs", "fs_native", "mock", "resp", "valkey"];

/// How the running adapters differ from an `--l2-adapter` argument. LMCache silently ignores a key that
/// it does not know.
fn adapter_differences(given: &str, storage: &Value) -> Option<String> {
    let given: Map<String, Value> = serde_json::from_str(given).ok()?;
    let adapters = storage["l2_adapter_config"]["adapters"].as_array()?;
    let kind = given
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let ignored = given.keys().find(|key| {
        // LMCache before 0.5.1 shows an adapter as text.
        let reports = |adapter: &Value| !adapter.is_object() || adapter.get(key.as_str()).is_some();
        ADAPTERS_REPORTING_ALL_KEYS.contains(&kind)
            && !KEYS_OF_EVERY_ADAPTER.contains(&key.as_str())
            && !adapters.iter().any(reports)
    });
    if let Some(key) = ignored {
        return Some(format!(
            "its L2 adapter `{kind}` knows no `{key}`, and ignores it"
        ));
    }
    let holds = |adapter: &Value| {
        given.iter().all(|(key, given)| match adapter.get(key) {
            // A key that an adapter does not report cannot be compared.
            None => true,
            Some(now) => same(key, given, now),
        })
    };
    (!adapters.iter().any(holds)).then(|| {
        let shown = serde_json::to_string(adapters).unwrap_or_default();
        format!("no L2 adapter is configured as given; it has {shown}")
    })
}

/// Reads Python literals: what `repr` writes of a dict of plain values.
struct Python<'a> {
    rest: &'a str,
}

impl Python<'_> {
    fn eat(&mut self, text: &str) -> bool {
        self.rest = self.rest.trim_start();
        let Some(rest) = self.rest.strip_prefix(text) else {
            return false;
        };
        self.rest = rest;
        true
    }

    fn value(&mut self) -> Option<Value> {
        for (word, value) in [
            ("None", Value::Null),
            ("True", Value::Bool(true)),
            ("False", Value::Bool(false)),
        ] {
            if self.eat(word) {
                return Some(value);
            }
        }
        if self.eat("{") {
            return self.dict();
        }
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.eat(open) {
                return self.list(close);
            }
        }
        for quote in ['\'', '"'] {
            if self.eat(&quote.to_string()) {
                return self.string(quote);
            }
        }
        self.word()
    }

    fn dict(&mut self) -> Option<Value> {
        let mut map = Map::new();
        while !self.eat("}") {
            let key = match self.value()? {
                Value::String(key) => key,
                other => other.to_string(),
            };
            if !self.eat(":") {
                return None;
            }
            map.insert(key, self.value()?);
            self.eat(",");
        }
        Some(Value::Object(map))
    }

    fn list(&mut self, close: &str) -> Option<Value> {
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.value()?);
            self.eat(",");
        }
        Some(Value::Array(items))
    }

    fn string(&mut self, quote: char) -> Option<Value> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.push(chars.next()?.1),
                c if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Some(Value::String(text));
                }
                c => text.push(c),
            }
        }
        None
    }

    /// A number; any other word becomes text.
    fn word(&mut self) -> Option<Value> {
        let end = self
            .rest
            .find([',', '}', ']', ')'])
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let word = word.trim();
        if word.is_empty() {
            return None;
        }
        let number = serde_json::from_str::<serde_json::Number>(word);
        Some(number.map_or_else(|_| Value::String(word.to_owned()), Value::Number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn values_are_compared_as_lmcache_converts_them() {
        for (key, given, now) in [
            ("p2p_init_ports", json!(8200), json!([8200])),
            ("p2p_init_ports", json!("8200"), json!([8200])),
            ("p2p_init_ports", json!("8200, 8201"), json!([8200, 8201])),
            ("p2p_init_ports", json!(["8200", 8201]), json!([8200, 8201])),
            ("blend_recompute_ratios", json!(0.15), json!([0.15])),
            (
                "blend_recompute_ratios",
                json!("0.15,0.2"),
                json!([0.15, 0.2]),
            ),
            ("storage_plugins", json!("a, b"), json!(["a", "b"])),
            (
                "retrieve_locations",
                json!(["LocalCPUBackend"]),
                json!(["LocalCPUBackend"]),
            ),
            ("local_cpu", json!("false"), json!(false)),
            ("local_cpu", json!(" True "), json!(true)),
            ("local_cpu", json!(1), json!(true)),
            ("local_cpu", json!("yes"), json!(true)),
            ("local_cpu", json!("off"), json!(false)),
            ("chunk_size", json!("256"), json!(256)),
            ("chunk_size", json!("1_024"), json!(1024)),
            ("max_local_cpu_size", json!(8), json!(8.0)),
            ("max_local_cpu_size", json!("8"), json!(8.0)),
            ("lmcache_instance_id", json!(17), json!("17")),
            ("cache_policy", json!("lru"), json!("LRU")),
            ("local_disk", json!("file:///a/,file:///b"), json!("/a/,/b")),
            ("local_disk", json!("file:///a/ , /b/"), json!("/a,/b")),
            ("local_disk", json!(""), json!(null)),
            (
                "remote_url",
                json!("redis://:pw@h:1"),
                json!("redis://:***@h:1"),
            ),
            (
                "extra_config",
                json!("{\"use_odirect\": true}"),
                json!({"use_odirect": true, "x": 1}),
            ),
        ] {
            assert!(same(key, &given, &now), "{key}: {given} {now}");
        }
    }

    #[test]
    fn another_value_is_a_difference() {
        for (key, given, now) in [
            ("p2p_init_ports", json!(8200), json!([8201])),
            ("p2p_init_ports", json!(8200), json!([8200, 8201])),
            ("p2p_init_ports", json!("8200,8201"), json!([8200])),
            ("p2p_init_ports", json!(8200), json!(null)),
            ("blend_recompute_ratios", json!(0.15), json!([0.2])),
            ("local_cpu", json!("false"), json!(true)),
            // LMCache reads text that it does not know as off.
            ("local_cpu", json!("yes"), json!(false)),
            ("local_cpu", json!("y"), json!(false)),
            ("local_cpu", json!(7), json!(false)),
            ("chunk_size", json!("big"), json!(null)),
            ("chunk_size", json!(256.5), json!(256)),
            ("max_local_cpu_size", json!(8), json!(5.0)),
            ("local_disk", json!("file:///a,file:///b"), json!("/a")),
            ("local_disk", json!("file:///a,file:///b"), json!("/b,/a")),
            (
                "extra_config",
                json!({"use_odirect": "true"}),
                json!({"use_odirect": true}),
            ),
            ("extra_config", json!({"n": [1]}), json!({"n": 1})),
            (
                "extra_config",
                json!("use_odirect"),
                json!({"use_odirect": true}),
            ),
        ] {
            assert!(!same(key, &given, &now), "{key}: {given} {now}");
        }
    }

    /// What LMCache makes of a value, by the type of its key, as its own converters do it.
    fn converted(to: usize, number: i64, flag: bool, word: &str) -> [Value; 2] {
        match to {
            0 => [json!(number), json!([number])],
            1 => [json!(number.to_string()), json!([number])],
            2 => [json!(format!("{number},{number}")), json!([number, number])],
            3 => [json!(number.to_string()), json!(number)],
            4 => [json!(flag.to_string()), json!(flag)],
            5 => [json!(u8::from(flag)), json!(flag)],
            6 => [json!(number), json!(number.to_string())],
            7 => [json!(word), json!([word])],
            _ => [
                json!(format!("file:///{word}/,/{word}2")),
                json!(format!("/{word}/,/{word}2")),
            ],
        }
    }

    proptest! {
        #[test]
        fn a_converted_value_is_equal_and_another_value_differs(
            to in 0usize..9, number in 0i64..1 << 40, flag: bool, word in "[a-z]{1,8}", other in 0i64..1 << 40,
        ) {
            let key = if to == 8 { "local_disk" } else { "some_key" };
            let [given, now] = converted(to, number, flag, &word);
            prop_assert!(same(key, &given, &now), "{given} {now}");
            let [_, wrong] = converted(to, other, !flag, &format!("{word}x"));
            prop_assume!(other != number);
            prop_assert!(!same(key, &given, &wrong), "{given} {wrong}");
        }
    }

    const LOG: &str = "(EngineCore pid=1) [x] LMCache INFO: Creating LMCacheEngine with config: \
        {'chunk_size': 256, 'local_cpu': False, 'max_local_cpu_size': 8.0, 'local_disk': '/d/', \
        'remote_url': None, 'extra_config': {'use_odirect': True, 'x': \"it's\"}, \
        'gds_path': [], 'odd': <Enum.A: 1>, 'nixl': (1, -2.5e3)} (cache_engine.py:149:lmcache)";

    #[test]
    fn a_python_dict_is_read_whole() {
        let config = from_log(LOG).unwrap();
        assert_eq!(config["max_local_cpu_size"], 8.0);
        assert_eq!(config["remote_url"], Value::Null);
        assert_eq!(config["extra_config"]["x"], "it's");
        assert_eq!(config["nixl"], json!([1, -2500.0]));
        assert_eq!(from_log("nothing"), None);
    }

    #[test]
    fn a_knob_that_did_not_take_is_named() {
        let runs_with = from_log(LOG).unwrap();
        let given = json!({
            "chunk_size": 256, "local_cpu": false, "max_local_cpu_size": 8,
            "local_disk": "file:///d/", "extra_config": {"use_odirect": true},
        });
        assert_eq!(differences(&given, &runs_with), [""; 0]);
        let given = json!({"chunk_size": 128, "local_cpu_": true, "extra_config": {"n": 1}});
        let wrong = differences(&given, &runs_with);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(
            wrong[0].contains("`chunk_size` is 256, not 128"),
            "{wrong:?}"
        );
        assert!(wrong[1].contains("does not know `local_cpu_`"), "{wrong:?}");
    }

    #[test]
    fn a_servers_answer_is_compared_with_its_arguments() {
        let config = json!({
            "mp": {"chunk_size": 256},
            "storage_manager": {
                "l1_manager_config": {
                    "memory_config": {"size_in_bytes": 1_u64 << 30},
                    "eviction": {"eviction_policy": "LRU"},
                },
                "store_policy": "default",
                "l2_adapter_config": {"adapters": [{"base_path": "/d", "use_odirect": false}]},
            },
        });
        let arguments = |adapter: &str, chunk: &str, policy: &str| {
            let all = [
                "--chunk-size",
                chunk,
                "--l1-size-gb",
                "1.0",
                "--l2-store-policy",
                policy,
                "--l2-adapter",
                adapter,
            ];
            all.map(str::to_owned).to_vec()
        };
        let good = r#"{"type":"fs","base_path":"/d","use_odirect":false}"#;
        let wrong = server_differences(&arguments(good, "256", "default"), &config);
        assert_eq!(wrong, [""; 0]);
        let bad = r#"{"type":"fs","base_path":"/d","use_odirect":true}"#;
        let wrong = server_differences(&arguments(bad, "512", "skip_l1"), &config);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[1].contains("default, not skip_l1"), "{wrong:?}");
        assert!(wrong[2].contains("no L2 adapter"), "{wrong:?}");
        let unknown = r#"{"type":"fs","base_path":"/d","use_o_direct":true}"#;
        let wrong = server_differences(&arguments(unknown, "256", "default"), &config);
        assert_eq!(
            wrong,
            ["its L2 adapter `fs` knows no `use_o_direct`, and ignores it"]
        );
        // LMCache 0.5.0 shows adapters as text.
        let mut opaque = config.clone();
        opaque["storage_manager"]["l2_adapter_config"]["adapters"] = json!(["<FSL2Adapter...>"]);
        let wrong = server_differences(&arguments(unknown, "256", "default"), &opaque);
        assert_eq!(wrong, [""; 0]);
        // A key that an adapter of another type does not report cannot be compared.
        let other = r#"{"type":"raw_block","base_path":"/d","use_uring":true}"#;
        let wrong = server_differences(&arguments(other, "256", "default"), &config);
        assert_eq!(wrong, [""; 0]);
    }
}
