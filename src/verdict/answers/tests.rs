//! What planned requests and their answers come to.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::load::{Audit, EndedBy, ErrorKind, Failure, Usage, Window};
use crate::matrix::Matrix;
use crate::plan::Plan;
use crate::workload::testing;

/// A cell of a cpu tier with chunks of 256 tokens.
fn cell() -> Cell {
    let text = "name = \"t\"\nmodel = \"m\"\n[matrix]\ntier = [\"cpu\"]\nprompt_len = [1024]\n\
                gen_len = [4]\nconcurrency = [1]\nlabel = [\"rag\"]\n[workload.rag]\n\
                kind = \"shared-prefix\"\n[server]\nlauncher = \"sim\"\n";
    let plan = Plan::parse(text, "t.toml").unwrap();
    Matrix::expand(&plan).unwrap().cells.first().unwrap()
}

/// A request of 1,000 tokens that asks for 4.
fn planned(document: u32, shared_tokens: u32, repeated_tokens: u32) -> PlannedRequest {
    PlannedRequest {
        prompt_tokens: Some(1000),
        shared_tokens,
        repeated_tokens,
        document,
        ..testing::schedule(1, [Start::Slot]).requests[0].clone()
    }
}

fn record(index: u32, outcome: Outcome, usage: [Option<u32>; 3]) -> RequestRecord {
    let [prompt_tokens, completion_tokens, cached_tokens] = usage;
    RequestRecord {
        outcome,
        usage: Some(Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens,
        }),
        arrivals_ns: vec![100_000_000],
        ..RequestRecord::begun(index, Duration::ZERO, Duration::ZERO)
    }
}

fn ok_record(index: u32, cached: u32) -> RequestRecord {
    record(index, Outcome::Ok, [Some(1000), Some(4), Some(cached)])
}

fn failed() -> Outcome {
    Outcome::Failed(Failure::new(ErrorKind::Http(500), "full"))
}

fn load(records: Vec<RequestRecord>) -> LoadOutcome {
    LoadOutcome {
        records,
        window: Window {
            epoch: Instant::now(),
            duration: Duration::from_secs(2),
            ended_by: EndedBy::Count,
        },
        audit: Audit {
            lateness_p99: Duration::ZERO,
            lateness_max: Duration::ZERO,
            lag_p99: Duration::ZERO,
            lag_max: Duration::ZERO,
            read_wait_p99: Duration::ZERO,
            stamped_share: 1.0,
            thread_share: 0.0,
            process_share: 0.0,
            busy: Duration::ZERO,
            coalesced_share: 0.0,
            client_bound: None,
        },
    }
}

