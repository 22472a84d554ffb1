//! Whether a stack (engine, connector, model) answers from each tier what it answers without it: the
//! cells of a check's run, read as answers.

pub(crate) mod ladder;
mod page;
pub(crate) mod pairs;
mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::evidence::Evidence;
use crate::plan::server::LmcacheMode;
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::record::reader::RunData;
use crate::record::schema::{CellRecord, PassRecord, Source, Verdict, VerdictStatus, Witness};

/// What a check found at one place, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// The tier served, and the answers are those that were computed.
    Right,
    /// The evidence does not settle it.
    CannotTell,
    /// The tier did not serve all that it should have: counters or bytes show less.
    NotLoaded,
    /// Answers changed, or less was loaded than was counted as loaded.
    Wrong,
}

impl Answer {
    /// Best first.
    pub(crate) const ALL: [Self; 4] = [Self::Right, Self::CannotTell, Self::NotLoaded, Self::Wrong];

    /// The word on screens and in pages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::CannotTell => "cannot tell",
            Self::NotLoaded => "not loaded",
            Self::Wrong => "WRONG",
        }
    }

    /// What the verdict on one pass of a tier says about its answers.
    fn of(verdict: &Verdict) -> Self {
        let shows = |witness| verdict.witnesses.get(&witness).copied();
        let is_against = |witness| shows(witness) == Some(VerdictStatus::Invalid);
        if is_against(Witness::Text) {
            return Self::Wrong;
        }
        // The engine counted tokens as served for which no bytes came: it computed with what lay there.
        let counted = shows(Witness::Counters) == Some(VerdictStatus::Valid);
        if counted && (is_against(Witness::Bytes) || is_against(Witness::Limits)) {
            return Self::Wrong;
        }
        if is_against(Witness::Counters) || is_against(Witness::Bytes) {
            return Self::NotLoaded;
        }
        match verdict.status {
            VerdictStatus::Valid => Self::Right,
            VerdictStatus::Inconclusive | VerdictStatus::Invalid => Self::CannotTell,
        }
    }
}

/// Where answers were checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Spot {
    /// The tier's name.
    pub tier: String,
    /// Tier hit or after restart.
    pub state: CacheState,
    /// Requests in flight.
    pub concurrency: u32,
    /// Prompt length, tokens.
    pub prompt_len: u32,
}

/// What was found at one place, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// Where.
    #[serde(flatten)]
    pub spot: Spot,
    /// The worst of its rounds.
    pub answer: Answer,
    /// How often it was checked.
    pub rounds: u32,
    /// Why, of its worst round: a sentence each, the worst first.
    pub reasons: Vec<String>,
    /// The numbers of its worst round that say how much came back: tokens expected and served, canaries.
    pub evidence: BTreeMap<&'static str, f64>,
    /// The cell of its worst round.
    pub cell: String,
}

/// All that a check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StackCheck {
    /// The model.
    pub model: String,
    /// What `/version` answered; absent where no server did.
    pub engine: Option<String>,
    /// LMCache's version by the first identity that has it.
    pub lmcache: Option<String>,
    /// Where LMCache was; absent where no tier uses it.
    pub lmcache_mode: Option<LmcacheMode>,
    /// Whether a simulator answered.
    pub source: Source,
    /// Every place, in the order of tiers, states, concurrency and length.
    pub findings: Vec<Finding>,
    /// Cells that cannot be read, a sentence each.
    pub unreadable: Vec<String>,
}

/// The evidence that says how much came back and how far answers moved.
const SHOWN: [Evidence; 9] = [
    Evidence::ExpectedHitTokens,
    Evidence::ExternalTokens,
    Evidence::GpuCacheTokens,
    Evidence::CanariesAsked,
    Evidence::CanariesSame,
    Evidence::CanariesAlteredChanged,
    Evidence::CanaryDistanceNats,
    Evidence::CanaryToleranceNats,
    Evidence::InLoadCanariesSame,
];

impl StackCheck {
    /// Reads the answers from the cells of a run; absent where it has none.
    pub(crate) fn of(run: &RunData) -> Option<Self> {
        let first = run.cells.first()?;
        let mut findings: BTreeMap<Spot, Finding> = BTreeMap::new();
        for cell in &run.cells {
            for finding in findings_of(cell) {
                match findings.get_mut(&finding.spot) {
                    Some(there) => there.add(finding),
                    None => drop(findings.insert(finding.spot.clone(), finding)),
                }
            }
        }
        let server = |read: fn(&CellRecord) -> Option<String>| run.cells.iter().find_map(read);
        Some(Self {
            model: first.model.clone(),
            engine: server(|cell| cell.server.version.clone()),
            lmcache: server(|cell| cell.identity.get("version.lmcache").cloned()),
            lmcache_mode: run.cells.iter().find_map(|cell| cell.server.lmcache),
            source: first.source,
            findings: findings.into_values().collect(),
            unreadable: run.unreadable.clone(),
        })
    }

    /// How many places have this answer.
    pub(crate) fn count(&self, answer: Answer) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.answer == answer)
            .count()
    }

    /// Whether every place was checked and is right.
    pub(crate) fn is_right(&self) -> bool {
        let all_right = self.count(Answer::Right) == self.findings.len();
        all_right && !self.findings.is_empty() && self.unreadable.is_empty()
    }
}

impl Finding {
    /// Adds another round at the same place: the worse one speaks.
    fn add(&mut self, other: Self) {
        let rounds = self.rounds + other.rounds;
        if other.answer > self.answer {
            *self = other;
        }
        self.rounds = rounds;
    }
}

/// What one cell shows: nothing for the baseline, which has no tier.
fn findings_of(cell: &CellRecord) -> Vec<Finding> {
    if cell.kind_of_tier() == Some(TierKind::Baseline) {
        return Vec::new();
    }
    let spot = |state| Spot {
        tier: cell.coordinates.tier.clone(),
        state,
        concurrency: cell.coordinates.concurrency.get(),
        prompt_len: cell.coordinates.prompt_len.get(),
    };
    if let Some(failure) = cell.outcome.failure() {
        return vec![Finding {
            spot: spot(CacheState::Tier),
            answer: Answer::CannotTell,
            rounds: 1,
            reasons: vec![format!("the cell {failure}")],
            evidence: BTreeMap::new(),
            cell: cell.id.clone(),
        }];
    }
    let is_from_tier =
        |pass: &&PassRecord| matches!(pass.state, CacheState::Tier | CacheState::Restart);
    let passes = cell.passes.iter().filter(is_from_tier);
    passes
        .map(|pass| Finding {
            spot: spot(pass.state),
            answer: Answer::of(&pass.verdict),
            rounds: 1,
            reasons: pass.verdict.reasons.clone(),
            evidence: SHOWN
                .iter()
                .filter_map(|one| Some((one.name(), *pass.evidence.get(one.name())?)))
                .collect(),
            cell: cell.id.clone(),
        })
        .collect()
}
