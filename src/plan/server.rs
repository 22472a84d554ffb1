//! `[server]`: what is started for a cell.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::docker_spec::DockerSpec;
use super::profile_spec::ProfileSpec;
use super::reader::{Located, TableReader};
use super::secret;
use super::sim_spec::SimSpec;
use super::value::{json, positive, string, zero_up_to};

/// How the server of a cell is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Launcher {
    /// The built-in simulator, in a process of its own.
    Sim,
    /// `vllm serve` as a process of this machine.
    Process,
    /// vLLM in a container of this machine's Docker, with sidecars beside it.
    Docker,
    /// A server that runs already; labrun neither starts nor stops it.
    External,
}

impl Launcher {
    const NAMED: [(&'static str, Launcher); 4] = [
        ("sim", Self::Sim),
        ("process", Self::Process),
        ("docker", Self::Docker),
        ("external", Self::External),
    ];

    /// The name that plans use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Process => "process",
            Self::Docker => "docker",
            Self::External => "external",
        }
    }
}

/// Where LMCache lives. Results name it: the two are not the same system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LmcacheMode {
    /// Inside the engine's process, configured by a YAML file.
    InProcess,
    /// In an `lmcache server` beside vLLM, configured by its arguments.
    MultiProcess,
}

impl LmcacheMode {
    const NAMED: [(&'static str, LmcacheMode); 2] = [
        ("in-process", Self::InProcess),
        ("multi-process", Self::MultiProcess),
    ];

    /// The name that plans and results use.
    pub fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::MultiProcess => "multi-process",
        }
    }
}

/// `[server]`, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// How it is started.
    pub launcher: Launcher,
    /// Where LMCache lives.
    pub lmcache: LmcacheMode,
    /// `http://host:port` of an external server; empty for the others.
    pub url: String,
    /// Arguments of `vllm serve`, without the leading dashes.
    pub args: Map<String, Value>,
    /// Arguments of `lmcache server` (multi-process mode), without the leading dashes.
    pub lmcache_args: Map<String, Value>,
    /// Environment of the server.
    pub env: BTreeMap<String, String>,
    /// Token ids that prompts are made of: plain text in the model's vocabulary, nothing special.
    pub prompt_token_ids: Range<u32>,
    /// How long it may take from its start to its first real token.
    pub ready_timeout: Duration,
    /// How long it may take to stop before it is killed.
    pub stop_grace: Duration,
    /// How long a tier may take to store what earlier requests left; a pass that begins before that
    /// proves nothing of it.
    #[serde(
        default = "default_store_timeout",
        skip_serializing_if = "is_default_store_timeout"
    )]
    pub store_timeout: Duration,
    /// `kv_bytes_per_token`: bytes of KV that one token takes, all layers and ranks; for models
    /// whose configuration labrun cannot read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_bytes_per_token: Option<NonZeroU32>,
    /// What the simulator pretends to be.
    pub sim: SimSpec,
    /// What its container gets; absent for the other launchers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<DockerSpec>,
    /// `[profile]`: which profilers watch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileSpec>,
}

/// `store_timeout_s` where the plan has none.
const STORE_TIMEOUT_S: u32 = 120;

fn default_store_timeout() -> Duration {
    Duration::from_secs(u64::from(STORE_TIMEOUT_S))
}

/// Omitted from cell ids: plans without the key keep the ids of versions that did not have it.
fn is_default_store_timeout(timeout: &Duration) -> bool {
    *timeout == default_store_timeout()
}

/// Arguments that labrun sets itself, and from what.
pub(super) const MANAGED_ARGS: &[(&str, &str)] = &[
    ("host", "labrun binds servers to 127.0.0.1"),
    ("port", "labrun picks a free port"),
    ("model", "set `model` at the top of the plan"),
    ("served-model-name", "it is the plan's `model`"),
    (
        "kv-transfer-config",
        "it follows from the tier: see `lmcache`, or write a tier of kind `connector`",
    ),
    ("kv-offloading-size", "set `max_local_cpu_size` of the tier"),
    ("kv-offloading-backend", "use the tier `native`"),
];

/// The problem of a plan that does not say how servers are started.
pub(crate) const LAUNCHER_MISSING: &str =
    "how are the servers started? `launcher` is missing in [server]";

/// Reports at `table` that the launcher is missing.
pub(super) fn ask_for_launcher(table: &TableReader<'_>) {
    table.problem(
        LAUNCHER_MISSING,
        "add [server] with `launcher = \"docker\"` (and `image`) or `\"process\"`; \
         `--set server.launcher=sim` rehearses on the simulator",
    );
}

