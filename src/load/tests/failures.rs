//! What goes wrong, and under which name it is recorded.

use std::io;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{STREAM_HEAD, Step, TOKEN, chunk, good, kind, ms, one, options, run, text};
use crate::load::drive::drive;
use crate::load::endpoint::Endpoint;
use crate::load::progress::Progress;
use crate::load::record::Outcome;
use crate::record::schema::Counts;
use crate::workload::Start;
use crate::workload::testing::schedule;

#[tokio::test(start_paused = true)]
async fn every_failure_has_its_own_name() {
    let token_then = |rest: Vec<Step>| {
        let mut steps = vec![Step::Write(STREAM_HEAD.into()), Step::Write(chunk(TOKEN))];
        steps.extend(rest);
        steps
    };
    let error = "data: {\"error\":{\"message\":\"out of memory\"}}\n\n";
    let refused = "HTTP/1.1 500 Oops\r\ncontent-length: 9\r\n\r\nno memory";
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let cases: [(&str, Vec<Step>); 11] = [
        ("timeout-first-token", vec![Step::Stall]),
        ("timeout-first-token", text(STREAM_HEAD)),
        ("timeout-total", token_then(vec![Step::Stall])),
        ("cut-stream", token_then(vec![Step::Close])),
        ("cut-stream", vec![Step::Close]),
        (
            "stream-error",
            token_then(vec![Step::Write(chunk(error)), Step::Stall]),
        ),
        (
            "bad-event",
            [
                STREAM_HEAD.into(),
                chunk("data: {\n\ndata: [DONE]\n\n"),
                b"0\r\n\r\n".to_vec(),
            ]
            .map(Step::Write)
            .into(),
        ),
        ("http-500", text(refused)),
        ("not-a-stream", text(json)),
        ("bad-response", text("SSH-2.0-OpenSSH_9.2\r\n\r\n")),
        (
            "bad-response",
            token_then(vec![Step::Write(b"zz\r\n".to_vec()), Step::Stall]),
        ),
    ];
    for (name, script) in cases {
        let record = one(script.clone()).await;
        assert_eq!(kind(&record), name, "{script:?} {:?}", record.outcome);
        assert_eq!(record.e2e(), None, "no E2E for an answer that is not whole");
    }
    let Outcome::Failed(failure) = one(text(refused)).await.outcome else {
        panic!("it failed")
    };
    assert_eq!(failure.message, "no memory");
}

