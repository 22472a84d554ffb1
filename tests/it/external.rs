//! A server that runs already: measured, and left running.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Kill, Lab, wait_until};

const PLAN: &str = r#"
name = "ext"
model = "m"
[matrix]
tier = ["baseline"]
prompt_len = [512]
gen_len = [4]
concurrency = [2]
label = ["rag"]
[run]
requests = 4
states = ["cold", "gpu", "tier"]
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "external"
url = "http://127.0.0.1:@PORT@"
"#;

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A simulator of the model `m` that listens on `port`.
fn started(lab: &Lab, port: u16, version: &str) -> Kill {
    let port_text = port.to_string();
    let arguments = ["sim", "--model", "m", "--port", &port_text];
    let mut server = lab.command(&[&arguments[..], &["--vllm-version", version]].concat());
    let server = Kill(server.stderr(Stdio::null()).spawn().unwrap());
    let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(wait_until(Duration::from_secs(20), listens));
    server
}

#[test]
fn cells_of_a_server_that_was_replaced_by_another_version_are_measured_again() {
    let lab = Lab::new();
    let port = free_port();
    lab.write("plan.toml", &PLAN.replace("@PORT@", &port.to_string()));
    let old = started(&lab, port, "0.32.0");
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let resume = || {
        lab.labrun(&["run", "--resume", "out"])
            .expect_code(0)
            .stderr
    };
    let stderr = resume();
    assert!(stderr.contains("1 of 1 cells are finished"), "{stderr}");
    assert!(!stderr.contains("version"), "{stderr}");
    drop(old);
    let new = started(&lab, port, "0.33.0");
    let stderr = resume();
    let changed = "changed: version.server: 0.32.0+labrun-sim -> 0.33.0+labrun-sim";
    assert!(stderr.contains(changed), "{stderr}");
    assert!(
        stderr.contains("0 of 1 cells are finished, 1 to run"),
        "{stderr}"
    );
    assert_eq!(lab.cells()[0].1["server"]["version"], "0.33.0+labrun-sim");
    let manifest: serde_json::Value = serde_json::from_str(&lab.read("out/manifest.json")).unwrap();
    assert_eq!(manifest["software"]["version.server"], "0.33.0+labrun-sim");
    drop(new);
    let stderr = resume();
    assert!(stderr.contains("does not report its version"), "{stderr}");
    assert!(stderr.contains("1 of 1 cells are finished"), "{stderr}");
}

