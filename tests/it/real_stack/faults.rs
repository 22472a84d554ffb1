//! Faults acted out on a real vLLM and a real LMCache: each ends as in its row of
//! `docs/faults.md`.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

use super::{plan, run, stack};
use crate::fault_doc::{Row, end_of, rows};
use crate::support::{Lab, wait_until};

const HEADING: &str = "On a real vLLM and LMCache";

/// Checks that the lab's only cell ended as in the row of `what`.
#[track_caller]
fn expect(lab: &Lab, what: &str) {
    let cells = lab.cells();
    assert_eq!(cells.len(), 1);
    expect_of(&cells[0].1, what);
    lab.assert_no_server_is_left();
}

/// Checks that `cell` ended as in the row of `what`.
#[track_caller]
fn expect_of(cell: &Value, what: &str) {
    let row = row_of(what);
    assert_eq!(cell["source"], "measured");
    let (ends_as, messages) = end_of(cell);
    assert!(
        row.is_true_of(&ends_as, &messages),
        "{row:?}\n  is: {ends_as}\n{messages}\n{cell}"
    );
}

fn row_of(what: &str) -> Row {
    let mut rows = rows(HEADING).into_iter();
    rows.find(|row| row.what == what).expect("a row of it")
}

#[test]
fn every_row_is_acted_out_by_a_test() {
    let tests = include_str!("faults.rs");
    let rows = rows(HEADING);
    assert!(rows.len() > 5, "{rows:?}");
    for row in rows {
        let named = format!("\"{}\")", row.what);
        assert!(tests.contains(&named), "no test names {row:?}");
    }
}

/// Runs `text` on the stack, with `templates/own.j2` as a template of the user's own.
fn run_with_template(lab: &Lab, text: &str, template: &str, code: i32) {
    lab.write("templates/own.j2", template);
    let config = std::fs::read_to_string(stack().join("labrun.toml")).unwrap();
    let config = config.replace("[paths]", "[paths]\ntemplates = \"templates\"");
    lab.write("own.toml", &config);
    lab.write("real.toml", text);
    let arguments = ["real.toml", "--config", "own.toml", "--out", "out"];
    lab.labrun(&arguments).expect_code(code);
}

/// Starts a run, and waits until its first measured requests are sent.
fn start_until_load(lab: &Lab, text: &str) -> Child {
    lab.write("real.toml", text);
    let config = stack().join("labrun.toml");
    let config = config.to_str().unwrap();
    let arguments = ["real.toml", "--config", config, "--out", "out"];
    let running = lab.command(&arguments).spawn().unwrap();
    let loads = || {
        let events = lab.path("out/events.jsonl");
        events.is_file() && lab.read("out/events.jsonl").contains("\"load\"")
    };
    assert!(wait_until(Duration::from_secs(900), loads));
    running
}

