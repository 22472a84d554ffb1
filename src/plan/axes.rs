//! `[matrix]`: the axes, and the partial cells that are taken out or put in.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::Value;
use toml::de::DeValue;

use super::lmcache_keys;
use super::problem::{list, suggestion};
use super::reader::{Located, TableReader};
use super::state::CacheState;
use super::tier::BASELINE;
use super::value::{describe, json, string, up_to};
use super::workload_spec::KIND_NAMES;
use crate::units::{Concurrency, GenLen, PromptLen};

/// The longest prompt or answer of a plan, tokens.
pub(crate) const MAX_TOKENS: u32 = 10_000_000;

/// Generated tokens where the plan names none.
const DEFAULT_GEN_LEN: u32 = 100;

/// Requests in flight where the plan names none.
const DEFAULT_CONCURRENCY: u32 = 1;

/// The label of the workload of a plan that defines none.
pub(crate) const DEFAULT_LABEL: &str = "rag";

/// What plans and screens call the axis that code and files call `label`; plans may call it so too.
pub(crate) const LABEL_ALIAS: &str = "workload";

/// The axes that every plan has.
pub(crate) const NAMES: [&str; 5] = ["tier", "prompt_len", "gen_len", "concurrency", "label"];

/// The most requests in flight.
const MAX_CONCURRENCY: u32 = 100_000;

/// A further axis: any dotted key of the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtraAxis {
    /// The dotted key, such as `server.args.max-num-batched-tokens`.
    pub key: String,
    /// Its place in the plan's text.
    pub span: Range<usize>,
    /// Its values.
    pub values: Vec<Located<Value>>,
}

/// Some coordinates of a cell. An absent one stands for every value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartialCell {
    /// Its place in the plan's text.
    pub span: Range<usize>,
    /// The tier's name.
    pub tier: Option<Located<String>>,
    /// The workload's label.
    pub label: Option<Located<String>>,
    /// Prompt length, tokens.
    pub prompt_len: Option<PromptLen>,
    /// Generated tokens.
    pub gen_len: Option<GenLen>,
    /// Requests in flight.
    pub concurrency: Option<Concurrency>,
    /// Values of further axes, by key, as they are shown.
    pub extra: Vec<(String, String)>,
}

/// `[matrix]`, checked: no axis is empty and no value stands twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axes {
    /// The table's place in the plan's text.
    pub span: Range<usize>,
    /// Tier names.
    pub tier: Vec<Located<String>>,
    /// Prompt lengths, tokens.
    pub prompt_len: Vec<PromptLen>,
    /// Generated tokens.
    pub gen_len: Vec<GenLen>,
    /// Requests in flight.
    pub concurrency: Vec<Concurrency>,
    /// Workload labels.
    pub label: Vec<Located<String>>,
    /// Whether the plan calls that axis `workload`.
    pub has_alias: bool,
    /// Further axes, in the plan's order.
    pub extra: Vec<ExtraAxis>,
    /// Partial cells taken out.
    pub exclude: Vec<PartialCell>,
    /// Partial cells put in.
    pub include: Vec<PartialCell>,
}

impl Axes {
    /// Reads `[matrix]` of a plan that defines these workloads.
    pub fn read(table: &TableReader<'_>, workloads: &[String]) -> Self {
        let label_key = label_key(table);
        let or = |key: &str, max: u32, default: u32| match table.value(key) {
            Some(_) => axis(table, key, up_to(max)),
            None => vec![implied(table, default)],
        };
        let mut axes = Self {
            span: table.span(),
            tier: axis(table, "tier", string),
            prompt_len: counts(axis(table, "prompt_len", up_to(MAX_TOKENS)), PromptLen::new),
            gen_len: counts(or("gen_len", MAX_TOKENS, DEFAULT_GEN_LEN), GenLen::new),
            concurrency: counts(
                or("concurrency", MAX_CONCURRENCY, DEFAULT_CONCURRENCY),
                Concurrency::new,
            ),
            label: labels(table, label_key, workloads),
            has_alias: label_key == LABEL_ALIAS,
            ..Self::default()
        };
        for key in table
            .keys()
            .into_iter()
            .filter(|key| key.value.contains('.'))
        {
            let values = axis(table, &key.value, further(&key.value));
            axes.extra.push(ExtraAxis {
                key: key.value,
                span: key.span,
                values,
            });
        }
        let partial = |table: &TableReader<'_>| PartialCell::read(table, &axes.extra);
        let exclude = table.tables("exclude").iter().map(partial).collect();
        let include = table.tables("include").iter().map(partial).collect();
        axes.exclude = exclude;
        axes.include = include;
        table.finish_with(|key| {
            let is_lmcache = lmcache_keys::in_process().contains(&key);
            is_lmcache
                .then(|| format!("a key of a tier is an axis as `\"tier.cpu.{key}\" = [...]`"))
        });
        axes
    }
}

impl PartialCell {
    /// Whether it is the baseline, at every coordinate.
    pub(crate) fn is_whole_baseline(&self) -> bool {
        let tier = self.tier.as_ref();
        tier.is_some_and(|tier| tier.value == BASELINE)
            && self.label.is_none()
            && self.prompt_len.is_none()
            && self.gen_len.is_none()
            && self.concurrency.is_none()
            && self.extra.is_empty()
    }

