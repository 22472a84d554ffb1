//! The process launcher with programs of the test's own in the place of vLLM and LMCache.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::support::Lab;

const PLAN: &str = r#"
name = "p"
model = "m"
[matrix]
tier = ["cpu"]
prompt_len = [512]
gen_len = [4]
concurrency = [1]
label = ["rag"]
[run]
requests = 1
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "process"
lmcache = "@MODE@"
ready_timeout_s = 2
stop_grace_s = 1
[server.args]
max-model-len = 8192
enable-prefix-caching = false
[server.env]
OMP_NUM_THREADS = "3"
"#;

/// A lab with scripts for `vllm` and `lmcache`.
pub(crate) fn lab_with(vllm: &str, lmcache: &str, mode: &str) -> Lab {
    let lab = Lab::new();
    for (name, script) in [("vllm", vllm), ("lmcache", lmcache)] {
        let path = lab.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    lab.write("box.toml", "[process]\nbin_dir = \"bin\"\n");
    lab.write("plan.toml", &PLAN.replace("@MODE@", mode));
    lab
}

pub(crate) const RUN: [&str; 5] = ["plan.toml", "--config", "box.toml", "--out", "out"];

#[test]
fn an_early_exit_is_reported_with_the_log_and_what_was_started_is_as_planned() {
    let vllm = r#"echo "args: $*"
echo "seed $PYTHONHASHSEED threads $OMP_NUM_THREADS stray <$LMCACHE_CHUNK_SIZE>"
echo "config $(cat "$LMCACHE_CONFIG_FILE")"
echo "metrics <$(ls -A "$PROMETHEUS_MULTIPROC_DIR")> in $PROMETHEUS_MULTIPROC_DIR."
touch "$PROMETHEUS_MULTIPROC_DIR/counter_1.db"
exit 3"#;
    let lab = lab_with(vllm, "exit 9", "in-process");
    let mut command = lab.command(&RUN);
    let ended = command.env("LMCACHE_CHUNK_SIZE", "7").output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let (path, cell) = lab.cells().remove(0);
    assert_eq!(cell["outcome"]["phase"], "ready");
    let error = cell["outcome"]["error"].as_str().unwrap();
    let (why, kept) = error.split_once("; log: ").unwrap();
    assert!(
        why.starts_with("vLLM exited with code 3 before it was ready: metrics <> in "),
        "the last line, as nothing else is known: {why}"
    );
    assert_eq!(lab.path(kept), path.join("server.log"), "where it is found");
    let tail = cell["outcome"]["log_tail"].to_string();
    assert!(tail.contains("seed 0 threads 3 stray <>"), "{tail}");
    let log = std::fs::read_to_string(path.join("server.log")).unwrap();
    for expected in [
        "args: serve m --served-model-name m --host 127.0.0.1 --port ",
        "--enable-prompt-tokens-details",
        "--max-model-len 8192 --no-enable-prefix-caching",
        r#""kv_connector":"LMCacheConnectorV1""#,
        "chunk_size: 256",
        "metrics <> in /dev/shm/labrun_",
    ] {
        assert!(log.contains(expected), "no `{expected}` in:\n{log}");
    }
    let metrics = log.split("metrics <> in ").nth(1).unwrap();
    let metrics = metrics.split('.').next().unwrap();
    assert!(!std::path::Path::new(metrics).exists(), "{metrics} is left");
    assert!(path.join("lmcache.yaml").is_file());
    lab.assert_no_server_is_left();
    // The same command by hand, from the cell's folder.
    let script = path.join("server.sh");
    let ran = std::process::Command::new(&script).output().unwrap();
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    let by_hand = String::from_utf8_lossy(&ran.stdout).into_owned();
    let until_metrics = |text: &str| text.split("metrics <").next().unwrap().to_owned();
    assert_eq!(until_metrics(&by_hand), until_metrics(&log));
}

#[test]
fn a_server_that_hangs_is_stopped_with_all_that_it_started() {
    let vllm = "trap '' TERM\nsleep 300 &\necho up\nwhile :; do sleep 1; done";
    let lmcache = "echo \"args: $*\"\nsleep 300";
    let lab = lab_with(vllm, lmcache, "multi-process");
    let began = Instant::now();
    lab.labrun(&RUN).expect_code(1);
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "it waited without limit"
    );
    let (path, cell) = lab.cells().remove(0);
    let error = cell["outcome"]["error"].as_str().unwrap();
    assert!(error.contains("not ready after 2 s"), "{error}");
    let stopped = cell["server"]["stopped"].as_str().unwrap();
    assert!(stopped.starts_with("killed after"), "{stopped}");
    let log = std::fs::read_to_string(path.join("lmcache_server.log")).unwrap();
    assert!(log.contains("args: server --host 127.0.0.1"), "{log}");
    assert!(log.contains("--l1-size-gb"), "{log}");
    assert!(lab.servers().is_empty(), "left behind: {:?}", lab.servers());
}

