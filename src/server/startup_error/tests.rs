use super::*;

/// What vLLM 0.32.0 and LMCache 0.5.6 wrote when they were started wrongly, without the middle; vLLM 0.24.0
/// where that is said.
macro_rules! capture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/data/startup/", $name, ".log"))
    };
}

/// What the cause of `log` is and what it advises must contain these.
#[track_caller]
fn assert_cause(name: &str, log: &str, what: &str, advice: &str) {
    let cause = cause(log).unwrap_or_else(|| panic!("{name}: no cause"));
    assert!(cause.what.contains(what), "{name}: {}", cause.what);
    match (&cause.advice, advice) {
        (None, "") => {}
        (Some(given), wanted) => {
            assert!(
                !wanted.is_empty() && given.contains(wanted),
                "{name}: {given}"
            );
        }
        (None, wanted) => panic!("{name}: no advice, not `{wanted}`: {}", cause.what),
    }
}

#[test]
fn wrong_starts_that_were_captured_are_explained() {
    for (name, log, what, advice) in [
        (
            "a misspelt argument",
            capture!("argparse_flag"),
            "unrecognized arguments: --gpu-memory-utilisation 0.8",
            "write `gpu-memory-utilization` instead of `gpu-memory-utilisation`",
        ),
        (
            "more than the model's positions",
            capture!("max_model_len"),
            "User-specified max_model_len (2000000) is greater than the derived max_model_len",
            "lower `max-model-len`",
        ),
        (
            "a connector that it does not know",
            capture!("connector"),
            "Unsupported connector type: LMCacheConector",
            "does not know the connector",
        ),
        (
            "an argument that `lmcache server` does not have",
            capture!("lmcache_flag"),
            "unrecognized arguments: --l1-sise-gb 2",
            "[server.lmcache_args]",
        ),
        (
            "a port that is taken",
            capture!("port_in_use"),
            "[Errno 98] Address already in use",
            "another program took the port",
        ),
        (
            "a folder that is not there",
            capture!("no_folder"),
            "Repo id must be in the form",
            "no such model",
        ),
        (
            "a hub that does not answer",
            capture!("not_found"),
            "LocalEntryNotFoundError: An error happened",
            "fetch it before",
        ),
        (
            "a model that was not fetched, offline",
            capture!("offline"),
            "Cannot find an appropriate cached snapshot folder",
            "fetch it before",
        ),
        (
            "an LMCache that is not installed",
            capture!("no_lmcache_mp"),
            "ModuleNotFoundError: No module named 'lmcache'",
            "`pip install lmcache`",
        ),
        (
            "a worker that ended without a word",
            capture!("kv_too_small"),
            "WorkerProc initialization failed",
            "",
        ),
        (
            "an engine that the kernel killed: vLLM 0.24.0 with 75 GiB for `native` on 125 GiB",
            capture!("engine_killed"),
            "Engine core initialization failed",
            "lower `max_local_cpu_size`",
        ),
    ] {
        assert_cause(name, log, what, advice);
    }
}

#[test]
fn reasons_that_were_published_are_explained() {
    for (line, what, advice) in [
        (
            "(EngineCore_DP0 pid=6940) ValueError: Free memory on device cuda:1 (19.77/22.05 GiB) on \
             startup is less than desired GPU memory utilization (0.9, 19.84 GiB). Decrease GPU memory \
             utilization or reduce GPU memory used by other processes.",
            "Free memory on device cuda:1",
            "something else holds GPU memory",
        ),
        (
            "(EngineCore_DP0 pid=9) ERROR 06-30 13:53:19 [core.py:515] torch.OutOfMemoryError: CUDA out \
             of memory. Tried to allocate 224.00 MiB.",
            "torch.OutOfMemoryError: CUDA out of memory",
            "the GPU's memory is full",
        ),
        (
            "(EngineCore pid=316) ValueError: To serve at least one request with the model's max seq len \
             (100000), (4.26 GiB KV cache is needed, which is larger than the available KV cache memory \
             (4.25 GiB).",
            "To serve at least one request",
            "no room for one prompt of `max-model-len`",
        ),
        (
            "OSError: You are trying to access a gated repo.",
            "gated repo",
            "HF_TOKEN=",
        ),
        (
            "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-66f4)",
            "GatedRepoError: 401",
            "accept the model's terms",
        ),
        (
            "RuntimeError: Failed to infer device type, please set the environment variable",
            "Failed to infer device type",
            "the server sees no GPU",
        ),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
            "driver on your system is too old",
            "update the driver",
        ),
        (
            "(APIServer pid=1) ERROR:    [Errno 98] error while attempting to bind on address \
             ('127.0.0.1', 8000): address already in use",
            "[Errno 98]",
            "another program took the port",
        ),
        (
            "ModuleNotFoundError: No module named 'lmcache'",
            "No module named 'lmcache'",
            "`pip install lmcache`",
        ),
        (
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): \
             {'EngineCore_DP0': -9}",
            "Engine core initialization failed",
            "this machine's memory is full",
        ),
        (
            "vllm serve: error: unrecognized arguments: --no-such-thing",
            "--no-such-thing",
            "remove it",
        ),
    ] {
        assert_cause(line, line, what, advice);
    }
}

