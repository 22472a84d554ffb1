//! The LMCache YAML, as far as the simulator acts on it.

use anyhow::{Context as _, bail, ensure};
use serde_yaml_ng::{Mapping, Value};

use super::store::Policy;
use crate::plan::lmcache_keys::check;
use crate::plan::server::LmcacheMode;

const GIB: f64 = 1_073_741_824.0;

/// URL schemes that the Redis tier stands for.
const NETWORK_STORES: [&str; 8] = [
    "redis",
    "rediss",
    "unix",
    "redis-sentinel",
    "redis-cluster",
    "resp",
    "valkey",
    "lm",
];

/// Who moves KV out of the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connector {
    /// LMCache inside the engine process.
    LmCache,
    /// vLLM's offloading to host memory, with or without files behind it.
    Offloading,
    /// vLLM's simple connector: host memory, or one file.
    Simple,
}

/// What happens to a last chunk that is not full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Drop,
    Save,
}

/// Which tokens are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saves {
    Prompt,
    PromptAndOutput,
}

/// Whether chunks stay in host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HotCache {
    Off,
    On,
}

/// How the disk tier does its I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskIo {
    /// Through the page cache.
    Buffered,
    /// `O_DIRECT`.
    Direct,
}

/// The disk tier.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DiskConfig {
    pub(crate) path: String,
    pub(crate) capacity_bytes: u64,
    pub(crate) io: DiskIo,
}

/// Where KV goes when it leaves the GPU.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OffloadConfig {
    pub(crate) connector: Connector,
    pub(crate) chunk_tokens: u32,
    pub(crate) tail: Tail,
    pub(crate) saves: Saves,
    pub(crate) hot_cache: HotCache,
    pub(crate) cpu_bytes: u64,
    pub(crate) disk: Option<DiskConfig>,
    /// Address of the Redis-like store.
    pub(crate) remote: Option<String>,
    pub(crate) policy: Policy,
    pub(crate) lookup_timeout_us: u64,
    pub(crate) min_retrieve_tokens: u64,
}

/// A YAML file as LMCache would take it.
#[derive(Clone, Debug)]
pub(crate) struct LoadedConfig {
    pub(crate) offload: OffloadConfig,
    /// Keys that LMCache ignores with a warning.
    pub(crate) unknown_keys: Vec<String>,
    /// The configuration in Python notation, for the log.
    pub(crate) shown: String,
}

impl OffloadConfig {
    /// Reads an LMCache YAML.
    pub(crate) fn from_yaml(text: &str) -> anyhow::Result<LoadedConfig> {
        let root: Value = serde_yaml_ng::from_str(text).context("it is not valid YAML")?;
        let map = match root {
            Value::Mapping(map) => map,
            Value::Null => Mapping::new(),
            _ => bail!("it is not a mapping of LMCache keys; write `key: value` lines"),
        };
        let keys = Keys(&map);
        let names = map.keys().filter_map(Value::as_str);
        let known = |name: &&str| check(LmcacheMode::InProcess, name, None).is_ok();
        let unknown_keys = names
            .filter(|name| !known(name))
            .map(str::to_owned)
            .collect();
        let offload = keys.offload()?;
        let shown = python_dict(&map);
        Ok(LoadedConfig {
            offload,
            unknown_keys,
            shown,
        })
    }
}

struct Keys<'a>(&'a Mapping);

