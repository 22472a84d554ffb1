//! What LMCache makes of KV before a tier stores it: smaller, at the price of other digits, or unreadable
//! to others.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lmcache_keys::Version;
use super::server::LmcacheMode;
use super::tier::TierSpec;

/// What comes back of the KV that went in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Returns {
    /// The same.
    Same,
    /// Nearly the same: answers may differ by design.
    Near,
}

/// What a tier stores KV with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Serializer {
    /// LMCache's name of it.
    pub name: String,
    /// What comes back.
    pub returns: Returns,
}

impl Serializer {
    /// Whether answers from the tier may differ by design, and its bytes from those of the GPU.
    pub(crate) fn is_lossy(&self) -> bool {
        self.returns == Returns::Near
    }
}

/// Types of the key `serde` of an adapter, and the first version that registers each. LMCache has code of
/// `asym_k16_v8` too, under which no version registers a type.
const SERDES: [(&str, Returns, Version); 3] = [
    ("fp8", Returns::Near, Version::new(0, 4, 5)),
    ("turboquant", Returns::Near, Version::new(0, 5, 1)),
    ("aesgcm", Returns::Same, Version::new(0, 5, 3)),
];

/// The value of `remote_serde` that stores KV as it is.
const NAIVE: &str = "naive";

/// Checks the value of an adapter's key `serde` against LMCache `version`, or any listed one.
///
/// # Errors
/// It names no type that this version has.
pub(super) fn check(serde: &Value, version: Option<Version>) -> Result<(), String> {
    let name = serde.get("type").and_then(Value::as_str).ok_or_else(|| {
        let names = SERDES.map(|(name, ..)| format!("`{name}`"));
        format!("`serde` is a table with a `type`: {}", names.join(", "))
    })?;
    let Some((_, _, since)) = SERDES.iter().find(|(known, ..)| *known == name) else {
        let names = SERDES.map(|(name, ..)| format!("`{name}`"));
        return Err(format!(
            "LMCache registers no `serde` of the type `{name}`: it has {}",
            names.join(", ")
        ));
    };
    match version {
        Some(version) if version < *since => Err(format!(
            "LMCache {version} has no `serde` of the type `{name}`: {since} and later have it"
        )),
        _ => Ok(()),
    }
}

impl TierSpec {
    /// Whether it stores KV with a loss.
    pub(crate) fn stores_with_loss(&self, mode: LmcacheMode) -> bool {
        self.serializer(mode)
            .is_some_and(|serializer| serializer.is_lossy())
    }

    /// What its KV is stored with; `None` where it is stored as it is.
    pub(crate) fn serializer(&self, mode: LmcacheMode) -> Option<Serializer> {
        let name = match mode {
            _ if !self.kind.uses_lmcache() => None,
            LmcacheMode::MultiProcess => self.adapter.keys.get("serde")?.get("type")?.as_str(),
            LmcacheMode::InProcess => self.settings.get("remote_serde")?.as_str(),
        };
        let name = name.filter(|name| *name != NAIVE)?;
        let known = SERDES.iter().find(|(known, ..)| *known == name);
        Some(Serializer {
            name: name.to_owned(),
            // Of one that is not known, nobody here knows that it returns the same.
            returns: known.map_or(Returns::Near, |(_, returns, _)| *returns),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tier::tests::read_tier as read;

    #[test]
    fn a_serializer_is_read_from_the_adapter_or_from_the_file_by_the_mode() {
        use LmcacheMode::{InProcess, MultiProcess};
        let of = |tier: &str, text: &str, mode| {
            let (tier, problems) = read(tier, text);
            assert!(problems.is_empty(), "{problems:?}");
            let found = tier.unwrap().serializer(mode);
            found.map(|serializer| (serializer.name.clone(), serializer.is_lossy()))
        };
        let named = |name: &str, is_lossy| Some((name.to_owned(), is_lossy));
        let fp8 = "adapter = { serde = { type = \"fp8\" } }";
        assert_eq!(of("disk", fp8, MultiProcess), named("fp8", true));
        assert_eq!(of("disk", fp8, InProcess), None);
        let aesgcm = "adapter = { serde = { type = \"aesgcm\", master_key_path = \"/k\" } }";
        assert_eq!(of("disk", aesgcm, MultiProcess), named("aesgcm", false));
        let cachegen = "remote_serde = \"cachegen\"";
        assert_eq!(of("redis", cachegen, InProcess), named("cachegen", true));
        assert_eq!(of("redis", "remote_serde = \"naive\"", InProcess), None);
        assert_eq!(of("native", "", InProcess), None);
    }

    #[test]
    fn a_type_that_lmcache_does_not_register_is_refused() {
        for (serde, expected) in [
            ("{ type = \"fp9\" }", "no `serde` of the type `fp9`"),
            ("{ type = \"asym_k16_v8\" }", "the type `asym_k16_v8`"),
            ("{ fp8_dtype = \"float8_e5m2\" }", "a table with a `type`"),
            ("\"fp8\"", "a table with a `type`"),
        ] {
            let (_, problems) = read("disk", &format!("adapter = {{ serde = {serde} }}"));
            assert_eq!(problems.len(), 1, "{serde}: {problems:?}");
            assert!(problems[0].message.contains(expected), "{problems:?}");
        }
        let aesgcm = serde_json::json!({"type": "aesgcm"});
        let at = |text: &str| check(&aesgcm, text.parse().ok());
        assert_eq!(at("0.5.3"), Ok(()));
        let refused = at("0.5.2").unwrap_err();
        assert!(refused.contains("0.5.3 and later have it"), "{refused}");
    }
}