/// Arguments of an LMCache server with files behind its RAM.
const FILES: &str = r#"- "--chunk-size"
- 256
- "--l1-size-gb"
- 1.0
- "--l1-init-size-gb"
- 1
- "--eviction-policy"
- "LRU"
"#;

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn ram_that_answers_for_the_disk_is_invalid() {
    // Each of two documents is read once, and then stays in L1.
    let retaining = r#"- "--l2-prefetch-policy"
- "retain"
- "--l2-adapter"
- {{ {"type": "fs", "base_path": scratch_dir, "use_odirect": true} }}
"#;
    let lab = Lab::new();
    let text = plan(r#"["disk"]"#, r#"["cold", "tier"]"#)
        .replace("[tier.disk]", "[tier.disk]\ntemplate = \"own.j2\"")
        .replace("question_len = 32", "question_len = 32\ndocuments = 2")
        .replace("concurrency = [4]", "concurrency = [1]")
        .replace(
            "[server.args]",
            "[server.args]\nenable-prefix-caching = false",
        );
    run_with_template(&lab, &text, &format!("{FILES}{retaining}"), 1);
    expect(&lab, "RAM keeps what came from the disk");
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn a_key_that_the_adapter_ignores_fails_the_cell_and_is_refused_where_the_version_is_seen() {
    // The knob is called `use_odirect`: LMCache would read through the page cache, and say nothing.
    let adapter = r#"- "--l2-adapter"
- {{ {"type": "fs", "base_path": scratch_dir, "use_o_direct": true} }}
"#;
    let lab = Lab::new();
    let text = plan(r#"["disk"]"#, r#"["cold", "tier"]"#)
        .replace("[tier.disk]", "[tier.disk]\ntemplate = \"own.j2\"");
    run_with_template(&lab, &text, &format!("{FILES}{adapter}"), 2);
    assert!(!lab.path("out").exists(), "nothing was started");
    run_unseen(&lab, &text, 1);
    expect(&lab, "a key that LMCache's adapter ignores");
}

/// A disk tier in which LMCache lets the share `rate` of the chunks fail to load.
fn failing(name: &str, rate: f64) -> String {
    let faults = format!("fault_inject = {{ rate = {rate:?}, seed = 1 }}");
    format!("[tier.{name}]\nkind = \"disk\"\nmax_local_cpu_size = 1.0\n{faults}\n")
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn chunks_that_are_found_and_fail_to_load_are_never_right() {
    let lab = Lab::new();
    let tiers = [failing("few", 0.1), failing("all", 1.0)].concat();
    let text = plan(r#"["few", "all"]"#, r#"["cold", "tier"]"#);
    lab.write("real.toml", &format!("{text}\n{tiers}"));
    let config = stack().join("labrun.toml");
    let config = config.to_str().unwrap();
    let at = [
        "--prompt-len",
        "4128",
        "--concurrency",
        "4",
        "--rounds",
        "1",
    ];
    let arguments = ["check", "real.toml", "--config", config, "--out", "out"];
    lab.labrun(&[&arguments[..], &at[..]].concat())
        .expect_code(1);
    let check: Value = serde_json::from_str(&lab.read("out/check.json")).unwrap();
    let findings = check["findings"].as_array().unwrap();
    // Both tiers, also after a restart.
    assert_eq!(findings.len(), 4, "{check}");
    for finding in findings {
        assert_eq!(finding["answer"], "not-loaded", "{finding}");
        let served = finding["evidence"]["external_tokens"].as_f64().unwrap();
        let expected = finding["evidence"]["expected_hit_tokens"].as_f64().unwrap();
        if finding["tier"] == "all" {
            assert!(served < 1.0, "{finding}");
        } else {
            assert!(served > 0.0 && served < expected, "{finding}");
        }
    }
    for (_, cell) in lab.cells() {
        expect_of(&cell, "chunks that are found and fail to load");
    }
    lab.assert_no_server_is_left();
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn a_tier_that_is_too_small_is_invalid() {
    let lab = Lab::new();
    let text = plan(r#"["cpu"]"#, r#"["cold", "tier"]"#)
        .replace(
            "[tier.cpu]\nmax_local_cpu_size = 1.0",
            "[tier.cpu]\nmax_local_cpu_size = 0.05",
        )
        .replace(
            "l1-use-lazy = false",
            "l1-use-lazy = false\nl1-init-size-gb = 0",
        );
    run(&lab, &text, 1);
    expect(&lab, "the tier is too small");
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn a_degraded_lmcache_is_invalid() {
    // In vLLM's own process LMCache does not start on a CPU.
    let lab = Lab::new();
    let text = in_process(r#"["cold", "tier"]"#)
        .replace("[tier.cpu]", "[tier.cpu]\nlookup_timeout_ms = 200");
    run(&lab, &text, 1);
    expect(&lab, "LMCache cannot start its engine");
}

/// The plan of a cpu tier that lives in vLLM's process.
fn in_process(states: &str) -> String {
    let text = plan(r#"["cpu"]"#, states)
        .replace("lmcache  = \"multi-process\"", "lmcache  = \"in-process\"")
        .replace("requests = 10", "requests = 2");
    let lmcache_args = text.find("[server.lmcache_args]").unwrap();
    let env = text.find("[server.env]").unwrap();
    format!("{}{}", &text[..lmcache_args], &text[env..])
}

/// The stack's programs in a folder of the lab's own, where their versions are not to be seen: what
/// labrun would refuse beforehand is left to the programs themselves.
fn run_unseen(lab: &Lab, text: &str, code: i32) {
    for name in ["vllm", "lmcache"] {
        let real = stack().join("venv/bin").join(name);
        let script = format!("#!/bin/sh\nexec {} \"$@\"\n", real.display());
        let path = lab.write(&format!("bin/{name}"), &script);
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    let config = format!(
        "[process]\nbin_dir = \"{}\"\n[paths]\nmodels = \"{}\"\ntemplates = \"templates\"\n",
        lab.path("bin").display(),
        stack().display()
    );
    lab.write("own.toml", &config);
    lab.write("real.toml", text);
    let arguments = ["real.toml", "--config", "own.toml", "--out", "out"];
    lab.labrun(&arguments).expect_code(code);
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn a_key_of_another_version_fails_the_cell_and_is_refused_where_the_version_is_seen() {
    let lab = Lab::new();
    let text = in_process(r#"["cold", "tier"]"#)
        .replace("[tier.cpu]", "[tier.cpu]\ntemplate = \"own.j2\"");
    let old = "chunk_size: 256\nlocal_cpu: true\ncufile_buffer_size: 7\n";
    run_with_template(&lab, &text, old, 2);
    assert!(!lab.path("out").exists(), "nothing was started");
    run_unseen(&lab, &text, 1);
    expect(&lab, "a key of another version of LMCache");
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn native_offloading_on_a_cpu_fails_the_cell_and_is_refused_where_the_version_is_seen() {
    let lab = Lab::new();
    let text = plan(r#"["native"]"#, r#"["cold", "tier"]"#);
    run(&lab, &text, 2);
    assert!(!lab.path("out").exists(), "nothing was started");
    run_unseen(&lab, &text, 1);
    expect(&lab, "vLLM's own offloading without a GPU");
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn a_cache_that_cannot_be_reset_fails_the_cell() {
    let lab = Lab::new();
    let text = plan(r#"["baseline"]"#, r#"["cold", "tier"]"#)
        .replace("[server.env]", "[server.env]\nVLLM_SERVER_DEV_MODE = \"0\"");
    run(&lab, &text, 1);
    expect(&lab, "no route resets the GPU prefix cache");
}

/// A middleware of vLLM's that answers the reset itself, as vLLM does when it has reset.
const NO_RESET: &str = r#"
class NoReset:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] != "/reset_prefix_cache":
            return await self.app(scope, receive, send)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"success":true}'})
"#;

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn a_reset_that_resets_nothing_is_invalid() {
    let lab = Lab::new();
    lab.write("modules/no_reset.py", NO_RESET);
    let modules = lab.path("modules");
    let text = plan(r#"["cpu"]"#, r#"["cold", "tier"]"#)
        .replace(
            "[server.args]",
            "[server.args]\nmiddleware = \"no_reset.NoReset\"",
        )
        .replace(
            "[server.env]",
            &format!("[server.env]\nPYTHONPATH = \"{}\"", modules.display()),
        );
    run(&lab, &text, 1);
    expect(&lab, "a reset that answers 200 and resets nothing");
    let (_, messages) = end_of(&lab.cells()[0].1);
    let counted = "of the prompt tokens came from the GPU prefix cache, not the tier";
    assert!(messages.contains(counted), "{messages}");
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh and redis-server, and takes minutes"]
fn a_store_that_does_not_end_proves_nothing() {
    let lab = Lab::new();
    let text = plan(r#"["redis"]"#, r#"["cold", "tier"]"#)
        .replace(
            "ready_timeout_s  = 600",
            "ready_timeout_s  = 600\nstore_timeout_s = 5\nstop_grace_s = 5",
        )
        .replace("[tier.redis]", "[load]\ntotal_timeout_s = 20\n[tier.redis]");
    let mut running = start_until_load(&lab, &text);
    // It answers everything but writes from now on.
    let log = lab.read("out/servers/1/redis.log");
    let (_, port) = log.split_once("port=").unwrap();
    let port: u16 = port.split('.').next().unwrap().parse().unwrap();
    let mut redis = TcpStream::connect(("127.0.0.1", port)).unwrap();
    redis.write_all(b"CLIENT PAUSE 3600000 WRITE\r\n").unwrap();
    let mut answer = [0; 5];
    redis.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+OK\r\n");
    assert_eq!(running.wait().unwrap().code(), Some(1));
    expect(&lab, "a Redis that takes no writes any more");
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn a_killed_lmcache_server_fails_the_cell() {
    let lab = Lab::new();
    let text = plan(r#"["cpu"]"#, r#"["cold", "tier"]"#)
        .replace("requests = 10", "requests = 400")
        .replace("[tier.cpu]", "[load]\ntotal_timeout_s = 60\n[tier.cpu]");
    let mut running = start_until_load(&lab, &text);
    let servers = lab.servers();
    let is_lmcache = |pid: &&String| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        command.unwrap_or_default().contains("--shm-name")
    };
    let pid = servers.iter().find(is_lmcache).expect("an LMCache server");
    let killed = Command::new("kill").args(["-9", pid]).status();
    assert!(killed.unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(1));
    expect(&lab, "the LMCache server is killed");
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn a_reset_that_is_refused_while_requests_run_fails_the_cell() {
    let lab = Lab::new();
    let text = plan(r#"["baseline"]"#, r#"["cold", "tier"]"#);
    let mut running = start_until_load(&lab, &text);
    let port = lab.servers().iter().find_map(|pid| port_of(pid)).unwrap();
    // Somebody else's long answer holds its blocks.
    let body = r#"{"model":"tiny-llama","prompt":[20,21,22],"max_tokens":8000,"ignore_eos":true}"#;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json";
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut long = TcpStream::connect(("127.0.0.1", port)).unwrap();
    long.write_all(request.as_bytes()).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(1));
    expect(&lab, "a reset while a request runs");
}

/// The port in the arguments of vLLM's front, if `pid` is that process.
fn port_of(pid: &str) -> Option<u16> {
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<&str> = command.split('\0').collect();
    arguments.contains(&"serve").then_some(())?;
    let at = arguments
        .iter()
        .position(|argument| *argument == "--port")?;
    arguments.get(at + 1)?.parse().ok()
}
