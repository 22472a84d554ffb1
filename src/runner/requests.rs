//! All requests of a cell, made before any clock starts.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;

use super::scope::RunScope;
use super::session::Session;
use crate::matrix::Cell;
use crate::plan::load_spec::Arrival;
use crate::plan::state::CacheState;
use crate::units::Concurrency;
use crate::workload::{self, Schedule, Workload, WorkloadFile};

/// All requests of a cell, made before any clock starts.
pub(super) struct Requests {
    pub(super) warmup: Option<Arc<Schedule>>,
    pub(super) fill: Option<Arc<Schedule>>,
    pub(super) passes: Vec<(CacheState, Arc<Schedule>)>,
    pub(super) canaries: Option<Arc<Schedule>>,
    /// One prompt that is asked before each state's clock starts.
    pub(super) probe: Option<Arc<Schedule>>,
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
    let workload = workload_of(cell, file.as_ref(), load.arrival);
    let build = |pass| schedule(&workload, pass, session);
    let mut passes = Vec::new();
    for &state in &run.states {
        passes.push((state, build(workload::Pass::State(state)).await?));
    }
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
    let canaries = match (run.states.last(), run.canaries) {
        (Some(CacheState::Cold) | None, _) | (_, 0) => None,
        (Some(_), count) => Some(schedule(&canary, workload::Pass::Canary(count), session).await?),
    };
    let probe = Workload {
        seed: cell.seed().derive("probe"),
        ..canary.clone()
    };
    let needs_probe = !matches!(run.states.last(), Some(CacheState::Cold) | None);
    let probe = if needs_probe {
        Some(schedule(&probe, workload::Pass::Canary(1), session).await?)
    } else {
        None
    };
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
    })
}

fn workload_of<'a>(
    cell: &'a Cell,
    file: Option<&'a WorkloadFile>,
    arrival: Arrival,
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
        vocab: cell.resolved.server.prompt_token_ids.clone(),
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
