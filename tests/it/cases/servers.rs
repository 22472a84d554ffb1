//! Servers that run already, behind something that changes what they answer.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{Answer, Changed, Request, serve};
use super::streams::bench;
use super::{complaints, passes, statuses};
use crate::support::{Ended, Lab};

const PLAN: &str = r#"
name = "ext"
model = "m"
[matrix]
tier = ["baseline"]
prompt_len = [1024]
gen_len = [4]
concurrency = [1]
label = ["rag"]
[run]
requests = 4
canaries = 1
states = ["cold", "gpu"]
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "external"
url = "http://127.0.0.1:@PORT@"
ready_timeout_s = 3
"#;

fn command(lab: &Lab, port: u16) -> Command {
    lab.write("plan.toml", &PLAN.replace("@PORT@", &port.to_string()));
    let mut command = lab.command(&["plan.toml", "--out", "out"]);
    command.env_remove("OPENAI_API_KEY");
    command
}

/// A run against the simulator, whose answers go through `change`.
fn run(change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) -> (Lab, Ended) {
    let lab = Lab::new();
    let server = Changed::start(&lab, change);
    let ended = Ended::of(&command(&lab, server.port).output().unwrap());
    (lab, ended)
}

/// The same, whose /metrics go through `change`.
fn run_with_metrics(change: impl Fn(&str) -> String + Send + Sync + 'static) -> (Lab, Ended) {
    run(move |request, mut answer| {
        if request.path == "/metrics" {
            answer.body = change(&String::from_utf8_lossy(&answer.body)).into_bytes();
        }
        answer
    })
}

