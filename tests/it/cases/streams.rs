//! Streams of answers as servers and gateways send them, read by `labrun bench`.

use std::io::{BufReader, Write as _};
use std::time::Duration;

use serde_json::Value;

use super::http::{Answer, Request, listen, next_request};
use crate::support::Lab;

/// How long a server waits before its first token where the row tests what that is.
const WAIT: &str = "wait";

/// What a row expects of both requests.
enum Expect {
    /// Answers, of four tokens each.
    Ok,
    /// The same, and no first token before [`WAIT`] is over.
    FirstTokenAfterWait,
    /// Failures, whose message holds this.
    Failed(&'static str),
}
use Expect::{Failed, FirstTokenAfterWait, Ok as Good};

const TOKENS: [&str; 4] = [
    r#"data: {"choices":[{"index":0,"text":" a"}]}"#,
    r#"data: {"choices":[{"index":0,"text":" b"}]}"#,
    r#"data: {"choices":[{"index":0,"text":" c"}]}"#,
    r#"data: {"choices":[{"index":0,"text":" d"}]}"#,
];
const CHAT: [&str; 4] = [
    r#"data: {"choices":[{"index":0,"delta":{"content":" a"}}]}"#,
    r#"data: {"choices":[{"index":0,"delta":{"content":" b"}}]}"#,
    r#"data: {"choices":[{"index":0,"delta":{"content":" c"}}]}"#,
    r#"data: {"choices":[{"index":0,"delta":{"content":" d"}}]}"#,
];
const USAGE: &str =
    r#"data: {"choices":[],"usage":{"prompt_tokens":16,"completion_tokens":4,"total_tokens":20}}"#;
const DONE: &str = "data: [DONE]";

/// Four tokens with `before` each of them, and a good end.
fn between(before: &'static str) -> Vec<&'static str> {
    let mut events: Vec<_> = TOKENS
        .into_iter()
        .flat_map(|token| [before, token])
        .collect();
    events.extend([USAGE, DONE]);
    events
}

/// `first`, a while, then four tokens of a chat.
fn opened_by(first: &'static str) -> Vec<&'static str> {
    [&[first, WAIT], &CHAT[..], &[USAGE, DONE]].concat()
}

/// A name, the events of each answer, and what is expected.
type Row = (&'static str, Vec<&'static str>, Expect);

/// Events that bring no token, or write one oddly.
const PASSED_OVER: [(&str, &str); 8] = [
    ("null as a keep-alive", "data: null"),
    ("an empty event as a keep-alive", "data:"),
    ("a word as a keep-alive", "data: ping"),
    (
        "usage without counts",
        r#"data: {"choices":[{"text":""}],"usage":{}}"#,
    ),
    (
        "usage with counts that are null",
        r#"data: {"choices":[],"usage":{"prompt_tokens":null,"completion_tokens":null}}"#,
    ),
    (
        "an empty error beside a choice",
        r#"data: {"error":"","choices":[{"delta":{}}]}"#,
    ),
    (
        "no number in logprobs",
        r#"data: {"choices":[{"delta":{},"logprobs":[NaN,-Infinity]}]}"#,
    ),
    ("a comment", ": keep-alive"),
];

/// What ends an answer after its first token, and what its failure is called.
const FAILURES: [(&str, &str, &str); 4] = [
    (
        "an error object",
        r#"data: {"object":"error","message":"KV cache is full","code":500}"#,
        "KV cache is full",
    ),
    (
        "an error event",
        "event: error\ndata: KV cache is full",
        "KV cache is full",
    ),
    (
        "an answer that ends with an error",
        r#"data: {"choices":[{"text":"","finish_reason":"error"}]}"#,
        "error",
    ),
    (
        "an answer that is aborted",
        r#"data: {"choices":[{"text":"","finish_reason":"abort"}]}"#,
        "abort",
    ),
];

/// First events of a chat that bring no token.
const OPENINGS: [(&str, &str); 3] = [
    (
        "a first choice without a delta",
        r#"data: {"choices":[{"index":0,"content_filter_offsets":{"start":1}}]}"#,
    ),
    (
        "a first delta that is null",
        r#"data: {"choices":[{"delta":null}]}"#,
    ),
    (
        "a role with empty tool calls",
        r#"data: {"choices":[{"delta":{"role":"assistant","content":"","tool_calls":[]}}]}"#,
    ),
];

fn rows() -> Vec<Row> {
    let passed_over = PASSED_OVER.map(|(name, event)| (name, between(event), Good));
    let failures = FAILURES.map(|(name, event, message)| {
        let events = vec![TOKENS[0], event, DONE];
        (name, events, Failed(message))
    });
    let openings = OPENINGS.map(|(name, event)| (name, opened_by(event), FirstTokenAfterWait));
    let spaced = [&TOKENS[..], &[USAGE, "data: [DONE] "]].concat();
    let mut rows = vec![("an end mark with a space", spaced, Good)];
    rows.extend(passed_over);
    rows.extend(failures);
    rows.extend(openings);
    rows
}

/// Answers streams with `events`, counts words as tokens, and has no other route.
fn playing(events: Vec<&'static str>) -> u16 {
    listen(move |mut stream| {
        let mut from = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = next_request(&mut from) {
            if !request.path.ends_with("completions") {
                if stream.write_all(&other_route(&request).bytes()).is_err() {
                    return;
                }
                continue;
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                        transfer-encoding: chunked\r\n\r\n";
            let mut write = |text: &str| drop(stream.write_all(text.as_bytes()));
            write(head);
            for event in &events {
                if *event == WAIT {
                    std::thread::sleep(Duration::from_millis(200));
                    continue;
                }
                let event = format!("{event}\n\n");
                write(&format!("{:x}\r\n{event}\r\n", event.len()));
            }
            write("0\r\n\r\n");
        }
    })
}

fn other_route(request: &Request) -> Answer {
    if request.path != "/tokenize" {
        return Answer::json(404, "{}");
    }
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    let messages = asked["messages"].as_array().into_iter().flatten();
    let contents = messages.filter_map(|message| message["content"].as_str());
    let texts = asked["prompt"].as_str().into_iter().chain(contents);
    let count: usize = texts.map(|text| text.split_whitespace().count()).sum();
    Answer::json(200, &format!("{{\"count\":{count}}}"))
}

/// `labrun bench` of two requests, 16 tokens to 4.
pub(crate) fn bench(lab: &Lab, port: u16, more: &[&str]) -> crate::support::Ended {
    let url = format!("http://127.0.0.1:{port}");
    let load = "--model m --prompt-len 16 --gen-len 4 --requests 2";
    let load: Vec<&str> = load.split(' ').collect();
    lab.labrun(&[&["bench", &url], &load[..], more].concat())
}

#[test]
fn streams_are_read_as_their_servers_mean_them() {
    let lab = Lab::new();
    let mut wrong = Vec::new();
    for (name, events, expect) in rows() {
        let is_chat = events.contains(&CHAT[0]);
        let more: &[&str] = if is_chat {
            &["--json", "--chat"]
        } else {
            &["--json"]
        };
        let ended = bench(&lab, playing(events), more);
        let result: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        let (ok, code) = (result["counts"]["ok"].as_u64(), ended.code);
        let ttft = result["latencies"]["ttft_ms"]["mean"]
            .as_f64()
            .unwrap_or(0.0);
        let is_right = match expect {
            Good => (ok, code) == (Some(2), Some(0)),
            FirstTokenAfterWait => (ok, code) == (Some(2), Some(0)) && ttft >= 200.0,
            Failed(message) => (ok, code) == (Some(0), Some(1)) && ended.stderr.contains(message),
        };
        if !is_right {
            wrong.push(format!(
                "{name}: exit {code:?}, {ok:?} ok, TTFT {ttft}\n{}",
                ended.stderr
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A server whose every stream is these bytes, after a while, and then the end of the connection.
fn raw(answer: Vec<u8>) -> u16 {
    listen(move |mut stream| {
        let mut from = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = next_request(&mut from) {
            if request.path.ends_with("completions") {
                std::thread::sleep(Duration::from_millis(100));
                drop(stream.write_all(&answer));
                return;
            }
            if stream.write_all(&other_route(&request).bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn what_is_odd_about_a_stream_as_a_whole_is_reported() {
    let lab = Lab::new();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let events = [&TOKENS[..], &[USAGE]].concat().join("\n\n");

    let port = raw(format!("{head}{events}\n\ndata: [DONE]\n").into_bytes());
    bench(&lab, port, &[]).expect_code(0);

    // All tokens of an answer in one piece.
    let url = format!(
        "http://127.0.0.1:{}",
        raw(format!("{head}{events}\n\n{DONE}\n\n").into_bytes())
    );
    let load = "--model m --prompt-len 16 --gen-len 4 --requests 12";
    let load: Vec<&str> = load.split(' ').collect();
    let ended = lab
        .labrun(&[&["bench", &url], &load[..]].concat())
        .expect_code(0);
    let output = format!("{}{}", ended.stdout, ended.stderr);
    assert!(output.contains("came at once at their end"), "{output}");

    let moved = "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/v1/completions/\r\n\
                 content-length: 0\r\nconnection: close\r\n\r\n";
    let ended = bench(&lab, raw(moved.into()), &[]).expect_code(1);
    assert!(ended.stderr.contains("127.0.0.1:9"), "{}", ended.stderr);

    let packed = head.replace("connection", "content-encoding: br\r\nconnection");
    let ended = bench(&lab, raw(packed.into_bytes()), &[]).expect_code(1);
    assert!(ended.stderr.contains("br"), "{}", ended.stderr);
}
