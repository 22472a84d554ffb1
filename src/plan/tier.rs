//! Tiers: where evicted KV goes, under LMCache's own key names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml::de::DeValue;

use super::adapter::{Adapter, AdapterSpec, TABLES};
use super::connector::ConnectorSpec;
use super::lmcache_keys;
use super::problem::suggestion;
use super::reader::TableReader;
use super::secret;
use super::server::LmcacheMode;
use super::value::{gibibytes, json, positive, string};
use super::vllm_tier;

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
    /// vLLM's own offloading to CPU RAM, with files behind it.
    #[serde(rename = "native+fs")]
    NativeFs,
    /// vLLM's simple connector, CPU RAM.
    Simple,
    /// vLLM's simple connector, one file and no RAM.
    #[serde(rename = "simple+disk")]
    SimpleDisk,
    /// A connector of which labrun knows what the plan says of it.
    Connector,
    /// A store that only an LMCache server reaches.
    #[serde(untagged)]
    Adapter(Adapter),
}

/// The name of the tier that others are compared with.
pub(crate) const BASELINE: &str = "baseline";
/// The kind that has no built-in tier.
pub(crate) const CONNECTOR: &str = "connector";

impl TierKind {
    /// The kinds of built-in tiers, by the names that plans use.
    pub const NAMED: [(&'static str, TierKind); 12] = [
        (BASELINE, Self::Baseline),
        ("cpu", Self::Cpu),
        ("disk", Self::Disk),
        ("redis", Self::Redis),
        ("cpu+disk", Self::CpuDisk),
        ("native", Self::Native),
        ("native+fs", Self::NativeFs),
        ("simple", Self::Simple),
        ("simple+disk", Self::SimpleDisk),
        ("valkey", Self::Adapter(Adapter::Valkey)),
        ("s3", Self::Adapter(Adapter::S3)),
        ("mooncake", Self::Adapter(Adapter::Mooncake)),
    ];

    /// The name that plans use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => BASELINE,
            Self::Cpu => "cpu",
            Self::Disk => "disk",
            Self::Redis => "redis",
            Self::CpuDisk => "cpu+disk",
            Self::Native => "native",
            Self::NativeFs => "native+fs",
            Self::Simple => "simple",
            Self::SimpleDisk => "simple+disk",
            Self::Connector => CONNECTOR,
            Self::Adapter(adapter) => adapter.name(),
        }
    }

    /// The kind of the built-in tier called `name`. No plan gives such a tier another kind.
    pub fn built_in(name: &str) -> Option<Self> {
        let mut named = Self::NAMED.into_iter();
        named
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| kind)
    }

    /// Whether LMCache serves it; then a configuration is rendered for it.
    pub fn uses_lmcache(self) -> bool {
        !matches!(self, Self::Baseline | Self::Connector) && !self.is_vllms_own()
    }

    /// Whether vLLM serves it itself, without LMCache.
    pub fn is_vllms_own(self) -> bool {
        matches!(
            self,
            Self::Native | Self::NativeFs | Self::Simple | Self::SimpleDisk
        )
    }

    /// Whether what it holds outlives a restart of vLLM and of the LMCache server beside it. Files
    /// are found again only by an LMCache server: in-process, their index is in memory. Of a connector
    /// the plan says it.
    pub fn survives_restart(self, mode: LmcacheMode) -> bool {
        match self {
            Self::Redis | Self::NativeFs | Self::Adapter(_) => true,
            Self::Disk | Self::CpuDisk => mode == LmcacheMode::MultiProcess,
            Self::Baseline
            | Self::Cpu
            | Self::Native
            | Self::Simple
            | Self::SimpleDisk
            | Self::Connector => false,
        }
    }

    /// Whether it keeps chunks in files of a folder.
    pub fn uses_disk(self) -> bool {
        self.reads_disk_alone() || self == Self::CpuDisk
    }

    /// Whether files alone are to serve it. Where RAM lies before them, it is emptied before a pass.
    pub fn reads_disk_alone(self) -> bool {
        matches!(self, Self::Disk | Self::NativeFs | Self::SimpleDisk)
    }

    /// Whether what lies behind RAM is to serve it alone: files, Redis or another store.
    pub fn is_second_layer_alone(self) -> bool {
        self.reads_disk_alone() || matches!(self, Self::Redis | Self::Adapter(_))
    }

    /// Whether its store speaks Redis's protocol, and counts its own bytes.
    pub fn speaks_resp(self) -> bool {
        matches!(self, Self::Redis | Self::Adapter(Adapter::Valkey))
    }

    /// Whether it has a pool in RAM.
    pub fn uses_ram(self) -> bool {
        !matches!(self, Self::Baseline | Self::SimpleDisk | Self::Connector)
    }
}

