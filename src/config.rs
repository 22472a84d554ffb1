//! Where and how on this machine: figment layers, with the origin of each value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Serialize};

use crate::plan::problem::{PlanProblems, Problem, list};
use crate::{bounded, secret};

pub(crate) mod dot_env;
mod environment;
mod file;
pub(crate) mod schema;

/// The origin of what variables set.
const ENVIRONMENT: &str = "`LABRUN_` environment variable(s)";

/// The most bytes of a settings file.
const MAX_BYTES: u64 = 1 << 20;

/// The built-in defaults: the commented file is their only home.
pub(crate) const DEFAULTS: &str = include_str!("../configs/default.toml");

/// Everything that can be set for a machine. Empty strings mean "not set".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Folders that labrun reads and writes.
    pub paths: Paths,
    /// How processes are started.
    pub process: Process,
    /// The Redis of the redis tier.
    pub redis: Redis,
    /// Settings of containers.
    pub docker: Docker,
    /// What is watched beside the load.
    pub telemetry: Telemetry,
    /// Limits at which a run stops.
    pub limits: Limits,
    /// How `labrun submit --slurm` asks for machines.
    pub slurm: Slurm,
    /// Environment of every server, under the plan's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// `[paths]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paths {
    /// Where run folders are made.
    pub results: PathBuf,
    /// Where disk tiers keep their chunks; empty: in the run folder.
    pub scratch: PathBuf,
    /// Folder of local models; empty: none.
    pub models: PathBuf,
    /// Folder of templates that take precedence over the built-in ones; empty: none.
    pub templates: PathBuf,
}

/// `[process]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    /// Folder that holds `vllm` and `lmcache`; empty: PATH.
    pub bin_dir: PathBuf,
    /// Variables that servers inherit though they name a credential, a proxy or an account; one that
    /// ends in `*` stands for all with that prefix.
    pub inherit: Vec<String>,
}

/// `[redis]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redis {
    /// `redis://host:port`; empty: labrun starts one.
    pub url: String,
}

/// `[docker]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Docker {
    /// Folder of Hugging Face's cache that containers get; empty: `HF_HOME` or
    /// `~/.cache/huggingface`, if it exists.
    pub hf_cache: PathBuf,
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// No cell begins with less room than this for results and chunks.
    pub min_free_mib: u64,
}

/// `[slurm]`. Empty strings and zeros leave it to the cluster's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slurm {
    /// Slurm's `--partition`.
    pub partition: String,
    /// Slurm's `--account`.
    pub account: String,
    /// `--gpus` of each shard.
    pub gpus: u32,
    /// `--cpus-per-task` of each shard.
    pub cpus: u32,
    /// `--time` of each shard, as Slurm writes it: `2:00:00`.
    pub time: String,
    /// Further `#SBATCH` arguments.
    pub args: Vec<String>,
    /// How often a shard that was lost is submitted again.
    pub resubmit: u32,
}

/// `[telemetry]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Telemetry {
    /// Whether telemetry is recorded.
    pub enabled: bool,
    /// Time between two readings of GPUs, disks and networks.
    pub interval_ms: u64,
    /// Time between two readings of the 32-bit PCIe counters, where these are needed.
    pub pcie_interval_ms: u64,
    /// Time between two readings of what changes slowly or costs much.
    pub slow_interval_ms: u64,
    /// Most that all samplers may use together, percent of one core; 0 means no limit.
    pub budget_percent: f64,
    /// How PCIe traffic is measured.
    pub pcie: PcieMethod,
}

impl Telemetry {
    /// Time between two readings.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.max(1))
    }

    /// Time between two readings of PCIe counters.
    pub(crate) fn pcie_interval(&self) -> Duration {
        Duration::from_millis(self.pcie_interval_ms.max(1))
    }

    /// Time between two slow readings.
    pub(crate) fn slow_interval(&self) -> Duration {
        Duration::from_millis(self.slow_interval_ms.max(1))
    }
}

/// How PCIe traffic is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PcieMethod {
    /// By the best method that answers.
    Auto,
    /// By GPM only (Hopper and later).
    Gpm,
    /// By the 32-bit counters only.
    Counters,
    /// By every method at once, to compare them.
    All,
    /// PCIe is not measured.
    Off,
}

/// The settings in force and where each came from.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The values in force.
    pub settings: Settings,
    /// Origin of each value, by dotted key.
    pub origins: BTreeMap<String, String>,
}

impl Settings {
    /// Masks from now on what is secret among the settings.
    fn remember_secrets(&self) {
        secret::remember_urls(&self.redis.url);
        for (name, value) in &self.env {
            secret::remember_named(name, value);
        }
    }
}

impl Config {
    /// Layers defaults, `file` and the environment (which holds `.env` by then).
    pub(crate) fn load(file: Option<&Path>) -> Result<Self> {
        let defaults: toml::Table = toml::from_str(DEFAULTS).context("reading the defaults")?;
        let mut figment = Figment::from(TomlLayer::new("built-in defaults", defaults.clone()));
        let mut own = None;
        if let Some(path) = file {
            let name = path.display().to_string();
            let text = bounded::read(path, MAX_BYTES)
                .with_context(|| format!("reading the settings `{name}`"))?;
            file::check(&name, &text, &defaults)?;
            figment = figment.merge(TomlLayer::new(&format!("`{name}`"), toml::from_str(&text)?));
            own = Some((name, text));
        }
        let variables = environment::text(std::env::vars_os())?.into_iter();
        let variables = environment::read(variables, &defaults)?;
        figment = figment.merge(TomlLayer::new(ENVIRONMENT, variables));
        let settings: Settings = figment.extract().map_err(|error| explain(error, own))?;
        settings.remember_secrets();
        let mut origins = BTreeMap::new();
        let values = serde_json::to_value(&settings)?;
        collect_origins(&figment, "", &values, &mut origins);
        Ok(Self { settings, origins })
    }
}

