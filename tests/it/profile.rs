//! `[profile]`: the server under a fake `nsys` that runs what it is given, and a real one's traces.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::support::{Ended, Lab, SimServer};

const PLAN: &str = r#"
name = "p"
model = "m"
[matrix]
tier = ["baseline"]
prompt_len = [512]
gen_len = [4]
concurrency = [1]
label = ["rag"]
[run]
requests = 2
states = ["cold", "gpu"]
canaries = 0
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "process"
ready_timeout_s = 60
[server.args]
enforce-eager = true
[profile]
layerwise_nvtx = true
trace = ["cuda", "nvtx"]
"#;

/// Logs its arguments, then becomes the command in them.
const NSYS: &str = r#"#!/bin/sh
echo "nsys: $*" >> "$LAB/calls"
while [ "${1##*/}" != vllm ]; do shift; done
exec "$@"
"#;

/// Logs its arguments, then becomes a simulator on the port in them.
const VLLM: &str = r#"#!/bin/sh
echo "vllm: $*" >> "$LAB/calls"
echo "workers: $VLLM_WORKER_MULTIPROC_METHOD" >> "$LAB/calls"
while [ "$1" != --port ]; do shift; done
exec "$LABRUN" sim --model m --port "$2"
"#;

fn lab() -> Lab {
    let lab = Lab::new();
    write_program(&lab, "nsys", NSYS);
    write_plan(&lab, 2);
    lab
}

fn write_program(lab: &Lab, name: &str, script: &str) {
    let path = lab.write(&format!("bin/{name}"), script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A plan for a server under `nsys` with so many requests a pass, and the stand-in for vLLM.
pub(crate) fn write_plan(lab: &Lab, requests: u32) {
    write_program(lab, "vllm", VLLM);
    lab.write("box.toml", "[process]\nbin_dir = \"bin\"\n");
    let plan = PLAN.replace("requests = 2", &format!("requests = {requests}"));
    lab.write("plan.toml", &plan);
}

/// What runs it.
pub(crate) const RUN: [&str; 5] = ["plan.toml", "--config", "box.toml", "--out", "out"];

#[test]
fn a_profiled_server_runs_under_nsys_and_a_missing_profiler_is_reported() {
    let lab = lab();
    let path = std::env::var("PATH").unwrap();
    let mut command = lab.command(&RUN);
    command
        .env("PATH", format!("{}:{path}", lab.path("bin").display()))
        .env("LAB", lab.path(""))
        .env("LABRUN", env!("CARGO_BIN_EXE_labrun"));
    Ended::of(&command.output().unwrap()).expect_code(0);
    let calls = lab.read("calls");
    let reports = lab.path("out/profiles/server-1");
    let nsys = format!(
        "nsys: profile --trace-fork-before-exec=true --cuda-graph-trace=node \
         --capture-range=cudaProfilerApi --capture-range-end=repeat --sample=none --cpuctxsw=none \
         --force-overwrite=true --trace=cuda,nvtx --output={} {} serve m",
        reports.display(),
        lab.path("bin/vllm").display()
    );
    assert!(calls.contains(&nsys), "{calls}");
    for expected in [
        "--enforce-eager",
        "--profiler-config {\"profiler\":\"cuda\"} --enable-layerwise-nvtx-tracing",
        "workers: spawn",
    ] {
        assert!(calls.contains(expected), "no `{expected}` in:\n{calls}");
    }
    assert!(reports.parent().unwrap().is_dir());
    let (_, cell) = lab.cells().remove(0);
    assert_eq!(
        cell["passes"].as_array().unwrap().len(),
        2,
        "measured all the same"
    );
    let warnings = cell["warnings"].to_string();
    assert!(
        warnings.contains("not profiled: the server has no /start_profile"),
        "{warnings}"
    );
    lab.assert_no_server_is_left();
}

#[test]
fn a_missing_nsys_is_refused_before_anything_is_written() {
    let lab = lab();
    let mut command = lab.command(&RUN);
    command.env("PATH", lab.path("empty"));
    let ended = Ended::of(&command.output().unwrap()).expect_code(2);
    assert!(
        ended.stderr.contains("`nsys` is not in PATH"),
        "{}",
        ended.stderr
    );
    assert!(!lab.path("out").exists());
}

#[test]
fn the_plan_shows_the_wrapped_line() {
    let lab = lab();
    let ended = lab
        .labrun(&["plan", "plan.toml", "--commands"])
        .expect_code(0);
    assert!(ended.stdout.contains("nsys profile"), "{}", ended.stdout);
}

/// What is written on `from` to `to`, but for the profiler's routes, which it answers itself: the
/// start at once, the stop after `writing`, as one that writes a report.
fn forward(mut from: TcpStream, mut to: TcpStream, writing: Duration) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let received = &bytes[..count];
        let stops = received.starts_with(b"POST /stop_profile");
        let done = if stops || received.starts_with(b"POST /start_profile") {
            std::thread::sleep(if stops { writing } else { Duration::ZERO });
            from.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        } else {
            to.write_all(received)
        };
        if done.is_err() {
            break;
        }
    }
    drop(to.shutdown(std::net::Shutdown::Both));
}

