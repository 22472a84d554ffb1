//! What the requests of a pass came to, counted again from their rows.

use std::collections::BTreeMap;

use crate::record::schema::{Counts, RequestOutcome, RequestRow};
use crate::verdict::answers::surplus_events;
use crate::verdict::{ClaimedBy, Counted, Facts, LoadClaim};

/// What became of the requests.
pub(super) fn counts(rows: &[&RequestRow]) -> Counts {
    let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count() as u64;
    Counts {
        sent: rows.len() as u64,
        ok: count(RequestOutcome::Ok),
        failed: count(RequestOutcome::Failed),
        unfinished: count(RequestOutcome::Unfinished),
    }
}

/// Failed requests by kind of error.
pub(super) fn errors(rows: &[&RequestRow]) -> BTreeMap<String, u64> {
    let mut errors = BTreeMap::new();
    for error in rows.iter().filter_map(|row| row.error.clone()) {
        *errors.entry(error).or_default() += 1;
    }
    errors
}

/// What the rows of a pass and its canaries came to, with what the server counted by `facts`; `None`
/// where nothing says what the canaries within the load came to.
pub(super) fn counted_again(rows: &[&RequestRow], facts: &Facts) -> Option<Counted> {
    let of_rows = counted(rows, &facts.counted);
    match &facts.counted_in_load {
        Some(in_load) => Some(of_rows.and(in_load)),
        None => (facts.in_load == 0).then_some(of_rows),
    }
}

/// `counted` with all that the rows say; what the server counted stays.
pub(super) fn counted(rows: &[&RequestRow], counted: &Counted) -> Counted {
    let ok = || ok(rows);
    let total = |pick: fn(&RequestRow) -> Option<u32>| -> Option<f64> {
        ok().map(|row| pick(row).map(f64::from)).sum()
    };
    let sent = rows.iter().map(|row| {
        let planned = Some(row.prompt_len).filter(|tokens| *tokens > 0);
        row.prompt_tokens.or(planned).map(f64::from)
    });
    let most_output = rows.iter().map(|row| {
        let answered = row
            .output_tokens
            .filter(|_| row.outcome == RequestOutcome::Ok);
        f64::from(answered.unwrap_or(row.gen_len))
    });
    // Older files do not have the events.
    let has_events = rows.iter().all(|row| row.token_events.is_some());
    let more_events = ok().find_map(|row| surplus_events(row.token_events?, row.output_tokens?));
    let cached = ok().filter_map(|row| row.cached_tokens).map(f64::from);
    Counted {
        answered_prompt_tokens: total(|row| row.prompt_tokens),
        sent_prompt_tokens: sent.sum(),
        answered_output_tokens: total(|row| row.output_tokens),
        most_output_tokens: Some(most_output.sum()),
        cached_tokens: cached.sum(),
        all_cached_tokens: total(|row| row.cached_tokens),
        too_long: ok().find_map(|row| {
            let tokens = row.output_tokens?;
            (tokens > row.gen_len).then_some((tokens, row.gen_len))
        }),
        more_events: if has_events {
            more_events
        } else {
            counted.more_events
        },
        too_cached: ok().find_map(|row| {
            let (cached, prompt) = (row.cached_tokens?, row.prompt_tokens?);
            (cached > prompt).then_some((cached, prompt))
        }),
        ..counted.clone()
    }
}

/// Requests whose prompt the server counted otherwise than planned.
pub(super) fn wrong_prompt_length(rows: &[&RequestRow]) -> u64 {
    let wrong = ok(rows).filter(|row| {
        row.prompt_tokens
            .is_some_and(|count| count != row.prompt_len)
    });
    wrong.count() as u64
}

/// The fastest load that a request claims by its time to first token, where the pass repeats nothing.
pub(super) fn fastest_load(rows: &[&RequestRow]) -> Option<LoadClaim> {
    let claims = ok(rows).filter_map(|row| {
        Some(LoadClaim {
            tokens: f64::from(row.cached_tokens?),
            seconds: row.ttft_ms? / 1e3,
            by: ClaimedBy::FirstToken,
        })
    });
    let rate = |claim: &LoadClaim| claim.tokens / claim.seconds;
    let real = claims.filter(|claim| claim.tokens > 0.0 && claim.seconds > 0.0);
    real.max_by(|a, b| rate(a).total_cmp(&rate(b)))
}

/// Most requests of `rows` that were under way at once.
pub(super) fn most_in_flight(rows: &[&RequestRow]) -> u32 {
    let mut edges: Vec<(f64, i32)> = Vec::new();
    for row in rows {
        if let Some(e2e_ms) = row.e2e_ms {
            edges.extend([(row.sent_ms, 1), (row.sent_ms + e2e_ms, -1)]);
        }
    }
    // One that ends as another begins is not beside it.
    edges.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut now = 0;
    let running = edges.iter().map(|(_, change)| {
        now += change;
        now
    });
    running.max().unwrap_or(0).unsigned_abs()
}

fn ok<'a>(rows: &'a [&'a RequestRow]) -> impl Iterator<Item = &'a RequestRow> {
    let rows = rows.iter().copied();
    rows.filter(|row| row.outcome == RequestOutcome::Ok)
}
