//! A tier of a connector that labrun has never heard of: what runs beside vLLM, and the verdict.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::fault_doc::{end_of, rows};
use crate::hub;
use crate::support::{Lab, wait_until};

const RUN: [&str; 5] = ["plan.toml", "--config", "box.toml", "--out", "out"];

/// A lab with scripts for `vllm` and `store`, and a tier `mine` with `store` beside vLLM, which `ready`
/// shows to be ready.
fn beside(vllm: &str, store: &str, ready: &str) -> Lab {
    let lab = Lab::new();
    for (name, script) in [("vllm", vllm), ("store", store)] {
        let path = lab.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    lab.write("box.toml", "[process]\nbin_dir = \"bin\"\n");
    let server = "ready_timeout_s = 2\nstop_grace_s = 1\n";
    let tier = format!(
        "[tier.mine]\nkind = \"connector\"\nenv = {{ WHERE = \"{{folder}}\" }}\nargs = {{ block-size = 32 }}\n\
         [tier.mine.kv_transfer_config]\nkv_connector = \"Foreign\"\nport = \"{{port.a}}\"\n\
         [[tier.mine.side]]\nname = \"store\"\ncommand = [\"store\", \"{{port.a}}\", \"{{folder}}\"]\n\
         env = {{ SIDE = \"yes\" }}\n{ready}\n"
    );
    let plan = hub::plan("mine").replace("ready_timeout_s = 20\nstop_grace_s = 5\n", server);
    lab.write("plan.toml", &(plan + &tier));
    lab
}

/// The error of the only cell, its log's tail and its folder.
#[track_caller]
fn failure(lab: &Lab) -> (String, String, std::path::PathBuf) {
    lab.labrun(&RUN).expect_code(1);
    let (path, cell) = lab.cells().remove(0);
    let error = cell["outcome"]["error"].as_str().unwrap().to_owned();
    lab.assert_no_server_is_left();
    (error, cell["outcome"]["log_tail"].to_string(), path)
}

const WAITS: &str = "echo \"side $SIDE args: $*\"; echo up; exec sleep 300";

#[test]
fn what_runs_beside_vllm_is_ready_before_it_and_both_get_what_the_plan_says() {
    let vllm = "echo \"where $WHERE side <$SIDE> args: $*\"\nexit 3";
    let lab = beside(vllm, WAITS, "ready_line = \"up\"");
    let (error, _, path) = failure(&lab);
    assert!(error.contains("vLLM exited with code 3"), "{error}");
    let store = std::fs::read_to_string(path.join("side-store.log")).unwrap();
    let (port, folder) = store
        .strip_prefix("side yes args: ")
        .and_then(|rest| rest.lines().next()?.split_once(' '))
        .unwrap_or_else(|| panic!("{store}"));
    let vllm = std::fs::read_to_string(path.join("server.log")).unwrap();
    for expected in [
        format!("where {folder} side <> args: serve"),
        format!("--kv-transfer-config {{\"kv_connector\":\"Foreign\",\"port\":{port}}}"),
        "--block-size 32".to_owned(),
    ] {
        assert!(vllm.contains(&expected), "no `{expected}` in {vllm}");
    }
    // The same by hand, with all that runs beside it.
    let ran = std::process::Command::new("timeout")
        .args(["60", "./server.sh"])
        .current_dir(&path)
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), vllm);
}

#[test]
fn what_dies_beside_vllm_fails_the_cell_with_its_name_and_its_log() {
    let store = "echo 'no room for the store'; exit 7";
    let lab = beside("exec sleep 300", store, "ready_line = \"up\"");
    let (error, tail, path) = failure(&lab);
    let dead = "the side process `store` exited with code 7 before it was ready";
    assert!(error.contains(dead), "{error}");
    assert!(error.ends_with("side-store.log"), "{error}");
    assert!(tail.contains("no room for the store"), "{tail}");
    assert!(!path.join("server.log").exists(), "vLLM was started");
    // Later, while vLLM starts.
    let store = "echo up; sleep 1; echo 'lost its disk'; exit 9";
    let lab = beside("exec sleep 300", store, "ready_line = \"up\"");
    let plan = lab.read("plan.toml");
    lab.write(
        "plan.toml",
        &plan.replace("ready_timeout_s = 2", "ready_timeout_s = 60"),
    );
    let (error, tail, _) = failure(&lab);
    assert!(
        error.contains("side process `store` exited with code 9"),
        "{error}"
    );
    assert!(tail.contains("lost its disk"), "{tail}");
}

#[test]
fn what_is_never_ready_beside_vllm_fails_the_cell_and_says_what_is_missing() {
    for (ready, missing) in [
        ("ready_line = \"listens\"", "its log does not say `listens`"),
        ("ready_port = \"{port.a}\"", "nothing listens at 127.0.0.1:"),
        (
            "ready_url = \"http://127.0.0.1:{port.a}/health\"",
            "/health does not answer",
        ),
    ] {
        let ready = format!("{ready}\nready_timeout_s = 1");
        let lab = beside("exec sleep 300", WAITS, &ready);
        let (error, _, path) = failure(&lab);
        assert!(
            error.contains("side process `store` was not ready after 1 s"),
            "{error}"
        );
        assert!(error.contains(missing), "{error}");
        assert!(!path.join("server.log").exists(), "vLLM was started");
    }
}

