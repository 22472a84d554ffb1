//! vLLM's own tiers, by its `--kv-transfer-config`, as far as the simulator acts on it.

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::lmcache_config::{Connector, DiskConfig, DiskIo, HotCache, OffloadConfig, Saves, Tail};
use super::store::Policy;

/// What vLLM's simple connector holds on a disk where nothing sets it.
const SIMPLE_DISK_BYTES: u64 = 100 << 30;

#[derive(Deserialize)]
struct Transfer {
    kv_connector: String,
    #[serde(default)]
    kv_connector_extra_config: Extra,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Extra {
    cpu_bytes_to_use: Option<u64>,
    block_size: Option<u32>,
    secondary_tiers: Vec<Secondary>,
    kv_offload_backend: Option<String>,
    disk_path: Option<String>,
    disk_capacity_bytes: Option<u64>,
    use_page_cache: bool,
    lazy_offload: bool,
}

#[derive(Deserialize)]
struct Secondary {
    #[serde(rename = "type")]
    kind: String,
    root_dir: Option<String>,
}

impl OffloadConfig {
    /// vLLM's own offloading to host memory alone.
    pub(crate) fn native(cpu_bytes: u64, block_tokens: u32) -> Self {
        Self {
            connector: Connector::Offloading,
            chunk_tokens: block_tokens,
            tail: Tail::Drop,
            saves: Saves::Prompt,
            hot_cache: HotCache::On,
            cpu_bytes,
            disk: None,
            remote: None,
            policy: Policy::Lru,
            lookup_timeout_us: u64::MAX,
            min_retrieve_tokens: 0,
        }
    }