impl Keys<'_> {
    fn offload(&self) -> anyhow::Result<OffloadConfig> {
        let chunk_tokens = self.number("chunk_size")?.unwrap_or(256.0);
        ensure!(
            chunk_tokens >= 1.0,
            "`chunk_size` is {chunk_tokens}; give at least 1 token"
        );
        let cpu_gib = self.number("max_local_cpu_size")?.unwrap_or(5.0);
        ensure!(
            cpu_gib > 0.0,
            "`max_local_cpu_size` is {cpu_gib}; every tier stages through it, so give more than 0"
        );
        let hot = self.flag("local_cpu")?.unwrap_or(true);
        let tail = self.flag("save_unfull_chunk")?.unwrap_or(false);
        let decode = self.flag("save_decode_cache")?.unwrap_or(false);
        let timeout_ms = self.number("lookup_timeout_ms")?.unwrap_or(3_000.0);
        Ok(OffloadConfig {
            connector: Connector::LmCache,
            chunk_tokens: chunk_tokens as u32,
            tail: if tail { Tail::Save } else { Tail::Drop },
            saves: if decode {
                Saves::PromptAndOutput
            } else {
                Saves::Prompt
            },
            hot_cache: if hot { HotCache::On } else { HotCache::Off },
            cpu_bytes: (cpu_gib * GIB) as u64,
            disk: self.disk()?,
            remote: self.remote()?,
            policy: self.policy()?,
            lookup_timeout_us: (timeout_ms * 1e3) as u64,
            min_retrieve_tokens: self.number("min_retrieve_tokens")?.unwrap_or(0.0) as u64,
        })
    }

    fn disk(&self) -> anyhow::Result<Option<DiskConfig>> {
        let gib = self.number("max_local_disk_size")?.unwrap_or(0.0);
        let Some(path) = self.text("local_disk")? else {
            return Ok(None);
        };
        if gib <= 0.0 {
            return Ok(None); // as LMCache does: no size, no disk tier
        }
        let path = path.strip_prefix("file://").unwrap_or(&path).to_owned();
        let direct = self
            .extra("use_odirect")
            .map(flag)
            .transpose()?
            .unwrap_or(false);
        let io = if direct {
            DiskIo::Direct
        } else {
            DiskIo::Buffered
        };
        Ok(Some(DiskConfig {
            path,
            capacity_bytes: (gib * GIB) as u64,
            io,
        }))
    }

    fn remote(&self) -> anyhow::Result<Option<String>> {
        if let Some(url) = self.text("remote_url")? {
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            ensure!(
                NETWORK_STORES.contains(&scheme),
                "`remote_url` is `{url}`: the simulator has no model of the tier `{scheme}://`; \
                 use one of {}",
                NETWORK_STORES.map(|name| format!("{name}://")).join(", ")
            );
            return Ok(Some(url));
        }
        let plugins = match self.0.get("remote_storage_plugins") {
            Some(Value::Sequence(list)) => list
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            Some(Value::String(list)) => list.split(',').map(|s| s.trim().to_owned()).collect(),
            _ => Vec::new(),
        };
        let Some(plugin) = plugins.first() else {
            return Ok(None);
        };
        ensure!(
            plugin.split('.').next() == Some("redis"),
            "`remote_storage_plugins` names `{plugin}`: the simulator has no model of that tier; \
             use `redis`"
        );
        let url = self.extra(&format!("remote_storage_plugin.{plugin}.redis_url"));
        let url = url
            .or_else(|| self.extra("redis_url"))
            .and_then(Value::as_str);
        Ok(Some(url.unwrap_or("redis://localhost:6379").to_owned()))
    }

    fn policy(&self) -> anyhow::Result<Policy> {
        let name = self
            .text("cache_policy")?
            .unwrap_or_else(|| "LRU".to_owned());
        Ok(match name.to_ascii_uppercase().as_str() {
            "LRU" => Policy::Lru,
            "MRU" => Policy::Mru,
            "FIFO" => Policy::Fifo,
            "LFU" => Policy::Lfu,
            _ => bail!("`cache_policy` is `{name}`; use LRU, LFU, FIFO or MRU"),
        })
    }

    fn extra(&self, key: &str) -> Option<&Value> {
        self.0.get("extra_config")?.as_mapping()?.get(key)
    }

    fn number(&self, key: &str) -> anyhow::Result<Option<f64>> {
        let number = match self.0.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        match number {
            Some(number) if number.is_finite() => Ok(Some(number)),
            _ => bail!("`{key}` is {}; give a number", python(&self.0[key])),
        }
    }

    fn text(&self, key: &str) -> anyhow::Result<Option<String>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => bail!("`{key}` is {}; give a string", python(other)),
        }
    }

    fn flag(&self, key: &str) -> anyhow::Result<Option<bool>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => flag(value).with_context(|| format!("in `{key}`")).map(Some),
        }
    }
}

fn flag(value: &Value) -> anyhow::Result<bool> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) => Ok(text.eq_ignore_ascii_case("true") || text == "1"),
        other => bail!("{} is not a flag; give true or false", python(other)),
    }
}

fn python_dict(map: &Mapping) -> String {
    let items = map.iter().map(|(key, value)| {
        // A URL may hold a password; the log must not.
        let value = match value {
            Value::String(text) => python(&Value::String(hide_password(text))),
            other => python(other),
        };
        format!("{}: {value}", python(key))
    });
    format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
}

fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{text}'"),
        Value::Sequence(list) => {
            format!(
                "[{}]",
                list.iter().map(python).collect::<Vec<_>>().join(", ")
            )
        }
        Value::Mapping(map) => python_dict(map),
        Value::Tagged(tagged) => python(&tagged.value),
    }
}

/// Replaces the user part of a URL.
pub(crate) fn hide_password(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://***@{host}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
