use super::*;
use crate::config::Config;
use crate::plan::Plan;
use crate::preflight::Needs;

const PLAN: &str = r#"
name = "t"
model = "m"
[matrix]
tier = ["cpu"]
prompt_len = [1000]
gen_len = [4]
concurrency = [1]
label = ["rag"]
[run]
requests = 10
states = ["cold", "tier"]
[workload.rag]
kind = "shared-prefix"
[server]
launcher = "sim"
[server.sim]
start_ms = 500
"#;

fn matrix(changes: &[(&str, &str)]) -> Matrix {
    let mut text = PLAN.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let plan = Plan::parse(&text, "t.toml").unwrap_or_else(|problems| panic!("{problems}"));
    Matrix::expand(&plan).unwrap()
}

fn messages(changes: &[(&str, &str)], severity: Severity) -> String {
    let settings = Config::load(None).unwrap().settings;
    let findings = lint(&matrix(changes), &settings, &Files::default());
    let lines = findings.iter().filter(|one| one.severity == severity);
    lines
        .map(|one| one.message.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_sound_plan_has_no_problem() {
    assert_eq!(messages(&[], Severity::Problem), "");
    let notes = messages(&[], Severity::Note);
    assert!(
        notes.contains("of 968 shared tokens 768 fill whole chunks of 256"),
        "{notes}"
    );
    assert!(
        notes.contains("fit in GPU memory (224816 tokens)"),
        "{notes}"
    );
}

#[test]
fn named_token_ids_beyond_the_vocabulary_are_a_problem() {
    let of = |ids: &str| {
        let server = format!("[server]\n{ids}\nlauncher");
        let changes = [
            ("start_ms = 500", "vocab_size = 2000"),
            ("[server]\nlauncher", server.as_str()),
        ];
        messages(&changes, Severity::Problem)
    };
    let problem = of("prompt_token_ids = [600, 2000]");
    assert!(
        problem.contains("goes up to 2000") && problem.contains("[500, 1999]"),
        "{problem}"
    );
    assert_eq!(of("prompt_token_ids = [600, 1999]"), "");
    assert_eq!(of(""), "", "the usual ids are bounded without a word");
}

#[test]
fn a_working_set_that_does_not_fit_is_a_problem_for_gpu_and_tier() {
    let small = [
        ("start_ms = 500", "gpu_kv_tokens = 4000"),
        ("\"tier\"]\n[w", "\"gpu\", \"tier\"]\n[w"),
    ];
    let problems = messages(&small, Severity::Problem);
    assert!(
        problems.contains("the state `gpu-hit` cannot be reached"),
        "{problems}"
    );
    // 9680 tokens of 128 KiB are 1.2 GiB.
    let tier = "[tier.cpu]\nmax_local_cpu_size = 1\n[server]";
    let problems = messages(&[("[server]", tier)], Severity::Problem);
    assert!(
        problems.contains("1.2 GiB of KV, more than the 1.0 GiB"),
        "{problems}"
    );
}

#[test]
fn a_native_tier_holds_questions_and_answers_too() {
    // 9680 tokens of documents, and 10 * (32 + 4) of questions and answers.
    let native = |gib: f64| {
        let tier = format!("[tier.native]\nmax_local_cpu_size = {gib}\n[server]");
        let changes = [("\"cpu\"", "\"native\""), ("[server]", tier.as_str())];
        messages(&changes, Severity::Problem)
    };
    let problems = native(1.2);
    assert!(
        problems.contains("the documents, questions and answers are 1.2 GiB of KV"),
        "{problems}"
    );
    assert_eq!(native(1.24), "");
}

#[test]
fn a_redis_value_and_a_staging_buffer_have_limits() {
    let tier = "[tier.redis]\nchunk_size = 8192\nmax_local_cpu_size = 0.5\n[server]";
    let changes = [
        ("\"cpu\"", "\"redis\""),
        ("[1000]", "[9000]"),
        ("requests = 10", "requests = 2"),
        ("[server]", tier),
    ];
    let problems = messages(&changes, Severity::Problem);
    assert!(
        problems.contains("a chunk of 8192 tokens is 1024 MiB"),
        "{problems}"
    );
    assert!(
        problems.contains("one prompt is 1.1 GiB of KV"),
        "{problems}"
    );
}

#[test]
fn a_tier_that_no_restart_leaves_is_noted() {
    let changes = [
        (
            "launcher = \"sim\"\n[server.sim]\nstart_ms = 500",
            "launcher = \"process\"",
        ),
        ("[\"cold\", \"tier\"]", "[\"cold\", \"restart\"]"),
        ("[\"cpu\"]", "[\"cpu\", \"disk\", \"redis\"]"),
    ];
    let notes = messages(&changes, Severity::Note);
    assert!(notes.contains("tier `cpu` does not survive"), "{notes}");
    assert!(
        notes.contains("the index of its files is in memory"),
        "{notes}"
    );
    assert!(!notes.contains("tier `redis` does not survive"), "{notes}");
}

#[test]
fn the_cost_counts_starts_and_restarts() {
    let text = cost(
        &matrix(&[
            (
                "launcher = \"sim\"\n[server.sim]\nstart_ms = 500",
                "launcher = \"process\"",
            ),
            ("[\"cold\", \"tier\"]", "[\"cold\", \"restart\"]"),
        ]),
        &Files::default(),
    )
    .to_string();
    assert!(
        text.starts_with("1 cell, 2 server starts, about 4 min"),
        "{text}"
    );
}

#[test]
fn a_limit_for_controls_is_noted_where_it_does_nothing_or_lets_everything_pass() {
    let limit = |limit: &str, controls: &str| {
        let run = format!("controls = {controls}\nrequests = 10");
        let verdict = format!("[verdict]\ncontrol_speedup = {limit}\n[server]");
        let two = "tier = [\"baseline\", \"cpu\"]";
        let changes = [
            ("tier = [\"cpu\"]", two),
            ("requests = 10", run.as_str()),
            ("[server]", verdict.as_str()),
        ];
        messages(&changes, Severity::Note)
    };
    assert!(limit("1.2", "false").contains("no control is measured"));
    assert!(!limit("1.2", "true").contains("control_speedup"));
    assert!(limit("2.5", "true").contains("is 2.5: a tier that seems nearly that much faster"));
    assert!(!limit("1.1", "false").contains("control_speedup"));
}

#[test]
fn settings_that_let_another_layer_answer_are_found() {
    let disk = |settings: &str| {
        let tier = format!("[tier.disk]\n{settings}\n[server]");
        let changes = [("\"cpu\"", "\"disk\""), ("[server]", tier.as_str())];
        [Severity::Problem, Severity::Note].map(|severity| messages(&changes, severity))
    };
    let [problems, _] = disk("local_cpu = true");
    assert!(
        problems.contains("RAM answers before the disk"),
        "{problems}"
    );
    let [problems, notes] = disk("extra_config.use_odirect = false");
    assert!(!problems.contains("RAM"), "{problems}");
    assert!(notes.contains("through the page cache"), "{notes}");
    let [problems, notes] = disk("extra_config.disk_io_threads = 8");
    assert!(!(problems + &notes).contains("page cache"));
}

#[test]
fn a_vllm_that_counts_no_sources_is_a_problem_before_it_is_started() {
    let image = |name: &str| {
        let docker = format!("launcher = \"docker\"\nimage = \"{name}\"");
        let sim = "launcher = \"sim\"\n[server.sim]\nstart_ms = 500";
        messages(&[(sim, docker.as_str())], Severity::Problem)
    };
    assert!(image("vllm/vllm-openai:v0.8.4").contains("vLLM 0.8.4 does not count prompt tokens"));
    for name in [
        "vllm/vllm-openai:v0.24.0",
        "vllm/vllm-openai:latest",
        "lmcache/vllm-openai:v0.4.7",
    ] {
        assert_eq!(image(name), "", "{name}");
    }
}

#[test]
fn a_vllm_without_the_tier_or_with_a_reported_fault_is_named_before_it_is_started() {
    let found = |tier: &str, version: &str, lmcache: &str, severity| {
        let docker = format!(
            "launcher = \"docker\"\nimage = \"vllm/vllm-openai:v{version}\"\nlmcache = \"{lmcache}\""
        );
        let sim = "launcher = \"sim\"\n[server.sim]\nstart_ms = 500";
        let tier = format!("\"{tier}\"");
        messages(
            &[(sim, docker.as_str()), ("\"cpu\"", tier.as_str())],
            severity,
        )
    };
    let disk = |version| found("simple+disk", version, "in-process", Severity::Problem);
    assert!(disk("0.26.0").contains("the simple connector of vLLM 0.26.0 has no disk"));
    assert!(!disk("0.32.0").contains("has no disk"));
    let note = |tier, version, lmcache| {
        found(tier, version, lmcache, Severity::Note).contains("LMCache #4463")
    };
    assert!(note("cpu", "0.26.0", "in-process"));
    assert!(!note("cpu", "0.25.1", "in-process"));
    assert!(!note("cpu", "0.26.0", "multi-process"));
    assert!(!note("native", "0.26.0", "in-process"));
}

#[test]
fn an_adapter_without_its_library_is_a_problem_that_says_what_to_install() {
    let dir = tempfile::tempdir().unwrap();
    let packages = dir.path().join("lib/python3.11/site-packages");
    std::fs::create_dir_all(packages.join("lmcache")).unwrap();
    std::fs::create_dir_all(dir.path().join("bin")).unwrap();
    let mut settings = Config::load(None).unwrap().settings;
    settings.process.bin_dir = dir.path().join("bin");
    let found = |kind: &str, adapter: &str| {
        let server = format!(
            "launcher = \"process\"\nlmcache = \"multi-process\"\n[tier.{kind}]\nadapter = {adapter}"
        );
        let sim = "launcher = \"sim\"\n[server.sim]\nstart_ms = 500";
        let tier = format!("\"{kind}\"");
        let matrix = matrix(&[(sim, server.as_str()), ("\"cpu\"", tier.as_str())]);
        let needs = Needs::of(&matrix, &settings);
        let findings = lint(&matrix, &settings, &Files::default());
        let problems = findings.into_iter().map(|one| one.message);
        let missing: Vec<_> = problems.filter(|one| one.contains("needs")).collect();
        assert_eq!(missing, Vec::from_iter(needs.libraries), "as `doctor` says");
        missing
    };
    let nixl = "{ type = \"nixl_store\" }";
    let said =
        "tier `disk`: the adapter `nixl_store` needs NIXL: `pip install nixl` beside LMCache";
    assert_eq!(found("disk", nixl), [said]);
    let mooncake = found("mooncake", "{ metadata_server = \"P2PHANDSHAKE\" }");
    assert!(
        mooncake[0].contains("build LMCache from source"),
        "{mooncake:?}"
    );
    assert!(found("disk", "{ type = \"fs\" }").is_empty());
    std::fs::create_dir_all(packages.join("nixl")).unwrap();
    std::fs::write(packages.join("nixl/__init__.py"), "").unwrap();
    assert!(found("disk", nixl).is_empty());
}

#[test]
fn a_place_too_small_for_a_chunk_is_a_problem() {
    let slots = |bytes: u64| {
        let adapter = format!(
            "lmcache = \"multi-process\"\nlauncher = \"external\"\nurl = \"http://127.0.0.1:1\"\n\
             kv_bytes_per_token = 1024\n[tier.disk.adapter]\ntype = \"raw_block\"\nslot_bytes = {bytes}"
        );
        let sim = "launcher = \"sim\"\n[server.sim]\nstart_ms = 500";
        messages(
            &[(sim, adapter.as_str()), ("\"cpu\"", "\"disk\"")],
            Severity::Problem,
        )
    };
    let problems = slots(262_144);
    assert!(
        problems.contains("set `slot_bytes` in `adapter` to 266240"),
        "{problems}"
    );
    assert!(!slots(266_240).contains("slot_bytes"));
}

#[test]
fn a_redis_whose_bytes_are_not_read_is_a_problem() {
    let tier = "[tier.redis]\nremote_url = \"redis://10.0.0.1:6379\"\n[server]";
    let sim = "launcher = \"sim\"\n[server.sim]\nstart_ms = 500";
    let changes = [("\"cpu\"", "\"redis\""), ("[server]", tier)];
    let external = "launcher = \"external\"\nurl = \"http://127.0.0.1:1\"";
    let [first, second] = changes;
    let problems = messages(&[first, (sim, external), second], Severity::Problem);
    assert!(
        problems.contains("not of `remote_url` (redis://10.0.0.1:6379)"),
        "{problems}"
    );
    assert!(
        !messages(&changes, Severity::Problem).contains("remote_url"),
        "nothing is read of a simulated one"
    );
}

/// The plan on a real vLLM, with these further tables.
fn on_vllm(changes: &[(&str, &str)], tables: &str, severity: Severity) -> String {
    let server = format!("launcher = \"process\"\n{tables}");
    let sim = (
        "launcher = \"sim\"\n[server.sim]\nstart_ms = 500",
        server.as_str(),
    );
    let all: Vec<_> = changes.iter().copied().chain([sim]).collect();
    messages(&all, severity)
}

#[test]
fn lengths_are_compared_with_the_servers_and_the_models() {
    let of = |model: &str, tables: &str| {
        let model = format!("\"{model}\"");
        on_vllm(&[("\"m\"", model.as_str())], tables, Severity::Problem)
    };
    let short = of("m", "[server.args]\nmax-model-len = 1003");
    assert!(
        short.contains("come to 1,004") && short.contains("is 1,003"),
        "{short}"
    );
    assert_eq!(of("m", "[server.args]\nmax-model-len = 1004"), "");
    let long = of(
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "[server.args]\nmax-model-len = 32768",
    );
    assert!(
        long.contains("is 32,768, and `meta-llama/Meta-Llama-3-8B-Instruct` has 8,192 positions"),
        "{long}"
    );
    let allowed =
        "[server.args]\nmax-model-len = 32768\n[server.env]\nVLLM_ALLOW_LONG_MAX_MODEL_LEN = \"1\"";
    assert_eq!(of("Meta-Llama-3-8B", allowed), "");
    let own = messages(
        &[("\"m\"", "\"facebook/opt-125m\""), ("[1000]", "[2048]")],
        Severity::Problem,
    );
    assert!(own.contains("has positions for 2,048"), "{own}");
}

#[test]
fn every_turn_of_a_conversation_counts() {
    let turns = "kind = \"multi-turn\"\nturns = 5\nturn_len = 100";
    let of = |limit: u32| {
        let tables = format!("[server.args]\nmax-model-len = {limit}");
        on_vllm(
            &[("kind = \"shared-prefix\"", turns)],
            &tables,
            Severity::Problem,
        )
    };
    // 1000 + 4 * (100 + 4) + 4.
    assert!(
        of(1_419).contains("over 5 turns come to 1,420"),
        "{}",
        of(1_419)
    );
    assert_eq!(of(1_420), "");
}

#[test]
fn sizes_in_bytes_and_above_the_machine_are_problems() {
    let of = |size: &str| {
        let tier = format!("[tier.cpu]\nmax_local_cpu_size = {size}");
        on_vllm(&[], &tier, Severity::Problem)
    };
    let bytes = of("30000000000");
    assert!(bytes.contains("the unit is GiB: write 28"), "{bytes}");
    let large = "[tier.cpu]\nmax_local_cpu_size = 900000";
    let large = on_vllm(&[], large, Severity::Note);
    assert!(large.contains("and this machine has"), "{large}");
    assert_eq!(of("1.5"), "");
}

#[test]
fn keys_of_other_tiers_and_of_other_places_are_problems() {
    for (tier, kind, expected) in [
        (
            "remote_url = \"redis://h:1\"",
            "cpu",
            "with `remote_url` a second store answers",
        ),
        (
            "local_disk = \"file:///d\"",
            "cpu",
            "name a tier of kind `cpu+disk`",
        ),
        (
            "extra_config.save_unfull_chunk = true",
            "cpu",
            "it is a key of [tier.cpu] itself",
        ),
    ] {
        let tables = format!("[tier.{kind}]\n{tier}");
        let problems = on_vllm(&[], &tables, Severity::Problem);
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn arguments_that_vllm_lacks_or_that_contradict_each_other_are_found() {
    let args = |text: &str, severity| on_vllm(&[], &format!("[server.args]\n{text}"), severity);
    let notes = args("gpu-memory-utilisation = 0.8", Severity::Note);
    assert!(
        notes.contains(
            "no argument `gpu-memory-utilisation`: did you mean `gpu-memory-utilization`?"
        ),
        "{notes}"
    );
    assert!(!args("gpu-memory-utilization = 0.8", Severity::Note).contains("argument"));
    let both = args(
        "enable-prefix-caching = true\nno-enable-prefix-caching = true",
        Severity::Problem,
    );
    assert!(
        both.contains("has both `enable-prefix-caching` and `no-"),
        "{both}"
    );
}

#[test]
fn a_folder_of_the_container_and_too_many_in_flight_are_found() {
    let docker = |more: &str| {
        let server = format!("launcher = \"docker\"\nimage = \"i\"\n{more}");
        let sim = (
            "launcher = \"sim\"\n[server.sim]\nstart_ms = 500",
            server.as_str(),
        );
        messages(&[("\"cpu\"", "\"disk\""), sim], Severity::Problem)
    };
    let tier = "[tier.disk]\nlocal_disk = \"file:///mnt/nvme/kv\"";
    assert!(
        docker(tier).contains("a folder of the container"),
        "{}",
        docker(tier)
    );
    let mounted = format!("mounts = [\"/data:/mnt/nvme\"]\n{tier}");
    assert_eq!(docker(&mounted), "");
    let notes = messages(
        &[("concurrency = [1]", "concurrency = [64]")],
        Severity::Note,
    );
    assert!(
        notes.contains("`concurrency` 64 is never reached"),
        "{notes}"
    );
}

#[test]
fn a_folder_of_templates_that_is_not_there_is_a_problem() {
    let mut settings = Config::load(None).unwrap().settings;
    settings.paths.templates = "/no/such/templates".into();
    let findings = lint(&matrix(&[]), &settings, &Files::default());
    assert!(
        findings[0]
            .message
            .contains("`/no/such/templates`, which is no folder")
    );
    assert_eq!(findings[0].severity, Severity::Problem);
}
