//! Tiers: where evicted KV goes, under LMCache's own key names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lmcache_keys;
use super::problem::suggestion;
use super::reader::TableReader;
use super::secret;
use super::server::LmcacheMode;
use super::value::{json, positive, positive_number, string};

/// What a tier is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TierKind {
    /// No offloading: what the others are compared with.
    Baseline,
    /// LMCache, CPU RAM.
    Cpu,
    /// LMCache, local disk, with no RAM layer that answers first.
    Disk,
    /// LMCache, Redis, with no RAM layer that answers first.
    Redis,
    /// LMCache, RAM backed by disk.
    CpuDisk,
    /// vLLM's own offloading to CPU RAM.
    Native,
}

impl TierKind {
    /// Kinds by the names that plans use.
    pub const NAMED: [(&'static str, TierKind); 6] = [
        ("baseline", Self::Baseline),
        ("cpu", Self::Cpu),
        ("disk", Self::Disk),
        ("redis", Self::Redis),
        ("cpu+disk", Self::CpuDisk),
        ("native", Self::Native),
    ];

    /// The name that plans use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Cpu => "cpu",
            Self::Disk => "disk",
            Self::Redis => "redis",
            Self::CpuDisk => "cpu+disk",
            Self::Native => "native",
        }
    }

    /// Whether LMCache serves it, so that a configuration is rendered for it.
    pub fn uses_lmcache(self) -> bool {
        !matches!(self, Self::Baseline | Self::Native)
    }

    /// Whether what it holds outlives a restart of vLLM and of the LMCache server beside it. Files
    /// are found again only by an LMCache server: in-process, their index is in memory.
    pub fn survives_restart(self, mode: LmcacheMode) -> bool {
        match self {
            Self::Redis => true,
            Self::Disk | Self::CpuDisk => mode == LmcacheMode::MultiProcess,
            Self::Baseline | Self::Cpu | Self::Native => false,
        }
    }

    /// Whether it keeps chunks in files of a folder.
    pub fn uses_disk(self) -> bool {
        matches!(self, Self::Disk | Self::CpuDisk)
    }
}

/// One tier, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierSpec {
    /// The name on the `tier` axis.
    pub name: String,
    /// What it is made of.
    pub kind: TierKind,
    /// Keys of LMCache's configuration that the plan sets.
    pub settings: Map<String, Value>,
    /// A template of the user's own, instead of the built-in one of this kind.
    pub template: Option<String>,
}

/// Tokens of a chunk where the plan says nothing, LMCache's default.
pub const DEFAULT_CHUNK_TOKENS: u32 = 256;

impl TierSpec {
    /// The built-in tier called `name`.
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, kind) = TierKind::NAMED
            .into_iter()
            .find(|(known, _)| *known == name)?;
        Some(Self {
            name: name.to_owned(),
            kind,
            settings: Map::new(),
            template: None,
        })
    }

    /// Tokens of one chunk: what hits are rounded down to.
    pub fn chunk_tokens(&self) -> u32 {
        self.settings
            .get("chunk_size")
            .and_then(Value::as_u64)
            .and_then(|tokens| u32::try_from(tokens).ok())
            .unwrap_or(DEFAULT_CHUNK_TOKENS)
    }

    /// RAM of the tier where the plan says nothing or something, GiB.
    pub fn ram_gib(&self) -> f64 {
        self.settings
            .get("max_local_cpu_size")
            .and_then(Value::as_f64)
            .unwrap_or(5.0)
    }

    /// Reads `[tier.<name>]`.
    pub fn read(name: &str, table: &TableReader<'_>) -> Option<Self> {
        let built_in = Self::built_in(name);
        let named = table.choice("kind", &TierKind::NAMED);
        let kind = match (built_in, named) {
            (Some(tier), Some(named)) if named.value != tier.kind => {
                table.problems().add(
                    named.span,
                    format!("tier `{name}` is built in and its kind cannot be changed"),
                    "give the tier another name",
                );
                return None;
            }
            (Some(tier), _) => tier.kind,
            (None, Some(named)) => named.value,
            (None, None) => {
                if table.value("kind").is_none() {
                    let kinds: Vec<&str> = TierKind::NAMED.iter().map(|(kind, _)| *kind).collect();
                    table.problem(
                        format!("tier `{name}` is not built in and says no `kind`"),
                        format!("add `kind`, {}", suggestion("", &kinds)),
                    );
                }
                return None;
            }
        };
        let template = table.read("template", string).map(|found| found.value);
        let mut settings = Map::new();
        for key in lmcache_keys::in_process() {
            let found = match key {
                "max_local_cpu_size" | "max_local_disk_size" => {
                    table.read(key, |value| positive_number(value).and(json(value)))
                }
                "chunk_size" => table.read(key, |value| positive(value).and(json(value))),
                _ => table.read(key, json),
            };
            if let Some(found) = found {
                settings.insert(key.to_owned(), found.value);
            }
        }
        table.finish();
        for key in table
            .keys()
            .iter()
            .filter(|key| settings.contains_key(&key.value))
        {
            let instead = "set it in the environment or in `.env`, or as `redis.url` of the \
                           machine's config";
            if let Some(found) = table.value(&key.value) {
                secret::refuse(table, key, found.value, instead);
            }
        }
        Some(Self {
            name: name.to_owned(),
            kind,
            settings,
            template,
        })
    }
}

/// Reads every `[tier.<name>]`, over the built-in ones.
pub fn read_all(tiers: Option<&TableReader<'_>>) -> BTreeMap<String, TierSpec> {
    let mut all: BTreeMap<String, TierSpec> = TierKind::NAMED
        .iter()
        .filter_map(|(name, _)| TierSpec::built_in(name))
        .map(|tier| (tier.name.clone(), tier))
        .collect();
    let Some(tiers) = tiers else { return all };
    for key in tiers.keys() {
        super::check::name(tiers.problems(), "tier", &key);
        if let Some(tier) = tiers
            .table(&key.value)
            .and_then(|table| TierSpec::read(&key.value, &table))
        {
            all.insert(key.value, tier);
        }
    }
    all
}