#[test]
fn an_engine_that_ended_by_another_signal_was_not_killed_for_memory() {
    for code in [-11, -6, 1] {
        let log = format!(
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): \
             {{'EngineCore_DP0': {code}}}"
        );
        assert_cause("a signal", &log, "Engine core initialization failed", "");
    }
}

#[test]
fn the_first_exception_is_reported_and_not_its_consequences() {
    let log = "(Worker pid=7) ERROR 11-24 13:59:01 [multiproc_executor.py:1063] Traceback (most \
               recent call last):\n\
               (Worker pid=7) ERROR 11-24 13:59:01 [multiproc_executor.py:1063]   File \"x.py\"\n\
               (Worker pid=7) ERROR 11-24 13:59:01 [multiproc_executor.py:1063]     raise Exception(\n\
               (Worker pid=7) ERROR 11-24 13:59:01 [multiproc_executor.py:1063] Exception: CPU \
               Offloading is currently only supported on CUDA-alike and XPU GPUs\n\
               RuntimeError: Engine core initialization failed. See root cause above.\n";
    let shown = cause(log).unwrap().to_string();
    assert!(shown.starts_with("Exception: CPU Offloading is"), "{shown}");
    assert!(shown.contains("remove the tier `native`"), "{shown}");
    let log = "RuntimeError: Engine core initialization failed. See root cause above.\n\
               (EngineCore pid=1) ValueError: the reason\n";
    assert_eq!(cause(log).unwrap().what, "ValueError: the reason");
}

#[test]
fn any_exception_is_quoted_and_information_is_not() {
    let log = "INFO 11-24 13:00:00 [x.py:3] Error: none\nWARNING 11-24 13:00:00 [x.py:3] OSError: a\n\
               (APIServer pid=1)   Error in y: z\nvalue_error: no\n\
               pydantic.SomeError: 1 error\n";
    assert_eq!(cause(log).unwrap().what, "pydantic.SomeError: 1 error");
    assert_eq!(cause("INFO 11-24 13:00:00 [x.py:3] all is well\n"), None);
    assert_eq!(raised("out of luck\n"), None);
    assert_eq!(
        cause("INFO: up\nout of luck\nINFO: down\n").unwrap().what,
        "out of luck"
    );
}

#[test]
fn an_assertion_without_a_reason_is_shown_with_its_source() {
    let log = "Traceback (most recent call last):\n  File \"a.py\", line 3, in b\n    \
               assert config.max_local_cpu_size > 0\n           ^^^^^^^^^^^\nAssertionError\n";
    assert_eq!(
        cause(log).unwrap().what,
        "AssertionError at `assert config.max_local_cpu_size > 0`"
    );
}

#[test]
fn a_long_or_hostile_reason_is_cut_and_made_visible() {
    let log = format!("ValueError: \u{1b}]0;x\u{7}{}\n", "a".repeat(5_000));
    let what = cause(&log).unwrap().what;
    assert!(what.contains("\\x1b") && what.len() < 1_000, "{what}");
}

#[test]
fn a_kill_without_a_word_suggests_memory() {
    assert!(
        of_signal("vLLM ended by signal 9")
            .unwrap()
            .contains("memory")
    );
    assert_eq!(of_signal("vLLM exited with code 1"), None);
}
