//! All requests of a cell, made before any clock starts.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use serde_json::Value;

use super::measure::canaries::CanaryBook;
use super::scope::RunScope;
use super::session::Session;
use crate::matrix::Cell;
use crate::plan::load_spec::Arrival;
use crate::plan::server::PROMPT_TOKEN_IDS;
use crate::plan::state::CacheState;
use crate::plan::workload_spec::{EndpointKind, PromptForm, WorkloadKind, WorkloadSpec};
use crate::server::kv_size;
use crate::units::{Concurrency, GenLen, PromptLen};
use crate::workload::{self, Schedule, Workload, WorkloadFile};

/// All requests of a cell, made before any clock starts.
pub(super) struct Requests {
    pub(super) warmup: Option<Arc<Schedule>>,
    pub(super) fill: Option<Arc<Schedule>>,
    pub(super) passes: Vec<(CacheState, Arc<Schedule>)>,
    pub(super) canaries: Option<CanaryBook>,
    /// One prompt that is asked before each state's clock starts.
    pub(super) probe: Option<Arc<Schedule>>,
    /// Other text for all KV blocks of the GPU, where they are to be overwritten.
    pub(super) overwrite: Option<Arc<Schedule>>,
    /// The warm-up of a server that was started again, on yet other text.
    pub(super) after_restart: Option<Arc<Schedule>>,
}

/// Builds every request of `cell`.
pub(super) async fn requests_of(
    cell: &Cell,
    session: &Session,
    scope: &RunScope<'_>,
) -> Result<Requests> {
    let run = &cell.resolved.run;
    let load = &cell.resolved.load;
    let file = match cell.workload.kind.path() {
        Some(path) => {
            let path = scope.plan_folder.join(path);
            Some(WorkloadFile::read(&path, &cell.workload, load.arrival)?)
        }
        None => None,
    };
    let vocabulary = kv_size::vocabulary(cell, scope.settings);
    let vocab = prompt_ids(&cell.resolved.server.prompt_token_ids, vocabulary);
    let workload = workload_of(cell, file.as_ref(), load.arrival, vocab);
    let build = |pass| schedule(&workload, pass, session);
    let warmup = match run.warmup {
        0 => None,
        count => Some(build(workload::Pass::Warmup(count)).await?),
    };
    let fill = match run.states.first() {
        Some(CacheState::Cold) | None => None,
        Some(_) => Some(build(workload::Pass::Fill).await?),
    };
    // Documents of their own: the first time they are asked about, nothing can hold them.
    let canary = Workload {
        seed: cell.seed().derive("canary"),
        concurrency: Concurrency::new(1).unwrap_or(workload.concurrency),
        arrival: Arrival::Closed,
        ..workload.clone()
    };
    let in_load = in_load(&canary, cell, session).await?;
    let canaries = match (run.states.last(), run.canaries) {
        (Some(CacheState::Cold) | None, _) | (_, 0) => None,
        (Some(_), count) => {
            let own = schedule(&canary, workload::Pass::Canary(count), session).await?;
            let altered = schedule(&canary, workload::Pass::Altered(count), session).await?;
            let (own, altered) = (own.shorter_first(), altered.shorter_first());
            Some(CanaryBook::new(own.into(), altered.into(), in_load.clone()))
        }
    };
    let mut passes = Vec::new();
    for &state in &run.states {
        let schedule = build(workload::Pass::State(state)).await?;
        let schedule = match &in_load {
            Some(in_load) => Arc::new(schedule.with_canaries(&in_load.requests)),
            None => schedule,
        };
        passes.push((state, schedule));
    }
    let probe = probe(&canary, cell, session).await?;
    let restarted = Workload {
        seed: cell.seed().derive("restart"),
        ..workload.clone()
    };
    let after_restart = match (run.states.contains(&CacheState::Restart), run.warmup) {
        (false, _) | (_, 0) => None,
        (true, count) => Some(schedule(&restarted, workload::Pass::Warmup(count), session).await?),
    };
    Ok(Requests {
        warmup,
        fill,
        passes,
        canaries,
        probe,
        after_restart,
        overwrite: overwrite(&workload, cell, session)?,
    })
}

/// One question on a document of its own, as canaries are asked.
async fn probe(
    canary: &Workload<'_>,
    cell: &Cell,
    session: &Session,
) -> Result<Option<Arc<Schedule>>> {
    if matches!(
        cell.resolved.run.states.last(),
        Some(CacheState::Cold) | None
    ) {
        return Ok(None);
    }
    let workload = Workload {
        seed: cell.seed().derive("probe"),
        ..canary.clone()
    };
    let all = schedule(&workload, workload::Pass::Canary(1), session).await?;
    let first = all.requests.iter().take(1).cloned().collect();
    let first = Schedule::from_requests(first, 1).without_scores();
    Ok(Some(Arc::new(first)))
}

