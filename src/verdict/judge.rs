//! Weighs the facts of a pass: every finding has a status, and the worst decides.

use std::collections::BTreeMap;

use super::facts::{BySource, ConnectorFacts, Facts, serves};
use super::{causes, findings, legs, limits, text, witnesses};
use crate::plan::adapter::Adapter;
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::plan::verdict_spec::TextRule;
use crate::record::schema::{Verdict, VerdictStatus, Witness};
use crate::record::way::Way;

/// Judges one pass.
pub(crate) fn judge(facts: &Facts) -> Verdict {
    let (counters, bytes) = counters_and_bytes(facts);
    let state = findings::failures(facts)
        .into_iter()
        .chain(findings::probe(facts));
    let stored = findings::page_cache(facts)
        .into_iter()
        .chain(findings::stores(facts));
    let text = text::finding(facts)
        .into_iter()
        .chain(text::finding_in_load(facts));
    let all: [(Witness, Findings); 8] = [
        (Witness::Counters, counters),
        (Witness::Bytes, bytes),
        (Witness::Text, text.collect()),
        (Witness::Clients, witnesses::contradictions(facts)),
        (Witness::State, state.collect()),
        (Witness::Logs, findings::logs(facts)),
        (Witness::State, stored.collect()),
        (Witness::Limits, limits::impossible_loads(facts)),
    ];
    let mut alone: BTreeMap<Witness, VerdictStatus> = BTreeMap::new();
    let mut findings = Findings::new();
    for (witness, found) in all {
        for (status, message) in found {
            let own = alone.entry(witness).or_insert(status);
            *own = status.max(*own);
            findings.push((status, message));
        }
    }
    // Reports show the first reason alone.
    findings.sort_by_key(|(status, reason)| {
        let is_marked = TextRule::marks(Some(reason.as_str()));
        (std::cmp::Reverse(*status), !is_marked)
    });
    let status = findings
        .first()
        .map_or(VerdictStatus::Inconclusive, |(status, _)| *status);
    Verdict {
        status,
        reasons: findings.into_iter().map(|(_, message)| message).collect(),
        witnesses: alone,
    }
}

/// What the counters show, and the legs where these leave something to prove.
fn counters_and_bytes(facts: &Facts) -> (Findings, Findings) {
    let mut counters = Findings::new();
    let mut bytes = Findings::new();
    if facts.ok == 0 {
        let why = facts.first_failure.as_deref().unwrap_or("none was sent");
        counters.push((
            VerdictStatus::Invalid,
            format!("no request succeeded; first: {why}"),
        ));
    }
    if facts.wrong_prompt_length > 0 {
        let message = format!(
            "the server counted another prompt length than planned in {} of {} requests",
            facts.wrong_prompt_length, facts.ok
        );
        counters.push((VerdictStatus::Invalid, message));
    }
    match facts.by_source {
        None => counters.push((VerdictStatus::Inconclusive, facts.sources_unknown.clone())),
        Some(sources) => {
            if judge_sources(facts, sources, &mut counters) {
                bytes = leg_findings(facts);
            }
        }
    }
    (counters, bytes)
}

type Findings = Vec<(VerdictStatus, String)>;

/// Judges where tokens came from, and says whether bytes are to prove it.
fn judge_sources(facts: &Facts, sources: BySource, findings: &mut Findings) -> bool {
    let total = sources.total();
    // What a pass repeats itself may come from the GPU cache in any state.
    let stray = |tokens: f64, findings: &mut Findings, what: &str| {
        let is_stray = (tokens - facts.repeated_tokens) / total > facts.limits.stray_share;
        if is_stray {
            let share = 100.0 * tokens / total;
            findings.push((
                VerdictStatus::Invalid,
                format!("{share:.0} % of the prompt tokens {what}"),
            ));
        }
        is_stray
    };
    let cached = sources.gpu_tokens + sources.external_tokens;
    match (facts.state, facts.tier) {
        (CacheState::Cold, _) => {
            if !stray(cached, findings, "came from a cache in a cold pass") {
                findings.push((
                    VerdictStatus::Valid,
                    computed(facts, "every prompt was computed"),
                ));
            }
            true
        }
        (CacheState::Gpu, _) => {
            served(facts, sources.gpu_tokens, "the GPU cache", findings);
            false
        }
        (CacheState::Tier | CacheState::Restart, tier) if !serves(facts) => {
            let (what, message) = if tier == TierKind::Baseline {
                (
                    "came from a cache, though this tier has none",
                    "every prompt was computed again, as without a tier it must be",
                )
            } else {
                (
                    "came from a cache, though this tier does not survive a restart",
                    "every prompt was computed again: this tier does not survive a restart",
                )
            };
            if !stray(cached, findings, what) {
                findings.push((VerdictStatus::Valid, computed(facts, message)));
            }
            false
        }
        (CacheState::Tier | CacheState::Restart, _) => {
            stray(
                sources.gpu_tokens,
                findings,
                "came from the GPU prefix cache, not the tier",
            );
            let from_tier = sources.external_tokens;
            served(facts, from_tier, "the connector", findings) == Served::Enough
        }
    }
}

/// The sentence, with what the pass itself repeats taken out.
fn computed(facts: &Facts, sentence: &str) -> String {
    if facts.repeated_tokens > 0.0 {
        let repeated = facts.repeated_tokens;
        return format!("{sentence}, but for {repeated:.0} tokens that the pass repeats itself");
    }
    sentence.to_owned()
}

