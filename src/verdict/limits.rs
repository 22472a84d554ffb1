//! Loads that no link could have carried.

use super::facts::{ClaimedBy, Facts, LinkLimit, LoadClaim, serves};
use crate::plan::state::CacheState;
use crate::record::schema::VerdictStatus;

/// Whether the pass claims a load faster than a link on the tier's way can carry. A claim that is
/// possible proves nothing, so only an impossible one is a finding.
pub(super) fn impossible_loads(facts: &Facts) -> Vec<(VerdictStatus, String)> {
    let read = matches!(facts.state, CacheState::Tier | CacheState::Restart) && serves(facts);
    if !read {
        return Vec::new();
    }
    // Behind RAM, what a disk or a network carries can be there before it is asked for: only the
    // answers bound it, and only where RAM serves nothing.
    let behind = facts.tier.is_second_layer_alone();
    let by_log = |claim: LoadClaim| claim.by == ClaimedBy::LmcacheLog;
    let is_untimed = facts.fastest_load.is_some_and(by_log) && !facts.log_times_loads();
    let loaded = if is_untimed {
        facts.fastest_answer
    } else {
        facts.fastest_load
    };
    let links = [
        (loaded, facts.host_link.as_ref()),
        (
            facts.fastest_answer,
            facts.tier_link.as_ref().filter(|_| behind),
        ),
    ];
    let all = links.into_iter();
    all.filter_map(|(claim, link)| impossible(facts, claim?, link?))
        .collect()
}

fn impossible(
    facts: &Facts,
    claim: LoadClaim,
    link: &LinkLimit,
) -> Option<(VerdictStatus, String)> {
    let size = facts.kv.stored.filter(|_| claim.seconds > 0.0)?;
    let rate = size.times(claim.tokens).low / claim.seconds;
    (rate > link.bytes_per_s).then(|| {
        let gigabytes = |bytes: f64| bytes / 1e9;
        let message = format!(
            "{} claims {:.0} tokens in {:.1} ms, {:.1} GB/s of KV, and the link carries {:.1} GB/s \
             at most ({}): they were not all loaded",
            claim.by.name(),
            claim.tokens,
            1e3 * claim.seconds,
            gigabytes(rate),
            gigabytes(link.bytes_per_s),
            link.source
        );
        (VerdictStatus::Invalid, message)
    })
}
