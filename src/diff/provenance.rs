//! What numbers rest on, flat: by dotted name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::matrix::inputs::flatten;

/// What a manifest holds besides facts.
const NO_FACTS: [&str; 3] = ["cells", "settings_from", "format"];

/// Names that differ between any two runs and explain no number.
const VOLATILE: [&str; 8] = [
    "run",
    "attempt",
    "ended",
    "started_at",
    "finished_at",
    "elapsed_s",
    "plan.blake3",
    "plan.file",
];

/// Longer values are shown by their hash: a rendered file is identified, not printed.
const MAX_SHOWN_CHARS: usize = 120;

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Difference {
    /// Its dotted name.
    pub name: String,
    /// What it is on the first side; absent where that side does not record it.
    pub a: Option<String>,
    /// What it is on the second side.
    pub b: Option<String>,
}

/// A manifest and the plan's values as facts.
pub(crate) fn facts(manifest: &Value, plan: &Value) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    flatten("", manifest, &mut facts);
    facts.retain(|name, _| !within(name, &NO_FACTS));
    flatten("plan", plan, &mut facts);
    facts
}

/// Whether `name` is one of these, or a field of one.
fn within(name: &str, names: &[&str]) -> bool {
    names.iter().any(|outer| {
        let rest = name.strip_prefix(outer);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// What is not the same on both sides, by name. What only one side has, such as a fact that an
/// older version did not record, is shown too: it is not known to be the same.
pub(super) fn differences(
    a: &BTreeMap<String, String>,
    b: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    // An unset value and one that a side does not know are treated alike.
    let set = |side: &BTreeMap<String, String>, name: &str| {
        let value = side.get(name).map(String::as_str).unwrap_or_default();
        let empty = ["", "null", "[]", "{}"].contains(&value);
        (!empty).then(|| value.to_owned())
    };
    let differs = |name: &str| set(a, name) != set(b, name);
    // A cell's identity repeats the plan's values.
    let repeated = |name: &str| {
        let plan = name.strip_prefix("identity.");
        plan.is_some_and(|plan| plan.starts_with("plan.") && differs(plan))
    };
    names
        .into_iter()
        .filter(|name| differs(name) && !within(name, &VOLATILE) && !repeated(name))
        .map(|name| Difference {
            name: name.clone(),
            a: set(a, name).map(|value| short(&value)),
            b: set(b, name).map(|value| short(&value)),
        })
        .collect()
}

fn short(value: &str) -> String {
    if value.len() > MAX_SHOWN_CHARS || value.contains('\n') {
        let hash = blake3::hash(value.as_bytes()).to_hex();
        format!("{} bytes, blake3 {}", value.len(), &hash[..12])
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn facts_that_explain_a_number_are_listed_and_others_are_left_out() {
        let manifest = json!({
            "run": "x", "started_at": "now", "cells": ["a"], "labrun": {"version": "0.1.0"},
            "plan": {"name": "p", "blake3": "ff", "commit": "abc"}, "gpus": [{"name": "H100"}],
            "settings_from": {"a.b": "x"}, "host": {"cpus": 2, "cpu": null},
        });
        let facts = facts(&manifest, &json!({"run": {"requests": 5}, "model": "m"}));
        let lines: Vec<_> = facts.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            lines,
            [
                r#"gpus=[{"name":"H100"}]"#,
                "host.cpus=2",
                "labrun.version=0.1.0",
                "plan.blake3=ff",
                "plan.commit=abc",
                "plan.model=m",
                "plan.name=p",
                "plan.run.requests=5",
                "run=x",
                "started_at=now",
            ]
        );
    }

    #[test]
    fn only_differences_are_listed() {
        let side = |text: &str| -> BTreeMap<String, String> {
            let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        let a = side("a=1 b=2 c=3 run=x identity.plan.x=1 plan.x=1 ended.at=5");
        let listed = differences(&a, &side("a=1 b=4 d=5 run=y identity.plan.x=2 plan.x=2"));
        let listed: Vec<_> = listed
            .into_iter()
            .map(|d| (d.name, d.a.unwrap_or_default(), d.b.unwrap_or_default()))
            .collect();
        let row = |n: &str, a: &str, b: &str| (n.to_owned(), a.to_owned(), b.to_owned());
        assert_eq!(
            listed,
            [
                row("b", "2", "4"),
                row("c", "3", ""),
                row("d", "", "5"),
                row("plan.x", "1", "2")
            ]
        );
        let long = differences(&side(&format!("a={}", "x".repeat(500))), &side("a=1"));
        assert!(
            long[0]
                .a
                .as_ref()
                .unwrap()
                .starts_with("500 bytes, blake3 ")
        );
    }
}
