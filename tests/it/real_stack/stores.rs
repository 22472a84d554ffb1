//! Stores that only an LMCache server reaches, checked on a real stack.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{check_ledger, plan, stack};
use crate::redis;
use crate::support::{Kill, Lab, wait_until};

/// Bytes of a chunk of the tiny model: keys and values of 4 layers, 2 heads and 64 values of 4 bytes, for 256
/// tokens.
const CHUNK_BYTES: f64 = (2 * 4 * 2 * 64 * 4 * 256) as f64;

/// An S3 store with one bucket, whose log is in the lab, and its port.
fn s3(lab: &Lab) -> (Kill, u16) {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/real_stack/s3.py");
    let log = File::create(lab.path("s3.log")).unwrap();
    let errors = File::create(lab.path("s3.errors")).unwrap();
    let mut command = Command::new(stack().join("stores/bin/python"));
    command.arg(script).arg(port.to_string());
    let server = Kill(command.stdout(log).stderr(errors).spawn().unwrap());
    let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(wait_until(Duration::from_secs(120), listens));
    (server, port)
}

/// One start and one restart a tier: both are checked in one run.
#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn every_tier_of_a_store_behind_an_lmcache_server_answers_right() {
    let secret = "s3cret-canary";
    let lab = Lab::new();
    let (_s3, port) = s3(&lab);
    let tiers = format!(
        "[tier.valkey]\nmax_local_cpu_size = 1.0\n[tier.s3]\nmax_local_cpu_size = 1.0\n[tier.s3.adapter]\n\
         s3_endpoint = \"127.0.0.1:{port}\"\ns3_region = \"us-east-1\"\ndisable_tls = true\n\
         s3_prefer_http2 = false\ns3_num_io_threads = 2\n"
    );
    let text = plan(r#"["valkey", "s3"]"#, r#"["cold", "tier"]"#);
    lab.write("real.toml", &format!("{text}\n{tiers}"));
    let config = stack().join("labrun.toml");
    let config = config.to_str().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", stack().join("stores/bin").display());
    let at = [
        "--prompt-len",
        "2080",
        "--concurrency",
        "4",
        "--rounds",
        "1",
    ];
    let arguments = ["check", "real.toml", "--config", config, "--out", "out"];
    let mut command = lab.command(&[&arguments[..], &at[..]].concat());
    command
        .env("PATH", path)
        .env("AWS_ACCESS_KEY_ID", "me")
        .env("AWS_SECRET_ACCESS_KEY", secret);
    let code = command.status().unwrap().code();
    let check: Value = serde_json::from_str(&lab.read("out/check.json")).unwrap();
    assert_eq!(code, Some(0), "{check:#}");
    let findings = check["findings"].as_array().unwrap();
    let answered = |tier: &str| findings.iter().filter(|one| one["tier"] == tier).count();
    assert_eq!((answered("valkey"), answered("s3")), (2, 2), "{check}");
    for (_, cell) in lab.cells() {
        check_passes(&lab, &cell);
    }
    redis::assert_stored_nowhere(&lab, secret);
    lab.assert_no_server_is_left();
}

/// Places of one file (`raw_block`) and NIXL's files: each is a disk tier behind an LMCache server, proven by
/// the bytes that the server read from its disk.
#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn a_disk_by_places_of_a_file_and_by_nixl_answers_right_and_its_bytes_are_seen() {
    let lab = Lab::new();
    // A chunk with its header.
    let slot_bytes = CHUNK_BYTES as u64 + 4096;
    let tiers = format!(
        "[tier.places]\nkind = \"disk\"\nmax_local_cpu_size = 1.0\nmax_local_disk_size = 1.0\n\
         adapter = {{ type = \"raw_block\", slot_bytes = {slot_bytes} }}\n\
         [tier.nixl]\nkind = \"disk\"\nmax_local_cpu_size = 1.0\nmax_local_disk_size = 1.0\n\
         adapter = {{ type = \"nixl_store\" }}\n"
    );
    let libraries = stack().join("adapters");
    let env = format!("[server.env]\nPYTHONPATH = \"{}\"", libraries.display());
    let text = plan(r#"["places", "nixl"]"#, r#"["cold", "tier", "restart"]"#);
    let text = text.replace("[server.env]", &env);
    super::run(&lab, &format!("{text}\n{tiers}"), 0);
    let cells = lab.cells();
    let mut passes = 0;
    for (_, cell) in &cells {
        let tier = cell["coordinates"]["tier"].as_str().unwrap();
        for pass in cell["passes"].as_array().unwrap() {
            if tier == "baseline" {
                continue;
            }
            assert_eq!(pass["verdict"]["status"], "valid", "{tier}: {pass}");
            let state = pass["state"].as_str().unwrap();
            // NIXL's files have random names, which nobody finds again.
            let reads = state == "tier" || (state == "restart" && tier == "places");
            if state == "cold" || reads {
                let way = if reads { "read" } else { "write" };
                check_ledger(pass, &format!("disk-{way}"), 0.05);
            }
            passes += 1;
        }
    }
    assert_eq!(passes, 6);
    lab.assert_no_server_is_left();
}

