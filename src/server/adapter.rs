//! The adapter of an LMCache server's second layer, as `--l2-adapter` takes it.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::{Context as _, Result};

use serde_json::{Map, Value, json};

use super::redis;
use crate::plan::adapter::{Adapter, AdapterSpec, FAULT_INJECT, NIXL_STORE, POSIX, RAW_BLOCK};
use crate::plan::tier::{TierKind, TierSpec};
use crate::secret;

/// Where the store behind an adapter is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Store<'a> {
    /// Folder of files.
    pub folder: &'a str,
    /// Host and port of a Redis.
    pub redis: (&'a str, u16),
}

/// The adapter of `tier`: what labrun gives it, under the keys of the plan, behind the faults of the plan.
/// `None` where the tier has none.
pub(super) fn of(tier: &TierSpec, store: Store<'_>) -> Option<Value> {
    let AdapterSpec { keys, faults } = &tier.adapter;
    let kind = tier.adapter.type_name(tier.kind)?;
    let mut adapter = Map::new();
    adapter.insert("type".to_owned(), kind.into());
    adapter.extend(own_keys(tier, kind, store));
    for (key, value) in keys {
        match (adapter.get_mut(key), value) {
            // A table of the plan adds to that of labrun.
            (Some(Value::Object(own)), Value::Object(more)) => own.extend(more.clone()),
            _ => drop(adapter.insert(key.clone(), value.clone())),
        }
    }
    if faults.is_empty() {
        return Some(adapter.into());
    }
    let mut faulty = Map::new();
    faulty.insert("type".to_owned(), FAULT_INJECT.into());
    faulty.extend(faults.clone());
    faulty.insert("inner".to_owned(), adapter.into());
    Some(faulty.into())
}

/// The file in the scratch folder that an adapter keeps chunks in places of.
const PLACES: &str = "places";

/// Bytes of one of NIXL's files: each is opened once and for all.
const NIXL_FILE_BYTES: u64 = 1 << 30;

/// What NIXL's files hold where the plan has no `max_local_disk_size`, GiB. LMCache's server has an entry
/// in memory for each page of them.
const NIXL_GIB: f64 = 4.0;

/// What a file of places holds where the plan has no `max_local_disk_size`, GiB.
const PLACES_GIB: f64 = 20.0;

fn disk_gib(tier: &TierSpec, or: f64) -> f64 {
    let set = tier.settings.get("max_local_disk_size");
    set.and_then(Value::as_f64).unwrap_or(or)
}

/// Makes what the adapter of `tier` expects to find in `folder`: a file as large as all of its places.
pub(super) fn prepare(tier: &TierSpec, folder: &Path) -> Result<()> {
    if tier.adapter.type_name(tier.kind) != Some(RAW_BLOCK) || tier.adapter.device().is_some() {
        return Ok(());
    }
    let path = folder.join(PLACES);
    let bytes = disk_gib(tier, PLACES_GIB) * f64::from(1 << 30);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    file.and_then(|file| file.set_len(bytes as u64))
        .with_context(|| format!("making `{}`, the places of the tier", path.display()))
}

fn own_keys(tier: &TierSpec, kind: &str, store: Store<'_>) -> Map<String, Value> {
    let extra = tier.settings.get("extra_config");
    let odirect = extra.and_then(|extra| extra.get("use_odirect"));
    // Not the page cache.
    let odirect = odirect.cloned().unwrap_or(Value::Bool(true));
    let keys = match kind {
        RAW_BLOCK => {
            let own = format!("{}/{PLACES}", store.folder);
            // What somebody's device holds is no run's own.
            let is_labruns = tier.adapter.device().is_none();
            json!({"device_path": own, "use_odirect": odirect, "load_checkpoint_on_init": is_labruns})
        }
        NIXL_STORE => {
            let files = disk_gib(tier, NIXL_GIB).ceil().max(1.0) as u64;
            let odirect = odirect == Value::Bool(true);
            let params = json!({
                "file_path": store.folder,
                "file_size": NIXL_FILE_BYTES.to_string(),
                "use_direct_io": odirect.to_string(),
            });
            json!({"backend": POSIX, "pool_size": files, "backend_params": params})
        }
        _ if matches!(tier.kind, TierKind::Disk | TierKind::CpuDisk) => {
            json!({"base_path": store.folder, "use_odirect": odirect})
        }
        _ if tier.kind.speaks_resp() => json!({"host": store.redis.0, "port": store.redis.1}),
        _ => Value::Null,
    };
    match keys {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}

/// Variables that hold the credentials of S3, which its adapter reads from the environment.
const CREDENTIALS: [&str; 3] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
];

