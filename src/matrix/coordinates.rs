//! Where a cell lies in the matrix.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::file_name::file_name;
use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

/// Where a cell lies in the matrix: readable, stable, what results are matched by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Coordinates {
    /// The workload's label.
    pub label: String,
    /// The tier's name.
    pub tier: String,
    /// Prompt length, tokens.
    pub prompt_len: PromptLen,
    /// Generated tokens a request.
    pub gen_len: GenLen,
    /// Requests in flight.
    pub concurrency: Concurrency,
    /// Repetition, from 1.
    pub repeat: Repeat,
    /// Values of the further axes, by dotted plan key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, String>,
}

/// The first word of the keys of tiers.
const TIER: &str = "tier";

/// Whether the plan's `key` can change what is measured on this tier with this workload: the keys of
/// other tiers and of other workloads cannot.
pub(super) fn concerns(key: &str, tier: &str, label: &str) -> bool {
    let mut parts = key.splitn(3, '.');
    match (parts.next(), parts.next()) {
        (Some(TIER), Some(name)) => name == tier,
        (Some("workload"), Some(name)) => name == label,
        _ => true,
    }
}

/// Whether `key` belongs to a tier.
pub(crate) fn is_of_tier(key: &str) -> bool {
    key.split('.').next() == Some(TIER)
}

impl Coordinates {
    /// The readable part of the cell's id. Two cells may share it: odd characters become `_`.
    pub fn slug(&self) -> String {
        let mut text = format!(
            "{}-{}-p{}-g{}-c{}",
            self.label, self.tier, self.prompt_len, self.gen_len, self.concurrency
        );
        for (key, value) in &self.extra {
            let last = key.rsplit('.').next().unwrap_or(key);
            text.push_str(&format!("-{last}={value}"));
        }
        format!("{}-r{}", file_name(&text), self.repeat)
    }

    /// The same without the tier and the values of its keys: where all tiers are asked the same.
    pub(super) fn without_tier(&self) -> Self {
        let mut at = self.clone();
        at.tier.clear();
        at.extra.retain(|key, _| !is_of_tier(key));
        at
    }

    /// The coordinates as bytes that no others have.
    pub(super) fn bytes(&self) -> Vec<u8> {
        // This cannot fail: maps have string keys only.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(label: &str, extra: &str) -> Coordinates {
        Coordinates {
            label: label.to_owned(),
            tier: "cpu".to_owned(),
            prompt_len: PromptLen::new(1).unwrap(),
            gen_len: GenLen::new(1).unwrap(),
            concurrency: Concurrency::new(1).unwrap(),
            repeat: Repeat::new(1).unwrap(),
            extra: BTreeMap::from([("server.args.x".to_owned(), extra.to_owned())]),
        }
    }

    #[test]
    fn coordinates_that_share_a_slug_differ_in_bytes() {
        let (a, b) = (at("a b", "1"), at("a/b", "1"));
        assert_eq!(a.slug(), b.slug());
        assert_ne!(a.bytes(), b.bytes());
    }

    #[test]
    fn a_slug_fits_a_file_name_and_keeps_its_repeat() {
        let slug = at("l", &"v".repeat(4000)).slug();
        assert!(slug.len() < 180, "{}", slug.len());
        assert!(slug.ends_with("-r1"), "{slug}");
    }
}