/// One tier, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierSpec {
    /// The name on the `tier` axis.
    pub name: String,
    /// What it is made of.
    pub kind: TierKind,
    /// Keys of LMCache's configuration, or of vLLM's own offloading, that the plan sets.
    pub settings: Map<String, Value>,
    /// A template of the user's own, instead of the built-in one of this kind.
    pub template: Option<String>,
    /// What the plan sets of the adapter behind an LMCache server.
    #[serde(default, skip_serializing_if = "AdapterSpec::is_empty")]
    pub adapter: AdapterSpec,
    /// What the plan says of a connector that labrun does not know; of that kind alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<Box<ConnectorSpec>>,
}

/// An LMCache server evicts from its RAM above this share of it.
const EVICTION_WATERMARK: f64 = 0.8;

const GIB: f64 = 1_073_741_824.0;

/// Tokens of a chunk where the plan has none: LMCache's default.
pub(crate) const DEFAULT_CHUNK_TOKENS: u32 = 256;

impl TierSpec {
    /// A tier of `kind` of which nothing is set.
    pub fn new(name: &str, kind: TierKind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            settings: Map::new(),
            template: None,
            adapter: AdapterSpec::default(),
            connector: None,
        }
    }

    /// The built-in tier called `name`.
    pub fn built_in(name: &str) -> Option<Self> {
        TierKind::built_in(name).map(|kind| Self::new(name, kind))
    }

    /// Whether it keeps chunks in files of a folder.
    pub fn uses_disk(&self) -> bool {
        let watched = self
            .connector
            .as_ref()
            .is_some_and(|it| it.watch.disk.is_some());
        watched || self.kind.uses_disk()
    }

    /// Tokens of one chunk: what hits are rounded down to.
    pub fn chunk_tokens(&self) -> u32 {
        let key = if self.kind.is_vllms_own() {
            "block_size"
        } else {
            "chunk_size"
        };
        self.settings
            .get(key)
            .and_then(Value::as_u64)
            .and_then(|tokens| u32::try_from(tokens).ok())
            .unwrap_or(DEFAULT_CHUNK_TOKENS)
    }

    /// Whether what it holds outlives a restart of vLLM and of the LMCache server beside it.
    pub fn survives_restart(&self, mode: LmcacheMode) -> bool {
        if let Some(connector) = &self.connector {
            return connector.outlives_restart;
        }
        let adapts = mode == LmcacheMode::MultiProcess && self.kind.uses_lmcache();
        self.kind.survives_restart(mode) && (!adapts || self.adapter.outlives_server(self.kind))
    }

    /// RAM of the tier, by the plan or by default, GiB.
    pub fn ram_gib(&self) -> f64 {
        let number = |key: &str| self.settings.get(key).and_then(Value::as_f64);
        let of_vllm = number("cpu_bytes_to_use").map(|bytes| bytes / GIB);
        of_vllm
            .or_else(|| number("max_local_cpu_size"))
            .unwrap_or(5.0)
    }

    /// What it holds, and by which setting; absent where it knows no bound. `redis_gib` is the room of a
    /// simulated Redis.
    pub(crate) fn capacity_bytes(
        &self,
        mode: LmcacheMode,
        redis_gib: Option<f64>,
    ) -> Option<(&'static str, f64)> {
        let in_process = mode == LmcacheMode::InProcess;
        let ram = GIB * self.ram_gib();
        let disk = || {
            let set = self.settings.get("max_local_disk_size");
            GIB * set.and_then(Value::as_f64).unwrap_or(20.0)
        };
        match self.kind {
            TierKind::Cpu if !in_process => {
                Some(("`max_local_cpu_size`", EVICTION_WATERMARK * ram))
            }
            TierKind::Cpu | TierKind::Native | TierKind::Simple => {
                Some(("`max_local_cpu_size`", ram))
            }
            TierKind::SimpleDisk => {
                let set = self.settings.get("disk_capacity_bytes");
                let bytes = set.and_then(Value::as_f64).unwrap_or(100.0 * GIB);
                Some(("`disk_capacity_bytes`", bytes))
            }
            TierKind::Disk if in_process => Some(("`max_local_disk_size`", disk())),
            TierKind::CpuDisk if in_process => Some(("`max_local_disk_size`", ram.max(disk()))),
            TierKind::Redis => redis_gib.map(|gib| ("`redis_gib`", GIB * gib)),
            TierKind::Baseline
            | TierKind::Disk
            | TierKind::CpuDisk
            | TierKind::NativeFs
            | TierKind::Connector
            | TierKind::Adapter(_) => None,
        }
    }

    /// Reads `[tier.<name>]`.
    pub fn read(name: &str, table: &TableReader<'_>) -> Option<Self> {
        let built_in = Self::built_in(name);
        let kinds = || TierKind::NAMED.into_iter();
        let all: Vec<_> = kinds().chain([(CONNECTOR, TierKind::Connector)]).collect();
        let named = table.choice("kind", &all);
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
                    let kinds: Vec<&str> = all.iter().map(|(kind, _)| *kind).collect();
                    table.problem(
                        format!("tier `{name}` is not built in and has no `kind`"),
                        format!("add `kind`, {}", suggestion("", &kinds)),
                    );
                }
                return None;
            }
        };
        let mut tier = Self::new(name, kind);
        if kind == TierKind::Connector {
            tier.settings = read_chunk_size(table);
            tier.connector = Some(Box::new(ConnectorSpec::read(table)));
        } else if kind.is_vllms_own() {
            tier.settings = vllm_tier::read_settings(kind, table);
        } else {
            tier.template = table.read("template", string).map(|located| located.value);
            tier.settings = read_settings(table);
            tier.adapter = AdapterSpec::read(kind, table);
            refuse_renamed(table);
        }
        table.finish();
        for key in table
            .keys()
            .iter()
            .filter(|key| tier.settings.contains_key(&key.value) || TABLES.contains(&&*key.value))
        {
            let instead = "set it in the environment or in `.env`, or as `redis.url` of the \
                           machine's config";
            if let Some(located) = table.value(&key.value) {
                secret::refuse(table, key, located.value, instead);
            }
        }
        Some(tier)
    }
}

