//! Whether the evidence shows that the declared tier served. Pure: facts in, verdict out.
//!
//! Counters alone prove nothing: an engine was seen to count hits, and to answer fast, while no
//! cached byte was loaded. So `valid` needs three witnesses that agree: the engine's counters, bytes
//! (or the tier's own account) that moved, and text that equals the text computed without the tier.

use std::collections::BTreeMap;

use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;

/// The word of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// The evidence shows that the declared tier served.
    Valid,
    /// The evidence does not settle it.
    Inconclusive,
    /// The evidence shows that it did not.
    Invalid,
}

/// A verdict with its reasons in plain words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The word: the worst that any reason demands.
    pub status: Status,
    /// Why, one sentence each, the worst first.
    pub reasons: Vec<String>,
}

/// Prompt tokens of a pass by where the engine says they came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BySource {
    /// Computed.
    pub computed_tokens: f64,
    /// Found in the GPU prefix cache.
    pub gpu_tokens: f64,
    /// Loaded through the connector.
    pub external_tokens: f64,
}

impl BySource {
    fn total(self) -> f64 {
        self.computed_tokens + self.gpu_tokens + self.external_tokens
    }
}

/// What the tier itself says that it served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierAccount {
    /// Tokens found in its RAM layer.
    pub ram_tokens: f64,
    /// Tokens found in its second layer (files or Redis).
    pub second_tokens: f64,
}

/// Canary prompts: asked once when their text was computed, and again in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canaries {
    /// How many were asked.
    pub asked: u32,
    /// How many were answered, both times, with text or token ids.
    pub answered: u32,
    /// How many were answered with the same text as before.
    pub same: u32,
    /// How many the server says a cache served part of.
    pub from_cache: u32,
}

/// Everything a verdict rests on. `None` is "not known", never zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The cache state that the pass was to run in.
    pub state: CacheState,
    /// The declared tier.
    pub tier: TierKind,
    /// Requests answered in full.
    pub ok: u64,
    /// The first failure, where there was one.
    pub first_failure: Option<String>,
    /// Prompt tokens by the engine's counters.
    pub by_source: Option<BySource>,
    /// Tokens that a cache should have held, chunk rounding counted in.
    pub expected_hit_tokens: f64,
    /// Requests whose prompt the server counted otherwise than planned.
    pub wrong_prompt_length: u64,
    /// The tier's own account.
    pub account: Option<TierAccount>,
    /// KV bytes a token.
    pub kv_bytes_per_token: Option<f64>,
    /// Bytes that came to the GPU over PCIe.
    pub pcie_rx_bytes: Option<f64>,
    /// Bytes fetched from storage.
    pub disk_read_bytes: Option<f64>,
    /// Bytes received from Redis.
    pub redis_read_bytes: Option<f64>,
    /// Canary prompts; absent where none were asked.
    pub canaries: Option<Canaries>,
}

/// Most of a pass's prompt tokens that may come from where none should.
const STRAY_SHARE: f64 = 0.01;
/// Least of the expected tokens or bytes that must have come from the tier.
const SERVED_SHARE: f64 = 0.9;

/// Judges one pass.
pub fn judge(facts: &Facts) -> Verdict {
    let mut findings = Vec::new();
    if facts.ok == 0 {
        let why = facts.first_failure.as_deref().unwrap_or("none was sent");
        findings.push((
            Status::Invalid,
            format!("no request succeeded; first: {why}"),
        ));
    }
    if facts.wrong_prompt_length > 0 {
        let said = format!(
            "the server counted another prompt length than planned in {} of {} requests",
            facts.wrong_prompt_length, facts.ok
        );
        findings.push((Status::Invalid, said));
    }
    match facts.by_source {
        None => findings.push((
            Status::Inconclusive,
            "the server exposes no vllm:prompt_tokens_by_source_total".to_owned(),
        )),
        Some(sources) => judge_sources(facts, sources, &mut findings),
    }
    findings.extend(canary_finding(facts));
    findings.sort_by_key(|(status, _)| std::cmp::Reverse(*status));
    let status = findings
        .first()
        .map_or(Status::Inconclusive, |(status, _)| *status);
    Verdict {
        status,
        reasons: findings.into_iter().map(|(_, said)| said).collect(),
    }
}

type Findings = Vec<(Status, String)>;

fn judge_sources(facts: &Facts, sources: BySource, findings: &mut Findings) {
    let total = sources.total().max(1.0);
    let stray = |tokens: f64, findings: &mut Findings, what: &str| {
        if tokens / total > STRAY_SHARE {
            let share = 100.0 * tokens / total;
            findings.push((
                Status::Invalid,
                format!("{share:.0} % of the prompt tokens {what}"),
            ));
        }
        tokens / total > STRAY_SHARE
    };
    match (facts.state, facts.tier) {
        (CacheState::Cold, _) => {
            let cached = sources.gpu_tokens + sources.external_tokens;
            if !stray(cached, findings, "came from a cache in a cold pass") {
                findings.push((Status::Valid, "every prompt was computed".to_owned()));
            }
        }
        (CacheState::Gpu, _) => {
            served(
                sources.gpu_tokens,
                facts.expected_hit_tokens,
                "the GPU cache",
                findings,
            );
        }
        (CacheState::Tier | CacheState::Restart, TierKind::Baseline) => {
            let cached = sources.gpu_tokens + sources.external_tokens;
            let what = "came from a cache, though this tier has none";
            if !stray(cached, findings, what) {
                let said = "every prompt was computed again, as without a tier it must be";
                findings.push((Status::Valid, said.to_owned()));
            }
        }
        (CacheState::Tier | CacheState::Restart, _) => {
            stray(
                sources.gpu_tokens,
                findings,
                "came from the GPU prefix cache, not the tier",
            );
            let from_tier = sources.external_tokens;
            if served(
                from_tier,
                facts.expected_hit_tokens,
                "the connector",
                findings,
            ) {
                findings.push(tier_finding(facts, sources.external_tokens));
            }
        }
    }
}