#[tokio::test(start_paused = true)]
async fn timeouts_come_on_time_and_keep_what_had_arrived() {
    let start = Instant::now();
    let mut script = good();
    script.truncate(4);
    script.push(Step::Stall);
    let record = one(script).await;
    assert_eq!(kind(&record), "timeout-total");
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!((record.ttft(), record.arrivals_ns.len()), (Some(ms(50)), 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_retried_but_an_idle_connection_that_was_closed() {
    // The server closes after each answer although it promised to keep the connection.
    let closing = |_| [good(), vec![Step::Close]].concat();
    let never = CancellationToken::new();
    let outcome = run(schedule(1, [Start::Slot; 3]), &options(), &never, closing).await;
    assert_eq!(outcome.counts().ok, 3);
    let reconnected: Vec<_> = outcome.records.iter().map(|r| r.reconnected).collect();
    assert_eq!(reconnected, [false, true, true]);
    assert!(outcome.records[1].connect.is_some());
    // A server that answers nothing gets each request once.
    let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let cutting = move |_| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        vec![Step::Close]
    };
    let outcome = run(schedule(1, [Start::Slot; 3]), &options(), &never, cutting).await;
    assert_eq!(outcome.counts().failed, 3);
    assert_eq!(seen.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_port_where_nothing_listens_refuses() -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::parse(&format!("http://{}", listener.local_addr()?)).unwrap();
    drop(listener);
    let progress = Arc::new(Progress::default());
    let never = CancellationToken::new();
    let planned = Arc::new(schedule(2, [Start::Slot; 3]));
    let outcome = drive(planned, &endpoint, &options(), &never, &progress)
        .await
        .unwrap();
    assert_eq!(
        outcome.counts(),
        Counts {
            sent: 3,
            ok: 0,
            failed: 3,
            unfinished: 0
        }
    );
    assert_eq!(kind(&outcome.records[0]), "connect-refused");
    assert_eq!(outcome.records[0].sent, None);
    Ok(())
}

/// A whole answer with these headers and this body, which ends with the connection.
fn answer(head: &str, body: &[u8]) -> Vec<Step> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{head}\r\n");
    vec![
        Step::Write(head.into_bytes()),
        Step::Write(body.to_vec()),
        Step::Close,
    ]
}

#[tokio::test(start_paused = true)]
async fn heads_that_announce_another_are_skipped_however_they_are_cut() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let whole = [early, early, STREAM_HEAD].concat();
    for cut in [
        1,
        early.len() - 1,
        early.len(),
        early.len() + 9,
        2 * early.len() + 3,
    ] {
        let (first, second) = whole.split_at(cut);
        let mut script = good();
        script.splice(0..1, [first, second].map(|part| Step::Write(part.into())));
        script.insert(1, Step::Wait(1));
        let record = one(script).await;
        assert_eq!(record.outcome, Outcome::Ok, "cut at {cut}");
        assert_eq!(record.http_status, Some(200));
    }
}

#[tokio::test(start_paused = true)]
async fn a_compressed_stream_is_decoded_or_named() {
    use std::io::Write as _;
    let body = [TOKEN, TOKEN, TOKEN, super::END].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body.as_bytes()).unwrap();
    let pressed = gzip.finish().unwrap();
    let record = one(answer("content-encoding: gzip\r\n", &pressed)).await;
    assert_eq!((record.outcome, record.token_events), (Outcome::Ok, 3));
    for (head, body) in [("br", &pressed[..]), ("gzip", body.as_bytes())] {
        let record = one(answer(&format!("content-encoding: {head}\r\n"), body)).await;
        let Outcome::Failed(failure) = record.outcome else {
            panic!("{head}")
        };
        assert_eq!(failure.kind.name(), "bad-response");
        assert!(
            failure.message.contains("compressed"),
            "{}",
            failure.message
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_mark_without_its_blank_line_is_not_waited_for() {
    let start = Instant::now();
    let mut script = good();
    script.truncate(7);
    script.push(Step::Write(chunk("data: [DONE]\n")));
    script.push(Step::Stall);
    assert_eq!(one(script).await.outcome, Outcome::Ok);
    assert!(start.elapsed() < ms(1000), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn redirects_and_wanted_keys_are_named() {
    for (head, words) in [
        (
            "307 Moved\r\nlocation: http://h:9/v1/",
            "redirects to `http://h:9/v1/`",
        ),
        ("401 Unauthorized", "wants a key: set OPENAI_API_KEY"),
    ] {
        let head = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
        let Outcome::Failed(failure) = one(text(&head)).await.outcome else {
            panic!("{head}")
        };
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_its_head_does_not_name_is_read_as_one() {
    let body = [": hi\n\n", TOKEN, TOKEN, TOKEN, super::END].concat();
    for kind in [
        "",
        "content-type: text/plain\r\n",
        "content-type: application/json\r\n",
    ] {
        for cut in [1, 3, 20] {
            let head = format!("HTTP/1.1 200 OK\r\n{kind}\r\n");
            let (first, second) = body.split_at(cut);
            let script = [&head, first, second].map(|part| Step::Write(part.as_bytes().into()));
            let [head, first, second] = script;
            let record = one(vec![head, first, Step::Wait(1), second, Step::Close]).await;
            assert_eq!(
                (record.outcome, record.token_events),
                (Outcome::Ok, 3),
                "{kind}"
            );
        }
    }
}
