//! Findings besides the three witnesses: the probe, the logs, the page cache.

use super::facts::{BySource, Facts, PageCache, Stores, serves};
use super::failures::Failure;
use crate::plan::state::CacheState;
use crate::record::schema::VerdictStatus;

/// Whether so many requests failed that the others stand for nothing.
pub(super) fn failures(facts: &Facts) -> Option<(VerdictStatus, String)> {
    let all = facts.ok + facts.failed;
    let too_many = facts.failed as f64 > facts.limits.failed_share * all as f64;
    (facts.ok > 0 && too_many).then(|| {
        let first = facts.first_failure.as_deref().unwrap_or("unfinished");
        let message = format!("{} of {all} requests failed; first: {first}", facts.failed);
        (VerdictStatus::Inconclusive, message)
    })
}

/// Whether the state was reached, by a prompt of its own that was asked before the clock started.
pub(super) fn probe(facts: &Facts) -> Option<(VerdictStatus, String)> {
    let probe = facts.probe?;
    let state = facts.state;
    let enough = facts.limits.served_share * probe.expected_tokens;
    let cached = probe.sources.gpu_tokens + probe.sources.external_tokens;
    let (reached, message) = match state {
        CacheState::Gpu => {
            let tokens = probe.sources.gpu_tokens;
            let expected = probe.expected_tokens;
            (
                tokens >= enough,
                format!("the GPU cache had {tokens:.0} of {expected:.0} tokens of a probe"),
            )
        }
        CacheState::Tier | CacheState::Restart if serves(facts) => {
            let tokens = probe.sources.external_tokens;
            let expected = probe.expected_tokens;
            let gpu_tokens = probe.sources.gpu_tokens;
            if tokens < enough && gpu_tokens < 1.0 && came_from_tier(facts) {
                return Some(dropped(expected - tokens, expected));
            }
            let from_gpu = if gpu_tokens < 1.0 {
                String::new()
            } else {
                format!(", and the GPU prefix cache, which was not cleared, {gpu_tokens:.0}")
            };
            (
                tokens >= enough,
                format!("the tier served {tokens:.0} of {expected:.0} tokens of a probe{from_gpu}"),
            )
        }
        CacheState::Cold | CacheState::Tier | CacheState::Restart => (
            cached < 1.0,
            format!("{cached:.0} tokens of a probe came from a cache, where none should be left"),
        ),
    };
    (!reached).then(|| {
        (
            VerdictStatus::Invalid,
            format!(
                "the cache state `{}` was not reached: {message}",
                state.title()
            ),
        )
    })
}

/// Whether the pass had from the tier what it should have, by the counters. What it asks for again may come
/// from the tier or the GPU, and shows nothing of what was there when it began.
fn came_from_tier(facts: &Facts) -> bool {
    let expected = facts.expected_hit_tokens;
    let enough = facts.limits.served_share * expected;
    let came = |sources: BySource| {
        let cached = sources.external_tokens + sources.gpu_tokens;
        cached - facts.repeated_tokens >= enough
    };
    expected > 0.0 && facts.by_source.is_some_and(came)
}

/// A probe that was computed again, mostly because the tier dropped it. The GPU had nothing of it, so the
/// state was reached, and the pass itself shows that the tier kept its documents.
fn dropped(tokens: f64, expected: f64) -> (VerdictStatus, String) {
    let message = format!(
        "the tier did not give back {tokens:.0} of {expected:.0} tokens of a probe, and gave back those of \
         the pass: it may have little room left"
    );
    (VerdictStatus::Valid, message)
}

/// What went wrong during the pass, by the logs.
pub(super) fn logs(facts: &Facts) -> Vec<(VerdictStatus, String)> {
    let mut findings = Vec::new();
    let logs = &facts.logs;
    // A pass that no tier serves is measured all the same; what its stores met is a warning there.
    let status = match facts.state {
        CacheState::Tier | CacheState::Restart => VerdictStatus::Inconclusive,
        CacheState::Cold | CacheState::Gpu => VerdictStatus::Valid,
    };
    if logs.degraded {
        let message = "LMCache runs in degraded mode: it stores nothing and serves nothing";
        findings.push((VerdictStatus::Invalid, message.to_owned()));
    }
    let others = Failure::ALL
        .into_iter()
        .filter(|one| *one != Failure::Degraded);
    for failure in others {
        let (count, what) = (logs.count(failure), failure.what());
        if count > 0 {
            findings.push((status, format!("by the logs and counters, {count} {what}")));
        }
    }
    findings
}

/// Whether all that the pass was to find in the tier had arrived there. After a cold pass, that
/// nothing served, it only means that the bytes of its stores are not all counted.
pub(super) fn stores(facts: &Facts) -> Option<(VerdictStatus, String)> {
    let Stores::Unfinished { waited } = facts.stores else {
        return None;
    };
    let seconds = waited.as_secs();
    match facts.state {
        CacheState::Tier | CacheState::Restart if serves(facts) => Some((
            VerdictStatus::Inconclusive,
            format!(
                "the tier was still storing when the pass began, after {seconds} s: what it did not \
                 have yet, it could not serve"
            ),
        )),
        CacheState::Cold => Some((
            VerdictStatus::Valid,
            format!(
                "the tier was still storing {seconds} s after the pass: what it had not stored by \
                 then is not counted"
            ),
        )),
        CacheState::Gpu | CacheState::Tier | CacheState::Restart => None,
    }
}

/// Why the page cache did not answer for the disk.
pub(super) fn page_cache(facts: &Facts) -> Option<(VerdictStatus, String)> {
    let read = matches!(facts.state, CacheState::Tier | CacheState::Restart) && serves(facts);
    if !read || !facts.uses_disk() {
        return None;
    }
    let message = match facts.page_cache? {
        PageCache::Direct => "the disk is read with O_DIRECT, past the page cache".to_owned(),
        PageCache::Dropped { files } => {
            format!("the page cache of {files} files was dropped (fadvise) before the pass")
        }
    };
    Some((VerdictStatus::Valid, message))
}