impl ServerSpec {
    /// Reads `[server]`; a missing table is a problem at the plan's root.
    pub fn read(table: &TableReader<'_>) -> Option<Self> {
        let launcher = match table.value("launcher") {
            Some(_) => table.choice("launcher", &Launcher::NAMED),
            None => {
                ask_for_launcher(table);
                None
            }
        };
        let lmcache = table.choice("lmcache", &LmcacheMode::NAMED);
        let url = table.read("url", string);
        secret::refuse_user_info(table, "url", "write http://HOST:PORT alone");
        let sim = table.table("sim");
        let docker = match &launcher {
            Some(located) if located.value == Launcher::Docker => {
                Some(DockerSpec::read(table, sim.is_some()))
            }
            _ => {
                DockerSpec::refuse(table);
                None
            }
        };
        let spec = Self {
            launcher: launcher
                .as_ref()
                .map_or(Launcher::Sim, |located| located.value),
            lmcache: lmcache
                .as_ref()
                .map_or(LmcacheMode::InProcess, |located| located.value),
            url: url
                .as_ref()
                .map_or(String::new(), |located| located.value.clone()),
            args: read_args(table, "args", MANAGED_ARGS),
            lmcache_args: read_args(table, "lmcache_args", &[]),
            env: read_env(table, of_lmcache),
            prompt_token_ids: read_token_ids(table),
            ready_timeout: seconds(table, "ready_timeout_s", 900),
            stop_grace: seconds(table, "stop_grace_s", 30),
            store_timeout: seconds(table, "store_timeout_s", STORE_TIMEOUT_S),
            kv_bytes_per_token: table
                .read("kv_bytes_per_token", positive)
                .and_then(|located| NonZeroU32::new(located.value)),
            sim: sim
                .as_ref()
                .map_or_else(|| Some(SimSpec::default()), read_sim)?,
            docker,
            profile: None,
        };
        table.finish();
        spec.check(table, url.as_ref(), lmcache.as_ref(), sim.as_ref());
        launcher.map(|_| spec)
    }

    /// Whether labrun's simulator serves, in a process or in a container.
    pub fn is_simulated(&self) -> bool {
        self.launcher == Launcher::Sim
            || self.docker.as_ref().is_some_and(|docker| docker.simulator)
    }

    /// Whether the engine keeps KV of earlier prompts on the GPU.
    pub fn gpu_prefix_cache(&self) -> bool {
        let flag = |name: &str| self.args.get(name).and_then(Value::as_bool);
        flag("no-enable-prefix-caching") != Some(true)
            && flag("enable-prefix-caching") != Some(false)
    }

    fn check(
        &self,
        table: &TableReader<'_>,
        url: Option<&Located<String>>,
        lmcache: Option<&Located<LmcacheMode>>,
        sim: Option<&TableReader<'_>>,
    ) {
        match (self.launcher, url) {
            (Launcher::External, None) => {
                table.problem(
                    "an external server needs `url`",
                    "add `url = \"http://HOST:PORT\"`",
                );
            }
            (Launcher::External, Some(url))
                if !(url.value.starts_with("http://") || url.value.starts_with("https://")) =>
            {
                let message = format!("`url` is `{}`", url.value);
                table
                    .problems()
                    .add(url.span.clone(), message, "write http://HOST:PORT");
            }
            (Launcher::Sim | Launcher::Process | Launcher::Docker, Some(url)) => {
                let message = "`url` is only for `launcher = \"external\"`";
                table.problems().add(url.span.clone(), message, "remove it");
            }
            _ => {}
        }
        if let (true, Some(mode)) = (self.is_simulated(), lmcache)
            && mode.value == LmcacheMode::MultiProcess
        {
            let message = "the simulator has LMCache in its own process only";
            table
                .problems()
                .add(mode.span.clone(), message, "remove it, or use a real vLLM");
        }
        if let Some(sim) = sim
            && !self.is_simulated()
        {
            let message = "[server.sim] is only for `launcher = \"sim\"` and `\"docker\"`";
            sim.problem(message, "remove it");
        }
    }
}

/// Ids that are plain text in the vocabulary of nearly every model; what a plan means that names none.
pub(crate) const PROMPT_TOKEN_IDS: Range<u32> = 1000..30_000;

