//! Where numbers are comparable: everything but the tier and the repeat.

use std::collections::BTreeMap;

use crate::matrix::{Coordinates, is_of_tier};
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::units::{Concurrency, GenLen, PromptLen};

pub(crate) use crate::plan::tier::BASELINE;

/// Sorts tiers: the built-in ones in the plan's order, then all others by name.
pub(crate) fn tier_order(tier: &str) -> (usize, &str) {
    let order = TierKind::NAMED.iter().position(|(name, _)| *name == tier);
    (order.unwrap_or(TierKind::NAMED.len()), tier)
}

/// Coordinates without tier and repeat, and the cache state. Ordered as tables are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
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
    pub(crate) fn of(at: &Coordinates, state: CacheState) -> Self {
        Self {
            label: at.label.clone(),
            gen_len: at.gen_len,
            extra: at.extra.clone(),
            state,
            concurrency: at.concurrency,
            prompt_len: at.prompt_len,
        }
    }

    /// The same without the keys of tiers. These mean nothing to the baseline, so that its cells do
    /// not have them.
    fn without_tier_keys(&self) -> Self {
        let mut place = self.clone();
        place.extra.retain(|key, _| !is_of_tier(key));
        place
    }
}

/// For each of `places` that has no baseline of its own, the place whose baseline was measured for
/// it too, if there is one.
pub(super) fn baselines_to_lend<'a>(
    places: impl Iterator<Item = &'a Place>,
    has_baseline: impl Fn(&Place) -> bool,
) -> Vec<(Place, Place)> {
    places
        .filter(|place| !has_baseline(place))
        .map(|place| (place.without_tier_keys(), place.clone()))
        .filter(|(from, _)| has_baseline(from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baseline_leads_and_strangers_follow() {
        let mut tiers = [
            "zfs", "redis", "cpu", "baseline", "ceph", "native", "disk", "cpu+disk",
        ];
        tiers.sort_by(|a, b| tier_order(a).cmp(&tier_order(b)));
        assert_eq!(
            tiers,
            [
                "baseline", "cpu", "disk", "redis", "cpu+disk", "native", "ceph", "zfs"
            ]
        );
    }
}