#[test]
fn a_killed_labrun_leaves_nothing_beside_vllm_that_clean_does_not_end() {
    let lab = beside(
        "trap '' TERM HUP; sleep 300",
        "trap '' TERM HUP; echo up; sleep 300",
        "ready_line = \"up\"",
    );
    let plan = lab.read("plan.toml");
    lab.write(
        "plan.toml",
        &plan.replace("ready_timeout_s = 2", "ready_timeout_s = 60"),
    );
    let mut run = lab.command(&RUN).stderr(Stdio::null()).spawn().unwrap();
    let log = lab.path("out/servers/1/server.log");
    assert!(wait_until(Duration::from_secs(30), || log.exists()));
    let servers = lab.servers();
    assert!(servers.len() > 1, "{servers:?}");
    run.kill().unwrap();
    run.wait().unwrap();
    lab.labrun(&["clean"]).expect_code(0);
    lab.assert_no_server_is_left();
}

#[test]
fn a_program_that_is_not_there_is_refused_before_anything_is_written() {
    let lab = beside("exit 3", "exit 3", "ready_line = \"up\"");
    let plan = lab.read("plan.toml");
    lab.write(
        "plan.toml",
        &plan.replace("[\"store\", ", "[\"no-such-store\", "),
    );
    let ended = lab.labrun(&RUN).expect_code(2);
    let expected = "`no-such-store` of the side process `store` is neither in";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    assert!(!lab.path("out").exists());
}

#[test]
fn the_commands_of_a_plan_show_vllm_with_what_runs_beside_it() {
    let lab = beside("exit 3", WAITS, "ready_port = \"{port.a}\"");
    let arguments = ["plan", "plan.toml", "--config", "box.toml", "--commands"];
    let shown = lab.labrun(&arguments).expect_code(0).stdout;
    for expected in [
        "bin/store 9001 '<run>/scratch' &",
        "until bash -c 'exec 3<>/dev/tcp/127.0.0.1/9001' 2>/dev/null; do sleep 1; done",
        r#"--kv-transfer-config '{"kv_connector":"Foreign","port":9001}'"#,
        "WHERE='<run>/scratch'",
    ] {
        assert!(shown.contains(expected), "no `{expected}` in {shown}");
    }
}

/// A store beside vLLM: what it is sent lies in files of its own.
const STORE: &str = r#"#!/usr/bin/env python3
import os, socketserver, sys
port, folder = int(sys.argv[1]), sys.argv[2]
os.makedirs(folder, exist_ok=True)

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            verb, key, size = line.decode().split()
            path, answer = os.path.join(folder, key), b""
            if verb == "PUT":
                with open(path, "wb") as file:
                    file.write(self.rfile.read(int(size)))
            elif verb == "HAS":
                answer = b"yes" if os.path.exists(path) else b""
            else:
                with open(path, "rb") as file:
                    answer = file.read(int(size))
            self.wfile.write(b"%d\n" % len(answer) + answer)

socketserver.ThreadingTCPServer.daemon_threads = True
server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Handler)
print("listening", flush=True)
server.serve_forever()
"#;

/// The stand-in with a connector of nobody's, of which `watch` is seen.
fn lab(watch: &str, env: &str) -> Lab {
    let lab = hub::lab("mine");
    let store = lab.write("bin/store", STORE);
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o755)).unwrap();
    let plan = hub::plan("mine").replace(
        "[\"cold\", \"tier\"]",
        "[\"cold\", \"gpu\", \"tier\", \"restart\"]",
    );
    let tier = format!(
        "[tier.mine]\nkind = \"connector\"\noutlives_restart = true\n\
         [tier.mine.kv_transfer_config]\nkv_connector = \"StandInConnector\"\nkv_role = \"kv_both\"\n\
         kv_connector_extra_config = {{ chunk = 256, folder = \"{{folder}}/kv\", port = \"{{port}}\" }}\n\
         [[tier.mine.side]]\nname = \"store\"\ncommand = [\"store\", \"{{port}}\", \"{{folder}}/store\"]\nready_line = \"listening\"\n\
         [tier.mine.reset]\nurl = \"{{vllm}}/reset_prefix_cache?reset_external=true\"\n\
         [tier.mine.watch]\n{watch}\n[server.env]\n{env}\n"
    );
    lab.write("plan.toml", &(plan + &tier));
    lab
}

/// The stand-in reaches its store over TCP.
const WIRE: &str = "STAND_IN_WIRE = \"1\"";

/// Status and reasons of each pass, by state.
fn verdicts(lab: &Lab) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let passes = hub::passes(lab, true).into_iter();
    let found = passes.map(|pass| {
        let verdict = &pass["verdict"];
        (
            text(&pass["state"]),
            text(&verdict["status"]),
            verdict["reasons"].to_string(),
        )
    });
    let found = found.collect();
    lab.assert_no_server_is_left();
    found
}

