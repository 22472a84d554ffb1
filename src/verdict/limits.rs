//! Loads that no link could have carried.

use super::facts::{Facts, serves};
use crate::plan::state::CacheState;
use crate::record::schema::VerdictStatus;

/// Whether the pass claims a load faster than the link between host and GPU can carry. A claim that
/// is possible proves nothing, so only an impossible one is a finding.
pub(super) fn impossible_load(facts: &Facts) -> Option<(VerdictStatus, String)> {
    let read = matches!(facts.state, CacheState::Tier | CacheState::Restart) && serves(facts);
    let (claim, link) = (facts.fastest_load?, facts.host_link.as_ref()?);
    let size = facts.kv.stored.filter(|_| read && claim.seconds > 0.0)?;
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
