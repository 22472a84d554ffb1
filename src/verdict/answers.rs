//! What was planned against what was answered.

use std::collections::BTreeMap;

use super::causes::Documents;
use super::facts::{ClaimedBy, LoadClaim};
use super::log_counts::LogCounts;
use super::witnesses::Counted;
use crate::load::{LoadOutcome, Outcome, RequestRecord};
use crate::matrix::Cell;
use crate::plan::state::CacheState;
use crate::workload::{PlannedRequest, Schedule, Start};

/// Largest block of a GPU prefix cache; hits there are counted in whole blocks.
const GPU_BLOCK_TOKENS: u32 = 128;

/// The requests of a pass and their answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers<'a> {
    /// What was sent.
    pub schedule: &'a Schedule,
    /// What came back.
    pub load: &'a LoadOutcome,
    /// What came back for the canaries within the load: no statistic has them, every counter does.
    pub canaries: &'a [RequestRecord],
}

impl<'a> Answers<'a> {
    /// Every request of the load, canaries too.
    pub(crate) fn records(&self) -> impl Iterator<Item = &'a RequestRecord> + use<'a> {
        self.load.records.iter().chain(self.canaries)
    }

    /// Tokens that a cache should have had before the pass, over all requests that succeeded: the
    /// shared front of each prompt, less what the pass repeats itself, rounded down to what the
    /// cache has whole.
    pub(crate) fn expected_hit_tokens(&self, cell: &Cell, state: CacheState) -> f64 {
        if state == CacheState::Cold {
            return 0.0;
        }
        let unit = cache_unit(cell, state);
        let expected = self
            .answered()
            .map(|(planned, _)| f64::from(whole_units(planned, unit)));
        expected.sum()
    }

    /// Documents of which a cache should have had a part, and those of which an answer had less than
    /// `served_share` of that part from one; `None` where an answer does not state it.
    pub(crate) fn documents(
        &self,
        cell: &Cell,
        state: CacheState,
        served_share: f64,
    ) -> Option<Documents> {
        let unit = cache_unit(cell, state);
        let mut missed: BTreeMap<u32, bool> = BTreeMap::new();
        for record in &self.load.records {
            let planned = self.schedule.requests.get(record.index as usize)?;
            let expected = f64::from(whole_units(planned, unit));
            if record.outcome != Outcome::Ok || expected < 1.0 {
                continue;
            }
            let cached = record.cached_tokens()?;
            let cached = f64::from(cached.saturating_sub(planned.repeated_tokens));
            *missed.entry(planned.document).or_default() |= cached < served_share * expected;
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Some(Documents {
            missed: count(missed.values().filter(|missed| **missed).count()),
            of: count(missed.len()),
        })
    }

    /// The sum of `tokens` over all requests that succeeded.
    pub(crate) fn sum_of(&self, tokens: impl Fn(&PlannedRequest) -> u32) -> f64 {
        self.answered()
            .map(|(planned, _)| f64::from(tokens(planned)))
            .sum()
    }

    /// Requests whose prompt the server counted otherwise than planned.
    pub(crate) fn wrong_prompt_length(&self) -> u64 {
        let wrong = self.answered().filter(|(planned, counted)| {
            matches!((planned.prompt_tokens, counted), (Some(p), Some(c)) if p != *c)
        });
        wrong.count() as u64
    }

    /// What this load sent and got; what the server counted is not known here.
    pub(crate) fn counted(&self) -> Counted {
        let measured = self.counted_of(&self.load.records);
        Counted {
            in_flight: self.in_flight(),
            ..measured.and(&self.counted_in_load())
        }
    }

    /// The same of the canaries within the load alone.
    pub(crate) fn counted_in_load(&self) -> Counted {
        self.counted_of(self.canaries)
    }

    fn counted_of(&self, records: &[RequestRecord]) -> Counted {
        let planned = |record: &RequestRecord| self.schedule.requests.get(record.index as usize);
        // Of a request that failed the server may have read the prompt, and answered in part.
        let sent = records.iter().map(|record| {
            let planned = planned(record).and_then(|planned| planned.prompt_tokens);
            record.prompt_tokens().or(planned).map(f64::from)
        });
        let most_output = records.iter().map(|record| {
            let answered = record
                .output_tokens()
                .filter(|_| record.outcome == Outcome::Ok);
            answered
                .or_else(|| Some(planned(record)?.gen_len))
                .map(f64::from)
        });
        let too_long = ok(records).find_map(|record| {
            let (tokens, asked) = (record.output_tokens()?, planned(record)?.gen_len);
            (tokens > asked).then_some((tokens, asked))
        });
        let more_events = ok(records)
            .find_map(|record| surplus_events(record.token_events, record.output_tokens()?));
        let too_cached = ok(records).find_map(|record| {
            let (cached, prompt) = (record.cached_tokens()?, record.prompt_tokens()?);
            (cached > prompt).then_some((cached, prompt))
        });
        let cached = ok(records).filter_map(RequestRecord::cached_tokens);
        Counted {
            answered_prompt_tokens: total(records, RequestRecord::prompt_tokens),
            sent_prompt_tokens: sent.sum(),
            answered_output_tokens: total(records, RequestRecord::output_tokens),
            most_output_tokens: most_output.sum(),
            cached_tokens: cached.map(f64::from).sum(),
            all_cached_tokens: total(records, RequestRecord::cached_tokens),
            too_long,
            more_events,
            too_cached,
            ..Counted::default()
        }
    }

    /// The tokens of all answers by `count`; `None` where one does not state it.
    pub(crate) fn total_of(&self, count: fn(&RequestRecord) -> Option<u32>) -> Option<f64> {
        total(self.records(), count)
    }

    /// Most requests that this load has in flight, where its schedule bounds them.
    fn in_flight(&self) -> Option<u32> {
        let requests = &self.schedule.requests;
        let closed = requests.iter().all(|planned| planned.start == Start::Slot);
        // The server may still run what the client gave up.
        let whole = |record: &RequestRecord| !matches!(record.outcome, Outcome::Failed(_));
        (closed && self.records().all(whole)).then_some(self.schedule.slots)
    }

    /// The load of KV that was the fastest by what the answers show, or by LMCache's own log.
    pub(crate) fn fastest_load(&self, logs: &LogCounts, external_tokens: f64) -> Option<LoadClaim> {
        let logged = LoadClaim {
            tokens: logs.retrieved.tokens,
            seconds: logs.retrieved.cost_ms / 1e3,
            by: ClaimedBy::LmcacheLog,
        };
        fastest(
            self.fastest_answer(external_tokens)
                .into_iter()
                .chain([logged]),
        )
    }

    /// The load of KV that was the fastest by a request's time to first token, which no load may
    /// outlast, or by the whole pass, in which `external_tokens` came through the connector.
    pub(crate) fn fastest_answer(&self, external_tokens: f64) -> Option<LoadClaim> {
        let of_request = |record: &RequestRecord| {
            let planned = self.schedule.requests.get(record.index as usize)?;
            let cached = record
                .cached_tokens()?
                .saturating_sub(planned.repeated_tokens);
            Some(LoadClaim {
                tokens: f64::from(cached),
                seconds: record.ttft()?.as_secs_f64(),
                by: ClaimedBy::FirstToken,
            })
        };
        let whole = LoadClaim {
            tokens: external_tokens,
            seconds: self.load.window.duration.as_secs_f64(),
            by: ClaimedBy::WholePass,
        };
        let ok = |record: &&RequestRecord| record.outcome == Outcome::Ok;
        let claims = self.records().filter(ok).filter_map(of_request);
        fastest(claims.chain([whole]))
    }

    /// Planned requests that succeeded, with the server's count of prompt tokens.
    fn answered(&self) -> impl Iterator<Item = (&PlannedRequest, Option<u32>)> {
        self.records()
            .filter(|record| record.outcome == Outcome::Ok)
            .filter_map(|record| {
                let planned = self.schedule.requests.get(record.index as usize)?;
                Some((planned, record.prompt_tokens()))
            })
    }
}

/// The requests of `records` that succeeded.
fn ok<'a>(
    records: impl IntoIterator<Item = &'a RequestRecord>,
) -> impl Iterator<Item = &'a RequestRecord> {
    let records = records.into_iter();
    records.filter(|record| record.outcome == Outcome::Ok)
}