const COUNTERS: &str = "counters = { loaded_bytes = \"standin_loaded_bytes_total\", stored_bytes = \"standin_stored_bytes_total\" }";

#[test]
#[ignore = "needs python3"]
fn a_connector_of_nobodys_is_valid_in_every_state_by_its_files_its_counter_or_its_port() {
    let port = format!("port = \"{{port}}\"\n{COUNTERS}");
    for (watch, env, row) in [
        ("disk = \"{folder}/kv\"", "", "disk-read"),
        (COUNTERS, "", "connector-load"),
        (port.as_str(), WIRE, "port-read"),
    ] {
        let lab = lab(watch, env);
        let verdicts = verdicts(&lab);
        assert_eq!(verdicts.len(), 4);
        for (state, status, reasons) in verdicts {
            assert_eq!(status, "valid", "{watch}, {state}: {reasons}");
        }
        let (path, cell) = lab.cells().remove(0);
        assert_eq!(cell["tier_kind"], "connector");
        let ledger = cell["passes"][2]["ledger"].as_array().unwrap();
        let leg = ledger.iter().find(|leg| leg["path"] == row).unwrap();
        assert_eq!(leg["expected_bytes"], 4.0 * 1024.0 * 1024.0, "{leg}");
        let moved = leg["moved_bytes"].as_f64().unwrap() / (4.0 * 1024.0 * 1024.0);
        assert!((0.98..1.02).contains(&moved), "{leg}");
        if row == "port-read" {
            assert_eq!(leg["method"], "tcp-info");
            // Each chunk is sent over a connection of its own, which is closed then.
            let cold = cell["passes"][0]["ledger"].as_array().unwrap();
            let sent = cold.iter().find(|leg| leg["path"] == "port-write").unwrap();
            let moved = |name| sent[name].as_f64().unwrap();
            let ratio = moved("moved_bytes") / moved("expected_bytes");
            assert!((0.98..1.02).contains(&ratio), "{sent}");
        }
        assert!(path.join("side-store.log").is_file());
        // What it was judged by is stored: a reader comes to the same.
        lab.labrun(&["verify", "out"]).expect_code(0);
    }
}

#[test]
#[ignore = "needs python3"]
fn what_nobody_can_see_of_a_connector_is_inconclusive_by_name() {
    let verdicts = verdicts(&lab("", ""));
    for (state, status, reasons) in &verdicts {
        let is_load = state == "tier" || state == "restart";
        let expected = if is_load { "inconclusive" } else { "valid" };
        assert_eq!(status, expected, "{state}: {reasons}");
        let by_name = "nothing that labrun can read shows what connector `StandInConnector` loaded";
        assert_eq!(reasons.contains(by_name), is_load, "{state}: {reasons}");
    }
    let unknown = "counters = { loaded_bytes = \"no_such_total\" }";
    let (_, status, reasons) = self::verdicts(&lab(unknown, "")).remove(2);
    assert_eq!(status, "inconclusive", "{reasons}");
    assert!(
        reasons.contains("the counter `no_such_total` is not exposed"),
        "{reasons}"
    );
}

/// What a row of the table watches, and what goes wrong in it: lines of `watch` and of `[server.env]`.
fn planted(what: &str, watched: &str) -> (String, String) {
    let watch = match watched {
        "its files" => "disk = \"{folder}/kv\"".to_owned(),
        "its port" => format!("port = \"{{port}}\"\n{COUNTERS}"),
        "another port" => "port = 1".to_owned(),
        "its counter" => COUNTERS.to_owned(),
        "nothing" => String::new(),
        unknown => panic!("`{unknown}` of docs/faults.md is not known to its test"),
    };
    let fault = match what {
        "nothing" => "",
        "RAM answers for the store" => "STAND_IN_KEEPS_RAM = \"1\"",
        "half of each chunk is loaded" => "STAND_IN_HALVES = \"1\"",
        "what is counted as stored is not sent" => "STAND_IN_FORGETS = \"1\"",
        unknown => panic!("`{unknown}` of docs/faults.md is not known to its test"),
    };
    let is_wire = watched.ends_with("port");
    (watch, [if is_wire { WIRE } else { "" }, fault].join("\n"))
}

#[test]
#[ignore = "needs python3"]
fn every_fault_of_a_connector_ends_as_in_the_table() {
    let rows = rows("A connector that labrun does not know");
    assert!(rows.len() > 6, "{rows:?}");
    let mut wrong = Vec::new();
    for row in &rows {
        let (watch, env) = planted(&row.what, &row.tier);
        let lab = lab(&watch, &env);
        verdicts(&lab);
        let (ends_as, messages) = end_of(&lab.cells().remove(0).1);
        if !row.is_true_of(&ends_as, &messages) {
            wrong.push(format!("{row:?}\n  is: {ends_as}\n{messages}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
