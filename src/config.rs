//! Where and how on this machine: figment layers, with the origin of each value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, providers::Env};
use serde::{Deserialize, Serialize};

use crate::{bounded, secret};

/// The most bytes of a settings file.
const MAX_BYTES: u64 = 1 << 20;

/// The built-in defaults: the commented file is their only home.
pub const DEFAULTS: &str = include_str!("../configs/default.toml");

/// Everything that can be set for a machine. Empty strings mean "not set".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Folders.
    pub paths: Paths,
    /// How processes are started.
    pub process: Process,
    /// The Redis of the redis tier.
    pub redis: Redis,
    /// Containers.
    pub docker: Docker,
    /// What is watched beside the load.
    pub telemetry: Telemetry,
    /// When a run does not go on.
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
pub struct Paths {
    /// Where run folders are made.
    pub results: PathBuf,
    /// Where disk tiers keep their chunks; empty: in the run folder.
    pub scratch: PathBuf,
    /// Folder of local models; empty: none.
    pub models: PathBuf,
    /// Folder of templates that win over the built-in ones; empty: none.
    pub templates: PathBuf,
}

/// `[process]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Folder that holds `vllm` and `lmcache`; empty: PATH.
    pub bin_dir: PathBuf,
    /// Variables that servers inherit though they name a credential, a proxy or an account; one that
    /// ends in `*` stands for all that begin so.
    pub inherit: Vec<String>,
}

/// `[redis]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://host:port`; empty: labrun starts one.
    pub url: String,
}

/// `[docker]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Docker {
    /// Folder of Hugging Face's cache that containers get; empty: `HF_HOME` or
    /// `~/.cache/huggingface`, where it is there.
    pub hf_cache: PathBuf,
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// No cell begins with less room than this for results and chunks.
    pub min_free_mib: u64,
}

/// `[slurm]`. Empty strings and zeros leave it to the cluster's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slurm {
    /// `--partition`.
    pub partition: String,
    /// `--account`.
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
pub struct Telemetry {
    /// Whether anything is watched at all.
    pub enabled: bool,
    /// Time between two readings of GPUs, disks and networks.
    pub interval_ms: u64,
    /// Time between two readings of the 32-bit PCIe counters, where these are needed.
    pub pcie_interval_ms: u64,
    /// Time between two readings of what changes slowly or costs much.
    pub slow_interval_ms: u64,
    /// Most that all samplers may use together, percent of one core; 0 is no limit.
    pub budget_percent: f64,
    /// How bytes over PCIe are told.
    pub pcie: PcieMethod,
}

impl Telemetry {
    /// Time between two readings.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.max(1))
    }

    /// Time between two readings of PCIe counters.
    pub fn pcie_interval(&self) -> Duration {
        Duration::from_millis(self.pcie_interval_ms.max(1))
    }

    /// Time between two slow readings.
    pub fn slow_interval(&self) -> Duration {
        Duration::from_millis(self.slow_interval_ms.max(1))
    }
}

/// How bytes over PCIe are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PcieMethod {
    /// By the best method that answers.
    Auto,
    /// By GPM only (Hopper and later).
    Gpm,
    /// By the 32-bit counters only.
    Counters,
    /// By every method at once, to compare them.
    All,
    /// Not at all.
    Off,
}

/// The settings in force and where each came from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The values.
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
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let mut figment = Figment::from(TomlLayer::new("built-in defaults", DEFAULTS)?);
        if let Some(path) = file {
            let text = bounded::read(path, MAX_BYTES)
                .with_context(|| format!("reading the config file `{}`", path.display()))?;
            figment = figment.merge(TomlLayer::new(&format!("`{}`", path.display()), &text)?);
        }
        // Keys are lowercase in TOML and uppercase in the environment.
        figment = figment.merge(Env::prefixed("LABRUN_").split("__").filter(|key| {
            // LABRUN_RUN and the like are labrun's own marks on its children, not settings.
            key.as_str().contains('.')
        }));
        let settings: Settings = match figment.extract() {
            Ok(settings) => settings,
            Err(error) => {
                let lines: Vec<String> = error.into_iter().map(|error| explain(&error)).collect();
                bail!("the configuration is wrong: {}", lines.join("; "));
            }
        };
        settings.remember_secrets();
        let mut origins = BTreeMap::new();
        let values = serde_json::to_value(&settings)?;
        collect_origins(&figment, "", &values, &mut origins);
        Ok(Self { settings, origins })
    }
}

/// What is wrong with a value and where, without the value: it may be a secret.
fn explain(error: &figment::Error) -> String {
    let what = match &error.kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            format!("expected {expected}")
        }
        Kind::InvalidLength(_, expected) => format!("expected {expected}"),
        Kind::UnknownField(name, valid) => {
            let valid: Vec<String> = valid.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "unknown field `{name}`, expected one of {}",
                valid.join(", ")
            )
        }
        Kind::UnknownVariant(_, valid) => format!("expected one of {}", valid.join(", ")),
        Kind::MissingField(name) => format!("missing field `{name}`"),
        Kind::DuplicateField(name) => format!("duplicate field `{name}`"),
        _ => "it cannot be read".to_owned(),
    };
    let key = error.path.join(".");
    let origin = error
        .metadata
        .as_ref()
        .map_or("", |found| found.name.as_ref());
    match (key.as_str(), origin) {
        ("", "") => what,
        ("", origin) => format!("{what} in {origin}"),
        (key, "") => format!("`{key}`: {what}"),
        (key, origin) => format!("`{key}` in {origin}: {what}"),
    }
}

/// Where in `text` an error of its TOML is and what it is, without the line: it may hold a secret.
fn explain_toml(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or_default();
    let line = 1 + before.matches('\n').count();
    let column = 1 + before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count();
    format!("line {line}, column {column}: {}", error.message())
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
        .map_or("unknown", |found| found.name.as_ref());
    origins.insert(key.to_owned(), origin.to_owned());
}

/// One layer of TOML, through the same `toml` that reads plans. (figment's own feature would
/// compile a second, older `toml`.)
struct TomlLayer {
    name: String,
    values: toml::Table,
}

impl TomlLayer {
    fn new(name: &str, text: &str) -> Result<Self> {
        let values = toml::from_str(text)
            .map_err(|error| anyhow!("reading {name}: {}", explain_toml(text, &error)))?;
        Ok(Self {
            name: name.to_owned(),
            values,
        })
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
        std::fs::write(&file, "[redis]\nurll = \"x\"\n").unwrap();
        let error = Config::load(Some(&file)).unwrap_err().to_string();
        assert!(error.contains("urll"), "{error}");
    }

    #[test]
    fn no_message_quotes_a_value() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("box.toml");
        for (text, expected) in [
            (
                "[redis]\nurl = \"redis://:canary-pw@h:1/0\n",
                "line 2, column",
            ),
            ("[redis]\nurl = [\"canary-pw\"]\n", "`redis.url` in"),
            ("redis = \"redis://:canary-pw@h\"\n", "`redis` in"),
            (
                "[telemetry]\npcie = \"canary-pw\"\n",
                "expected one of auto",
            ),
            (
                "[limits]\nmin_free_mib = \"canary-pw\"\n",
                "`limits.min_free_mib` in",
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
