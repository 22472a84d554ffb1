//! Whole loads against scripted servers. Time is virtual: the scripts decide what comes when.

mod failures;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::alarm::Timer;
use super::drive::{EndedBy, LoadOptions, LoadOutcome, drive_here};
use super::endpoint::Endpoint;
use super::link::{Dial, Pool};
use super::progress::Progress;
use super::record::{Answer, Outcome, RequestRecord};
use super::request::{Sender, Transport};
use crate::plan::load_spec::Timeouts;
use crate::record::schema::Counts;
use crate::workload::testing::schedule;
use crate::workload::{Keep, Schedule, Start};

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                           transfer-encoding: chunked\r\n\r\n";
const TOKEN: &str = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
const END: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":3,\
                   \"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\ndata: [DONE]\n\n";

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// One step of a script's answer.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<u8>),
    Wait(u64),
    Close,
    /// Leaves the connection open and writes nothing more.
    Stall,
}

/// Head, three tokens 10 ms apart from 50 ms on, end.
fn good() -> Vec<Step> {
    let mut steps = vec![Step::Write(STREAM_HEAD.into()), Step::Wait(50)];
    for _ in 0..2 {
        steps.extend([Step::Write(chunk(TOKEN)), Step::Wait(10)]);
    }
    steps.extend([Step::Write(chunk(TOKEN)), Step::Write(chunk(END))]);
    steps.push(Step::Write(b"0\r\n\r\n".to_vec()));
    steps
}

fn text(text: &str) -> Vec<Step> {
    vec![Step::Write(text.into()), Step::Stall]
}

