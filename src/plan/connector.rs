//! A tier of a connector that labrun does not know: what vLLM gets for it, what runs beside vLLM,
//! and what shows that it served.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml::de::DeValue;

use super::check;
use super::placeholder::{self, Placeholder};
use super::reader::{Located, TableReader};
use super::secret;
use super::server::{MANAGED_ARGS, read_args, read_env, seconds};
use super::value::{boolean, json, positive, string};

/// How long a side process may take to be ready where the plan does not say it, seconds.
const SIDE_READY_S: u32 = 60;

/// What a plan says of a tier of the kind `connector`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectorSpec {
    /// The value of `--kv-transfer-config`, as vLLM gets it but for placeholders.
    pub kv_transfer_config: Map<String, Value>,
    /// Arguments of `vllm serve` for this tier alone, without the leading dashes.
    pub args: Map<String, Value>,
    /// Environment of vLLM for this tier alone.
    pub env: BTreeMap<String, String>,
    /// What runs beside vLLM, in the order of its start.
    pub sides: Vec<SideSpec>,
    /// What shows what it loaded.
    pub watch: WatchSpec,
    /// What empties its RAM before a pass that the tier is to serve.
    pub reset: Option<ResetSpec>,
    /// Whether what it holds outlives a restart of vLLM and of all that runs beside it.
    pub outlives_restart: bool,
}

/// A side process: it runs beside vLLM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SideSpec {
    /// Its name: in messages, and in that of its log.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// What shows that it is ready.
    pub ready: Ready,
    /// Longest wait for that.
    pub ready_timeout: Duration,
}

/// What shows that a side process is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// It listens at this port of 127.0.0.1.
    Port(String),
    /// This URL answers with success.
    Url(String),
    /// Its log holds this text.
    Line(String),
}

/// What shows what a connector's tier loaded. Each that is named is to have carried all of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchSpec {
    /// The folder of its files: vLLM and the side processes read them from disk.
    pub disk: Option<String>,
    /// The URL of its Redis.
    pub redis: Option<String>,
    /// The TCP port of its store, on this machine or another. Cells of before it have none in their
    /// identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Whether it is RAM of this machine, so that bytes over PCIe show its loads.
    pub pcie: bool,
    /// Where its counters are exposed; absent: vLLM's `/metrics`.
    pub metrics: Option<String>,
    /// Its counters.
    pub counters: CounterNames,
}

/// Names of Prometheus counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterNames {
    /// Bytes that it loaded.
    pub loaded_bytes: Option<String>,
    /// Bytes that it stored.
    pub stored_bytes: Option<String>,
    /// Tokens that it found.
    pub hit_tokens: Option<String>,
}

/// A request that empties RAM before the tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResetSpec {
    /// Where it is posted.
    pub url: String,
    /// Its body, sent as JSON; absent: an empty one.
    pub body: Option<Value>,
}

impl ConnectorSpec {
    /// The connector's name: its class, as vLLM knows it.
    pub fn name(&self) -> &str {
        let name = self.kv_transfer_config.get(CONNECTOR);
        name.and_then(Value::as_str).unwrap_or_default()
    }

    /// The names of all ports that its texts ask for.
    pub(crate) fn ports(&self) -> BTreeSet<&str> {
        let asked = self.asking().into_iter().chain(self.setting());
        asked.filter_map(port_name).collect()
    }

