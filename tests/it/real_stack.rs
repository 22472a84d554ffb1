//! The whole job on a real vLLM and a real LMCache, as `tests/real-stack/install` makes them.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::Lab;

pub fn stack() -> PathBuf {
    let named = std::env::var_os("LABRUN_REAL_STACK").map(PathBuf::from);
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    named.unwrap_or_else(|| home.join(".cache/labrun-real-stack"))
}

/// The plan, with only `tiers` and `states` of it.
fn plan(tiers: &str, states: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/plans/real_cpu.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let set = |text: String, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let all = r#"["baseline", "cpu", "disk", "redis"]"#;
    let text = set(text, all, tiers);
    set(text, r#"["cold", "gpu", "tier", "restart"]"#, states)
}

fn run(lab: &Lab, text: &str, code: i32) -> crate::support::Ended {
    lab.write("real.toml", text);
    let config = stack().join("labrun.toml");
    let config = config.to_str().unwrap();
    lab.labrun(&["real.toml", "--config", config, "--out", "out"])
        .expect_code(code)
}

/// A restart takes a minute, so that it is left out where there is nothing to survive it.
#[test]
#[ignore = "needs tests/real-stack/install and redis-server, and takes minutes"]
fn every_tier_of_the_real_stack_is_measured_and_proven() {
    for (tiers, states, count) in [
        (r#"["baseline", "cpu"]"#, r#"["cold", "gpu", "tier"]"#, 3),
        (
            r#"["disk", "redis"]"#,
            r#"["cold", "gpu", "tier", "restart"]"#,
            4,
        ),
    ] {
        let lab = Lab::new();
        let ended = run(&lab, &plan(tiers, states), 0);
        assert!(!ended.stdout.contains("imulated"), "{}", ended.stdout);
        let cells = lab.cells();
        assert_eq!(cells.len(), 2);
        for (path, cell) in &cells {
            assert_eq!(cell["outcome"]["kind"], "completed", "{cell}");
            assert_eq!(cell["source"], "measured");
            // A machine without an NVIDIA driver says so once; nothing else is to be warned of.
            let warnings = cell["warnings"].as_array().unwrap().iter();
            let mut others = warnings.filter(|said| !said.to_string().contains("libnvidia-ml"));
            assert_eq!(others.next(), None, "{cell}");
            let version = cell["server"]["version"].as_str().unwrap();
            assert!(version.starts_with("0.32"), "{version}");
            let log = std::fs::metadata(path.join("server.log")).unwrap().len();
            assert!(log > 0, "{} has no server log", path.display());
            assert_eq!(cell["passes"].as_array().unwrap().len(), count);
            check_passes(cell);
        }
        // One row a cell and cache state.
        assert_eq!(lab.read("out/summary.csv").lines().count(), 1 + 2 * count);
        lab.assert_no_server_is_left();
    }
}

fn check_passes(cell: &serde_json::Value) {
    let tier = cell["coordinates"]["tier"].as_str().unwrap();
    let prompt_len = cell["coordinates"]["prompt_len"].as_u64().unwrap();
    for pass in cell["passes"].as_array().unwrap() {
        assert_eq!(pass["verdict"]["status"], "valid", "{tier}: {pass}");
        assert_eq!(pass["counts"]["ok"], 10, "{pass}");
        let evidence = |name: &str| pass["evidence"][name].as_f64().unwrap();
        let hits = (prompt_len - 32) / 256 * 256 * 10;
        let state = pass["state"].as_str().unwrap();
        let warm = matches!(state, "tier" | "restart") && tier != "baseline";
        let expected = if warm { hits as f64 } else { 0.0 };
        assert!(
            (evidence("external_tokens") - expected).abs() < 1.0,
            "{tier}: {pass}"
        );
        // Every token that the server counted was counted here, and none besides.
        for side in ["prompt_tokens", "output_tokens"] {
            let (server, usage) = (
                evidence(&format!("server_{side}")),
                evidence(&format!("usage_{side}")),
            );
            assert!((server - usage).abs() < 0.5, "{side}: {server} and {usage}");
        }
        assert!((evidence("usage_prompt_tokens") - prompt_len as f64 * 10.0).abs() < 0.5);
        assert!((evidence("usage_output_tokens") - 160.0).abs() < 0.5);
        let way = match (tier, state) {
            ("disk" | "redis", "cold") => Some("write"),
            ("disk" | "redis", "tier" | "restart") => Some("read"),
            _ => None,
        };
        if let Some(way) = way {
            check_ledger(pass, &format!("{tier}-{way}"));
        }
    }
}

/// Bytes that had to move and bytes that did are the same within 5 %.
fn check_ledger(pass: &serde_json::Value, path: &str) {
    let rows = pass["ledger"].as_array().unwrap();
    let row = rows.iter().find(|row| row["path"] == path);
    let row = row.unwrap_or_else(|| panic!("no {path} in {rows:?}"));
    let (expected, moved) = (&row["expected_bytes"], &row["moved_bytes"]);
    let ratio = moved.as_f64().unwrap() / expected.as_f64().unwrap();
    assert!((ratio - 1.0).abs() < 0.05, "{row}");
}

/// A disk tier whose LMCache server keeps in RAM what it once read.
const RETAINING: &str = r#"- "--chunk-size"
- 256
- "--l1-size-gb"
- 1.0
- "--l1-init-size-gb"
- 1
- "--eviction-policy"
- "LRU"
- "--l2-prefetch-policy"
- "retain"
- "--l2-adapter"
- {{ {"type": "fs", "base_path": scratch_dir, "use_odirect": true} }}
"#;

/// The reasons and the error of the only cell, and its worst verdict.
fn only_cell(lab: &Lab) -> (String, String) {
    let cells = lab.cells();
    assert_eq!(cells.len(), 1);
    let cell = &cells[0].1;
    let passes = cell["passes"].as_array().unwrap();
    let last = passes.last().map(|pass| pass["verdict"]["status"].clone());
    (format!("{last:?}"), cell.to_string())
}

#[test]
#[ignore = "needs tests/real-stack/install, and takes minutes"]
fn fault_ram_that_answers_for_the_disk_is_invalid() {
    // Each of two documents is read once, and then kept in L1.
    let lab = Lab::new();
    lab.write("templates/retaining.j2", RETAINING);
    let text = plan(r#"["disk"]"#, r#"["cold", "tier"]"#)
        .replace("[tier.disk]", "[tier.disk]\ntemplate = \"retaining.j2\"")
        .replace("question_len = 32", "question_len = 32\ndocuments = 2")
        .replace("concurrency = [4]", "concurrency = [1]")
        .replace(
            "[server.args]",
            "[server.args]\nenable-prefix-caching = false",
        );
    let config = std::fs::read_to_string(stack().join("labrun.toml")).unwrap();
    let config = config.replace("[paths]", "[paths]\ntemplates = \"templates\"");
    lab.write("own.toml", &config);
    lab.write("real.toml", &text);
    let arguments = ["real.toml", "--config", "own.toml", "--out", "out"];
    lab.labrun(&arguments).expect_code(1);
    let (verdict, said) = only_cell(&lab);
    assert!(verdict.contains("invalid"), "{said}");
    assert!(said.contains("RAM answered for the disk"), "{said}");
}

#[test]
#[ignore = "needs tests/real-stack/install, and takes minutes"]
fn fault_a_tier_that_is_too_small_is_invalid() {
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
    let (verdict, said) = only_cell(&lab);
    assert!(verdict.contains("invalid"), "{said}");
    assert!(said.contains("expected tokens"), "{said}");
}

#[test]
#[ignore = "needs tests/real-stack/install, and takes minutes"]
fn fault_a_degraded_lmcache_is_invalid() {
    // In vLLM's own process LMCache does not start on a CPU.
    let lab = Lab::new();
    let text = plan(r#"["cpu"]"#, r#"["cold", "tier"]"#)
        .replace("lmcache  = \"multi-process\"", "lmcache  = \"in-process\"")
        .replace("requests = 10", "requests = 2");
    let lmcache_args = text.find("[server.lmcache_args]").unwrap();
    let env = text.find("[server.env]").unwrap();
    let text = format!("{}{}", &text[..lmcache_args], &text[env..]);
    let text = text.replace("[tier.cpu]", "[tier.cpu]\nlookup_timeout_ms = 200");
    run(&lab, &text, 1);
    let (verdict, said) = only_cell(&lab);
    assert!(verdict.contains("invalid"), "{said}");
    assert!(said.contains("LMCache runs in degraded mode"), "{said}");
}

#[test]
#[ignore = "needs tests/real-stack/install, and takes minutes"]
fn fault_a_cache_that_cannot_be_reset_fails_the_cell() {
    let lab = Lab::new();
    let text = plan(r#"["baseline"]"#, r#"["cold", "tier"]"#)
        .replace("[server.env]", "[server.env]\nVLLM_SERVER_DEV_MODE = \"0\"");
    run(&lab, &text, 1);
    let (_, said) = only_cell(&lab);
    assert!(
        said.contains("the server has no /reset_prefix_cache"),
        "{said}"
    );
}

#[test]
#[ignore = "needs tests/real-stack/install, and takes minutes"]
fn fault_a_killed_lmcache_server_fails_the_cell() {
    let lab = Lab::new();
    let text = plan(r#"["cpu"]"#, r#"["cold", "tier"]"#)
        .replace("requests = 10", "requests = 400")
        .replace("[tier.cpu]", "[load]\ntotal_timeout_s = 60\n[tier.cpu]");
    lab.write("real.toml", &text);
    let config = stack().join("labrun.toml");
    let arguments = [
        "real.toml",
        "--config",
        config.to_str().unwrap(),
        "--out",
        "out",
    ];
    let mut running = lab.command(&arguments).spawn().unwrap();
    let loads = || {
        lab.path("out/events.jsonl").is_file() && lab.read("out/events.jsonl").contains("\"load\"")
    };
    assert!(crate::support::wait_until(Duration::from_secs(900), loads));
    let servers = lab.servers();
    let is_lmcache = |pid: &&String| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        command.unwrap_or_default().contains("--shm-name")
    };
    let pid = servers.iter().find(is_lmcache).expect("an LMCache server");
    let killed = std::process::Command::new("kill")
        .args(["-9", pid])
        .status();
    assert!(killed.unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(1));
    let (_, said) = only_cell(&lab);
    assert!(
        said.contains("the LMCache server ended by signal 9"),
        "{said}"
    );
    lab.assert_no_server_is_left();
}

#[test]
#[ignore = "needs tests/real-stack/install, and takes minutes"]
fn fault_a_reset_that_is_refused_while_requests_run_fails_the_cell() {
    let lab = Lab::new();
    lab.write("real.toml", &plan(r#"["baseline"]"#, r#"["cold", "tier"]"#));
    let config = stack().join("labrun.toml");
    let config = config.to_str().unwrap();
    let mut running = lab
        .command(&["real.toml", "--config", config, "--out", "out"])
        .spawn()
        .unwrap();
    let loads = || {
        let events = lab.path("out/events.jsonl");
        events.is_file() && lab.read("out/events.jsonl").contains("\"load\"")
    };
    assert!(crate::support::wait_until(Duration::from_secs(900), loads));
    let port = lab.servers().iter().find_map(|pid| port_of(pid)).unwrap();
    // Somebody else's long answer holds its blocks.
    let body = r#"{"model":"tiny-llama","prompt":[20,21,22],"max_tokens":8000,"ignore_eos":true}"#;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json";
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut long = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(&mut long, request.as_bytes()).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(1));
    let (_, said) = only_cell(&lab);
    assert!(said.contains("/reset_prefix_cache was refused"), "{said}");
    lab.assert_no_server_is_left();
}

/// The port that vLLM's front was told, where `pid` is that.
fn port_of(pid: &str) -> Option<u16> {
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<&str> = command.split('\0').collect();
    arguments.contains(&"serve").then_some(())?;
    let at = arguments
        .iter()
        .position(|argument| *argument == "--port")?;
    arguments.get(at + 1)?.parse().ok()
}