/// Tokens of a chunk, the one setting of a connector that labrun reckons with.
fn read_chunk_size(table: &TableReader<'_>) -> Map<String, Value> {
    let size = table.read("chunk_size", |value| positive(value).and(json(value)));
    let size = size.map(|size| ("chunk_size".to_owned(), size.value));
    size.into_iter().collect()
}

/// Keys that are on or off. LMCache reads text that it does not know as off.
const FLAGS: [&str; 23] = [
    "chunk_statistics_auto_start_statistics",
    "enable_async_loading",
    "enable_blending",
    "enable_chunk_statistics",
    "enable_controller",
    "enable_hidden_state_cache",
    "enable_kv_events",
    "enable_lazy_memory_allocator",
    "enable_p2p",
    "enable_pd",
    "enable_scheduler_bypass_lookup",
    "internal_api_server_enabled",
    "local_cpu",
    "local_cpu_use_hugepages",
    "pd_bidirectional",
    "pd_skip_proxy_notification",
    "py_enable_gc",
    "run_script_api_enabled",
    "save_decode_cache",
    "save_unfull_chunk",
    "use_gds",
    "use_gpu_connector_v3",
    "use_layerwise",
];

/// Schemes of `remote_url` whose server speaks Redis's protocol: labrun can read its bytes.
const REDIS_SCHEMES: [&str; 5] = ["redis", "rediss", "resp", "unix", "valkey"];

/// Why labrun cannot prove what the store at `remote_url` served.
///
/// # Errors
/// Names the scheme; nothing else of the URL, which may hold a password.
pub(crate) fn check_remote_url(url: &str) -> Result<(), String> {
    match url.split_once("://") {
        Some((scheme, _)) if REDIS_SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) => {
            Ok(())
        }
        Some((scheme, _)) => Err(format!(
            "a store at `{scheme}://` cannot be proven: labrun reads the bytes that Redis served, and \
             of no other remote store"
        )),
        None => Err("it has no scheme".to_owned()),
    }
}

