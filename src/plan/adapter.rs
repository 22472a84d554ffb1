//! What a plan sets of the adapter behind an LMCache server: the keys of its second layer, and faults
//! that LMCache itself puts before it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml::de::DeValue;

use super::lmcache_keys::{self, Version};
use super::reader::TableReader;
use super::serializer;
use super::tier::TierKind;
use super::value::json;

/// Stores that only the second layer of an LMCache server reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adapter {
    /// A Valkey, with no RAM layer that answers first.
    Valkey,
    /// A bucket of an S3 store, with no RAM layer that answers first.
    S3,
    /// A Mooncake store, with no RAM layer of LMCache that answers first.
    Mooncake,
}

impl Adapter {
    /// The name that plans use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valkey => "valkey",
            Self::S3 => "s3",
            Self::Mooncake => "mooncake",
        }
    }
}

/// The type of LMCache's adapter that keeps chunks in places of a device or of one file.
pub(crate) const RAW_BLOCK: &str = "raw_block";
/// The type that moves chunks by NIXL.
pub(crate) const NIXL_STORE: &str = "nixl_store";
/// The type of the Mooncake store.
pub(crate) const MOONCAKE_STORE: &str = "mooncake_store";

/// NIXL's backend whose bytes the process's own account has: those of others pass the kernel by, or
/// leave the machine.
pub(crate) const POSIX: &str = "POSIX";

/// Keys of an adapter of the type `own` that only the plan can give.
fn needs(own: &str) -> &'static [&'static str] {
    match own {
        "s3" => &["s3_endpoint", "s3_region"],
        RAW_BLOCK => &["slot_bytes"],
        MOONCAKE_STORE => &["metadata_server"],
        _ => &[],
    }
}

/// The type of LMCache's adapter that wraps another and lets a part of its loads fail.
pub(crate) const FAULT_INJECT: &str = "fault_inject";

/// The tables of a tier that are about its adapter.
pub(super) const TABLES: [&str; 2] = ["adapter", FAULT_INJECT];

/// What a plan sets of a tier's adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdapterSpec {
    /// Keys of the adapter, over those that labrun gives it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub keys: Map<String, Value>,
    /// Keys of the adapter that injects faults; there is one where any is set.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub faults: Map<String, Value>,
}