#[test]
fn a_missing_program_is_refused_before_anything_is_written() {
    let lab = lab_with("exit 0", "exit 0", "multi-process");
    std::fs::remove_file(lab.path("bin/lmcache")).unwrap();
    let ended = lab.labrun(&RUN).expect_code(2);
    assert!(
        ended.stderr.contains("`lmcache` is not in `bin`"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("process.bin_dir"), "{}", ended.stderr);
    assert!(!lab.path("out").exists());
}

/// Installs the metadata of `package`, as `NAME-VERSION`, beside the lab's programs.
fn install(lab: &Lab, package: &str) {
    let folder = format!("lib/python3.12/site-packages/{package}.dist-info/METADATA");
    lab.write(&folder, "");
}

#[test]
fn keys_are_checked_against_the_version_that_is_installed() {
    let with_key = |version: Option<&str>, mode: &str, tables: &str, code: i32| {
        let lab = lab_with("exit 3", "exit 3", mode);
        if let Some(version) = version {
            install(&lab, &format!("lmcache-{version}"));
        }
        lab.write("plan.toml", &(PLAN.replace("@MODE@", mode) + tables));
        let plan = ["plan", "plan.toml", "--config", "box.toml"];
        let shown = lab.labrun(&plan);
        let ended = lab.labrun(&RUN).expect_code(code);
        assert_eq!(shown.code == Some(0), code == 1, "{}", shown.stderr);
        assert_eq!(lab.path("out").exists(), code == 1);
        ended.stderr
    };
    let newer = "[tier.cpu]\nlocal_cpu_use_hugepages = true\n";
    let stderr = with_key(Some("0.4.5"), "in-process", newer, 2);
    let expected = "LMCache 0.4.5 has no key `local_cpu_use_hugepages`: 0.4.6 to 0.5.6 have it";
    assert!(stderr.contains(expected), "{stderr}");
    // Any version may have it where none is known, and this one does.
    with_key(None, "in-process", newer, 1);
    with_key(Some("0.5.6"), "in-process", newer, 1);

    let argument = "[server.lmcache_args]\nsession-ttl-seconds = 9\n";
    let stderr = with_key(Some("0.5.0"), "multi-process", argument, 2);
    let expected = "has no argument `--session-ttl-seconds`: only 0.5.6 has it";
    assert!(stderr.contains(expected), "{stderr}");
    with_key(Some("0.5.6"), "multi-process", argument, 1);
    let wrong = "[server.lmcache_args]\nl1-sise-gb = 9\n";
    let stderr = with_key(None, "multi-process", wrong, 2);
    assert!(stderr.contains("did you mean `l1-size-gb`?"), "{stderr}");
}

#[test]
fn an_lmcache_server_gets_shared_memory_arguments_only_where_it_knows_them() {
    for (version, has_argument) in [("0.4.6", false), ("0.4.7", true)] {
        let lab = lab_with("sleep 300", "echo \"args: $*\"\nexit 4", "multi-process");
        install(&lab, &format!("lmcache-{version}"));
        lab.labrun(&RUN).expect_code(1);
        let (path, _) = lab.cells().remove(0);
        let log = std::fs::read_to_string(path.join("lmcache_server.log")).unwrap();
        assert!(log.contains("args: server --host"), "{log}");
        assert_eq!(log.contains("--shm-name"), has_argument, "{version}: {log}");
    }
}

#[test]
fn native_offloading_is_refused_on_a_build_for_cpus() {
    for (version, code) in [("0.32.0+cpu", 2), ("0.32.0", 1)] {
        let lab = lab_with("exit 3", "exit 3", "in-process");
        install(&lab, &format!("vllm-{version}"));
        let plan = PLAN.replace("@MODE@", "in-process");
        lab.write("plan.toml", &plan.replace(r#"["cpu"]"#, r#"["native"]"#));
        let ended = lab.labrun(&RUN).expect_code(code);
        let refused = "the tier `native` needs a GPU";
        assert_eq!(
            ended.stderr.contains(refused),
            code == 2,
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn the_first_exception_of_a_start_is_reported() {
    let vllm = r#"echo "(Worker pid=1) ERROR 11-24 [x.py:1] ValueError: no such dtype"
echo "RuntimeError: Engine core initialization failed. See root cause above."
exit 1"#;
    let lab = lab_with(vllm, "exit 9", "in-process");
    lab.labrun(&RUN).expect_code(1);
    let error = lab.cells()[0].1["outcome"]["error"].clone();
    let expected =
        "vLLM exited with code 1 before it was ready: ValueError: no such dtype; log: out/cells/";
    assert!(error.as_str().unwrap().starts_with(expected), "{error}");
}

/// A vLLM that refuses its arguments, as vLLM 0.32.0 does.
const REFUSES: &str = r#"echo "usage: vllm [-h]"
echo "vllm: error: unrecognized arguments: --gpu-memory-utilisation 0.8"
exit 2"#;

#[test]
fn a_misspelt_argument_is_named_with_the_one_that_was_meant() {
    let lab = lab_with(REFUSES, "exit 9", "in-process");
    let plan = PLAN.replace("@MODE@", "in-process");
    let plan = plan.replace(
        "max-model-len = 8192",
        "max-model-len = 8192\ngpu-memory-utilisation = 0.8",
    );
    lab.write("plan.toml", &plan);
    lab.labrun(&RUN).expect_code(1);
    let outcome = lab.cells()[0].1["outcome"].clone();
    let error = outcome["error"].as_str().unwrap();
    let expected = "write `gpu-memory-utilization` instead of `gpu-memory-utilisation`";
    assert!(error.contains(expected), "{error}");
    assert_eq!(outcome["log_tail"][0], "usage: vllm [-h]");
    // Where the version is known, the run does not begin.
    install(&lab, "vllm-0.32.0");
    let again = ["plan.toml", "--config", "box.toml", "--out", "again"];
    let ended = lab.labrun(&again).expect_code(2);
    assert!(
        ended
            .stderr
            .contains("problem: vLLM 0.32.0 has no argument"),
        "{}",
        ended.stderr
    );
    assert!(!lab.path("again").exists());
}

/// The plan with six cells and two controls, on `vllm`.
fn lab_of_eight(vllm: &str) -> Lab {
    let lab = lab_with(vllm, "exit 9", "in-process");
    let plan = PLAN.replace("@MODE@", "in-process");
    let plan = plan.replace("[\"cpu\"]", "[\"baseline\", \"cpu\"]");
    lab.write("plan.toml", &plan.replace("[512]", "[512, 1024, 2048]"));
    lab
}

#[test]
fn a_failure_that_repeats_stops_the_run() {
    let lab = lab_of_eight(REFUSES);
    let ended = lab.labrun(&RUN).expect_code(1);
    assert_eq!(lab.cells().len(), 2);
    for expected in [
        "the same failure twice: vLLM exited with code 2 before it was ready: unrecognized",
        "6 cells were not run (--keep-going goes on)",
    ] {
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    let on = [&RUN[..3], &["--out", "on", "--keep-going"]].concat();
    lab.labrun(&on).expect_code(1);
    assert_eq!(lab.cells_of("on").len(), 8);
}

#[test]
fn failures_that_differ_do_not_stop_it() {
    let vllm = r#"case "$*" in
*kv-transfer*) echo "ValueError: no connector" ;;
*) echo "ValueError: no model" ;;
esac
exit 1"#;
    let lab = lab_of_eight(vllm);
    lab.labrun(&RUN).expect_code(1);
    assert_eq!(lab.cells().len(), 8, "the tiers take turns");
}

#[test]
fn a_problem_stops_a_run_before_anything_is_written_unless_it_is_forced() {
    let lab = lab_with("exit 3", "exit 9", "in-process");
    let plan = PLAN.replace("@MODE@", "in-process");
    let plan = plan.replace("max-model-len = 8192", "max-model-len = 500");
    let tier = "[tier.cpu]\nmax_local_cpu_size = 90000000\n";
    lab.write("plan.toml", &format!("{plan}{tier}"));
    let ended = lab.labrun(&RUN).expect_code(2);
    for expected in [
        "problem: a prompt of 512 and answers of 4 tokens come to 516",
        "the unit is GiB",
        "3 problems; nothing was run (--force runs in spite of them)",
    ] {
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    assert!(!lab.path("out").exists());
    let plan = PLAN.replace("@MODE@", "in-process");
    lab.write("plan.toml", &plan.replace("= 8192", "= 500"));
    let forced = [&RUN[..], &["--force"]].concat();
    let ended = lab.labrun(&forced).expect_code(1);
    assert!(
        ended.stderr.contains("problem: a prompt of 512"),
        "{}",
        ended.stderr
    );
    assert_eq!(lab.cells().len(), 1);
}
