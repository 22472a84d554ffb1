//! A tier of a connector that labrun does not know, as one start of its server has it: what the plan
//! says, with folder, addresses and ports filled in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::arguments;
use super::command_line::CommandLine;
use super::free_port;
use crate::plan::connector::{ConnectorSpec, CounterNames, Ready, ResetSpec, SideSpec};
use crate::plan::placeholder::{Fill, Placeholder};

/// What is filled in.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    /// The scratch folder.
    pub folder: PathBuf,
    /// Port of vLLM.
    pub vllm_port: u16,
    /// Ports by the names that the plan gives them.
    pub ports: BTreeMap<String, u16>,
}

impl Fill for Values {
    fn value(&self, placeholder: Placeholder<'_>) -> String {
        match placeholder {
            Placeholder::Folder => self.folder.to_string_lossy().into_owned(),
            Placeholder::Vllm => format!("http://127.0.0.1:{}", self.vllm_port),
            Placeholder::Port(name) => self.ports.get(name).copied().unwrap_or(0).to_string(),
        }
    }
}

/// A free port for each name in `spec`.
pub(super) fn free_ports(spec: &ConnectorSpec) -> Result<BTreeMap<String, u16>> {
    let names = spec.ports().into_iter();
    names
        .map(|name| Ok((name.to_owned(), free_port()?)))
        .collect()
}

/// Ports for a command that is shown and not started.
pub(super) fn shown_ports(spec: &ConnectorSpec) -> BTreeMap<String, u16> {
    let names = spec.ports().into_iter().map(str::to_owned);
    names.zip(9001..).collect()
}

/// The arguments of `vllm serve` for the tier.
pub(super) fn arguments(spec: &ConnectorSpec, values: &Values) -> Vec<String> {
    let transfer = Value::Object(values.table(&spec.kv_transfer_config));
    let mut all = vec!["--kv-transfer-config".to_owned(), transfer.to_string()];
    all.extend(arguments::of(&values.table(&spec.args)));
    all
}

/// The environment of vLLM for the tier.
pub(super) fn environment(
    given: &BTreeMap<String, String>,
    values: &Values,
) -> impl Iterator<Item = (String, OsString)> {
    given
        .iter()
        .map(|(name, text)| (name.clone(), values.text(text).into()))
}

/// A side process, to be started.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// Its name.
    pub name: String,
    /// Its program, arguments and environment.
    pub line: CommandLine,
    /// What shows that it is ready, and how long that may take.
    pub spec: SideSpec,
}

impl Side {
    /// The one of `spec` in the `environment` of all programs of the cell; `program` finds programs.
    pub(super) fn new(
        spec: &SideSpec,
        values: &Values,
        mut environment: Vec<(String, OsString)>,
        program: impl Fn(&str) -> Result<OsString>,
    ) -> Result<Self> {
        let mut words = Vec::new();
        for (index, word) in spec.command.iter().enumerate() {
            let word = values.text(word);
            words.push(match index {
                0 => program(&word)?,
                _ => OsString::from(word),
            });
        }
        environment.extend(self::environment(&spec.env, values));
        let ready = match &spec.ready {
            Ready::Port(port) => Ready::Port(values.text(port)),
            Ready::Url(url) => Ready::Url(values.text(url)),
            Ready::Line(line) => Ready::Line(line.clone()),
        };
        Ok(Self {
            name: spec.name.clone(),
            line: CommandLine { words, environment },
            spec: SideSpec {
                ready,
                ..spec.clone()
            },
        })
    }
}

/// Where labrun looks while a connector's tier is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Watched {
    /// The folder of its files.
    pub disk: Option<PathBuf>,
    /// Its Redis.
    pub redis: Option<String>,
    /// The TCP port of its store.
    pub port: Option<u16>,
    /// The exposition of its counters; absent: vLLM's.
    pub metrics: Option<String>,
    /// Its counters.
    pub counters: CounterNames,
    /// What empties its RAM.
    pub reset: Option<ResetSpec>,
}

impl Watched {
    /// What the plan says, with `values`.
    pub(super) fn new(spec: &ConnectorSpec, values: &Values) -> Self {
        let watch = &spec.watch;
        let text = |given: &Option<String>| given.as_ref().map(|text| values.text(text));
        Self {
            disk: text(&watch.disk).map(|folder| Path::new(&folder).to_owned()),
            redis: text(&watch.redis),
            port: text(&watch.port).and_then(|port| port.parse().ok()),
            metrics: text(&watch.metrics),
            counters: watch.counters.clone(),
            reset: spec.reset.as_ref().map(|reset| ResetSpec {
                url: values.text(&reset.url),
                body: reset.body.as_ref().map(|body| values.json(body)),
            }),
        }
    }
}
