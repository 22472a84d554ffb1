//! Findings of counts that contradict each other: what the client sent and got, and what the server
//! counted of it. Where they differ, somebody else used the server, or one of them is wrong.

use serde::{Deserialize, Serialize};

use super::account::CachedTokens;
use super::facts::{BySource, Facts, serves};
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::record::schema::VerdictStatus;
use crate::units::thousands;

/// What the load of a pass sent and got, and what the server counted meanwhile. `None` is "not
/// known", never zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counted {
    /// Prompt tokens of the answers, by their usage.
    pub answered_prompt_tokens: Option<f64>,
    /// Prompt tokens of all requests that were sent, by usage or else by plan.
    pub sent_prompt_tokens: Option<f64>,
    /// Prompt tokens by the server's counter.
    pub server_prompt_tokens: Option<f64>,
    /// Output tokens of the answers, by their usage.
    pub answered_output_tokens: Option<f64>,
    /// Most output tokens that the requests can have caused: those of the answers, and what requests
    /// without a whole answer asked for.
    pub most_output_tokens: Option<f64>,
    /// Output tokens by the server's counter.
    pub server_output_tokens: Option<f64>,
    /// Cached prompt tokens by the usage of those answers that have it.
    pub cached_tokens: f64,
    /// The same where every answer has it.
    pub all_cached_tokens: Option<f64>,
    /// The first answer with more output tokens than it was asked for: these, and those asked for.
    pub too_long: Option<(u32, u32)>,
    /// The first answer with more events that carry tokens than output tokens: both.
    pub more_events: Option<(u32, u32)>,
    /// The first answer with more cached than prompt tokens: both.
    pub too_cached: Option<(u32, u32)>,
    /// Most requests that the server was seen to run at once.
    pub running_max: Option<f64>,
    /// Most requests that this load has in flight; absent where nothing bounds them.
    pub in_flight: Option<u32>,
    /// The first counter that fell, in words.
    pub fallen: Option<String>,
}

impl Counted {
    /// The counts of two parts of one load; what the server counted is that of `self`.
    #[must_use]
    pub(crate) fn and(self, other: &Self) -> Self {
        let sum = |one: Option<f64>, two: Option<f64>| Some(one? + two?);
        Self {
            answered_prompt_tokens: sum(self.answered_prompt_tokens, other.answered_prompt_tokens),
            sent_prompt_tokens: sum(self.sent_prompt_tokens, other.sent_prompt_tokens),
            answered_output_tokens: sum(self.answered_output_tokens, other.answered_output_tokens),
            most_output_tokens: sum(self.most_output_tokens, other.most_output_tokens),
            cached_tokens: self.cached_tokens + other.cached_tokens,
            all_cached_tokens: sum(self.all_cached_tokens, other.all_cached_tokens),
            too_long: self.too_long.or(other.too_long),
            more_events: self.more_events.or(other.more_events),
            too_cached: self.too_cached.or(other.too_cached),
            ..self
        }
    }
}

/// Two counts of one thing may differ by this share: a counter may be read a step too early.
const SLACK: f64 = 0.01;

/// Every contradiction, with both numbers.
pub(super) fn contradictions(facts: &Facts) -> Vec<(VerdictStatus, String)> {
    let counted = &facts.counted;
    let mut findings = traffic(counted);
    findings.extend(output(counted));
    findings.extend(cached(facts));
    findings.extend(by_tier(facts));
    findings.extend(own_account(facts));
    if let Some(fallen) = &counted.fallen {
        let reason = format!(
            "{fallen} during the pass: the server was started again, or another one answered"
        );
        findings.push((VerdictStatus::Inconclusive, reason));
    }
    findings
}

fn exceeds(count: f64, other: f64) -> bool {
    count > other * (1.0 + SLACK) + 1.0
}

/// Whether the server served this load, all of it and nothing else.
fn traffic(counted: &Counted) -> Vec<(VerdictStatus, String)> {
    let mut findings = Vec::new();
    let server = counted.server_prompt_tokens;
    if let (Some(server), Some(sent)) = (server, counted.sent_prompt_tokens)
        && exceeds(server, sent)
    {
        let reason = format!(
            "the server served {} prompt tokens, this load sent {}: another client used it",
            thousands(server),
            thousands(sent)
        );
        findings.push((VerdictStatus::Invalid, reason));
    }
    if let (Some(server), Some(answered)) = (server, counted.answered_prompt_tokens)
        && exceeds(answered, server)
    {
        let reason = format!(
            "the server served {} prompt tokens, this load sent {}: its counters are not those of \
             the server that answered",
            thousands(server),
            thousands(answered)
        );
        findings.push((VerdictStatus::Invalid, reason));
    }
    if let (Some(running), Some(most)) = (counted.running_max, counted.in_flight)
        && running > f64::from(most)
    {
        let reason = format!(
            "the server ran {} requests at once, this load has at most {} in flight: another client \
             used it",
            thousands(running),
            thousands(f64::from(most))
        );
        findings.push((VerdictStatus::Invalid, reason));
    }
    findings
}