/// Why labrun cannot prove what the stores of `remote_storage_plugins` served, which LMCache takes as a list
/// or as text with commas.
///
/// # Errors
/// Names the first plugin that is not Redis.
pub(crate) fn check_remote_plugins(plugins: &Value) -> Result<(), String> {
    let names: Vec<&str> = match plugins {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::String(list) => list.split(',').collect(),
        _ => Vec::new(),
    };
    // `redis.second` is a second store of the kind `redis`.
    let kinds = names
        .iter()
        .map(|name| name.trim().split('.').next().unwrap_or_default());
    let strange = kinds
        .filter(|kind| !kind.is_empty())
        .find(|kind| !REDIS_SCHEMES.contains(&kind.to_ascii_lowercase().as_str()));
    match strange {
        Some(kind) => Err(format!(
            "a store of the plugin `{kind}` cannot be proven: labrun reads the bytes that Redis served, \
             and of no other remote store"
        )),
        None => Ok(()),
    }
}

fn read_settings(table: &TableReader<'_>) -> Map<String, Value> {
    let mut settings = Map::new();
    for key in lmcache_keys::in_process() {
        let located = match key {
            "max_local_cpu_size" | "max_local_disk_size" => {
                table.read(key, |value| gibibytes(value).and(json(value)))
            }
            "chunk_size" => table.read(key, |value| positive(value).and(json(value))),
            "extra_config" => table.read(key, extra_config),
            "remote_url" => {
                let located = table.read(key, json);
                if let Some(url) = &located
                    && let Some(text) = url.value.as_str()
                    && let Err(why) = check_remote_url(text)
                {
                    let message = format!("`remote_url` in {}: {why}", table.title());
                    let hint =
                        "leave it out, and name a Redis in `redis.url` of the machine's config";
                    table.problems().add(url.span.clone(), message, hint);
                }
                located
            }
            "remote_storage_plugins" => {
                let found = table.read(key, json);
                if let Some(plugins) = &found
                    && let Err(why) = check_remote_plugins(&plugins.value)
                {
                    let message = format!("`remote_storage_plugins` in {}: {why}", table.title());
                    let hint = "leave it out, or name `redis`";
                    table.problems().add(plugins.span.clone(), message, hint);
                }
                found
            }
            key if FLAGS.contains(&key) => table.read(key, flag),
            _ => table.read(key, json),
        };
        if let Some(located) = located {
            settings.insert(key.to_owned(), located.value);
        }
    }
    settings
}

/// `true` or `false`, as LMCache takes them too: in text, or as 1 and 0.
fn flag(value: &DeValue<'_>) -> Result<Value, String> {
    let text = match json(value)? {
        Value::String(text) => text.trim().to_ascii_lowercase(),
        other => other.to_string(),
    };
    match text.as_str() {
        "true" | "1" => Ok(Value::Bool(true)),
        "false" | "0" => Ok(Value::Bool(false)),
        _ => Err("`true` or `false`".to_owned()),
    }
}

/// A table, which LMCache takes as JSON text too.
fn extra_config(value: &DeValue<'_>) -> Result<Value, String> {
    let expected = || "a table, or a table as JSON text".to_owned();
    match json(value)? {
        Value::String(text) => serde_json::from_str(&text)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(expected),
        table @ Value::Object(_) => Ok(table),
        _ => Err(expected()),
    }
}

/// Reports each key that LMCache calls otherwise today.
fn refuse_renamed(table: &TableReader<'_>) {
    for key in table.keys() {
        if let Some(now) = lmcache_keys::renamed(&key.value) {
            // Asked for: `finish` must not report it as unknown too.
            let _asked = table.value(&key.value);
            let message = format!("`{}` in {} is an old name", key.value, table.title());
            let hint = format!("LMCache calls it `{now}` today");
            table.problems().add(key.span, message, hint);
        }
    }
}