/// Canaries within each load of a cell, on documents of their own. The cold load is what the others
/// are compared with, so without one there are none.
async fn in_load(
    canary: &Workload<'_>,
    cell: &Cell,
    session: &Session,
) -> Result<Option<Arc<Schedule>>> {
    let run = &cell.resolved.run;
    let has_others = run.states.first() == Some(&CacheState::Cold) && run.states.len() > 1;
    let count = cell.resolved.canaries_in_load().min(run.requests.get());
    if count == 0 || !has_others {
        return Ok(None);
    }
    let workload = Workload {
        seed: cell.seed().derive("canary-in-load"),
        ..canary.clone()
    };
    let all = schedule(&workload, workload::Pass::Canary(count), session).await?;
    let requests = all.requests.iter().take(count as usize).cloned().collect();
    Ok(Some(Arc::new(Schedule::from_requests(requests, 1))))
}

/// Most tokens that overwrite the GPU's KV blocks: under a minute for an 8B model on one GPU.
const MAX_OVERWRITE_TOKENS: f64 = 1_000_000.0;

/// Requests at once that overwrite the GPU's KV blocks.
const OVERWRITE_CONCURRENCY: u32 = 32;

/// Other text for all KV blocks of the GPU, which are reused in a circle.
///
/// Each prompt is a token shorter than a chunk: LMCache stores whole chunks only, so the tier takes
/// none of it. vLLM's own tier stores single blocks, and would lose what it is to serve.
fn overwrite(
    workload: &Workload<'_>,
    cell: &Cell,
    session: &Session,
) -> Result<Option<Arc<Schedule>>> {
    let run = &cell.resolved.run;
    let is_wanted = run
        .overwrite_gpu
        .unwrap_or(!cell.resolved.server.is_simulated());
    let is_possible = cell.tier.kind.uses_lmcache()
        && cell.tier.settings.get("save_unfull_chunk") != Some(&Value::Bool(true));
    let is_due = session.overwritten.is_none() && run.states.contains(&CacheState::Tier);
    let Some(gpu_tokens) = session
        .gpu_tokens
        .filter(|_| is_wanted && is_possible && is_due)
    else {
        return Ok(None);
    };
    let length = workload.chunk_tokens.saturating_sub(1).max(1);
    let count = (gpu_tokens.min(MAX_OVERWRITE_TOKENS) / f64::from(length)).ceil() as u32;
    let spec = WorkloadSpec {
        kind: WorkloadKind::Unique,
        endpoint: EndpointKind::Completions,
        prompt: PromptForm::TokenIds,
    };
    let workload = Workload {
        spec: &spec,
        seed: cell.seed().derive("overwrite"),
        prompt_len: PromptLen::new(length).unwrap_or(workload.prompt_len),
        gen_len: GenLen::new(1).unwrap_or(workload.gen_len),
        concurrency: Concurrency::new(OVERWRITE_CONCURRENCY).unwrap_or(workload.concurrency),
        arrival: Arrival::Closed,
        file: None,
        ..workload.clone()
    };
    let schedule = workload.build(workload::Pass::Warmup(count))?;
    Ok(Some(Arc::new(schedule)))
}

/// The ids that prompts are made of: those of the plan, or, where it names none, the usual ones as
/// far as the `vocabulary` goes. Small vocabularies begin with special tokens and single characters.
fn prompt_ids(planned: &Range<u32>, vocabulary: Option<u32>) -> Range<u32> {
    let is_named = *planned != PROMPT_TOKEN_IDS;
    match vocabulary {
        Some(size) if !is_named && size < planned.end => planned.start.min(size / 4)..size,
        _ => planned.clone(),
    }
}

fn workload_of<'a>(
    cell: &'a Cell,
    file: Option<&'a WorkloadFile>,
    arrival: Arrival,
    vocab: Range<u32>,
) -> Workload<'a> {
    let at = &cell.coordinates;
    Workload {
        spec: &cell.workload,
        label: &at.label,
        model: &cell.resolved.model,
        prompt_len: at.prompt_len,
        gen_len: at.gen_len,
        concurrency: at.concurrency,
        requests: cell.resolved.run.requests,
        arrival,
        seed: cell.seed(),
        vocab,
        chunk_tokens: cell.tier.chunk_tokens(),
        file,
    }
}

async fn schedule(
    workload: &Workload<'_>,
    pass: workload::Pass,
    session: &Session,
) -> Result<Arc<Schedule>> {
    let tokenize = |body: Bytes| {
        let control = session.control.clone();
        async move {
            control
                .tokenize(body)
                .await
                .map_err(|error| format!("{error:#}"))
        }
    };
    Ok(Arc::new(workload.build_text(pass, tokenize).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_bounds_the_ids_unless_the_plan_names_them() {
        let usual = PROMPT_TOKEN_IDS;
        for (planned, vocabulary, expected) in [
            (&usual, None, 1000..30_000),
            (&usual, Some(128_256), 1000..30_000),
            (&usual, Some(30_000), 1000..30_000),
            (&usual, Some(16_000), 1000..16_000),
            (&usual, Some(1024), 256..1024),
            (&(10..761), Some(512), 10..761),
        ] {
            assert_eq!(prompt_ids(planned, vocabulary), expected, "{vocabulary:?}");
        }
    }
}