/// Whether the output tokens of usage, of the server's counter and of the events agree.
fn output(counted: &Counted) -> Vec<(VerdictStatus, String)> {
    let mut findings = Vec::new();
    let mut add = |reason: String| findings.push((VerdictStatus::Invalid, reason));
    if let Some((tokens, asked)) = counted.too_long {
        add(format!(
            "an answer has {} output tokens by its usage, {} were asked for",
            thousands(f64::from(tokens)),
            thousands(f64::from(asked))
        ));
    }
    if let Some((events, tokens)) = counted.more_events {
        add(format!(
            "an answer has {} output tokens by its usage, and came in {} events with tokens",
            thousands(f64::from(tokens)),
            thousands(f64::from(events))
        ));
    }
    let Some(server) = counted.server_output_tokens else {
        return findings;
    };
    if let Some(most) = counted.most_output_tokens
        && exceeds(server, most)
    {
        add(format!(
            "the server generated {} output tokens, this load got {} at most: another client used it, \
             or the usage of its answers is wrong",
            thousands(server),
            thousands(most)
        ));
    }
    if let Some(answered) = counted.answered_output_tokens
        && exceeds(answered, server)
    {
        add(format!(
            "the answers have {} output tokens by their usage, the server generated {}",
            thousands(answered),
            thousands(server)
        ));
    }
    findings
}

/// Whether the cached tokens of usage are possible, and those of the engine's counters.
fn cached(facts: &Facts) -> Vec<(VerdictStatus, String)> {
    let counted = &facts.counted;
    let mut findings = Vec::new();
    if let Some((cached, prompt)) = counted.too_cached {
        let reason = format!(
            "an answer's usage has {} cached tokens of {} prompt tokens",
            thousands(f64::from(cached)),
            thousands(f64::from(prompt))
        );
        findings.push((VerdictStatus::Invalid, reason));
    }
    let Some(sources) = facts.by_source else {
        return findings;
    };
    let counters = sources.gpu_tokens + sources.external_tokens;
    // An engine may compute a prompt's last token again.
    let slack = (SLACK * sources.total()).max(facts.ok as f64) + 1.0;
    let more = counted.cached_tokens > counters + slack;
    let fewer = facts.failed == 0
        && counted
            .all_cached_tokens
            .is_some_and(|cached| cached + slack < counters);
    if more || fewer {
        let reason = format!(
            "the answers have {} cached tokens by their usage, the engine's counters have {}",
            thousands(counted.cached_tokens),
            thousands(counters)
        );
        findings.push((VerdictStatus::Inconclusive, reason));
    }
    findings
}

/// Whether the engine's counters of cached tokens by tier agree with those by source, and name the
/// tier that the plan declares.
fn by_tier(facts: &Facts) -> Vec<(VerdictStatus, String)> {
    let (Some(sources), Some(cached)) = (facts.by_source, facts.engine.cached) else {
        return Vec::new();
    };
    let slack = (SLACK * sources.total()).max(facts.ok as f64) + 1.0;
    let pairs = [
        (cached.gpu_tokens, sources.gpu_tokens, "the GPU cache"),
        (cached.external(), sources.external_tokens, "a connector"),
    ];
    let mut findings = Vec::new();
    for (by_tier, by_source, place) in pairs {
        if (by_tier - by_source).abs() > slack {
            let reason = format!(
                "the engine counts {} tokens from {place} by tier, and {} by source",
                thousands(by_tier),
                thousands(by_source)
            );
            findings.push((VerdictStatus::Inconclusive, reason));
        }
    }
    findings.extend(other_layer(facts, sources, cached));
    findings
}

/// Whether the engine counts tokens from a layer of vLLM's own tier that was not to serve.
fn other_layer(
    facts: &Facts,
    sources: BySource,
    cached: CachedTokens,
) -> Option<(VerdictStatus, String)> {
    let (tokens, why) = match facts.tier {
        TierKind::Native | TierKind::Simple => (
            cached.behind_tokens,
            "a tier behind its RAM, and this tier has none",
        ),
        TierKind::NativeFs | TierKind::SimpleDisk if serves(facts) => (
            cached.ram_tokens - facts.repeated_tokens,
            "its RAM, and files alone were to serve",
        ),
        _ => return None,
    };
    let is_tier = matches!(facts.state, CacheState::Tier | CacheState::Restart);
    let is_strange = is_tier && tokens > facts.limits.stray_share * sources.total();
    is_strange.then(|| {
        let reason = format!(
            "the engine counts {} of {} tokens from {why}",
            thousands(tokens),
            thousands(cached.external())
        );
        (VerdictStatus::Invalid, reason)
    })
}

/// Whether the bytes that vLLM's own offloading counts went over PCIe.
fn own_account(facts: &Facts) -> Option<(VerdictStatus, String)> {
    let (claimed, seen) = (facts.engine.load_bytes?, facts.pcie_rx_bytes?);
    (seen.high < facts.limits.moved_share * claimed).then(|| {
        let reason = format!(
            "vLLM counts {} bytes that its offloading loaded, {} moved to the GPU over PCIe",
            thousands(claimed),
            thousands(seen.middle())
        );
        (VerdictStatus::Invalid, reason)
    })
}