/// Files of half of the KV (fp8, on a model of 32-bit KV: a quarter) and sealed ones (AES-GCM): the first drift
/// within what the plan states, the second answer as before.
#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn a_tier_that_stores_with_a_loss_is_judged_by_what_the_plan_states_and_a_sealed_one_as_ever() {
    let lab = Lab::new();
    let key = lab.write("master", "0123456789abcdef0123456789abcdef");
    let tiers = format!(
        "[tier.smaller]\nkind = \"disk\"\nmax_local_cpu_size = 1.0\nadapter = {{ serde = {{ type = \"fp8\" }} }}\n\
         [tier.sealed]\nkind = \"disk\"\nmax_local_cpu_size = 1.0\n\
         adapter = {{ serde = {{ type = \"aesgcm\", master_key_path = \"{}\" }} }}\n\
         [verdict]\ntext_tolerance = 0.5\n",
        key.display()
    );
    let text = plan(r#"["smaller", "sealed"]"#, r#"["cold", "tier"]"#);
    super::run(&lab, &format!("{text}\n{tiers}"), 0);
    for (_, cell) in lab.cells() {
        let tier = cell["coordinates"]["tier"].as_str().unwrap();
        if tier == "baseline" {
            continue;
        }
        let pass = &cell["passes"][1];
        assert_eq!(pass["verdict"]["status"], "valid", "{tier}: {pass}");
        let row = &pass["ledger"][0];
        assert_eq!(row["path"], "disk-read", "{tier}: {pass}");
        check_ledger(pass, "disk-read", 0.05);
        let chunks = row["tokens"].as_f64().unwrap() / 256.0;
        let share = row["moved_bytes"].as_f64().unwrap() / chunks / CHUNK_BYTES;
        let drift = pass["evidence"]["canary_distance_nats"].as_f64().unwrap();
        let reasons = pass["verdict"]["reasons"].to_string();
        if tier == "smaller" {
            assert!((share - 0.25).abs() < 0.02, "{share}: {row}");
            assert!(drift > 0.0 && drift <= 0.5, "{drift}");
            assert!(
                reasons.contains("tolerance 0.500, of the plan"),
                "{reasons}"
            );
        } else {
            assert!((share - 1.0).abs() < 0.02, "{share}: {row}");
            assert!(!reasons.contains("of the plan"), "{reasons}");
        }
    }
    lab.assert_no_server_is_left();
}

/// Every byte that had to move did, and no others, within 2 %.
fn check_passes(lab: &Lab, cell: &Value) {
    let tier = cell["coordinates"]["tier"].as_str().unwrap();
    let passes = cell["passes"].as_array().unwrap();
    let tokens = |pass: &Value| pass["evidence"]["external_tokens"].as_f64().unwrap();
    for pass in passes {
        assert_eq!(pass["verdict"]["status"], "valid", "{tier}: {pass}");
        let is_cold = pass["state"] == "cold";
        if tier == "valkey" {
            let way = if is_cold { "write" } else { "read" };
            check_ledger(pass, &format!("valkey-{way}"), 0.02);
        } else if !is_cold {
            let row = &pass["ledger"];
            assert!(row.to_string().contains("lmcache-second-layer"), "{row}");
        }
    }
    if tier == "s3" {
        let served: f64 = passes.iter().map(tokens).sum();
        let log = lab.read("s3.log");
        let sizes = |way: &str| -> Vec<f64> {
            let lines = log.lines().filter_map(|line| line.strip_prefix(way));
            let parsed = |size: &str| size.trim().parse().ok();
            lines
                .map(|size| parsed(size).unwrap_or_else(|| panic!("{way}{size}")))
                .collect()
        };
        for (way, least) in [("PUT", served / 512.0), ("GET", served / 256.0)] {
            let sizes = sizes(way);
            assert!(
                sizes.len() as f64 >= least,
                "{way}: {} of {least}",
                sizes.len()
            );
            let is_chunk = |size: &f64| (size / CHUNK_BYTES - 1.0).abs() < 0.02;
            assert!(sizes.iter().all(is_chunk), "{way}: {sizes:?}");
        }
    }
}
