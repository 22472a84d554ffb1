//! The whole job on a real vLLM and a real LMCache, as `scripts/install-real-stack.sh` makes them.

use std::path::PathBuf;
use std::time::Duration;

use crate::redis;
use crate::support::{Lab, wait_until};

mod connector;
mod faults;
mod stores;

pub(crate) fn stack() -> PathBuf {
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
    let all = r#"["cold", "gpu-hit", "tier-hit", "after-restart"]"#;
    set(text, all, states)
}

fn run(lab: &Lab, text: &str, code: i32) -> crate::support::Ended {
    lab.write("real.toml", text);
    let config = stack().join("labrun.toml");
    let config = config.to_str().unwrap();
    lab.labrun(&["real.toml", "--config", config, "--out", "out"])
        .expect_code(code)
}

/// Two runs beside each other: a start of vLLM takes a minute, mostly of one core. A restart takes
/// another, so that it is left out where there is nothing to survive it.
#[test]
#[ignore = "needs scripts/install-real-stack.sh and redis-server, and takes minutes"]
fn every_tier_of_the_real_stack_is_measured_and_proven() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A further cell on each server, whose parts of the time to the first token are no batch's.
            let text = plan(
                r#"["baseline", "cpu"]"#,
                r#"["cold", "gpu-hit", "tier-hit"]"#,
            );
            let text = text.replace("concurrency = [4]", "concurrency = [4, 1]");
            let lab = check_tiers(&text, 4, 3);
            check_parts(&lab.read("out/summary.csv"));
        });
        let states = r#"["cold", "gpu-hit", "tier-hit", "after-restart"]"#;
        check_tiers(&plan(r#"["disk", "redis"]"#, states), 2, 4);
    });
}

/// A run of the plan `text`, which has `count` cells in so many states.
fn check_tiers(text: &str, count: usize, states: usize) -> Lab {
    let lab = Lab::new();
    let ended = run(&lab, text, 0);
    assert!(!ended.stdout.contains("imulated"), "{}", ended.stdout);
    let cells = lab.cells();
    assert_eq!(cells.len(), count);
    for (path, cell) in &cells {
        assert_eq!(cell["outcome"]["kind"], "completed", "{cell}");
        assert_eq!(cell["source"], "measured");
        // A machine without an NVIDIA driver has one warning about it. On few cores two servers may make the
        // client late, which it says.
        let expected = ["libnvidia-ml", "the client may have shaped these numbers"];
        let warnings = cell["warnings"].as_array().unwrap().iter();
        let mut others = warnings.filter(|warning| {
            let warning = warning.to_string();
            !expected.iter().any(|known| warning.contains(known))
        });
        assert_eq!(others.next(), None, "{cell}");
        let version = cell["server"]["version"].as_str().unwrap();
        assert!(version.starts_with("0.32"), "{version}");
        let log = std::fs::metadata(path.join("server.log")).unwrap().len();
        assert!(log > 0, "{} has no server log", path.display());
        assert_eq!(cell["passes"].as_array().unwrap().len(), states);
        check_passes(cell);
    }
    // One row a cell and cache state.
    let rows = lab.read("out/summary.csv").lines().count() - 1;
    assert_eq!(rows, count * states);
    lab.assert_no_server_is_left();
    lab
}

/// Of one request at a time, no more than a tenth of the time to the first token is in no part.
fn check_parts(summary: &str) {
    let mut reader = csv::Reader::from_reader(summary.as_bytes());
    let head = reader.headers().unwrap().clone();
    let at = |name: &str| head.iter().position(|column| column == name).unwrap();
    let rows = reader.records().map(Result::unwrap);
    let alone: Vec<_> = rows.filter(|row| &row[at("concurrency")] == "1").collect();
    assert_eq!(alone.len(), 6, "baseline and cpu in three states");
    for row in alone {
        let ms = |name: &str| row[at(name)].parse::<f64>().unwrap();
        let (ttft, left) = (ms("ttft_mean_ms"), ms("ttft_unexplained_ms"));
        assert!(left.abs() <= 0.1 * ttft, "{left} of {ttft} ms: {row:?}");
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
            check_ledger(pass, &format!("{tier}-{way}"), 0.05);
        }
    }
}

/// Bytes that had to move and bytes that did are the same but for the share `error`.
fn check_ledger(pass: &serde_json::Value, path: &str, error: f64) {
    let rows = pass["ledger"].as_array().unwrap();
    let row = rows.iter().find(|row| row["path"] == path);
    let row = row.unwrap_or_else(|| panic!("no {path} in {rows:?}"));
    let (expected, moved) = (&row["expected_bytes"], &row["moved_bytes"]);
    let ratio = moved.as_f64().unwrap() / expected.as_f64().unwrap();
    assert!((ratio - 1.0).abs() < error, "{row}");
}

#[test]
#[ignore = "needs scripts/install-real-stack.sh and redis-server, and takes minutes"]
fn a_redis_with_a_password_serves_and_the_password_is_stored_nowhere() {
    let password = "s3cret-canary";
    let lab = Lab::new();
    let (_redis, port) = redis::with_password(&lab, password);
    lab.write("real.toml", &plan(r#"["redis"]"#, r#"["cold", "tier"]"#));
    let config = stack().join("labrun.toml");
    let config = config.to_str().unwrap();
    let url = format!("redis://:{password}@127.0.0.1:{port}");
    let mut command = lab.command(&["real.toml", "--config", config, "--out", "out"]);
    let mut running = command.env("LABRUN_REDIS__URL", url).spawn().unwrap();
    let mut shown = Vec::new();
    let ended = wait_until(Duration::from_secs(1800), || {
        let servers = lab.servers().into_iter();
        shown.extend(servers.filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok()));
        running.try_wait().unwrap().is_some()
    });
    assert!(ended && running.wait().unwrap().code() == Some(0));
    assert!(shown.iter().any(|line| contains(line, "--l2-adapter")));
    assert!(!shown.iter().any(|line| contains(line, password)));
    check_passes(&lab.cells()[0].1);
    redis::assert_stored_nowhere(&lab, password);
}

fn contains(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
}