    fn read(table: &TableReader<'_>, further: &[ExtraAxis]) -> Self {
        let count = |key: &str, max| table.read(key, up_to(max)).map(|count| count.value);
        let cell = Self {
            span: table.span(),
            tier: table.read("tier", string),
            label: table.read(label_key(table), string),
            prompt_len: count("prompt_len", MAX_TOKENS).and_then(PromptLen::new),
            gen_len: count("gen_len", MAX_TOKENS).and_then(GenLen::new),
            concurrency: count("concurrency", MAX_CONCURRENCY).and_then(Concurrency::new),
            extra: further
                .iter()
                .filter_map(|axis| Some((axis.key.clone(), value_of(table, axis)?)))
                .collect(),
        };
        if table.keys().is_empty() {
            table.problem(
                format!("{} is empty", table.title()),
                "name at least one axis",
            );
        }
        table.finish();
        cell
    }
}

/// The value that a partial cell names on a further axis, which must contain it.
fn value_of(table: &TableReader<'_>, axis: &ExtraAxis) -> Option<String> {
    let located = table.read(&axis.key, further(&axis.key))?;
    let value = shown(&located.value);
    let on_axis: Vec<String> = axis.values.iter().map(|item| shown(&item.value)).collect();
    if !on_axis.is_empty() && !on_axis.contains(&value) {
        let names: Vec<&str> = on_axis.iter().map(String::as_str).collect();
        table.problems().add(
            located.span,
            format!(
                "`{value}` in {} is not on axis `{}`",
                table.title(),
                axis.key
            ),
            suggestion(&value, &names),
        );
    }
    Some(value)
}

/// Reads a value of the further axis `key`. Cache states get the words that files have for them: a cell is
/// the same in whichever words its plan writes them.
fn further(key: &str) -> impl Fn(&DeValue<'_>) -> Result<Value, String> {
    let is_states = key == "run.states";
    move |value| {
        let mut value = json(value)?;
        if let Some(states) = value.as_array_mut().filter(|_| is_states) {
            for state in states {
                let known = state.as_str().and_then(CacheState::from_name);
                *state = known.map_or(state.take(), |known| known.name().into());
            }
        }
        Ok(value)
    }
}

/// A value of a further axis, as coordinates show it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn counts<T>(values: Vec<Located<u32>>, make: impl Fn(u32) -> Option<T>) -> Vec<T> {
    values
        .into_iter()
        .filter_map(|located| make(located.value))
        .collect()
}

/// A value that the plan does not write.
fn implied<T>(table: &TableReader<'_>, value: T) -> Located<T> {
    Located {
        value,
        span: table.span(),
    }
}

/// The key that holds labels: `label`, or `workload` where the table has that.
fn label_key(table: &TableReader<'_>) -> &'static str {
    match (table.value("label"), table.value(LABEL_ALIAS)) {
        (None, Some(_)) => LABEL_ALIAS,
        (Some(_), Some(alias)) => {
            let message = format!("`label` and `{LABEL_ALIAS}` are one axis");
            table.problems().add(alias.span, message, "remove one");
            "label"
        }
        _ => "label",
    }
}

/// The axis `label`, which only a plan of several workloads has to write.
fn labels(table: &TableReader<'_>, key: &str, workloads: &[String]) -> Vec<Located<String>> {
    if table.value(key).is_some() {
        return axis(table, key, string);
    }
    match workloads {
        [] => vec![implied(table, DEFAULT_LABEL.to_owned())],
        [one] => vec![implied(table, one.clone())],
        several => {
            let names: Vec<String> = several.iter().map(|name| format!("\"{name}\"")).collect();
            table.problem(
                "axis `workload` is missing in [matrix], and the plan has several workloads",
                format!("add `workload = [{}]`, or some of them", names.join(", ")),
            );
            Vec::new()
        }
    }
}

/// Reads one axis: an array, not empty, no value twice.
fn axis<T: std::fmt::Debug + std::fmt::Display>(
    table: &TableReader<'_>,
    key: &str,
    read: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> Vec<Located<T>> {
    let Some(located) = table.value(key) else {
        table.problem(
            format!("axis `{key}` is missing in [matrix]"),
            format!("add `{key} = [...]`"),
        );
        return Vec::new();
    };
    if !located.value.is_array() {
        let message = format!("axis `{key}` must be an array");
        table.problems().add(
            located.span,
            message,
            format!("this is {}", describe(located.value)),
        );
        return Vec::new();
    }
    let Some(values) = table.list(key, read) else {
        return Vec::new();
    };
    let mut seen = HashSet::new();
    for value in &values.value {
        // A number and a text that reads like it differ: a text is quoted.
        if !seen.insert(format!("{:?}", value.value)) {
            let message = format!("`{}` stands twice on axis `{key}`", value.value);
            table.problems().add(
                value.span.clone(),
                message,
                "remove one; use `repeats` to repeat",
            );
        }
    }
    values.value
}

/// Reports a name on an axis that the plan does not define.
pub(crate) fn check_names(
    table: &TableReader<'_>,
    names: &[Located<String>],
    defined: &[&str],
    what: &str,
    how: &str,
) {
    let known: HashSet<&str> = defined.iter().copied().collect();
    for name in names
        .iter()
        .filter(|name| !known.contains(name.value.as_str()))
    {
        let message = format!("{what} `{}` is not defined", name.value);
        let hint = match (how, name.value.as_str(), defined) {
            ("tier", "gpu" | "none" | "vram" | "hbm", _) => "GPU only is `baseline`".to_owned(),
            ("workload", name, []) => format!(
                "add `[workload.{name}]` with `kind = \"shared-prefix\"` (also: {})",
                list(&KIND_NAMES[1..])
            ),
            (how, name, defined) => {
                format!("add [{how}.{name}], or: {}", suggestion(name, defined))
            }
        };
        table.problems().add(name.span.clone(), message, hint);
    }
}