    /// Reads the JSON of `--kv-transfer-config`; `block_tokens` is the GPU's block. Chunks leave RAM
    /// by LRU also where the policy is `arc`.
    pub(crate) fn from_transfer_config(text: &str, block_tokens: u32) -> anyhow::Result<Self> {
        let transfer: Transfer = serde_json::from_str(text).context("it is not vLLM's JSON")?;
        let extra = transfer.kv_connector_extra_config;
        let native = |disk: Option<DiskConfig>| -> anyhow::Result<Self> {
            let bytes = extra.cpu_bytes_to_use.filter(|bytes| *bytes > 0);
            let bytes = bytes.context("`cpu_bytes_to_use` is missing; give at least 1 byte")?;
            let tokens = extra.block_size.unwrap_or(block_tokens);
            ensure!(
                tokens > 0 && tokens.is_multiple_of(block_tokens),
                "`block_size` {tokens} is not a multiple of the GPU block of {block_tokens} tokens; make it one"
            );
            Ok(Self {
                disk,
                ..Self::native(bytes, tokens)
            })
        };
        match transfer.kv_connector.as_str() {
            "OffloadingConnector" => native(folder(&extra.secondary_tiers)?),
            "SimpleCPUOffloadConnector" => {
                ensure!(
                    !extra.lazy_offload,
                    "the simulator has no model of `lazy_offload`; leave it out"
                );
                let config = match extra.kv_offload_backend.as_deref() {
                    Some("disk") => Self {
                        disk: Some(file(&extra)?),
                        hot_cache: HotCache::Off,
                        // A buffer of few blocks, which each block leaves at once.
                        ..Self::native(u64::MAX, block_tokens)
                    },
                    _ => native(None)?,
                };
                Ok(Self {
                    connector: Connector::Simple,
                    ..config
                })
            }
            other => bail!(
                "the simulator has no model of the connector `{other}`; use OffloadingConnector or \
                 SimpleCPUOffloadConnector"
            ),
        }
    }
}

/// The folder behind RAM, where there is one.
fn folder(tiers: &[Secondary]) -> anyhow::Result<Option<DiskConfig>> {
    let [] = tiers else {
        let [Secondary { kind, root_dir }] = tiers else {
            bail!("the simulator has no model of several tiers behind RAM; name one");
        };
        ensure!(
            kind == "fs",
            "the simulator has no model of the tier `{kind}` behind RAM; use `fs`"
        );
        let path = root_dir
            .clone()
            .context("`root_dir` is missing; give the folder")?;
        return Ok(Some(DiskConfig {
            path,
            capacity_bytes: u64::MAX,
            io: DiskIo::Direct,
        }));
    };
    Ok(None)
}

/// The one file of the simple connector.
fn file(extra: &Extra) -> anyhow::Result<DiskConfig> {
    let path = extra.disk_path.clone();
    Ok(DiskConfig {
        path: path.context("`disk_path` is missing; give the file")?,
        capacity_bytes: extra.disk_capacity_bytes.unwrap_or(SIMPLE_DISK_BYTES),
        io: if extra.use_page_cache {
            DiskIo::Buffered
        } else {
            DiskIo::Direct
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(connector: &str, extra: &Value) -> anyhow::Result<OffloadConfig> {
        let config = json!({
            "kv_connector": connector, "kv_role": "kv_both", "kv_connector_extra_config": extra,
        });
        OffloadConfig::from_transfer_config(&config.to_string(), 16)
    }

    #[test]
    fn files_lie_behind_ram_or_alone() {
        let tiers = json!([{"type": "fs", "root_dir": "/kv", "n_read_threads": 4}]);
        let extra = json!({"cpu_bytes_to_use": 7, "block_size": 64, "secondary_tiers": tiers});
        let both = read("OffloadingConnector", &extra).unwrap();
        assert_eq!(
            (both.connector, both.chunk_tokens),
            (Connector::Offloading, 64)
        );
        assert_eq!((both.cpu_bytes, both.hot_cache), (7, HotCache::On));
        assert_eq!(both.disk.unwrap().path, "/kv");
        let extra =
            json!({"kv_offload_backend": "disk", "disk_path": "/kv/kv", "use_page_cache": true});
        let alone = read("SimpleCPUOffloadConnector", &extra).unwrap();
        assert_eq!(
            (alone.connector, alone.hot_cache),
            (Connector::Simple, HotCache::Off)
        );
        let disk = alone.disk.unwrap();
        assert_eq!(
            (disk.io, disk.capacity_bytes),
            (DiskIo::Buffered, SIMPLE_DISK_BYTES)
        );
    }

    #[test]
    fn what_the_simulator_has_no_model_of_is_refused_by_name() {
        let ram = json!({"cpu_bytes_to_use": 7});
        assert!(
            read("SimpleCPUOffloadConnector", &ram)
                .unwrap()
                .disk
                .is_none()
        );
        let two = json!([{"type": "fs", "root_dir": "/a"}, {"type": "fs", "root_dir": "/b"}]);
        for (connector, extra, expected) in [
            ("NixlConnector", json!({}), "the connector `NixlConnector`"),
            (
                "OffloadingConnector",
                json!({}),
                "`cpu_bytes_to_use` is missing",
            ),
            (
                "OffloadingConnector",
                json!({"cpu_bytes_to_use": 7, "block_size": 24}),
                "not a multiple",
            ),
            (
                "OffloadingConnector",
                json!({"cpu_bytes_to_use": 7, "secondary_tiers": [{"type": "obj"}]}),
                "the tier `obj`",
            ),
            (
                "OffloadingConnector",
                json!({"cpu_bytes_to_use": 7, "secondary_tiers": two}),
                "several tiers",
            ),
            (
                "SimpleCPUOffloadConnector",
                json!({"cpu_bytes_to_use": 7, "lazy_offload": true}),
                "`lazy_offload`",
            ),
            (
                "SimpleCPUOffloadConnector",
                json!({"kv_offload_backend": "disk"}),
                "`disk_path` is missing",
            ),
        ] {
            let error = format!("{:#}", read(connector, &extra).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