#[test]
fn an_external_server_is_measured_and_left_running() {
    let lab = Lab::new();
    let port = free_port();
    let arguments = ["sim", "--model", "m", "--port", &port.to_string()];
    let mut server = lab.command(&arguments);
    let mut server = Kill(server.stderr(Stdio::null()).spawn().unwrap());
    let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(wait_until(Duration::from_secs(20), listens));
    lab.write("plan.toml", &PLAN.replace("@PORT@", &port.to_string()));
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let (_, cell) = &lab.cells()[0];
    assert_eq!(
        cell["source"], "simulated",
        "a simulator is recognised wherever it runs"
    );
    assert_eq!(cell["server"]["stopped"], "left running");
    let statuses: Vec<_> = cell["passes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["verdict"]["status"].clone())
        .collect();
    assert_eq!(statuses, ["valid", "valid", "valid"]);
    assert!(
        server.0.try_wait().unwrap().is_none(),
        "it was not labrun's to stop"
    );
}

/// Asks the server on `port` for other prompts until `stop` is set.
fn another_client(port: u16, stop: &AtomicBool) {
    let mut token = 1000;
    while !stop.load(Ordering::Relaxed) {
        token += 1;
        let prompt = vec![token.to_string(); 2000].join(",");
        let body = format!(r#"{{"model":"m","prompt":[{prompt}],"max_tokens":16}}"#);
        let request = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
    }
}

#[test]
fn a_pass_that_another_client_shared_is_invalid() {
    let lab = Lab::new();
    let port = free_port();
    let _server = started(&lab, port, "0.32.0");
    lab.write("plan.toml", &PLAN.replace("@PORT@", &port.to_string()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| another_client(port, &stop));
        lab.labrun(&["plan.toml", "--out", "out"]);
        stop.store(true, Ordering::Relaxed);
    });
    let pass = &lab.cells()[0].1["passes"][0];
    assert_eq!(pass["verdict"]["status"], "invalid");
    let reasons = pass["verdict"]["reasons"].to_string();
    assert!(reasons.contains("another client used it"), "{reasons}");
}

#[test]
fn an_address_without_a_server_is_reported_plainly() {
    let lab = Lab::new();
    let plan = PLAN.replace("@PORT@", &free_port().to_string());
    lab.write("plan.toml", &(plan + "ready_timeout_s = 1\n"));
    let ended = lab.labrun(&["plan.toml", "--out", "out"]).expect_code(2);
    let stderr = ended.stderr.to_lowercase();
    assert!(
        stderr.contains("problem: the server at http://127.0.0.1:") && stderr.contains("refused"),
        "{stderr}"
    );
    assert!(!lab.path("out").exists());
    let forced = ["plan.toml", "--out", "out", "--force"];
    lab.labrun(&forced).expect_code(1);
    let error = lab.cells()[0].1["outcome"]["error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(error.contains("not ready after 1 s"), "{error}");
    assert!(error.to_lowercase().contains("refused"), "{error}");
}

#[test]
fn another_model_and_a_path_in_the_url_are_refused_at_once() {
    let lab = Lab::new();
    let port = free_port();
    let arguments = ["sim", "--model", "other", "--port", &port.to_string()];
    let mut server = lab.command(&arguments);
    let _server = Kill(server.stderr(Stdio::null()).spawn().unwrap());
    let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(wait_until(Duration::from_secs(20), listens));
    let plan = PLAN.replace("@PORT@", &port.to_string());
    lab.write("plan.toml", &plan);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(1);
    let error = lab.cells()[0].1["outcome"]["error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(error.contains("it serves `other`, not `m`"), "{error}");
    let url = format!("http://127.0.0.1:{port}");
    lab.write("plan.toml", &plan.replace(&url, &format!("{url}/v1")));
    let ended = lab.labrun(&["plan.toml", "--out", "out2"]).expect_code(2);
    assert!(ended.stderr.contains("has a path"), "{}", ended.stderr);
    assert!(!lab.path("out2").exists());
    let url = format!("{url}/v1");
    let ended = lab
        .labrun(&["bench", &url, "--model", "other"])
        .expect_code(2);
    assert!(ended.stderr.contains("has a path"), "{}", ended.stderr);
}

#[test]
fn bench_prints_one_load_as_a_table_and_as_json() {
    let lab = Lab::new();
    let port = free_port();
    let arguments = ["sim", "--model", "m", "--port", &port.to_string()];
    let mut server = lab.command(&arguments);
    let _server = Kill(server.stderr(Stdio::null()).spawn().unwrap());
    let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(wait_until(Duration::from_secs(20), listens));
    let url = format!("http://127.0.0.1:{port}");
    let load = [
        "bench",
        &url,
        "--model",
        "m",
        "--num-requests",
        "12",
        "--concurrency",
        "4",
        "--prompt-len",
        "300",
        "--gen-len",
        "5",
    ];
    let table = lab.labrun(&load).expect_code(0);
    assert!(table.stdout.contains("12/12"), "{}", table.stdout);
    assert!(table.stdout.contains("Simulated"), "{}", table.stdout);
    let sent = "sent 12 = ok 12 + failed 0 + unfinished 0";
    assert!(table.stderr.contains(sent), "{}", table.stderr);
    for row in ["TTFT", "ITL", "E2E", "Request throughput"] {
        assert!(table.stdout.contains(row), "{}", table.stdout);
    }
    for word in ["cold", "external", "inconclusive"] {
        assert!(!table.stdout.contains(word), "{}", table.stdout);
    }
    // The second time it is other prompts; with the printed seed, the same.
    let second = lab.labrun(&load).expect_code(0);
    assert!(!second.stderr.contains("from a cache"), "{}", second.stderr);
    let seed = table.stdout.split("--seed ").nth(1).unwrap();
    let seed = seed.split_whitespace().next().unwrap();
    let same = lab.labrun(&[&load[..], &["--seed", seed]].concat());
    assert!(same.stderr.contains("from a cache"), "{}", same.stderr);
    let again = lab
        .labrun(&[&load[..], &["--json", "--chat"]].concat())
        .expect_code(0);
    let json: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(json["source"], "simulated");
    assert_eq!(json["counts"]["ok"], 12);
    assert_eq!(
        json["prompt_tokens_mean"], 300.0,
        "chat prompts have the exact length too"
    );
    let refused = lab
        .labrun(&[&load[..3], &["nope"], &load[4..]].concat())
        .expect_code(2);
    let why = "it serves `m`, not `nope`; name it with --model";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    assert!(!refused.stderr.contains("sent 12"), "nothing is sent");
    assert_eq!(refused.stdout, "", "a table of nothing says nothing");
}