/// Calls `check` with the requests of `planned` and their `records`.
fn with<T>(
    planned: &[PlannedRequest],
    records: Vec<RequestRecord>,
    check: impl FnOnce(Answers<'_>) -> T,
) -> T {
    check(Answers {
        schedule: &Schedule::from_requests(planned.to_vec(), 2),
        load: &load(records),
        canaries: &[],
    })
}

#[test]
fn requests_that_failed_count_by_what_was_planned_and_in_no_answer() {
    let three = [planned(0, 0, 0), planned(1, 0, 0), planned(2, 0, 0)];
    let mut last = ok_record(2, 1000);
    // The last event may carry the end alone.
    last.token_events = 5;
    let lost = record(1, failed(), [None, Some(2), Some(9)]);
    let counted = with(&three, vec![ok_record(0, 24), lost, last], |answers| {
        answers.counted()
    });
    let expected = Counted {
        answered_prompt_tokens: Some(2000.0),
        sent_prompt_tokens: Some(3000.0),
        answered_output_tokens: Some(8.0),
        most_output_tokens: Some(12.0),
        cached_tokens: 1024.0,
        all_cached_tokens: Some(1024.0),
        ..Counted::default()
    };
    assert_eq!(counted, expected, "as many as asked for, and all cached");
    let silent = record(0, Outcome::Ok, [None; 3]);
    let counted = with(&three, vec![silent], |answers| answers.counted());
    assert_eq!(counted.answered_prompt_tokens, None, "unknown is not zero");
    assert_eq!(counted.all_cached_tokens, None);
}

#[test]
fn canaries_within_the_load_are_a_part_of_what_is_counted() {
    let schedule = Schedule::from_requests(vec![planned(0, 0, 0), planned(1, 0, 0)], 2);
    let answers = Answers {
        schedule: &schedule,
        load: &load(vec![ok_record(0, 10)]),
        canaries: &[record(1, Outcome::Ok, [Some(1000), Some(5), Some(7)])],
    };
    let counted = answers.counted();
    assert_eq!(counted.answered_prompt_tokens, Some(2000.0));
    assert_eq!(counted.answered_output_tokens, Some(9.0));
    assert_eq!(counted.most_output_tokens, Some(9.0));
    let cached = (counted.cached_tokens, counted.all_cached_tokens);
    assert_eq!(cached, (17.0, Some(17.0)));
    let total = answers.total_of(RequestRecord::prompt_tokens);
    assert_eq!(total, counted.answered_prompt_tokens);
    assert_eq!(
        counted.too_long,
        Some((5, 4)),
        "it is asked for 4 like any other here"
    );
    assert_eq!(counted.sent_prompt_tokens, Some(2000.0));
    assert_eq!(answers.counted_in_load().sent_prompt_tokens, Some(1000.0));
    // What cannot be is named of a canary too.
    let mut strange = ok_record(1, 1001);
    strange.token_events = 6;
    let answers = Answers {
        canaries: &[strange],
        ..answers
    };
    let counted = answers.counted();
    assert_eq!(counted.more_events, Some((6, 4)));
    assert_eq!(counted.too_cached, Some((1001, 1000)));
}

#[test]
fn the_first_answer_that_cannot_be_is_named() {
    let one = [planned(0, 0, 0)];
    let mut events = ok_record(0, 0);
    events.token_events = 6;
    let long = record(0, Outcome::Ok, [Some(1000), Some(5), None]);
    let cached = ok_record(0, 1001);
    for (answer, too_long, more_events, too_cached) in [
        (long, Some((5, 4)), None, None),
        (events, None, Some((6, 4)), None),
        (cached, None, None, Some((1001, 1000))),
    ] {
        let counted = with(&one, vec![answer], |answers| answers.counted());
        assert_eq!(counted.too_long, too_long);
        assert_eq!(counted.more_events, more_events);
        assert_eq!(counted.too_cached, too_cached);
    }
}

#[test]
fn only_a_closed_load_whose_requests_all_ended_has_a_bound() {
    let slots = planned(0, 0, 0);
    let timed = PlannedRequest {
        start: Start::At(Duration::ZERO),
        ..slots.clone()
    };
    let lost = || record(0, failed(), [None; 3]);
    for (planned, record, expected) in [
        (&slots, ok_record(0, 0), Some(2)),
        (&slots, lost(), None),
        (&timed, ok_record(0, 0), None),
        (&timed, lost(), None),
    ] {
        let requests = std::slice::from_ref(planned);
        let counted = with(requests, vec![record], |answers| answers.counted());
        assert_eq!(counted.in_flight, expected);
    }
    let both = [slots, timed];
    let records = vec![ok_record(0, 0), ok_record(1, 0)];
    let counted = with(&both, records, |answers| answers.counted());
    assert_eq!(counted.in_flight, None, "one of them is not bound");
}

#[test]
fn what_a_cache_should_have_is_counted_in_its_own_units() {
    let cell = cell();
    let two = [planned(0, 1000, 100), planned(1, 1000, 0)];
    let records = vec![ok_record(0, 0), record(1, failed(), [None; 3])];
    with(&two, records, |answers| {
        for (state, expected) in [
            (CacheState::Cold, 0.0),
            (CacheState::Gpu, 896.0 - 100.0),
            (CacheState::Tier, 768.0 - 100.0),
            (CacheState::Restart, 768.0 - 100.0),
        ] {
            let tokens = answers.expected_hit_tokens(&cell, state);
            assert!((tokens - expected).abs() < 1e-9, "{state}: {tokens}");
        }
        let shared = answers.sum_of(|planned| planned.shared_tokens);
        assert!(
            (shared - 1000.0).abs() < 1e-9,
            "of the answered one: {shared}"
        );
    });
}

#[test]
fn documents_are_counted_where_a_cache_should_have_some_of_them() {
    let cell = cell();
    // Whole, at the limit, missed once and then not, failed, too short, missed twice, and a single token.
    let planned = [
        planned(0, 1000, 0),
        planned(1, 1000, 0),
        planned(2, 1000, 0),
        planned(2, 1000, 0),
        planned(3, 1000, 0),
        planned(4, 100, 0),
        planned(6, 1000, 0),
        planned(6, 1000, 0),
        planned(5, 256, 255),
    ];
    let lost = || record(4, failed(), [None; 3]);
    let records = |last: RequestRecord| {
        let cached = [768, 384, 100, 768].into_iter().zip(0..);
        let mut all: Vec<_> = cached.map(|(tokens, at)| ok_record(at, tokens)).collect();
        all.extend([
            lost(),
            ok_record(5, 0),
            ok_record(6, 0),
            ok_record(7, 0),
            last,
        ]);
        all
    };
    let documents = with(&planned, records(ok_record(8, 256)), |answers| {
        answers.documents(&cell, CacheState::Tier, 0.5)
    });
    assert_eq!(documents, Some(Documents { missed: 2, of: 5 }));
    let silent = record(8, Outcome::Ok, [None; 3]);
    let unknown = with(&planned, records(silent), |answers| {
        answers.documents(&cell, CacheState::Tier, 0.5)
    });
    assert_eq!(unknown, None);
}

#[test]
fn prompts_of_another_length_are_counted_among_the_answers() {
    let two = [planned(0, 0, 0), planned(1, 0, 0), planned(2, 0, 0)];
    let other = |outcome| record(0, outcome, [Some(1001), None, None]);
    for (first, expected) in [
        (other(Outcome::Ok), 1),
        (other(failed()), 0),
        (record(0, Outcome::Ok, [None; 3]), 0),
    ] {
        let records = vec![first, ok_record(1, 0)];
        let wrong = with(&two, records, |answers| answers.wrong_prompt_length());
        assert_eq!(wrong, expected);
    }
}

#[test]
fn the_fastest_load_is_that_of_the_highest_rate_that_was_claimed_at_all() {
    let one = [planned(0, 0, 12)];
    let mut logs = LogCounts::default();
    logs.retrieved.tokens = 900.0;
    logs.retrieved.cost_ms = 50.0;
    let claim = |records: Vec<RequestRecord>, logs: &LogCounts, external| {
        let claim = with(&one, records, |answers| {
            answers.fastest_load(logs, external)
        });
        claim.map(|claim| (claim.by, claim.tokens, claim.seconds))
    };
    // 500 tokens in 0.1 s.
    let answered = || vec![ok_record(0, 512)];
    let quiet = LogCounts::default();
    let by_log = (ClaimedBy::LmcacheLog, 900.0, 0.05);
    let by_answer = (ClaimedBy::FirstToken, 500.0, 0.1);
    let by_pass = (ClaimedBy::WholePass, 20_000.0, 2.0);
    assert_eq!(claim(answered(), &logs, 0.0), Some(by_log));
    assert_eq!(claim(answered(), &quiet, 0.0), Some(by_answer));
    assert_eq!(claim(answered(), &quiet, 20_000.0), Some(by_pass));
    let mut lost = record(0, failed(), [None, None, Some(9000)]);
    assert_eq!(claim(vec![lost.clone()], &quiet, 0.0), None);
    lost.outcome = Outcome::Ok;
    lost.arrivals_ns = vec![0];
    assert_eq!(claim(vec![lost], &quiet, 0.0), None, "in no time");
}

#[test]
fn the_first_failure_is_named_by_its_kind_and_words() {
    let records = vec![ok_record(0, 0), record(1, failed(), [None; 3])];
    let first = first_failure(&load(records));
    assert_eq!(first.as_deref(), Some("http-500: full"));
    assert_eq!(first_failure(&load(vec![ok_record(0, 0)])), None);
}
