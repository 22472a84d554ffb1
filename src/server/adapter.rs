//! The adapter of an LMCache server's second layer, as `--l2-adapter` takes it.

use serde_json::{Map, Value, json};

use super::redis;
use crate::plan::adapter::{Adapter, AdapterSpec, FAULT_INJECT};
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
    adapter.extend(own_keys(tier, store));
    adapter.extend(keys.clone());
    if faults.is_empty() {
        return Some(adapter.into());
    }
    let mut faulty = Map::new();
    faulty.insert("type".to_owned(), FAULT_INJECT.into());
    faulty.extend(faults.clone());
    faulty.insert("inner".to_owned(), adapter.into());
    Some(faulty.into())
}

fn own_keys(tier: &TierSpec, store: Store<'_>) -> Map<String, Value> {
    let keys = match tier.kind {
        TierKind::Disk | TierKind::CpuDisk => {
            let extra = tier.settings.get("extra_config");
            let odirect = extra.and_then(|extra| extra.get("use_odirect"));
            // Not the page cache.
            let odirect = odirect.cloned().unwrap_or(Value::Bool(true));
            json!({"base_path": store.folder, "use_odirect": odirect})
        }
        kind if kind.speaks_resp() => json!({"host": store.redis.0, "port": store.redis.1}),
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
    fn faults_stand_before_the_adapter_that_serves() {
        let faulty = of_plan("disk", json!({}), json!({"rate": 0.1, "seed": 7}));
        let inner = json!({"type": "fs", "base_path": "/nvme/kv", "use_odirect": true});
        let expected = json!({"type": "fault_inject", "rate": 0.1, "seed": 7, "inner": inner});
        assert_eq!(faulty, expected);
    }
}
