//! What was planned against what was answered.

use crate::load::{LoadOutcome, Outcome};
use crate::matrix::Cell;
use crate::plan::state::CacheState;
use crate::workload::{PlannedRequest, Schedule};

/// Largest block of a GPU prefix cache; hits there are counted in whole blocks.
const GPU_BLOCK_TOKENS: u32 = 128;

/// The requests of a pass and their answers.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'a> {
    /// What was sent.
    pub schedule: &'a Schedule,
    /// What came back.
    pub load: &'a LoadOutcome,
}

impl Answers<'_> {
    /// Tokens that a cache should have held before the pass, over all requests that succeeded: the
    /// shared front of each prompt, less what the pass repeats itself, rounded down to what the
    /// cache holds whole.
    pub fn expected_hit_tokens(&self, cell: &Cell, state: CacheState) -> f64 {
        if state == CacheState::Cold {
            return 0.0;
        }
        let unit = cache_unit(cell, state);
        let expected = self
            .answered()
            .map(|(planned, _)| f64::from(whole_units(planned, unit)));
        expected.sum()
    }

    /// The sum of `tokens` over all requests that succeeded.
    pub fn sum_of(&self, tokens: impl Fn(&PlannedRequest) -> u32) -> f64 {
        self.answered()
            .map(|(planned, _)| f64::from(tokens(planned)))
            .sum()
    }

    /// Requests whose prompt the server counted otherwise than planned.
    pub fn wrong_prompt_length(&self) -> u64 {
        let wrong = self.answered().filter(|(planned, counted)| {
            matches!((planned.prompt_tokens, counted), (Some(p), Some(c)) if p != *c)
        });
        wrong.count() as u64
    }

    /// Planned requests that succeeded, with the server's count of prompt tokens.
    fn answered(&self) -> impl Iterator<Item = (&PlannedRequest, Option<u32>)> {
        self.load
            .records
            .iter()
            .filter(|record| record.outcome == Outcome::Ok)
            .filter_map(|record| {
                let planned = self.schedule.requests.get(record.index as usize)?;
                Some((planned, record.prompt_tokens()))
            })
    }
}

/// Tokens that a cache holds or misses together in `state`.
pub fn cache_unit(cell: &Cell, state: CacheState) -> u32 {
    match state {
        CacheState::Cold | CacheState::Gpu => GPU_BLOCK_TOKENS,
        CacheState::Tier | CacheState::Restart => cell.tier.chunk_tokens(),
    }
}

/// Tokens of a request that a cache can hold before the pass: what is shared, in whole units, less
/// what the pass repeats itself.
pub fn whole_units(planned: &PlannedRequest, unit: u32) -> u32 {
    let whole = planned.shared_tokens / unit * unit;
    whole.saturating_sub(planned.repeated_tokens)
}

/// The first request that failed: its kind and the words that go with it.
pub fn first_failure(load: &LoadOutcome) -> Option<String> {
    load.records
        .iter()
        .find_map(|record| match &record.outcome {
            Outcome::Failed(failure) => {
                Some(format!("{}: {}", failure.kind.name(), failure.message))
            }
            Outcome::Ok | Outcome::Unfinished => None,
        })
}
