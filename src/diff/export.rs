//! A diff for programs: JSON and CSV.

use serde_json::{Map, Value, json};

use crate::csv_table::push_row;
use crate::diff::judge::Judged;
use crate::diff::rule::Fired;
use crate::diff::{CellKey, Diff, Measure};
use crate::stats::Interval;

impl Diff {
    /// As JSON, everything in it.
    pub(crate) fn json(&self, fired: &[Fired]) -> Value {
        let overall: Map<String, Value> = self
            .overall
            .iter()
            .map(|(measure, o)| {
                let value = json!({
                    "a": o.a, "b": o.b, "change_percent": (o.b / o.a - 1.0) * 100.0,
                    "cells": o.cells, "better": o.better, "worse": o.worse,
                });
                (measure.to_string(), value)
            })
            .collect();
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let mut value = coordinates(&row.key);
                value["source"] = json!(row.source);
                let numbers = row.numbers.iter();
                value["measures"] = numbers
                    .map(|(m, j)| (m.to_string(), number(*m, j)))
                    .collect();
                value
            })
            .collect();
        let left_out = self.left_out.iter().map(|left| {
            let mut value = coordinates(&left.key);
            value["side"] = json!(["a", "b"][left.side.min(1)]);
            value["reason"] = json!(left.reason);
            value["whole"] = json!(left.whole);
            value
        });
        let side = |at: usize| json!({"name": self.names[at], "origin": self.origins[at]});
        json!({
            "a": side(0),
            "b": side(1),
            "rows": rows,
            "geomean": overall,
            "only_in_a": self.missing.iter().map(coordinates).collect::<Vec<_>>(),
            "only_in_b": self.new.iter().map(coordinates).collect::<Vec<_>>(),
            "left_out": left_out.collect::<Vec<_>>(),
            "provenance": self.differences.iter()
                .map(|d| json!({"name": d.name, "a": d.a, "b": d.b})).collect::<Vec<_>>(),
            "notes": self.notes,
            "failed": fired.iter()
                .map(|f| json!({"rule": f.rule, "why": f.why})).collect::<Vec<_>>(),
        })
    }

    /// As CSV, one row a cell and measure.
    pub(crate) fn csv(&self) -> String {
        let axes: std::collections::BTreeSet<&str> = self
            .rows
            .iter()
            .flat_map(|row| row.key.place.extra.keys().map(String::as_str))
            .collect();
        let coordinates: Vec<&str> = CellKey::KEYS.into_iter().chain(axes).collect();
        let mut head = coordinates.clone();
        head.extend(["source", "measure", "unit"]);
        head.extend(NUMBERS);
        let mut text = String::new();
        push_row(&mut text, &head);
        for row in &self.rows {
            for measure in &self.measures {
                let Some(judged) = row.numbers.get(measure) else {
                    continue;
                };
                let value = |name: &&str| row.key.get(name).unwrap_or_default();
                let mut fields: Vec<String> = coordinates.iter().map(value).collect();
                fields.push(row.source.name().to_owned());
                fields.push(measure.to_string());
                fields.push(measure.unit().sign().to_owned());
                let of = number(*measure, judged);
                fields.extend(NUMBERS.iter().map(|name| field(&of[*name])));
                push_row(&mut text, &fields);
            }
        }
        text
    }
}

const NUMBERS: [&str; 20] = [
    "a",
    "a_low",
    "a_high",
    "b",
    "b_low",
    "b_high",
    "change_percent",
    "change_low_percent",
    "change_high_percent",
    "outcome",
    "p",
    "p_corrected",
    "test",
    "cliffs_delta",
    "least_change_percent",
    "a_repeats",
    "b_repeats",
    "a_n",
    "b_n",
    "better",
];

fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other
            .as_f64()
            .filter(|v| v.fract() != 0.0)
            .map_or_else(|| other.to_string(), |v| format!("{v:.6}")),
    }
}

fn coordinates(key: &CellKey) -> Value {
    let place = &key.place;
    json!({
        "label": place.label, "tier": key.tier, "state": place.state,
        "concurrency": place.concurrency, "prompt_len": place.prompt_len,
        "gen_len": place.gen_len, "axes": place.extra,
    })
}

fn number(measure: Measure, judged: &Judged) -> Value {
    let low = |interval: Option<Interval>| interval.map(|interval| interval.low);
    let high = |interval: Option<Interval>| interval.map(|interval| interval.high);
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    json!({
        "a": judged.a, "a_low": low(judged.intervals.0), "a_high": high(judged.intervals.0),
        "b": judged.b, "b_low": low(judged.intervals.1), "b_high": high(judged.intervals.1),
        "change_percent": judged.ratio.map(percent),
        "change_low_percent": judged.ratio_interval.map(|(low, _)| percent(low)),
        "change_high_percent": judged.ratio_interval.map(|(_, high)| percent(high)),
        "outcome": judged.outcome.name(),
        "p": judged.p, "p_corrected": judged.adjusted_p, "test": judged.basis.name(),
        "cliffs_delta": judged.delta,
        "least_change_percent": judged.floor.map(|floor| floor * 100.0),
        "a_repeats": judged.repeats.0, "b_repeats": judged.repeats.1,
        "a_n": judged.n.0, "b_n": judged.n.1,
        "unit": measure.unit().sign(), "better": measure.better().name(),
    })
}