/// What is wrong with values of the right type, in the settings file (its name and text) or the
/// environment.
fn explain(errors: figment::Error, file: Option<(String, String)>) -> anyhow::Error {
    let mut problems = Vec::new();
    let mut others = Vec::new();
    for error in errors {
        let key = error.path.join(".");
        let expected = match &error.kind {
            Kind::UnknownVariant(_, valid) => format!("one of {}", list(valid)),
            Kind::InvalidType(_, expected)
            | Kind::InvalidValue(_, expected)
            | Kind::InvalidLength(_, expected) => expected.clone(),
            _ => "another value".to_owned(),
        };
        let message = format!("`{key}` must be {expected}");
        let from_file = error
            .metadata
            .as_ref()
            .is_some_and(|from| from.name != ENVIRONMENT);
        let span = file
            .as_ref()
            .and_then(|(_, text)| file::span_of(text, &error.path));
        match span {
            Some(span) if from_file => problems.push(Problem::new(span, message, "")),
            _ => others.push(message),
        }
    }
    match file {
        Some((name, text)) if !problems.is_empty() => {
            PlanProblems::masked(&name, &text, problems).into()
        }
        _ => anyhow!(
            "the environment or `.env` sets what cannot be: {}",
            others.join("; ")
        ),
    }
}

fn collect_origins(
    figment: &Figment,
    key: &str,
    value: &serde_json::Value,
    origins: &mut BTreeMap<String, String>,
) {
    if let serde_json::Value::Object(table) = value {
        for (name, value) in table {
            let below = if key.is_empty() {
                name.clone()
            } else {
                format!("{key}.{name}")
            };
            collect_origins(figment, &below, value, origins);
        }
        return;
    }
    let origin = figment
        .find_metadata(key)
        .map_or("unknown", |source| source.name.as_ref());
    origins.insert(key.to_owned(), origin.to_owned());
}

/// One layer of TOML, through the same `toml` that reads plans. (figment's own feature would
/// compile a second, older `toml`.)
struct TomlLayer {
    name: String,
    values: toml::Table,
}

impl TomlLayer {
    fn new(name: &str, values: toml::Table) -> Self {
        Self {
            name: name.to_owned(),
            values,
        }
    }
}

impl Provider for TomlLayer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> std::result::Result<Map<Profile, Dict>, figment::Error> {
        let dict = Value::serialize(&self.values)?
            .into_dict()
            .ok_or_else(|| figment::Error::from("not a table".to_owned()))?;
        Ok(Profile::Default.collect(dict))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_file_holds_every_key_and_each_value_has_an_origin() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.settings.paths.results, PathBuf::from("results"));
        assert_eq!(config.origins["paths.results"], "built-in defaults");
        let unknown = config.origins.values().filter(|from| **from == "unknown");
        assert_eq!(unknown.count(), 0, "{:?}", config.origins);
        assert!(config.origins.len() > 10, "{:?}", config.origins);
    }

    #[test]
    fn a_file_wins_over_the_defaults_and_an_unknown_key_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("box.toml");
        std::fs::write(&file, "[redis]\nurl = \"redis://10.0.0.1:6379\"\n").unwrap();
        let config = Config::load(Some(&file)).unwrap();
        assert_eq!(config.settings.redis.url, "redis://10.0.0.1:6379");
        assert!(config.origins["redis.url"].contains("box.toml"));
        for (text, expected) in [
            (
                "[redis]\nurll = \"x\"\n",
                ["box.toml:2:1", "did you mean `url`?"],
            ),
            (
                "[telemetry]\npcie = \"x\"\n",
                ["box.toml:2:8", "one of `auto`, `gpm`"],
            ),
            (
                "[limits]\nmin_free_mib = -1\n",
                ["box.toml:2:16", "`limits.min_free_mib` must be"],
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Config::load(Some(&file)).unwrap_err().to_string();
            for expected in expected {
                assert!(error.contains(expected), "{expected}: {error}");
            }
        }
    }

    #[test]
    fn no_message_quotes_a_value() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("box.toml");
        for (text, expected) in [
            ("[redis]\nurl = \"redis://:canary-pw@h:1/0\n", "box.toml:2:"),
            (
                "[redis]\nurl = [\"canary-pw\"]\n",
                "`url` in [redis] must be a string",
            ),
            (
                "redis = \"redis://:canary-pw@h\"\n",
                "`redis` must be a table",
            ),
            (
                "[telemetry]\npcie = \"canary-pw\"\n",
                "one of `auto`, `gpm`",
            ),
            (
                "[limits]\nmin_free_mib = \"canary-pw\"\n",
                "`min_free_mib` in [limits] must be a whole number",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = format!("{:#}", Config::load(Some(&file)).unwrap_err());
            assert!(!error.contains("canary-pw"), "{error}");
            assert!(
                error.contains(expected) && error.contains("box.toml"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let error = Config::load(Some(Path::new("/nonexistent.toml"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent.toml"));
    }
}