impl AdapterSpec {
    /// Whether the plan sets nothing of it.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.faults.is_empty()
    }

    /// The type of the adapter of a tier of `kind`; `None` where there is none.
    pub(crate) fn type_name(&self, kind: TierKind) -> Option<&str> {
        let named = self.keys.get("type").and_then(Value::as_str);
        named.or_else(|| types(kind).first().copied())
    }

    /// The first key that a tier of `kind` cannot do without, and that the plan does not give.
    pub(crate) fn missing(&self, kind: TierKind) -> Option<&'static str> {
        let is_missing = |key: &&&str| !self.keys.contains_key(**key);
        let needs = needs(self.type_name(kind)?);
        needs.iter().find(is_missing).copied()
    }

    /// The device, or file, of the plan's own that keeps the chunks.
    pub(crate) fn device(&self) -> Option<&str> {
        self.keys.get("device_path").and_then(Value::as_str)
    }

    /// Whether a tier of `kind` finds again after a restart what its adapter stored: files by their
    /// names, and places in a file that is labrun's by their index. NIXL's files have random names. What
    /// a device of the plan's own held before is not asked for, so that no earlier run answers.
    pub(crate) fn outlives_server(&self, kind: TierKind) -> bool {
        let persists = self.keys.get("persist_enabled") != Some(&Value::Bool(false));
        match self.type_name(kind) {
            Some(NIXL_STORE) => false,
            Some(RAW_BLOCK) => self.device().is_none(),
            _ => persists,
        }
    }

    /// Why evidence of an adapter of the type `own` cannot be read as the plan sets it, and what to do.
    fn unseen(&self, own: &str) -> Option<(String, String)> {
        let backend = self.keys.get("backend").and_then(Value::as_str);
        if let Some(backend) = backend.filter(|backend| own == NIXL_STORE && *backend != POSIX) {
            let why = format!("labrun sees no bytes of NIXL's backend `{backend}`");
            return Some((why, format!("name `{POSIX}`, or leave it out")));
        }
        let is_buffered = self.keys.get("use_odirect") == Some(&Value::Bool(false));
        if own == RAW_BLOCK && is_buffered && self.device().is_some() {
            let why = "the page cache of a device of your own would answer for it".to_owned();
            return Some((why, "leave `use_odirect` out".to_owned()));
        }
        None
    }

    /// Reads `adapter` and `fault_inject` of a tier of `kind`.
    pub(super) fn read(kind: TierKind, table: &TableReader<'_>) -> Self {
        let spec = Self {
            keys: read_table("adapter", table),
            faults: read_table(FAULT_INJECT, table),
        };
        for (name, keys) in TABLES.into_iter().zip([&spec.keys, &spec.faults]) {
            if let Some((why, hint)) = spec.obstacle(kind, name, keys)
                && let Some(located) = table.value(name)
            {
                let message = format!("`{name}` in {}: {why}", table.title());
                table.problems().add(located.span, message, hint);
            }
        }
        spec
    }

    /// Why LMCache would not take the `keys` of the table `name`, and what to do.
    fn obstacle(
        &self,
        kind: TierKind,
        name: &str,
        keys: &Map<String, Value>,
    ) -> Option<(String, String)> {
        if keys.is_empty() {
            return None;
        }
        let known = types(kind);
        let own = self.type_name(kind).unwrap_or_default();
        if known.is_empty() {
            let why = format!("a tier of kind `{}` has no adapter", kind.name());
            return Some((why, "remove it".to_owned()));
        }
        if !known.contains(&own) {
            let why = format!("labrun reads no evidence of an adapter `{own}` here");
            return Some((why, format!("name one of {}", known.join(", "))));
        }
        if let Some(unseen) = self.unseen(own).filter(|_| name != FAULT_INJECT) {
            return Some(unseen);
        }
        let of = if name == FAULT_INJECT { name } else { own };
        let rate = keys.get("rate").filter(|_| name == FAULT_INJECT);
        if let Some(rate) = rate
            && !rate
                .as_f64()
                .is_some_and(|rate| (0.0..=1.0).contains(&rate))
        {
            let why = format!("`rate` is {rate}, and is a share of the chunks");
            return Some((why, "give a number from 0 to 1".to_owned()));
        }
        if let Some(serde) = keys.get("serde").filter(|_| name != FAULT_INJECT)
            && let Err(why) = serializer::check(serde, None)
        {
            return Some((why, "name one of them".to_owned()));
        }
        let mut names = keys.keys();
        let unknown = names.find_map(|key| lmcache_keys::check_adapter(of, key, None).err());
        unknown.map(|why| (why, "remove it, or correct its name".to_owned()))
    }

    /// Checks that LMCache `version`, or any listed one, has every key of an adapter as it is `given`.
    ///
    /// # Errors
    /// Names the first key that it does not have.
    pub(crate) fn check_given(given: &Value, version: Option<Version>) -> Result<(), String> {
        let Value::Object(keys) = given else {
            return Ok(());
        };
        let own = keys.get("type").and_then(Value::as_str).unwrap_or_default();
        for key in keys.keys() {
            lmcache_keys::check_adapter(own, key, version)?;
        }
        if let Some(serde) = keys.get("serde") {
            serializer::check(serde, version)?;
        }
        keys.get("inner")
            .map_or(Ok(()), |inner| Self::check_given(inner, version))
    }
}

/// Types of adapters that a tier of `kind` may have, the default first.
fn types(kind: TierKind) -> &'static [&'static str] {
    match kind {
        TierKind::Disk | TierKind::CpuDisk => &["fs", "fs_native", RAW_BLOCK, NIXL_STORE],
        TierKind::Redis | TierKind::Adapter(Adapter::Valkey) => &["resp"],
        TierKind::Adapter(Adapter::S3) => &["s3"],
        TierKind::Adapter(Adapter::Mooncake) => &[MOONCAKE_STORE],
        _ => &[],
    }
}