/// What the LMCache server of a tier of `kind` gets in its environment to log in to the store; `redis_url`
/// is that of a Redis or a Valkey.
pub(super) fn login(kind: TierKind, redis_url: &str) -> Vec<(&'static str, String)> {
    if kind.speaks_resp() {
        return redis::adapter_login(redis_url);
    }
    if kind != TierKind::Adapter(Adapter::S3) {
        return Vec::new();
    }
    let given = CREDENTIALS.into_iter();
    let given = given.filter_map(|name| Some((name, std::env::var(name).ok()?)));
    given
        .inspect(|(_, value)| secret::remember(value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_plan(name: &str, adapter: Value, faults: Value) -> Value {
        let mut tier = TierSpec::built_in(name).unwrap();
        tier.adapter.keys = serde_json::from_value(adapter).unwrap();
        tier.adapter.faults = serde_json::from_value(faults).unwrap();
        let store = Store {
            folder: "/nvme/kv",
            redis: ("h", 6400),
        };
        of(&tier, store).unwrap_or_default()
    }

    #[test]
    fn keys_of_the_plan_come_over_those_of_labrun() {
        let set = json!({"type": "fs_native", "num_workers": 8, "use_odirect": false});
        assert_eq!(
            of_plan("disk", set, json!({})),
            json!({"type": "fs_native", "base_path": "/nvme/kv", "use_odirect": false, "num_workers": 8})
        );
        assert_eq!(
            of_plan("redis", json!({}), json!({})),
            json!({"type": "resp", "host": "h", "port": 6400})
        );
        let s3 = json!({"s3_endpoint": "b.h:1", "s3_region": "r"});
        assert_eq!(
            of_plan("s3", s3, json!({})),
            json!({"type": "s3", "s3_endpoint": "b.h:1", "s3_region": "r"})
        );
        assert_eq!(of_plan("cpu", json!({}), json!({})), Value::Null);
    }

    #[test]
    fn places_of_a_device_and_files_of_nixl_lie_in_the_scratch_folder() {
        let places = of_plan(
            "disk",
            json!({"type": "raw_block", "slot_bytes": 8192}),
            json!({}),
        );
        let expected = json!({
            "type": "raw_block", "device_path": "/nvme/kv/places", "use_odirect": true,
            "load_checkpoint_on_init": true, "slot_bytes": 8192,
        });
        assert_eq!(places, expected);
        let device = json!({"type": "raw_block", "slot_bytes": 8192, "device_path": "/dev/x"});
        let device = of_plan("disk", device, json!({}));
        assert_eq!(device["device_path"], "/dev/x");
        assert_eq!(device["load_checkpoint_on_init"], false, "an earlier run's");
        let more = json!({"type": "nixl_store", "backend_params": {"file_size": "4096"}});
        let params = json!({"file_path": "/nvme/kv", "file_size": "4096", "use_direct_io": "true"});
        assert_eq!(
            of_plan("disk", more, json!({})),
            json!({"type": "nixl_store", "backend": "POSIX", "pool_size": 4, "backend_params": params})
        );
        let mooncake = of_plan(
            "mooncake",
            json!({"metadata_server": "P2PHANDSHAKE"}),
            json!({}),
        );
        let expected = json!({"type": "mooncake_store", "metadata_server": "P2PHANDSHAKE"});
        assert_eq!(mooncake, expected);
    }

    #[test]
    fn the_file_of_places_is_as_large_as_the_tier_and_keeps_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let mut tier = TierSpec::built_in("disk").unwrap();
        prepare(&tier, folder.path()).unwrap();
        assert!(!folder.path().join(PLACES).exists(), "files need none");
        tier.adapter.keys.insert("type".into(), RAW_BLOCK.into());
        tier.settings
            .insert("max_local_disk_size".into(), 0.5.into());
        std::fs::write(folder.path().join(PLACES), "kept").unwrap();
        prepare(&tier, folder.path()).unwrap();
        let file = std::fs::File::open(folder.path().join(PLACES)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 29);
        let mut begin = [0; 4];
        std::io::Read::read_exact(&mut &file, &mut begin).unwrap();
        assert_eq!(&begin, b"kept");
    }

    #[test]
    fn faults_stand_before_the_adapter_that_serves() {
        let faulty = of_plan("disk", json!({}), json!({"rate": 0.1, "seed": 7}));
        let inner = json!({"type": "fs", "base_path": "/nvme/kv", "use_odirect": true});
        let expected = json!({"type": "fault_inject", "rate": 0.1, "seed": 7, "inner": inner});
        assert_eq!(faulty, expected);
    }
}
