//! Asks canaries: what the cold state answers, whether those answers can change at all, and whether
//! the other states answer the same.

use std::sync::Arc;

use anyhow::anyhow;

use super::{Measuring, Results};
use crate::load::{Answer, LoadOutcome, Outcome, RequestRecord};
use crate::plan::state::CacheState;
use crate::record::schema::Phase;
use crate::runner::session::Failure;
use crate::verdict::Canaries;
use crate::verdict::text::{CanaryAnswer, Sight};
use crate::workload::Schedule;

/// The canaries of a cell.
pub(in crate::runner) struct CanaryBook {
    /// The questions on their documents.
    own: Arc<Schedule>,
    /// The same questions behind altered documents.
    altered: Arc<Schedule>,
    /// The questions that each load asks too.
    in_load: Option<Arc<Schedule>>,
    /// What the first answers show; absent before they came.
    first: Option<First>,
}

/// The answers that all later ones must equal.
struct First {
    answers: Vec<CanaryAnswer>,
    /// Answers of the cold load.
    in_load: Vec<CanaryAnswer>,
    sights: Sights,
    /// The same with the tolerance that the plan states for answers from the tier.
    of_tier: Sights,
}

/// What the first answers show, of the quiet server and within the load.
#[derive(Clone, Copy, Debug)]
struct Sights {
    quiet: Sight,
    in_load: Sight,
}

/// How the answers of a state compare with the first ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    /// Those of the quiet server.
    pub(super) quiet: Option<Canaries>,
    /// Those within the load.
    pub(super) in_load: Option<Canaries>,
}

impl CanaryBook {
    pub(in crate::runner) fn new(
        own: Arc<Schedule>,
        altered: Arc<Schedule>,
        in_load: Option<Arc<Schedule>>,
    ) -> Self {
        Self {
            own,
            altered,
            in_load,
            first: None,
        }
    }
}

impl Measuring<'_> {
    /// Asks the canaries of `book`: the first time to learn from their answers, then to compare.
    /// `in_load` came back for those within the load before.
    pub(super) async fn ask(
        &mut self,
        state: CacheState,
        book: Option<&mut CanaryBook>,
        in_load: Vec<RequestRecord>,
        results: &mut Results<'_>,
    ) -> Result<Compared, Failure> {
        let Some(book) = book else {
            return Ok(Compared::default());
        };
        let in_load = answers(in_load);
        let Some(first) = &book.first else {
            book.first = Some(self.learn(book, in_load, results).await?);
            return Ok(Compared::default());
        };
        let now = answers(self.answer(&book.own).await?.records);
        let sights = match state {
            CacheState::Tier | CacheState::Restart => first.of_tier,
            CacheState::Cold | CacheState::Gpu => first.sights,
        };
        let within = Canaries::compare(&first.in_load, &in_load, sights.in_load);
        Ok(Compared {
            quiet: Some(Canaries::compare(&first.answers, &now, sights.quiet)),
            in_load: Some(within).filter(|within| within.answered > 0),
        })
    }

    /// Asks every canary, asks again for the engine's noise, and asks behind altered documents.
    async fn learn(
        &mut self,
        book: &mut CanaryBook,
        in_load: Vec<CanaryAnswer>,
        results: &mut Results<'_>,
    ) -> Result<First, Failure> {
        let mut load = self.answer(&book.own).await?;
        if is_refused(&load) {
            let own = Arc::new(book.own.without_scores());
            let without = self.answer(&own).await?;
            if !is_refused(&without) {
                load = without;
                book.altered = Arc::new(book.altered.without_scores());
                book.own = own;
                let warning =
                    "the server refuses requests for log-probabilities: canaries compare text only";
                results.warnings.push(warning.to_owned());
            }
        }
        let first = answers(load.records);
        // From the GPU cache, since the documents were asked about a moment ago. Without one the tier
        // would answer, which is yet to be judged.
        let again = if self.cell.resolved.server.gpu_prefix_cache() {
            Some(answers(self.answer(&book.own).await?.records))
        } else {
            None
        };
        let altered = answers(self.answer(&book.altered).await?.records);
        let after = match book.in_load.clone().filter(|_| !in_load.is_empty()) {
            Some(questions) => Some(answers(self.answer(&questions).await?.records)),
            None => None,
        };
        let sights = |stated: Option<f64>| {
            let quiet = Sight::learn(&first, again.as_deref(), &altered, stated);
            let under_load =
                |after: &Vec<CanaryAnswer>| quiet.under_load([&in_load, after], [&first, &altered]);
            Sights {
                quiet,
                in_load: after.as_ref().map_or(quiet, under_load),
            }
        };
        let (sights, of_tier) = (sights(None), sights(self.stated_tolerance()));
        Ok(First {
            answers: first,
            in_load,
            sights,
            of_tier,
        })
    }

    /// By how much answers from the tier may differ, where it stores KV with a loss and the plan states it.
    fn stated_tolerance(&self) -> Option<f64> {
        let resolved = &self.cell.resolved;
        let is_lossy = self.cell.tier.stores_with_loss(resolved.server.lmcache);
        resolved.verdict.text_tolerance.filter(|_| is_lossy)
    }

    async fn answer(&mut self, canaries: &Arc<Schedule>) -> Result<LoadOutcome, Failure> {
        let (load, died) = self
            .drive(canaries)
            .await
            .map_err(Failure::of(Phase::Verify))?;
        match died {
            Some(how) => Err(Failure {
                phase: Phase::Verify,
                error: anyhow!("{how} while the canaries were asked"),
            }),
            None => Ok(load),
        }
    }
}

/// Whether the server took none of the requests for what they ask.
fn is_refused(load: &LoadOutcome) -> bool {
    let refused = |status: Option<u16>| status.is_some_and(|status| (400..500).contains(&status));
    !load.records.is_empty()
        && load
            .records
            .iter()
            .all(|record| refused(record.http_status))
}

fn answers(records: Vec<RequestRecord>) -> Vec<CanaryAnswer> {
    let answers = records.into_iter().map(|record| {
        let from_cache = record.cached_tokens().is_some_and(|tokens| tokens > 0);
        let (text, scores) = match (record.outcome, record.answer) {
            (
                Outcome::Ok,
                Answer::Whole {
                    text,
                    token_ids,
                    scores,
                },
            ) if token_ids.is_empty() => (Some(text).filter(|text| !text.is_empty()), scores),
            (
                Outcome::Ok,
                Answer::Whole {
                    token_ids, scores, ..
                },
            ) => (Some(format!("{token_ids:?}")), scores),
            _ => (None, Vec::new()),
        };
        CanaryAnswer {
            text,
            scores,
            from_cache,
        }
    });
    answers.collect()
}

/// Takes the canaries within `load` out of it: no statistic counts them.
pub(super) fn take_canaries(schedule: &Schedule, load: &mut LoadOutcome) -> Vec<RequestRecord> {
    let is_canary = |record: &RequestRecord| {
        let planned = schedule.requests.get(record.index as usize);
        planned.is_some_and(|planned| planned.is_canary)
    };
    if !schedule.requests.iter().any(|planned| planned.is_canary) {
        return Vec::new();
    }
    let all = std::mem::take(&mut load.records);
    let (canaries, measured) = all.into_iter().partition(is_canary);
    load.records = measured;
    canaries
}
