//! Programs in the place of vLLM, and machines with little.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::statuses;
use super::streams::bench;
use crate::process::{RUN, lab_with};
use crate::support::{Ended, Lab};

/// `vllm serve` that is the simulator. Its LMCache reads what the simulator knows, and its log goes
/// through `sed "$SWAP"`.
const VLLM: &str = r#"model="$2"
while [ $# -gt 0 ]; do
  case "$1" in --port) port="$2";; esac
  shift
done
if [ -n "$LMCACHE_CONFIG_FILE" ]; then
  grep -E '^(chunk_size|local_cpu|max_local_cpu_size):' "$LMCACHE_CONFIG_FILE" > "$HERE/lmcache.yaml"
  set -- --lmcache-config "$HERE/lmcache.yaml"
fi
"$PROGRAM" sim --port "$port" --model "$model" "$@" 2>&1 | sed -u "$SWAP""#;

fn vllm(swap: &str, tables: &str) -> (Lab, Ended) {
    let lab = lab_with(VLLM, "exit 9", "in-process");
    let plan = lab.read("plan.toml");
    let plan = plan
        .replace("prompt_len = [512]", "prompt_len = [1024]")
        .replace("requests = 1", "requests = 4\ncanaries = 1\nwarmup = 1")
        .replace("ready_timeout_s = 2", "ready_timeout_s = 20")
        .replace("max-model-len = 8192\nenable-prefix-caching = false\n", "");
    lab.write("plan.toml", &format!("{plan}{tables}"));
    let mut command = lab.command(&RUN);
    command
        .env("PROGRAM", env!("CARGO_BIN_EXE_labrun"))
        .env("HERE", lab.path(""))
        .env("SWAP", swap);
    let ended = Ended::of(&command.output().unwrap());
    (lab, ended)
}

/// The verdict of the pass from the tier.
fn verdict(lab: &Lab) -> String {
    statuses(lab).pop().unwrap_or_default()
}

#[test]
fn a_log_without_its_lines_is_unknown_and_not_zero() {
    let (lab, ended) = vllm("", "");
    assert_eq!(
        verdict(&lab),
        "valid",
        "{}",
        super::complaints(&lab) + &ended.stderr
    );
    // LMCache's lines of INFO silenced.
    let (lab, _) = vllm("/LMCache INFO/d", "");
    assert_eq!(verdict(&lab), "inconclusive", "{}", super::complaints(&lab));
}

#[test]
fn values_that_lmcache_converts_are_no_difference() {
    let settings = "[tier.cpu]\nenable_p2p = true\np2p_host = \"localhost\"\np2p_init_ports = 8200\n\
                    p2p_lookup_ports = 8201\nlmcache_worker_ports = 8500\n";
    let printed = "s/config: {/config: {'p2p_init_ports': [8200], 'p2p_lookup_ports': [8201], \
                   'lmcache_worker_ports': [8500], 'enable_p2p': True, 'p2p_host': 'localhost', /";
    let (lab, ended) = vllm(printed, settings);
    let outcome = &lab.cells()[0].1["outcome"];
    assert_eq!(outcome["kind"], "completed", "{outcome} {}", ended.stderr);
    let (lab, _) = vllm(&printed.replace("8201", "8202"), settings);
    let outcome = &lab.cells()[0].1["outcome"];
    assert!(
        outcome.to_string().contains("p2p_lookup_ports"),
        "{outcome}"
    );
}

#[test]
fn a_server_gets_its_variables_in_their_own_case() {
    let lab = lab_with("env\nexit 3", "exit 9", "in-process");
    let mut command = lab.command(&RUN);
    command.env("LABRUN_ENV__CUDA_VISIBLE_DEVICES", "0,1");
    command.output().unwrap();
    let log = std::fs::read_to_string(lab.cells()[0].0.join("server.log")).unwrap();
    assert!(log.contains("\nCUDA_VISIBLE_DEVICES=0,1\n"), "{log}");
    assert!(!log.contains("cuda_visible_devices"), "{log}");
}

#[test]
fn a_load_without_files_enough_is_refused_before_it_begins() {
    let lab = Lab::new();
    let (_sim, port) = lab.simulator();
    let command = format!(
        "ulimit -n 256; exec \"$0\" bench http://127.0.0.1:{port} --model m --prompt-len 16 \
         --gen-len 4 --requests 600 --concurrency 500"
    );
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &command, env!("CARGO_BIN_EXE_labrun")])
        .current_dir(lab.path(""));
    let ended = Ended::of(&shell.output().unwrap()).expect_code(2);
    assert!(
        ended.stderr.contains("open files") || ended.stderr.contains("ulimit"),
        "{}",
        ended.stderr
    );
    // With fewer streams it is enough.
    bench(&lab, port, &["--concurrency", "2"]).expect_code(0);
}

#[test]
fn a_banner_of_the_site_is_no_part_of_a_jobs_id() {
    let lab = Lab::new();
    for (name, script) in [
        (
            "sbatch",
            "echo x >> submitted\necho 'Welcome to the cluster'\necho 4242",
        ),
        (
            "squeue",
            "for last in \"$@\"; do :; done\n[ \"$last\" = 4242 ] || { echo 'slurm_load_jobs error: \
             Invalid job id specified' >&2; exit 1; }\necho '1 RUNNING'",
        ),
        (
            "sacct",
            "echo 'Slurm accounting storage is disabled' >&2\nexit 1",
        ),
    ] {
        let path = lab.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    lab.write("plan.toml", &crate::support::SimPlan::default().text());
    let arguments = "submit plan.toml --slurm --shards 1 --out out --poll-s 0.1";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let path = std::env::var("PATH").unwrap();
    let mut command = lab.command(&arguments);
    command
        .env("PATH", format!("{}:{path}", lab.path("bin").display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut submit = crate::support::Kill(command.spawn().unwrap());
    // It watches the job that runs, and submits no other.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(submit.0.try_wait().unwrap().is_none());
    assert_eq!(lab.read("submitted"), "x\n");
}