/// A port at which the server at `upstream` is reached, with a profiler.
fn with_profiler(upstream: u16, writing: Duration) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)) else {
                return;
            };
            let (mut back, mut answers) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            std::thread::spawn(move || forward(client, server, writing));
        }
    });
    port
}

#[test]
fn writing_a_report_is_not_part_of_the_pass() {
    let lab = Lab::new();
    let server = SimServer::start(&lab);
    let port = with_profiler(server.port, Duration::from_secs(6));
    let external = format!("launcher = \"external\"\nurl = \"http://127.0.0.1:{port}\"\n");
    let plan = PLAN.replace("launcher = \"process\"\n", &external);
    let plan = plan
        .replace("enforce-eager = true\n", "")
        .replace("[server.args]\n", "");
    let plan = plan.replace(
        "layerwise_nvtx = true\ntrace = [\"cuda\", \"nvtx\"]",
        "nsys = false",
    );
    lab.write(
        "plan.toml",
        &plan.replace("model = \"m\"", "model = \"sim\""),
    );
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let (_, cell) = lab.cells().remove(0);
    let warnings = cell["warnings"].to_string();
    assert!(warnings.contains("profiled: these latencies"), "{warnings}");
    for pass in cell["passes"].as_array().unwrap() {
        assert!(pass["duration_s"].as_f64().unwrap() < 4.0, "{pass:#}");
        let rows = pass["telemetry"].as_array().unwrap();
        let running = rows.iter().find(|row| row["metric"] == "running").unwrap();
        // Once a second, and at both edges: six seconds more would be six readings more.
        assert!(running["samples"].as_u64().unwrap() <= 5, "{running}");
    }
}

/// The real vLLM on a CPU, whose platform has PyTorch's profiler only.
#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn real_stack_a_real_vllm_is_profiled_around_each_window() {
    let lab = Lab::new();
    let plan = include_str!("../../plans/real_cpu.toml");
    let plan: toml::Table = plan.parse().unwrap();
    let server = |key: &str| toml::to_string(&plan["server"][key]).unwrap();
    let text = format!(
        "name = \"profiled\"\nmodel = {}\n[matrix]\ntier = [\"baseline\"]\nprompt_len = [600]\n\
         gen_len = [4]\nconcurrency = [1]\nlabel = [\"rag\"]\n[run]\nrequests = 2\n\
         states = [\"cold\", \"gpu\"]\nwarmup = 1\n[workload.rag]\nkind = \"shared-prefix\"\n\
         [server]\nlauncher = \"process\"\nprompt_token_ids = {}\n[server.args]\n{}\n[server.env]\n{}\n\
         [profile]\nnsys = false\nprofiler = \"torch\"\n",
        plan["model"],
        plan["server"]["prompt_token_ids"],
        server("args"),
        server("env"),
    );
    lab.write("plan.toml", &text);
    let config = crate::real_stack::stack().join("labrun.toml");
    let arguments = [
        "plan.toml",
        "--config",
        config.to_str().unwrap(),
        "--out",
        "out",
    ];
    lab.labrun(&arguments).expect_code(0);
    let (path, cell) = lab.cells().remove(0);
    assert_eq!(cell["passes"].as_array().unwrap().len(), 2);
    let warnings = cell["warnings"].to_string();
    assert!(warnings.contains("\"profiled: "), "{warnings}");
    assert!(!warnings.contains("not profiled"), "{warnings}");
    let log = std::fs::read_to_string(path.join("server.log")).unwrap();
    for route in ["POST /start_profile", "POST /stop_profile"] {
        assert_eq!(log.matches(route).count(), 2, "{route}:\n{log}");
    }
    let traces = lab.files("out/profiles");
    assert!(!traces.is_empty(), "PyTorch wrote no trace");
    lab.assert_no_server_is_left();
}