/// Whether a cache served what it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// Enough of it.
    Enough,
    /// Too little.
    TooLittle,
    /// The workload shares nothing: there was nothing to serve.
    NothingShared,
}

fn served(facts: &Facts, tokens: f64, by: &str, findings: &mut Findings) -> Served {
    let expected = facts.expected_hit_tokens;
    let (served, status, message) = if expected > 0.0 {
        let message = format!("{by} served {tokens:.0} of {expected:.0} expected tokens");
        let is_enough = tokens >= facts.limits.served_share * expected;
        let late = is_enough && causes::first_visits_fell_short(facts);
        if is_enough && !late {
            (Served::Enough, VerdictStatus::Valid, message)
        } else {
            let when = if late {
                ", many of them at a second visit"
            } else {
                ""
            };
            let why = causes::of_shortfall(facts);
            let message = format!("{message}{when}{why}");
            (Served::TooLittle, VerdictStatus::Invalid, message)
        }
    } else if facts.shared_tokens > facts.repeated_tokens {
        let message = "no prompt is long enough to fill one chunk, so that nothing can be served";
        (
            Served::TooLittle,
            VerdictStatus::Invalid,
            message.to_owned(),
        )
    } else if tokens > facts.repeated_tokens + 1.0 {
        let message = format!("{by} served {tokens:.0} tokens of prompts that should share none");
        (Served::NothingShared, VerdictStatus::Inconclusive, message)
    } else {
        let message = "the workload shares nothing between passes, and nothing was served";
        (
            Served::NothingShared,
            VerdictStatus::Valid,
            message.to_owned(),
        )
    };
    findings.push((status, message));
    served
}

/// The second witness: what the legs of the tier's way carried, or else the tier's own account.
/// Every leg that can be read is judged, and one that proves the load must be among them.
fn leg_findings(facts: &Facts) -> Findings {
    if !legs::are_judged(facts) {
        return Vec::new();
    }
    let all = legs::of_pass(facts);
    let judged = all.iter().filter_map(|leg| {
        let (status, message) = leg.judge(facts.limits.moved_share)?;
        Some((leg.path, status, message))
    });
    let judged: Vec<_> = judged.collect();
    // A cold pass claims that its prompts were computed; stores that fall short are a lie all the
    // same, and stores that cannot be read are no concern of it.
    if facts.state == CacheState::Cold {
        let short = judged
            .into_iter()
            .filter(|(_, status, _)| *status == VerdictStatus::Invalid);
        return short
            .map(|(_, status, message)| (status, message))
            .collect();
    }
    let seen: Vec<Way> = judged.iter().map(|(path, ..)| *path).collect();
    let mut findings: Findings = judged
        .into_iter()
        .map(|(_, status, message)| (status, message))
        .collect();
    if let Some(connector) = &facts.connector {
        findings.extend(unproven_connector(connector, &seen));
        return findings;
    }
    let proves = proving_legs(facts.tier);
    if !seen.iter().any(|way| proves.contains(way)) {
        let way = match facts.tier {
            tier if tier.reads_disk_alone() => {
                "no byte counter of the server's disk reads could be read"
            }
            TierKind::Redis => "no byte counter of Redis could be read",
            TierKind::Adapter(Adapter::Valkey) => "no byte counter of Valkey could be read",
            TierKind::Adapter(Adapter::S3) => "LMCache has no account of what S3 served",
            TierKind::Adapter(Adapter::Mooncake) => {
                "LMCache has no account of what Mooncake served"
            }
            _ => "no PCIe byte counter covers the whole pass, and the tier has no account",
        };
        findings.push((
            VerdictStatus::Inconclusive,
            format!("the load is not proven: {way}"),
        ));
    }
    findings
}

/// What of a connector's tier is not proven: every way that the plan names must have been `seen`, and
/// there must be one.
fn unproven_connector(connector: &ConnectorFacts, seen: &[Way]) -> Findings {
    let ways = connector.ways();
    if ways.is_empty() {
        let message = format!(
            "nothing that labrun can read shows what connector `{}` loaded: name a folder, a Redis, a \
             port or a counter under `watch` of its tier",
            connector.name
        );
        return vec![(VerdictStatus::Inconclusive, message)];
    }
    let unseen = ways.into_iter().filter(|(way, _)| !seen.contains(way));
    let finding = |(_, unread)| {
        let message = format!(
            "the load of connector `{}` is not proven: {unread}",
            connector.name
        );
        (VerdictStatus::Inconclusive, message)
    };
    unseen.map(finding).collect()
}

/// Legs of which one must be read to prove that this tier, and not another, served.
fn proving_legs(tier: TierKind) -> &'static [Way] {
    match tier {
        TierKind::Disk | TierKind::NativeFs | TierKind::SimpleDisk => &[Way::DiskRead],
        TierKind::Redis => &[Way::RedisRead],
        TierKind::Adapter(Adapter::Valkey) => &[Way::ValkeyRead],
        TierKind::Adapter(Adapter::S3 | Adapter::Mooncake) => &[Way::LmcacheSecondLayer],
        TierKind::Baseline | TierKind::Simple => &[Way::PcieRx],
        TierKind::Native => &[Way::PcieRx, Way::EngineLoad],
        TierKind::Cpu => &[Way::PcieRx, Way::LmcacheRam],
        // What proves it is in the facts.
        TierKind::Connector => &[],
        TierKind::CpuDisk => &[Way::PcieRx, Way::LmcacheRam, Way::LmcacheSecondLayer],
    }
}