/// Reads one request, whole; false at the end of the connection.
async fn read_request(stream: &mut DuplexStream) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n{}") {
        match stream.read(&mut byte).await {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// Answers the nth request that comes, over all connections, with `script(n)`.
async fn serve(
    mut connections: UnboundedReceiver<DuplexStream>,
    script: impl Fn(usize) -> Vec<Step> + Clone + Send + 'static,
) {
    let mut serving = tokio::task::JoinSet::new();
    let requests = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    while let Some(mut stream) = connections.recv().await {
        let (script, requests) = (script.clone(), Arc::clone(&requests));
        serving.spawn(async move {
            while read_request(&mut stream).await {
                let number = requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                for step in script(number) {
                    match step {
                        // The client may be gone: then the rest of the script has no reader.
                        Step::Write(bytes) => drop(stream.write_all(&bytes).await),
                        Step::Wait(millis) => sleep(ms(millis)).await,
                        Step::Close => return,
                        Step::Stall => std::future::pending().await,
                    }
                }
            }
        });
    }
}

fn options() -> LoadOptions {
    LoadOptions {
        timeouts: Timeouts {
            connect_s: 1.0,
            first_token_s: 2.0,
            total_s: 5.0,
        },
        drain: ms(100),
        cancel_drain: ms(100),
        timer: Timer::Runtime,
        ..LoadOptions::default()
    }
}

/// Runs a load against a script.
async fn run(
    schedule: Schedule,
    options: &LoadOptions,
    cancel: &CancellationToken,
    script: impl Fn(usize) -> Vec<Step> + Clone + Send + 'static,
) -> LoadOutcome {
    let (dial, connections) = unbounded_channel();
    let endpoint = Endpoint::parse("http://scripted").unwrap();
    let transport = Transport::Direct(Pool::new(Dial::Scripted(dial)));
    let sender = Sender::new(Arc::new(schedule), transport, &endpoint, options);
    let progress = Progress::default();
    let server = tokio::spawn(serve(connections, script));
    let outcome = drive_here(sender, options, cancel, &progress)
        .await
        .unwrap();
    server.abort();
    let counts = outcome.counts();
    assert_eq!(counts.sent, counts.ok + counts.failed + counts.unfinished);
    let seen = progress.snapshot();
    assert_eq!(
        (seen.sent, seen.ok, seen.failed),
        (counts.sent, counts.ok, counts.failed)
    );
    let whole = outcome.records.iter().filter(|r| r.outcome == Outcome::Ok);
    let ttft: Vec<u128> = whole.map(|r| r.ttft().unwrap().as_micros()).collect();
    assert_eq!(u128::from(seen.ttft_us), ttft.iter().sum::<u128>());
    outcome
}

async fn one(script: Vec<Step>) -> RequestRecord {
    let never = CancellationToken::new();
    let outcome = run(schedule(1, [Start::Slot]), &options(), &never, move |_| {
        script.clone()
    })
    .await;
    outcome.records.into_iter().next().unwrap()
}

fn kind(record: &RequestRecord) -> String {
    match &record.outcome {
        Outcome::Ok => "ok".to_owned(),
        Outcome::Unfinished => "unfinished".to_owned(),
        Outcome::Failed(failure) => failure.kind.name().into_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_has_its_times_and_counts() {
    let record = one(good()).await;
    assert_eq!(record.outcome, Outcome::Ok);
    assert_eq!(record.ttft(), Some(ms(50)));
    assert_eq!(record.gaps().collect::<Vec<_>>(), [ms(10), ms(10)]);
    assert_eq!(record.e2e(), Some(ms(70)));
    assert_eq!(
        (record.output_tokens(), record.prompt_tokens()),
        (Some(3), Some(1))
    );
    assert_eq!(record.cached_tokens(), Some(0));
    assert_eq!(
        (record.coalesced_frames, record.http_status),
        (0, Some(200))
    );
    assert_eq!(
        (record.lateness(), record.connect),
        (Some(ms(0)), Some(ms(0)))
    );
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_reuses_connections_and_keeps_its_slots() {
    let never = CancellationToken::new();
    let outcome = run(schedule(2, [Start::Slot; 6]), &options(), &never, |_| {
        good()
    })
    .await;
    assert_eq!(
        outcome.counts(),
        Counts {
            sent: 6,
            ok: 6,
            failed: 0,
            unfinished: 0
        }
    );
    let sent: Vec<_> = outcome
        .records
        .iter()
        .map(|r| r.sent.unwrap().as_millis())
        .collect();
    assert_eq!(sent, [0, 0, 70, 70, 140, 140]);
    let connected: Vec<_> = outcome
        .records
        .iter()
        .map(|r| r.connect.is_some())
        .collect();
    assert_eq!(connected, [true, true, false, false, false, false]);
    assert_eq!(outcome.window.duration, ms(210));
    assert_eq!(outcome.window.ended_by, EndedBy::Count);
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_counts_from_the_intended_instant() {
    let starts = [0, 10, 20].map(|at| Start::At(ms(at)));
    let never = CancellationToken::new();
    let outcome = run(schedule(0, starts), &options(), &never, |_| good()).await;
    let intended: Vec<_> = outcome.records.iter().map(|r| r.intended).collect();
    assert_eq!(intended, [ms(0), ms(10), ms(20)]);
    for record in &outcome.records {
        let late = record.lateness().unwrap();
        assert_eq!(record.ttft(), Some(ms(50)), "lateness is not in TTFT");
        assert_eq!(record.sent, Some(record.intended + late));
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_its_turn() {
    let starts = [
        Start::Slot,
        Start::After {
            request: 0,
            think: ms(100),
        },
    ];
    let never = CancellationToken::new();
    let outcome = run(schedule(1, starts), &options(), &never, |_| good()).await;
    assert_eq!(outcome.records[1].intended, ms(170));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_load_drains_and_counts_what_was_left() {
    let cancel = CancellationToken::new();
    let canceller = cancel.clone();
    let later = tokio::spawn(async move {
        sleep(ms(100)).await;
        canceller.cancel();
    });
    let slow = |number| {
        let wait = if number == 3 { 10_000 } else { 0 };
        [vec![Step::Wait(wait)], good()].concat()
    };
    let outcome = run(schedule(2, [Start::Slot; 50]), &options(), &cancel, slow).await;
    later.await.unwrap();
    assert_eq!(outcome.window.ended_by, EndedBy::Cancel);
    assert_eq!(
        outcome.counts(),
        Counts {
            sent: 4,
            ok: 3,
            failed: 0,
            unfinished: 1
        }
    );
    let left = outcome
        .records
        .iter()
        .find(|record| record.outcome == Outcome::Unfinished);
    assert_eq!(
        left.unwrap().done,
        ms(200),
        "cancelled at 100 ms, drained for 100 ms"
    );
}

#[tokio::test(start_paused = true)]
async fn time_ends_a_load_and_a_kill_ends_the_drain() {
    let options = LoadOptions {
        stop_after: Some(ms(100)),
        drain: ms(60_000),
        ..options()
    };
    let never = CancellationToken::new();
    let outcome = run(schedule(1, [Start::Slot; 50]), &options, &never, |_| good()).await;
    assert_eq!(outcome.window.ended_by, EndedBy::Time);
    assert_eq!(
        outcome.counts(),
        Counts {
            sent: 2,
            ok: 2,
            failed: 0,
            unfinished: 0
        }
    );
    let kill = options.kill.clone();
    let killer = tokio::spawn(async move {
        sleep(ms(150)).await;
        kill.cancel();
    });
    let stall = |_| vec![Step::Stall];
    let outcome = run(schedule(1, [Start::Slot; 50]), &options, &never, stall).await;
    killer.await.unwrap();
    assert_eq!(
        outcome.counts(),
        Counts {
            sent: 1,
            ok: 0,
            failed: 0,
            unfinished: 1
        }
    );
    assert_eq!(outcome.records[0].done, ms(150));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_given_up_before_the_server_does() {
    let starts = [Start::At(ms(0)), Start::At(ms(3000)), Start::At(ms(7500))];
    let never = CancellationToken::new();
    let outcome = run(schedule(0, starts), &options(), &never, |_| good()).await;
    let connected: Vec<_> = outcome
        .records
        .iter()
        .map(|r| r.connect.is_some())
        .collect();
    assert_eq!(connected, [true, false, true]);
    assert!(!outcome.records[2].reconnected, "given up, not lost");
}

#[tokio::test(start_paused = true)]
async fn a_stored_answer_is_whole() {
    let mut planned = schedule(1, [Start::Slot]);
    planned.requests[0].keep = Keep::Text;
    let never = CancellationToken::new();
    let outcome = run(planned, &options(), &never, |_| good()).await;
    let text = "aaa".to_owned();
    assert_eq!(
        outcome.records[0].answer,
        Answer::Whole {
            text,
            token_ids: Vec::new(),
            scores: Vec::new(),
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancel_gives_up_an_open_loop_and_cuts_a_drain_short() {
    let starts = [Start::At(ms(0)), Start::At(ms(60_000))];
    for stop_after in [None, Some(ms(50))] {
        let options = LoadOptions {
            stop_after,
            drain: ms(60_000),
            cancel_drain: Duration::ZERO,
            ..options()
        };
        let cancel = CancellationToken::new();
        let canceller = cancel.clone();
        let later = tokio::spawn(async move {
            sleep(ms(100)).await;
            canceller.cancel();
        });
        let stall = |_| vec![Step::Stall];
        let outcome = run(schedule(0, starts), &options, &cancel, stall).await;
        later.await.unwrap();
        assert_eq!(outcome.window.ended_by, EndedBy::Cancel);
        assert_eq!(outcome.records.len(), 1);
        assert_eq!(outcome.records[0].outcome, Outcome::Unfinished);
        assert_eq!(outcome.records[0].done, ms(100));
    }
}