    /// Placeholders in what is started: whoever listens at a port gets it here.
    fn setting(&self) -> Vec<Placeholder<'_>> {
        let tables = [&self.kv_transfer_config, &self.args];
        let mut all: Vec<_> = tables
            .into_iter()
            .flat_map(Map::values)
            .flat_map(placeholder::of_value)
            .collect();
        let sides = self.sides.iter();
        let texts = sides.flat_map(|side| side.command.iter().chain(side.env.values()));
        all.extend(
            texts
                .chain(self.env.values())
                .flat_map(|text| placeholder::of_text(text)),
        );
        all
    }

    /// Placeholders in what labrun asks itself.
    fn asking(&self) -> Vec<Placeholder<'_>> {
        let ready = self.sides.iter().filter_map(|side| match &side.ready {
            Ready::Port(text) | Ready::Url(text) => Some(text),
            Ready::Line(_) => None,
        });
        let watch = [
            &self.watch.disk,
            &self.watch.redis,
            &self.watch.port,
            &self.watch.metrics,
        ];
        let reset = self.reset.iter().map(|reset| &reset.url);
        let texts = ready.chain(watch.into_iter().flatten()).chain(reset);
        texts.flat_map(|text| placeholder::of_text(text)).collect()
    }

    /// Reads the keys of a connector's tier.
    pub(super) fn read(table: &TableReader<'_>) -> Self {
        let config = table.require("kv_transfer_config", json_table);
        refuse_secrets(table, &["kv_transfer_config", "watch", "reset"]);
        let mut spec = Self {
            kv_transfer_config: Map::new(),
            args: read_args(table, "args", MANAGED_ARGS),
            env: read_env(table, |_| None),
            sides: read_sides(table),
            watch: WatchSpec::read(table),
            reset: ResetSpec::read(table),
            outlives_restart: flag(table, "outlives_restart"),
        };
        let Some(config) = config else { return spec };
        if !config.value.get(CONNECTOR).is_some_and(Value::is_string) {
            let message = format!(
                "`kv_transfer_config` in {} names no connector",
                table.title()
            );
            let hint = "add `kv_connector`, the name of a connector of vLLM's";
            table.problems().add(config.span, message, hint);
        }
        spec.kv_transfer_config = config.value;
        spec.check_ports(table);
        spec
    }

    /// Reports a port that labrun would ask, and at which nothing is told to listen.
    fn check_ports(&self, table: &TableReader<'_>) {
        let set: BTreeSet<&str> = self.setting().into_iter().filter_map(port_name).collect();
        let strange = self.asking().into_iter().filter_map(port_name);
        for name in strange
            .filter(|name| !set.contains(name))
            .collect::<BTreeSet<_>>()
        {
            let shown = if name.is_empty() {
                "{port}".to_owned()
            } else {
                format!("{{port.{name}}}")
            };
            table.problem(
                format!(
                    "{} asks at `{shown}`, and nothing that it starts is told of that port",
                    table.title()
                ),
                format!("write `{shown}` in a `command` or in `kv_transfer_config` too"),
            );
        }
    }
}

/// The key of `kv_transfer_config` that names the connector.
const CONNECTOR: &str = "kv_connector";

fn port_name(placeholder: Placeholder<'_>) -> Option<&str> {
    match placeholder {
        Placeholder::Port(name) => Some(name),
        Placeholder::Folder | Placeholder::Vllm => None,
    }
}

impl WatchSpec {
    fn read(table: &TableReader<'_>) -> Self {
        let Some(watch) = table.table("watch") else {
            return Self::default();
        };
        let spec = Self {
            disk: text(&watch, "disk"),
            redis: text(&watch, "redis"),
            port: read(&watch, "port", port),
            pcie: flag(&watch, "pcie"),
            metrics: read(&watch, "metrics", url),
            counters: CounterNames::read(&watch),
        };
        watch.finish();
        spec
    }
}

impl CounterNames {
    /// Those that the plan gives.
    pub(crate) fn names(&self) -> Vec<String> {
        let all = [&self.loaded_bytes, &self.stored_bytes, &self.hit_tokens];
        all.into_iter().flatten().cloned().collect()
    }

    fn read(watch: &TableReader<'_>) -> Self {
        let Some(counters) = watch.table("counters") else {
            return Self::default();
        };
        let name = |key| read(&counters, key, metric);
        let names = Self {
            loaded_bytes: name("loaded_bytes"),
            stored_bytes: name("stored_bytes"),
            hit_tokens: name("hit_tokens"),
        };
        counters.finish();
        names
    }
}

impl ResetSpec {
    fn read(table: &TableReader<'_>) -> Option<Self> {
        let reset = table.table("reset")?;
        let url = reset.require("url", url);
        let body = read(&reset, "body", |value| json_table(value).map(Value::Object));
        reset.finish();
        Some(Self {
            url: url?.value,
            body,
        })
    }
}

