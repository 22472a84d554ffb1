//! Tiers that vLLM serves itself: how they stand in its command line, and how its log shows that
//! they were made.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::leftovers::MEMORY;
use crate::plan::tier::{TierKind, TierSpec};

/// Keys of a tier in a folder that belong to its part behind RAM.
const FS_KEYS: [&str; 2] = ["n_read_threads", "n_write_threads"];

/// Where one server of such a tier keeps what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region<'a> {
    /// The folder of its files.
    pub scratch: &'a Path,
    /// The engine's name, by which it names what it shares in memory.
    pub engine_id: &'a str,
}

/// The arguments of `vllm serve` for `tier`; none for one that vLLM does not serve itself.
pub(super) fn arguments(tier: &TierSpec, region: Region<'_>) -> Vec<String> {
    let ram = || (tier.ram_gib() * f64::from(1 << 30)) as u64;
    let settings = &tier.settings;
    let taken = |keys: &[&str]| -> Map<String, Value> {
        let own = settings.iter();
        own.filter(|(key, _)| keys.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let (connector, mut extra) = match tier.kind {
        TierKind::Native if settings.keys().all(|key| key == "max_local_cpu_size") => {
            let size = tier.ram_gib().to_string();
            let words = [
                "--kv-offloading-size",
                &size,
                "--kv-offloading-backend",
                "native",
            ];
            return words.map(str::to_owned).into();
        }
        TierKind::Native => (
            "OffloadingConnector",
            taken(&["block_size", "eviction_policy"]),
        ),
        TierKind::NativeFs => {
            let mut extra = taken(&["block_size", "eviction_policy"]);
            extra.insert("spec_name".to_owned(), "TieringOffloadingSpec".into());
            let mut folder = taken(&FS_KEYS);
            folder.insert("type".to_owned(), "fs".into());
            folder.insert(
                "root_dir".to_owned(),
                region.scratch.to_string_lossy().into(),
            );
            extra.insert("secondary_tiers".to_owned(), json!([folder]));
            ("OffloadingConnector", extra)
        }
        TierKind::Simple => ("SimpleCPUOffloadConnector", taken(&["lazy_offload"])),
        TierKind::SimpleDisk => {
            let mut extra = settings.clone();
            extra.insert("kv_offload_backend".to_owned(), "disk".into());
            let file = region.scratch.join("kv");
            extra.insert("disk_path".to_owned(), file.to_string_lossy().into());
            ("SimpleCPUOffloadConnector", extra)
        }
        _ => return Vec::new(),
    };
    if tier.kind.uses_ram() {
        extra.insert("cpu_bytes_to_use".to_owned(), ram().into());
    }
    let config = json!({
        "kv_connector": connector,
        "kv_role": "kv_both",
        "engine_id": region.engine_id,
        "kv_connector_extra_config": extra,
    });
    vec!["--kv-transfer-config".to_owned(), config.to_string()]
}

/// The files in memory of the engine called `engine_id`: a killed one leaves them.
pub(super) fn shared_memory(engine_id: &str) -> Vec<PathBuf> {
    let prefix = format!("vllm_offload_{engine_id}");
    let entries = std::fs::read_dir(MEMORY).into_iter().flatten().flatten();
    let own = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    own.map(|entry| entry.path()).collect()
}

/// What vLLM's log says once it has made a tier of `kind`; absent where it is known to say nothing.
fn announced(kind: TierKind) -> Option<&'static str> {
    match kind {
        TierKind::NativeFs => Some("Created secondary tier #0 (fs)"),
        TierKind::SimpleDisk => Some("DiskBackend: path="),
        TierKind::Simple => Some("SimpleCPUOffloadScheduler: Allocating"),
        _ => None,
    }
}

/// What keeps `tier` from being proven, or being there at all, by the start in vLLM's `log`.
///
/// # Errors
/// vLLM said that it goes on without the tier.
pub(crate) fn check_start(kind: TierKind, log: &str) -> Result<Option<String>, String> {
    const OFF: &str = "disabling CPU offload since it requires prefix caching";
    if let Some(line) = log.lines().find(|line| line.contains(OFF)) {
        return Err(format!("vLLM goes on without the tier: {}", line.trim()));
    }
    Ok(announced(kind)
        .filter(|words| !log.contains(words))
        .map(|words| {
            format!("vLLM's log does not say that it made the tier (`{words}`): it is not proven")
        }))
}

/// Whether vLLM, by its `log`, reads the files of a tier through the page cache.
pub(crate) fn is_buffered(log: &str) -> bool {
    log.contains("falling back to buffered I/O") || log.contains("(page_cache=True)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, settings: &Value) -> Value {
        let mut tier = TierSpec::built_in(name).unwrap();
        tier.settings = settings.as_object().unwrap().clone();
        let region = Region {
            scratch: Path::new("/nvme/kv"),
            engine_id: "labrun_7_80",
        };
        let arguments = arguments(&tier, region);
        match arguments.as_slice() {
            [name, config] if name == "--kv-transfer-config" => {
                serde_json::from_str(config).unwrap()
            }
            other => json!(other),
        }
    }

    #[test]
    fn native_with_a_size_alone_is_asked_for_by_flags() {
        let flags = [
            "--kv-offloading-size",
            "2.5",
            "--kv-offloading-backend",
            "native",
        ];
        assert_eq!(
            config("native", &json!({"max_local_cpu_size": 2.5})),
            json!(flags)
        );
        let more = config(
            "native",
            &json!({"block_size": 64, "max_local_cpu_size": 2}),
        );
        let expected = json!({"block_size": 64, "cpu_bytes_to_use": 2_147_483_648_u64});
        assert_eq!(more["kv_connector_extra_config"], expected);
    }

    #[test]
    fn files_lie_behind_ram_in_the_scratch_folder() {
        let settings = json!({
            "cpu_bytes_to_use": 3_221_225_472_u64, "n_read_threads": 4, "eviction_policy": "arc",
        });
        let expected = json!({
            "kv_connector": "OffloadingConnector",
            "kv_role": "kv_both",
            "engine_id": "labrun_7_80",
            "kv_connector_extra_config": {
                "spec_name": "TieringOffloadingSpec",
                "cpu_bytes_to_use": 3_221_225_472_u64,
                "eviction_policy": "arc",
                "secondary_tiers": [{"type": "fs", "root_dir": "/nvme/kv", "n_read_threads": 4}],
            },
        });
        assert_eq!(config("native+fs", &settings), expected);
    }

    #[test]
    fn the_simple_connector_keeps_kv_in_ram_or_in_a_file() {
        let ram = config("simple", &json!({"lazy_offload": true}));
        let expected = json!({"cpu_bytes_to_use": 5_368_709_120_u64, "lazy_offload": true});
        assert_eq!(ram["kv_connector"], "SimpleCPUOffloadConnector");
        assert_eq!(ram["kv_connector_extra_config"], expected);
        let disk = config("simple+disk", &json!({"disk_capacity_bytes": 1 << 30}));
        let expected = json!({
            "kv_offload_backend": "disk", "disk_path": "/nvme/kv/kv", "disk_capacity_bytes": 1 << 30,
        });
        assert_eq!(disk["kv_connector_extra_config"], expected);
    }

    /// Lines of vLLM 0.26.0 and 0.33.0, by their format strings.
    #[test]
    fn a_start_is_checked_by_what_the_log_says() {
        let fs = "INFO 11-30 12:00:00 [spec.py:216] Created secondary tier #0 (fs)";
        assert_eq!(check_start(TierKind::NativeFs, fs), Ok(None));
        let silent = check_start(TierKind::NativeFs, "INFO nothing").unwrap();
        assert!(silent.unwrap().contains("not proven"));
        let off = "WARNING 11-30 12:00:00 [simple_cpu_offload_connector.py:92] Detected prefix caching \
                   disabled, disabling CPU offload since it requires prefix caching.";
        assert!(check_start(TierKind::Simple, off).is_err());
        assert_eq!(check_start(TierKind::Native, ""), Ok(None));
    }

    #[test]
    fn buffered_reads_are_seen_in_the_log() {
        let fallback = "O_DIRECT is not supported at '/kv'; falling back to buffered I/O for the 'fs' \
                        KV offload tier.";
        assert!(is_buffered(fallback));
        assert!(is_buffered(
            "DiskBackend: path=/kv, slots=9, (page_cache=True)"
        ));
        assert!(!is_buffered(
            "DiskBackend: path=/kv, slots=9, (page_cache=False)"
        ));
    }
}
