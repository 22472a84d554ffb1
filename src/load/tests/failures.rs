//! What goes wrong, and under which name it is recorded.

use std::io;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{STREAM_HEAD, Step, TOKEN, chunk, good, kind, ms, one, options, run, text};
use crate::load::drive::{Tally, drive};
use crate::load::endpoint::Endpoint;
use crate::load::progress::Progress;
use crate::load::record::Outcome;
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
async fn nothing_is_retried_but_a_kept_connection_that_was_closed() {
    // The server closes after each answer although it promised to keep the connection.
    let closing = |_| [good(), vec![Step::Close]].concat();
    let never = CancellationToken::new();
    let outcome = run(schedule(1, [Start::Slot; 3]), &options(), &never, closing).await;
    assert_eq!(outcome.tally().ok, 3);
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
    assert_eq!(outcome.tally().failed, 3);
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
        outcome.tally(),
        Tally {
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