fn read_table(name: &str, table: &TableReader<'_>) -> Map<String, Value> {
    let read = |value: &DeValue<'_>| match json(value)? {
        Value::Object(keys) => Ok(keys),
        _ => Err("a table of the adapter's keys".to_owned()),
    };
    let located = table.read(name, read);
    located.map(|located| located.value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::server::LmcacheMode;
    use crate::plan::tier::tests::read_tier as read;

    #[test]
    fn keys_of_the_adapter_and_of_its_faults_are_taken() {
        let text = "adapter = { type = \"fs_native\", num_workers = 8 }\n\
                    fault_inject = { rate = 0.1, seed = 7 }";
        let (tier, problems) = read("disk", text);
        assert!(problems.is_empty(), "{problems:?}");
        let adapter = tier.unwrap().adapter;
        assert_eq!(adapter.keys["num_workers"], 8);
        assert_eq!(adapter.faults["rate"], 0.1);
        assert_eq!(adapter.type_name(TierKind::Disk), Some("fs_native"));
    }

    #[test]
    fn what_no_adapter_has_is_refused() {
        for (tier, text, expected) in [
            (
                "disk",
                "adapter = { use_o_direct = true }",
                "did you mean `use_odirect`?",
            ),
            (
                "disk",
                "adapter = { num_workers = 8 }",
                "has no key `num_workers`",
            ),
            (
                "disk",
                "adapter = { type = \"resp\" }",
                "no evidence of an adapter `resp`",
            ),
            (
                "cpu",
                "adapter = { type = \"fs\" }",
                "kind `cpu` has no adapter",
            ),
            (
                "baseline",
                "fault_inject = { rate = 0.5 }",
                "has no adapter",
            ),
            ("disk", "fault_inject = { rate = 2 }", "`rate` is 2"),
            (
                "disk",
                "fault_inject = { rat = 0.5 }",
                "did you mean `rate`?",
            ),
            ("disk", "adapter = 3", "a table"),
            (
                "s3",
                "adapter = { aws_secret_access_key = \"s3cret\" }",
                "looks like a secret",
            ),
            (
                "redis",
                "adapter = { password = \"s3cret\" }",
                "looks like a secret",
            ),
        ] {
            let (_, problems) = read(tier, text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            let all = format!("{} {}", problems[0].message, problems[0].hint);
            assert!(
                all.contains(expected) && !all.contains("s3cret"),
                "{text}: {all}"
            );
        }
    }

    #[test]
    fn an_adapter_of_which_labrun_sees_no_evidence_is_refused() {
        for (tier, text, expected) in [
            (
                "disk",
                "adapter = { type = \"nixl_store\", backend = \"OBJ\" }",
                "no bytes of NIXL's backend `OBJ`",
            ),
            (
                "disk",
                "adapter = { type = \"raw_block\", device_path = \"/dev/x\", use_odirect = false }",
                "the page cache of a device",
            ),
            (
                "disk",
                "adapter = { type = \"raw_block\", slot_byte = 1 }",
                "did you mean `slot_bytes`?",
            ),
            (
                "s3",
                "adapter = { type = \"mooncake_store\" }",
                "no evidence of an adapter `mooncake_store`",
            ),
        ] {
            let (_, problems) = read(tier, text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            let all = format!("{} {}", problems[0].message, problems[0].hint);
            assert!(all.contains(expected), "{text}: {all}");
        }
    }

    #[test]
    fn what_only_the_plan_can_give_is_missed_by_name() {
        for (tier, text, missing) in [
            ("disk", "", None),
            (
                "disk",
                "adapter = { type = \"raw_block\" }",
                Some("slot_bytes"),
            ),
            ("disk", "adapter = { type = \"nixl_store\" }", None),
            ("mooncake", "", Some("metadata_server")),
            (
                "s3",
                "adapter = { s3_endpoint = \"b.h\" }",
                Some("s3_region"),
            ),
        ] {
            let tier = read(tier, text).0.unwrap();
            assert_eq!(tier.adapter.missing(tier.kind), missing, "{text}");
        }
    }

    #[test]
    fn what_is_found_again_after_a_restart_depends_on_the_adapter() {
        for (text, outlives) in [
            ("", true),
            ("adapter = { type = \"fs_native\" }", true),
            ("adapter = { persist_enabled = false }", false),
            (
                "adapter = { type = \"raw_block\", slot_bytes = 4096 }",
                true,
            ),
            (
                "adapter = { type = \"raw_block\", slot_bytes = 4096, device_path = \"/dev/x\" }",
                false,
            ),
            ("adapter = { type = \"nixl_store\" }", false),
        ] {
            let tier = read("disk", text).0.unwrap();
            let mode = LmcacheMode::MultiProcess;
            assert_eq!(tier.survives_restart(mode), outlives, "{text}");
            assert!(!tier.survives_restart(LmcacheMode::InProcess));
        }
    }

    #[test]
    fn an_adapter_inside_another_is_checked_too() {
        let given = |inner: &str| serde_json::json!({"type": "fault_inject", "rate": 0.1, "inner": {"type": "fs", inner: 1}});
        assert_eq!(AdapterSpec::check_given(&given("base_path"), None), Ok(()));
        let refused = AdapterSpec::check_given(&given("base_pth"), None).unwrap_err();
        assert!(refused.contains("did you mean `base_path`?"), "{refused}");
    }
}
