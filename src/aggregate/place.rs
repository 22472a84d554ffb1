//! Where numbers are comparable: everything but the tier and the repeat.

use std::collections::BTreeMap;

use crate::matrix::Coordinates;
use crate::plan::state::CacheState;
use crate::units::{Concurrency, GenLen, PromptLen};

/// The tier that every other is compared with: no offloading.
pub const BASELINE: &str = "baseline";

/// The built-in tiers in the order that tables and legends have them.
const TIERS: [&str; 5] = [BASELINE, "cpu", "disk", "redis", "native"];

/// Sorts tiers: the built-in ones in their order, then all others by name.
pub fn tier_order(tier: &str) -> (usize, &str) {
    (
        TIERS
            .iter()
            .position(|known| *known == tier)
            .unwrap_or(TIERS.len()),
        tier,
    )
}

/// Coordinates without tier and repeat, and the cache state. Ordered as tables are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The workload's label.
    pub label: String,
    /// Generated tokens a request.
    pub gen_len: GenLen,
    /// Values of the further axes, by dotted plan key.
    pub extra: BTreeMap<String, String>,
    /// What was warm when the clock started.
    pub state: CacheState,
    /// Requests in flight.
    pub concurrency: Concurrency,
    /// Prompt length, tokens.
    pub prompt_len: PromptLen,
}

impl Place {
    /// Where a pass of a cell belongs.
    pub fn of(at: &Coordinates, state: CacheState) -> Self {
        Self {
            label: at.label.clone(),
            gen_len: at.gen_len,
            extra: at.extra.clone(),
            state,
            concurrency: at.concurrency,
            prompt_len: at.prompt_len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baseline_leads_and_strangers_follow() {
        let mut tiers = ["zfs", "redis", "cpu", "baseline", "ceph", "native", "disk"];
        tiers.sort_by(|a, b| tier_order(a).cmp(&tier_order(b)));
        assert_eq!(
            tiers,
            ["baseline", "cpu", "disk", "redis", "native", "ceph", "zfs"]
        );
    }
}