fn read_token_ids(table: &TableReader<'_>) -> Range<u32> {
    let key = "prompt_token_ids";
    let Some(located) = table.list(key, positive) else {
        return PROMPT_TOKEN_IDS;
    };
    match located.value.as_slice() {
        [first, last] if first.value < last.value => first.value..last.value + 1,
        _ => {
            let message = format!("`{key}` must be [FIRST, LAST], the first below the last");
            table
                .problems()
                .add(located.span, message, "such as [1000, 30000]");
            PROMPT_TOKEN_IDS
        }
    }
}

pub(super) fn seconds(table: &TableReader<'_>, key: &str, default_s: u32) -> Duration {
    let located = table
        .read(key, positive)
        .map_or(default_s, |located| located.value);
    Duration::from_secs(u64::from(located))
}

/// Arguments of a program: the table `key`, without those that labrun sets itself (`managed`).
pub(super) fn read_args(
    table: &TableReader<'_>,
    key: &str,
    managed: &[(&str, &str)],
) -> Map<String, Value> {
    let mut all = Map::new();
    let Some(args) = table.table(key) else {
        return all;
    };
    for name in args.keys() {
        let normal = name.value.replace('_', "-");
        if let Some((_, why)) = managed.iter().find(|(managed, _)| *managed == normal) {
            let message = format!("`{}` in {} is labrun's to set", name.value, args.title());
            args.problems().add(name.span, message, *why);
        } else if name.value.starts_with('-') {
            let message = format!("`{}` in {} begins with a dash", name.value, args.title());
            let bare = name.value.trim_start_matches('-');
            args.problems()
                .add(name.span, message, format!("write `{bare}`"));
        } else if is_free_of_secrets(&args, &name)
            && let Some(located) = args.read(&name.value, json)
        {
            all.insert(normal, located.value);
        }
    }
    all
}

/// Reports a secret in the value of `name`; the server has other ways to get it.
fn is_free_of_secrets(table: &TableReader<'_>, name: &Located<String>) -> bool {
    let instead = "set it in the environment or in `.env`; servers inherit HF_TOKEN, and what \
                   `process.inherit` of the settings or, for containers, `secrets` names";
    table
        .value(&name.value)
        .is_none_or(|located| secret::refuse(table, name, located.value, instead))
}

/// Why a variable of LMCache's is no matter of `[server.env]`.
fn of_lmcache(name: &str) -> Option<(String, &'static str)> {
    name.starts_with("LMCACHE_").then(|| {
        let message = format!("`{name}` would override the tier's rendered file");
        (message, "set LMCache's keys in [tier.<name>]")
    })
}

/// The environment of a program, but for what is `refused`, with a message and a hint.
pub(super) fn read_env(
    table: &TableReader<'_>,
    refused: impl Fn(&str) -> Option<(String, &'static str)>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let Some(env) = table.table("env") else {
        return all;
    };
    for name in env.keys() {
        if let Some((message, hint)) = refused(&name.value) {
            env.problems().add(name.span, message, hint);
        } else if is_free_of_secrets(&env, &name)
            && let Some(located) = env.read(&name.value, string)
        {
            all.insert(name.value, located.value);
        }
    }
    all
}

/// Reads `[server.sim]` through serde, which knows the fields, and then checks the values.
fn read_sim(table: &TableReader<'_>) -> Option<SimSpec> {
    let mut given = Map::new();
    if let Some(faults) = table.list("faults", string) {
        let mut names = Vec::new();
        for fault in faults.value {
            match fault.value.parse::<super::sim_spec::Fault>() {
                Ok(_) => names.push(Value::String(fault.value)),
                Err(error) => table.problems().add(fault.span, error.to_string(), ""),
            }
        }
        given.insert("faults".to_owned(), Value::Array(names));
    }
    let known = match serde_json::to_value(SimSpec::default()) {
        Ok(Value::Object(known)) => known,
        _ => Map::new(),
    };
    for (key, default) in known.iter().filter(|(key, _)| *key != "faults") {
        let located = table.read(key, |value| {
            if default.as_u64() == Some(0) {
                zero_up_to(u32::MAX)(value).and(json(value))
            } else if default.is_u64() {
                positive(value).and(json(value))
            } else {
                json(value)
            }
        });
        if let Some(located) = located {
            given.insert(key.clone(), located.value);
        }
    }
    table.finish();
    let spec = serde_json::from_value::<SimSpec>(Value::Object(given));
    match spec {
        Ok(spec) => {
            for problem in spec.problems() {
                table.problem(problem, "");
            }
            Some(spec)
        }
        Err(error) => {
            table.problem(format!("[server.sim]: {error}"), "");
            None
        }
    }
}