/// Reads every `[tier.<name>]`, over the built-in ones.
pub(crate) fn read_all(tiers: Option<&TableReader<'_>>) -> BTreeMap<String, TierSpec> {
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

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::problem::Problem;
    use crate::plan::reader::Problems;
    use toml::de::DeTable;

    /// `[tier.<name>]` of `text`, and its problems.
    pub(in crate::plan) fn read_tier(name: &str, text: &str) -> (Option<TierSpec>, Vec<Problem>) {
        let document = DeTable::parse(text).unwrap();
        let problems = Problems::default();
        let title = format!("tier.{name}");
        let reader = TableReader::new(&title, document.get_ref(), document.span(), &problems);
        let tier = TierSpec::read(name, &reader);
        (tier, problems.into_sorted())
    }

    fn read(text: &str) -> (Option<TierSpec>, Vec<Problem>) {
        read_tier("cpu", text)
    }

    #[test]
    fn flags_are_taken_as_lmcache_reads_them_and_other_words_are_refused() {
        for (text, expected) in [
            ("true", true),
            ("false", false),
            ("\"true\"", true),
            ("\"False\"", false),
            ("1", true),
            ("0", false),
        ] {
            let (tier, problems) = read(&format!("local_cpu = {text}"));
            assert!(problems.is_empty(), "{text}: {problems:?}");
            assert_eq!(tier.unwrap().settings["local_cpu"], expected, "{text}");
        }
        for text in ["\"yes\"", "\"on\"", "\"\"", "2", "[true]", "0.5"] {
            let (_, problems) = read(&format!("save_unfull_chunk = {text}"));
            assert_eq!(problems.len(), 1, "{text}");
            assert!(
                problems[0].message.contains("`true` or `false`"),
                "{problems:?}"
            );
        }
        for flag in FLAGS {
            assert!(lmcache_keys::in_process().contains(&flag), "{flag}");
        }
    }

    #[test]
    fn extra_config_is_a_table_also_as_text() {
        let (tier, problems) = read("extra_config = '{\"disk_io_threads\": 8}'");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(tier.unwrap().settings["extra_config"]["disk_io_threads"], 8);
        for wrong in ["1", "\"a\"", "\"[1]\"", "[1]"] {
            assert_eq!(
                read(&format!("extra_config = {wrong}")).1.len(),
                1,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_remote_store_that_is_not_redis_is_refused_at_its_value_without_its_password() {
        for scheme in [
            "lm",
            "s3",
            "mooncakestore",
            "infinistore",
            "fs",
            "redis-cluster",
        ] {
            let text = format!("remote_url = \"{scheme}://h:1\"");
            let (_, problems) = read(&text);
            assert_eq!(problems.len(), 1, "{scheme}");
            assert_eq!(problems[0].span, 13..text.len());
            let message = &problems[0].message;
            assert!(
                message.contains(&format!("`{scheme}://` cannot be proven")),
                "{message}"
            );
            let (_, problems) = read(&format!("remote_url = \"{scheme}://me:s3cret@h:1\""));
            let shown = format!("{problems:?}");
            assert!(
                shown.contains("cannot be proven") && !shown.contains("s3cret"),
                "{shown}"
            );
        }
        for scheme in REDIS_SCHEMES {
            assert!(
                check_remote_url(&format!("{scheme}://h:1")).is_ok(),
                "{scheme}"
            );
        }
        assert!(check_remote_url("localhost:6379").is_err());
    }

    #[test]
    fn a_plugin_that_is_no_redis_is_refused_however_it_is_listed() {
        for (list, strange) in [
            (r#"["mooncake"]"#, Some("mooncake")),
            (r#"["redis", "s3.second"]"#, Some("s3")),
            (r#""redis, infinistore""#, Some("infinistore")),
            (r#"["redis", "valkey.two"]"#, None),
            (r#""redis""#, None),
            (r#""""#, None),
            ("[]", None),
        ] {
            let (_, problems) = read(&format!("remote_storage_plugins = {list}"));
            let expected = strange.map(|kind| format!("the plugin `{kind}` cannot be proven"));
            match expected {
                Some(expected) => assert!(
                    problems.len() == 1 && problems[0].message.contains(&expected),
                    "{list}: {problems:?}"
                ),
                None => assert_eq!(problems.len(), 0, "{list}: {problems:?}"),
            }
        }
    }

    #[test]
    fn an_old_name_is_reported_with_the_one_of_today() {
        let (_, problems) = read("external_backends = \"a\"\nnixl_role = \"sender\"");
        let hints: Vec<&str> = problems
            .iter()
            .map(|problem| problem.hint.as_str())
            .collect();
        let expected = [
            "LMCache calls it `storage_plugins` today",
            "LMCache calls it `pd_role` today",
        ];
        assert_eq!(hints, expected);
    }

    proptest! {
        #[test]
        fn only_schemes_of_redis_are_proven(scheme in "[a-z][a-z0-9+-]{0,12}") {
            let known = REDIS_SCHEMES.contains(&scheme.as_str());
            prop_assert_eq!(check_remote_url(&format!("{scheme}://h:1")).is_ok(), known);
        }
    }
}