/// The same, whose usage of each streamed answer goes through `change`.
fn run_with_usage(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Lab {
    let (lab, _) = run(move |request, mut answer| {
        if request.path.ends_with("completions") && answer.kind.starts_with("text/event-stream") {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let event = |event: &str| {
                let data = event.strip_prefix("data: ").unwrap_or_default();
                let Ok(mut value) = serde_json::from_str::<Value>(data) else {
                    return format!("{event}\n\n");
                };
                if value["usage"].is_object() {
                    change(&mut value["usage"]);
                }
                format!("data: {value}\n\n")
            };
            let events = text.split("\n\n").filter(|event| !event.is_empty());
            answer.body = events.map(event).collect::<String>().into_bytes();
        }
        answer
    });
    lab
}

#[test]
fn an_honest_proxy_changes_nothing() {
    let (lab, ended) = run(|_, answer| answer);
    ended.expect_code(0);
    assert_eq!(statuses(&lab), ["valid", "valid"], "{}", complaints(&lab));
}

#[test]
fn a_counter_that_is_no_number_proves_nothing_and_spoils_no_record() {
    let series = "vllm:prompt_tokens_by_source_total{engine=\"1\",model_name=\"m\",source=\"local_compute\"}";
    let (lab, _) = run_with_metrics(move |text| format!("{text}{series} NaN\n"));
    assert!(
        !statuses(&lab).contains(&"valid".to_owned()),
        "{}",
        complaints(&lab)
    );
    assert!(complaints(&lab).contains("NaN"), "{}", complaints(&lab));
    lab.labrun(&["report", "out"]).expect_code(0);
}

#[test]
fn metrics_that_are_refused_are_named_so() {
    let (lab, _) = run(|request, answer| match request.path.as_str() {
        "/metrics" => Answer::json(401, "{}"),
        _ => answer,
    });
    let text = complaints(&lab);
    assert!(text.contains("/metrics") && text.contains("401"), "{text}");
}

#[test]
fn the_cache_of_two_engines_is_no_fuller_than_full() {
    let (lab, _) = run_with_metrics(|text| {
        let gauge = "vllm:kv_cache_usage_perc{";
        let others = text.lines().filter(|line| !line.starts_with(gauge));
        let engines = [("0", 0.9), ("1", 0.7)].map(|(engine, share)| {
            format!("{gauge}engine=\"{engine}\",model_name=\"m\"}} {share}\n")
        });
        others
            .map(|line| format!("{line}\n"))
            .chain(engines)
            .collect()
    });
    let mut seen = 0;
    for pass in passes(&lab) {
        for (name, value) in pass["evidence"].as_object().unwrap() {
            if name.starts_with("kv_usage") {
                seen += 1;
                assert!(value.as_f64().unwrap() <= 100.0, "{name}: {value}");
            }
        }
    }
    assert!(seen > 0);
}

#[test]
fn counts_that_contradict_the_engine_are_not_proven() {
    for (name, value) in [
        ("completion_tokens", json!(1000)),
        ("prompt_tokens_details", json!({"cached_tokens": 5000})),
    ] {
        let usage = value.clone();
        let lab = run_with_usage(move |found| found[name] = usage.clone());
        assert!(
            !statuses(&lab).contains(&"valid".to_owned()),
            "{name}: {}",
            complaints(&lab)
        );
    }
}

/// Lets only the key `k` through to `/v1`.
fn locked(request: &Request, answer: Answer) -> Answer {
    let has_key = request.head.contains("authorization: bearer k\r\n");
    if request.path.starts_with("/v1") && !has_key {
        return Answer::json(401, r#"{"error":"Unauthorized"}"#);
    }
    answer
}

#[test]
fn a_server_that_wants_a_key_gets_it_and_is_named_without_it() {
    let lab = Lab::new();
    let server = Changed::start(&lab, locked);
    let with_key = command(&lab, server.port)
        .env("OPENAI_API_KEY", "k")
        .output()
        .unwrap();
    Ended::of(&with_key).expect_code(0);
    assert_eq!(statuses(&lab), ["valid", "valid"], "{}", complaints(&lab));
    let (lab, ended) = run(locked);
    ended.expect_code(1);
    let text = complaints(&lab);
    assert!(
        text.contains("key") && !text.contains("ready_timeout_s"),
        "{text}"
    );
}

#[test]
fn a_server_without_health_is_named_so() {
    let (lab, _) = run(|request, answer| match request.path.as_str() {
        "/health" => Answer::json(404, "{}"),
        _ => answer,
    });
    let text = complaints(&lab);
    assert!(text.contains("/health answered 404"), "{text}");
}

#[test]
fn what_steers_a_terminal_is_shown_and_never_sent() {
    let evil = "\u{1b}]0;pwned\u{7}\u{1b}[31mred\u{1b}[2J";
    let port = serve(move |request| match request.path.as_str() {
        "/v1/models" => Answer::json(200, r#"{"data":[{"id":"m"}]}"#),
        "/v1/completions"
            if !String::from_utf8_lossy(&request.body).contains("\"stream\":true") =>
        {
            Answer::json(200, r#"{"usage":{"completion_tokens":1}}"#)
        }
        "/v1/completions" => Answer::json(500, evil),
        _ => Answer::json(200, "{}"),
    });
    let lab = Lab::new();
    let mut ends = vec![Ended::of(&command(&lab, port).output().unwrap())];
    ends.push(lab.labrun(&["report", "out"]));
    ends.push(bench(&lab, port, &[]));
    let mut shown = String::new();
    for ended in ends {
        shown.push_str(&ended.stdout);
        shown.push_str(&ended.stderr);
    }
    for name in ["report.md", "summary.md"] {
        shown.push_str(&lab.read(&format!("out/{name}")));
    }
    assert!(shown.contains("pwned"), "{shown}");
    assert!(
        !shown.contains("\u{1b}]0;") && !shown.contains("\u{1b}[2J"),
        "{shown:?}"
    );
}

#[test]
fn a_body_without_an_end_costs_little() {
    let (lab, _) = run(|request, mut answer| {
        if request.path == "/version" {
            answer.body = vec![b'x'; 40 << 20];
        }
        answer
    });
    // Nothing but the version is missing.
    assert_eq!(lab.cells()[0].1["server"]["version"], Value::Null);
}

/// The most memory that the process `pid` had so far, KiB; 0 once it has ended.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = peak.and_then(|peak| peak.split_whitespace().next());
    number.map_or(0, |number| number.parse().unwrap())
}

/// The most memory of a run whose server has `others` behind its own series, KiB.
fn peak_beside(others: String) -> u64 {
    let lab = Lab::new();
    let server = Changed::start(&lab, move |request, mut answer| {
        if request.path == "/metrics" {
            answer.body.extend_from_slice(others.as_bytes());
        }
        answer
    });
    let mut command = command(&lab, server.port);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = command.spawn().unwrap();
    let mut peak = 0;
    while run.try_wait().unwrap().is_none() {
        peak = peak.max(peak_kib(run.id()));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(statuses(&lab), ["valid", "valid"], "{}", complaints(&lab));
    peak
}

#[test]
fn an_exposition_of_60_mb_adds_less_than_half_of_it_to_what_a_run_takes() {
    let line = format!("other{{label=\"{}\"}} 1\n", "x".repeat(1000));
    let usual = peak_beside(String::new());
    let large = peak_beside(line.repeat(60_000_000 / line.len()));
    assert!(large < usual + 30_000, "{large} KiB, usually {usual} KiB");
}