fn total<'a>(
    records: impl IntoIterator<Item = &'a RequestRecord>,
    count: fn(&RequestRecord) -> Option<u32>,
) -> Option<f64> {
    ok(records).map(|record| count(record).map(f64::from)).sum()
}

/// An answer's `events` with tokens and its output `tokens`, where there are more events than tokens.
pub(crate) fn surplus_events(events: u32, tokens: u32) -> Option<(u32, u32)> {
    // The last event may carry the end alone.
    (events > tokens + 1).then_some((events, tokens))
}

/// The claim of the highest rate, of those that claim a load at all.
fn fastest(claims: impl Iterator<Item = LoadClaim>) -> Option<LoadClaim> {
    let rate = |claim: &LoadClaim| claim.tokens / claim.seconds;
    claims
        .filter(|claim| claim.tokens > 0.0 && claim.seconds > 0.0)
        .max_by(|a, b| rate(a).total_cmp(&rate(b)))
}

/// Tokens that a cache has or misses together in `state`.
pub(crate) fn cache_unit(cell: &Cell, state: CacheState) -> u32 {
    match state {
        CacheState::Cold | CacheState::Gpu => GPU_BLOCK_TOKENS,
        CacheState::Tier | CacheState::Restart => cell.tier.chunk_tokens(),
    }
}

/// Tokens of a request that a cache can have before the pass: what is shared, in whole units, less
/// what the pass repeats itself.
pub(crate) fn whole_units(planned: &PlannedRequest, unit: u32) -> u32 {
    let whole = planned.shared_tokens / unit * unit;
    whole.saturating_sub(planned.repeated_tokens)
}

/// The first request that failed: its kind and the words that go with it.
pub(crate) fn first_failure(load: &LoadOutcome) -> Option<String> {
    load.records
        .iter()
        .find_map(|record| match &record.outcome {
            Outcome::Failed(failure) => {
                Some(format!("{}: {}", failure.kind.name(), failure.message))
            }
            Outcome::Ok | Outcome::Unfinished => None,
        })
}

#[cfg(test)]
mod tests;
