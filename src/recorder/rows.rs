//! The requests of a pass, as they are written.

use std::time::Duration;

use crate::load::{Outcome, RequestRecord};
use crate::record::schema::{RequestOutcome, RequestRow};
use crate::runner::result::Pass;

/// The rows of one pass, in planned order.
pub(crate) fn request_rows(pass: &Pass) -> Vec<RequestRow> {
    pass.load
        .records
        .iter()
        .map(|record| request_row(pass, record))
        .collect()
}

fn request_row(pass: &Pass, record: &RequestRecord) -> RequestRow {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let planned = &pass.schedule.requests[record.index as usize];
    let (outcome, error) = match &record.outcome {
        Outcome::Ok => (RequestOutcome::Ok, None),
        Outcome::Failed(failure) => (
            RequestOutcome::Failed,
            Some(failure.kind.name().into_owned()),
        ),
        Outcome::Unfinished => (RequestOutcome::Unfinished, None),
    };
    RequestRow {
        state: pass.state,
        request: record.index,
        intended_ms: ms(record.intended),
        sent_ms: ms(record.sent.unwrap_or(record.began)),
        lateness_ms: record.lateness().map_or(0.0, ms),
        connect_ms: record.connect.map(ms),
        ttft_ms: record.ttft().map(ms),
        e2e_ms: record.e2e().map(ms),
        tpot_ms: record.tpot().map(ms),
        gaps_ms: record.gaps().map(ms).collect(),
        prompt_len: planned
            .prompt_tokens
            .or(record.prompt_tokens())
            .unwrap_or(0),
        gen_len: planned.gen_len,
        prompt_tokens: record.prompt_tokens(),
        cached_tokens: record.cached_tokens(),
        output_tokens: record.output_tokens(),
        frames: record.frames,
        coalesced_frames: record.coalesced_frames,
        token_events: Some(record.token_events),
        outcome,
        error,
        http_status: record.http_status,
    }
}