/// Says whether enough of the expected tokens were served.
fn served(tokens: f64, expected: f64, by: &str, findings: &mut Findings) -> bool {
    let enough = expected > 0.0 && tokens >= SERVED_SHARE * expected;
    let status = if enough {
        Status::Valid
    } else {
        Status::Invalid
    };
    let said = if expected > 0.0 {
        format!("{by} served {tokens:.0} of {expected:.0} expected tokens")
    } else {
        "no prompt is long enough to fill one chunk, so that nothing can be served".to_owned()
    };
    findings.push((status, said));
    enough
}

/// The second witness: bytes that moved, or else the tier's own account.
fn tier_finding(facts: &Facts, loaded_tokens: f64) -> (Status, String) {
    let (name, bytes) = match facts.tier {
        TierKind::Disk => ("disk", facts.disk_read_bytes),
        TierKind::Redis => ("Redis", facts.redis_read_bytes),
        _ => ("PCIe", facts.pcie_rx_bytes),
    };
    if let (Some(bytes), Some(per_token)) = (bytes, facts.kv_bytes_per_token) {
        let needed = loaded_tokens * per_token;
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let said = format!(
            "{:.0} MiB moved over {name} for {:.0} MiB of hits",
            mib(bytes),
            mib(needed)
        );
        let status = if bytes >= SERVED_SHARE * needed {
            Status::Valid
        } else {
            Status::Invalid
        };
        let said = match (status, facts.tier) {
            (Status::Invalid, TierKind::Disk) => format!("{said}: RAM answered for the disk"),
            (Status::Invalid, _) => format!("{said}: the hits were not loaded"),
            _ => said,
        };
        return (status, said);
    }
    match (facts.tier, facts.account) {
        (TierKind::Cpu, Some(account)) => accounted(account.ram_tokens, loaded_tokens, "RAM"),
        (TierKind::CpuDisk, Some(account)) => accounted(
            account.ram_tokens + account.second_tokens,
            loaded_tokens,
            "RAM and disk",
        ),
        _ => (
            Status::Inconclusive,
            format!("the bytes that {name} moved are not known, so that the load is not proven"),
        ),
    }
}

fn accounted(tokens: f64, loaded_tokens: f64, layer: &str) -> (Status, String) {
    let said =
        format!("LMCache's own account: {tokens:.0} tokens from {layer} for {loaded_tokens:.0}");
    let enough = tokens >= SERVED_SHARE * loaded_tokens;
    (
        if enough {
            Status::Valid
        } else {
            Status::Invalid
        },
        said,
    )
}

fn canary_finding(facts: &Facts) -> Option<(Status, String)> {
    let needed = facts.state != CacheState::Cold && facts.tier != TierKind::Baseline;
    let Some(canaries) = facts.canaries.filter(|canaries| canaries.asked > 0) else {
        let said = "no canary was asked, so that the text is not proven";
        return needed.then(|| (Status::Inconclusive, said.to_owned()));
    };
    let Canaries {
        asked,
        answered,
        same,
        from_cache,
    } = canaries;
    Some(if same < answered {
        let said = format!(
            "{} of {asked} canary answers changed: the loaded cache is not what was stored",
            answered - same
        );
        (Status::Invalid, said)
    } else if answered < asked {
        let said = format!(
            "{} of {asked} canaries were not answered, so that the text is not proven",
            asked - answered
        );
        (Status::Inconclusive, said)
    } else if needed && from_cache < asked {
        let said = format!(
            "{} of {asked} canaries were computed again, so that the text is not proven",
            asked - from_cache
        );
        (Status::Inconclusive, said)
    } else {
        let said = format!("{same} of {asked} canary answers stayed the same");
        (Status::Valid, said)
    })
}

/// The figures of the facts by name, the unit last, as records keep them.
pub fn figures(facts: &Facts) -> BTreeMap<String, f64> {
    let sources = facts.by_source;
    let named = [
        ("computed_tokens", sources.map(|s| s.computed_tokens)),
        ("gpu_cache_tokens", sources.map(|s| s.gpu_tokens)),
        ("external_tokens", sources.map(|s| s.external_tokens)),
        ("expected_hit_tokens", Some(facts.expected_hit_tokens)),
        ("lmcache_ram_tokens", facts.account.map(|a| a.ram_tokens)),
        (
            "lmcache_second_layer_tokens",
            facts.account.map(|a| a.second_tokens),
        ),
        ("kv_bytes_per_token", facts.kv_bytes_per_token),
        ("pcie_rx_bytes", facts.pcie_rx_bytes),
        ("disk_read_bytes", facts.disk_read_bytes),
        ("redis_read_bytes", facts.redis_read_bytes),
        ("canaries_asked", facts.canaries.map(|c| f64::from(c.asked))),
        ("canaries_same", facts.canaries.map(|c| f64::from(c.same))),
    ];
    named
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

#[cfg(test)]
mod tests;