fn read_sides(table: &TableReader<'_>) -> Vec<SideSpec> {
    let mut all: Vec<SideSpec> = Vec::new();
    for side in table.tables("side") {
        let name = side.require("name", string);
        if let Some(name) = &name {
            check::name(side.problems(), "side process", name);
            if all.iter().any(|other| other.name == name.value) {
                let message = format!(
                    "two side processes of {} are called `{}`",
                    table.title(),
                    name.value
                );
                side.problems()
                    .add(name.span.clone(), message, "give one another name");
            }
        }
        let command = match side.value("command") {
            Some(_) => side.list("command", string),
            None => {
                side.problem(
                    format!("`command` is missing in {}", side.title()),
                    "add `command`, a list of the program and its arguments",
                );
                None
            }
        };
        let env = read_env(&side, |_| None);
        refuse_secrets(&side, &["command", "ready_url", "ready_line"]);
        let ready = read_ready(&side);
        let ready_timeout = seconds(&side, "ready_timeout_s", SIDE_READY_S);
        side.finish();
        if let (Some(name), Some(command), Some(ready)) = (name, command, ready) {
            all.push(SideSpec {
                name: name.value,
                command: command.value.into_iter().map(|word| word.value).collect(),
                env,
                ready,
                ready_timeout,
            });
        }
    }
    all
}

/// Reports every secret in the values of `keys`; those of arguments and environments are reported as
/// they are read.
fn refuse_secrets(table: &TableReader<'_>, keys: &[&str]) {
    let instead = "set it in the environment or in `.env`; servers inherit HF_TOKEN, and what \
                   `process.inherit` of the settings names";
    let keys = keys.iter().map(|key| (*key).to_owned());
    for key in keys {
        if let Some(located) = table.value(&key) {
            let value = located.value;
            let span = located.span;
            secret::refuse(table, &Located { value: key, span }, value, instead);
        }
    }
}

/// What shows that a side process is ready: exactly one of three keys.
fn read_ready(side: &TableReader<'_>) -> Option<Ready> {
    let mut given = Vec::new();
    if let Some(port) = read(side, "ready_port", port) {
        given.push(Ready::Port(port));
    }
    if let Some(url) = read(side, "ready_url", url) {
        given.push(Ready::Url(url));
    }
    if let Some(line) = read(side, "ready_line", string) {
        given.push(Ready::Line(line));
    }
    let keys = ["ready_port", "ready_url", "ready_line"];
    let written = keys.iter().filter(|key| side.value(key).is_some()).count();
    if written != 1 {
        side.problem(
            format!("{} must say once what shows that it is ready", side.title()),
            "give one of `ready_port`, `ready_url` and `ready_line`",
        );
        return None;
    }
    given.pop()
}

fn read<T>(
    table: &TableReader<'_>,
    key: &str,
    value: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
) -> Option<T> {
    table.read(key, value).map(|located| located.value)
}

fn text(table: &TableReader<'_>, key: &str) -> Option<String> {
    read(table, key, string)
}

fn flag(table: &TableReader<'_>, key: &str) -> bool {
    read(table, key, boolean).unwrap_or(false)
}

fn json_table(value: &DeValue<'_>) -> Result<Map<String, Value>, String> {
    match json(value)? {
        Value::Object(table) => Ok(table),
        _ => Err("a table".to_owned()),
    }
}

fn url(value: &DeValue<'_>) -> Result<String, String> {
    let schemes = ["http://", "{vllm}"];
    string(value)
        .ok()
        .filter(|text| schemes.iter().any(|scheme| text.starts_with(scheme)))
        .ok_or_else(|| "a URL that begins with http:// or {vllm}".to_owned())
}

/// A number, or `{port.NAME}`.
fn port(value: &DeValue<'_>) -> Result<String, String> {
    let number = positive(value)
        .ok()
        .and_then(|port| u16::try_from(port).ok());
    let named = || {
        let text = value.as_str()?;
        let is_port = matches!(
            placeholder::of_text(text).as_slice(),
            [Placeholder::Port(_)]
        );
        (is_port && text.starts_with('{') && text.ends_with('}')).then(|| text.to_owned())
    };
    number
        .map(|port| port.to_string())
        .or_else(named)
        .ok_or_else(|| "a port from 1 to 65,535, or \"{port.NAME}\"".to_owned())
}

/// The name of a Prometheus metric.
fn metric(value: &DeValue<'_>) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    string(value)
        .ok()
        .filter(|name| name.chars().all(fits))
        .ok_or_else(|| "the name of a metric, without labels".to_owned())
}

#[cfg(test)]
mod tests;
