//! What does not fit together, what is too much, and what must not be stored.

use super::{GOOD, cells_of, problem_of};

const SIM: &str = "launcher = \"sim\"";

/// The only problem of the plan with `more` in place of its launcher.
#[track_caller]
fn with(more: &str) -> String {
    problem_of(SIM, more)
}

#[track_caller]
fn assert_mentions(problem: &str, expected: &[&str]) {
    for expected in expected {
        assert!(problem.contains(expected), "no `{expected}` in: {problem}");
    }
}

#[test]
fn secrets_are_refused_wherever_a_plan_takes_free_values() {
    for (more, expected) in [
        (
            "launcher = \"process\"\nargs.api-key = \"x\"",
            "`api-key` in [server.args] looks like a secret",
        ),
        (
            "launcher = \"process\"\nlmcache_args.redis-password = 1",
            "`redis-password` in [server.lmcache_args] looks like a secret",
        ),
        (
            "launcher = \"process\"\nargs.model-loader-extra-config = { aws_secret = \"x\" }",
            "`aws_secret` in [server.args] looks like a secret",
        ),
        (
            "launcher = \"process\"\nenv.PROXY = \"http://u:p@h\"",
            "`PROXY` in [server.env] holds a URL with a user or a password",
        ),
        (
            "launcher = \"process\"\nargs.middleware = [\"a\", \"http://:p@h\"]",
            "`middleware` in [server.args] holds a URL",
        ),
        (
            "launcher = \"external\"\nurl = \"http://u:p@h:1\"",
            "`url` in [server] holds a URL",
        ),
        (
            "launcher = \"process\"\nargs.middleware = \"--api-key=qwertyuiop\"",
            "`middleware` in [server.args] sets a secret",
        ),
        (
            "launcher = \"process\"\nargs.middleware = [\"--api-key\", \"qwertyuiop\"]",
            "`middleware` in [server.args] sets a secret",
        ),
        (
            "launcher = \"process\"\nargs.hf-overrides = '{\"api_key\": \"qwertyuiop\"}'",
            "`hf-overrides` in [server.args] sets a secret",
        ),
        (
            "launcher = \"process\"\nenv.HEADERS = \"Authorization: Bearer qwertyuiop\"",
            "`HEADERS` in [server.env] sets a secret",
        ),
        (
            "launcher = \"process\"\nenv.ENDPOINT = \"https://h/?access_token=qwertyuiop\"",
            "`ENDPOINT` in [server.env] sets a secret",
        ),
    ] {
        assert_mentions(&with(more), &[expected, "and plans are stored"]);
    }
    for tier in [
        "remote_url = \"redis://u:p@h\"",
        "extra_config.password = \"x\"",
    ] {
        let problem = with(&format!("{SIM}\n[tier.redis]\n{tier}"));
        assert_mentions(&problem, &["22:", "in [tier.redis]", "`redis.url`"]);
    }
}

#[test]
fn what_only_looks_like_a_secret_is_taken() {
    let more = "launcher = \"process\"\nargs.max-num-batched-tokens = 8\nargs.hf-token = true\n\
                env.TOKENIZERS_PARALLELISM = \"false\"\nenv.URL = \"http://h/a@b\"";
    // Sixteen, and on a real server two controls a tier.
    assert_eq!(cells_of(&GOOD.replace(SIM, more)).len(), 20);
}

#[test]
fn settings_without_effect_in_multi_process_mode_are_problems() {
    let multi = "launcher = \"process\"\nlmcache = \"multi-process\"\n";
    let with_tier = |tier: &str| {
        let axis = GOOD.replace("[\"baseline\", \"cpu\"]", "[\"cpu\", \"disk\"]");
        cells_of(&axis.replace(SIM, &format!("{multi}{tier}")))
    };
    let problems = with_tier(
        "[tier.disk]\nmax_local_disk_size = 9\nextra_config = { use_odirect = false, io = 2 }",
    );
    assert_eq!(
        problems,
        [
            "23:1 `max_local_disk_size` in [tier.disk] has no effect in multi-process mode | \
             remove it, or give the tier a `template`; these have: `cache_policy`, `chunk_size`, \
             `max_local_cpu_size`, `extra_config.use_odirect`",
            "24:39 `extra_config.io` in [tier.disk] has no effect in multi-process mode | \
             remove it, or give the tier a `template`; these have: `cache_policy`, `chunk_size`, \
             `max_local_cpu_size`, `extra_config.use_odirect`",
        ]
    );
    let problems = with_tier("[tier.cpu]\nextra_config = { use_odirect = true }");
    assert_mentions(
        &problems[0],
        &["23:1 `extra_config` in [tier.cpu] has no effect"],
    );
    for fine in [
        "[tier.disk]\ntemplate = \"own.j2\"\nmax_local_disk_size = 9",
        "[tier.redis]\nremote_serde = \"naive\"",
        "[tier.disk]\nchunk_size = 64\ncache_policy = \"LRU\"\nextra_config.use_odirect = false",
    ] {
        assert_eq!(with_tier(fine).len(), 16, "{fine}");
    }
}

#[test]
fn a_partial_cell_names_values_of_further_axes_only() {
    for table in ["include", "exclude"] {
        let text = format!("\"run.seed\" = [1, 2]\n[[matrix.{table}]]\n\"run.seed\" = 3\n[run]");
        assert_eq!(
            problem_of("[run]", &text),
            format!("14:14 `3` in [matrix.{table}] is not on axis `run.seed` | valid: `1`, `2`")
        );
    }
}

#[test]
fn counts_have_limits() {
    for (from, to, expected) in [
        ("[512, 1024]", "[10000001]", "from 1 to 10,000,000"),
        (
            "gen_len = [8]",
            "gen_len = [10000001]",
            "from 1 to 10,000,000",
        ),
        ("[1, 4]", "[100001]", "from 1 to 100,000"),
        ("repeats = 2", "repeats = 10001", "from 1 to 10,000"),
        ("repeats = 2", "requests = 10000001", "from 1 to 10,000,000"),
        ("repeats = 2", "warmup = 5000000000", "from 0 to 100,000"),
        ("repeats = 2", "canaries = 100001", "from 0 to 100,000"),
        (
            "repeats = 2",
            "requests = 2000000",
            "7:14 2,000,000 requests of 1,024 tokens are 2,048,000,000 prompt tokens a cell",
        ),
    ] {
        assert_mentions(&problem_of(from, to), &[expected]);
    }
}

#[test]
fn too_many_cells_are_counted_and_never_made() {
    let axis = (1..=1000).map(|seed| seed.to_string()).collect::<Vec<_>>();
    let axis = axis.join(", ");
    let text = GOOD
        .replace("[run]", &format!("\"run.seed\" = [{axis}]\n[run]"))
        .replace("repeats = 2", "repeats = 10000");
    assert_eq!(
        cells_of(&text),
        [
            "5:1 the matrix has 80,000,000 cells; at most 1,000,000 can run | \
             shorten an axis, or lower `repeats`"
        ]
    );
}

#[test]
fn questions_are_checked_in_included_cells_and_not_in_excluded_ones() {
    let problem = problem_of("[run]", "[[matrix.include]]\nprompt_len = 32\n[run]");
    assert_mentions(
        &problem,
        &["12:1", "questions of 32 tokens in prompts of 32"],
    );
    let excluded = GOOD
        .replace("[run]", "[[matrix.exclude]]\nprompt_len = 512\n[run]")
        .replace("question_len = 32", "question_len = 600");
    assert_eq!(cells_of(&excluded).len(), 8);
}

#[test]
fn the_gpu_state_needs_the_gpu_cache() {
    let gpu = GOOD.replace("repeats = 2", "states = [\"cold\", \"gpu\"]");
    for off in [
        "enable-prefix-caching = false",
        "no-enable-prefix-caching = true",
    ] {
        let problems = cells_of(&gpu.replace(SIM, &format!("launcher = \"process\"\nargs.{off}")));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_mentions(
            &problems[0],
            &["13:10 the cache state `gpu-hit` needs the GPU prefix cache"],
        );
    }
}

#[test]
fn a_tier_needs_chunks_that_prompts_can_share() {
    let problem = with(&format!("{SIM}\n[tier.cpu]\nchunk_size = 1000"));
    assert_mentions(
        &problem,
        &["22:14", "keeps chunks of 1000 tokens", "share 992 at most"],
    );
    let problem = problem_of("[512, 1024]", "[128]");
    assert_mentions(
        &problem,
        &["6:8", "keeps chunks of 256 tokens", "share 96 at most"],
    );
    for fine in [
        GOOD.replace("[512, 1024]", "[128]")
            .replace("repeats = 2", "states = [\"cold\"]"),
        GOOD.replace(SIM, &format!("{SIM}\n[tier.cpu]\nchunk_size = 992")),
        GOOD.replace(SIM, &format!("{SIM}\n[tier.disk]\nchunk_size = 4096")),
    ] {
        assert!(cells_of(&fine).len() > 3, "{:?}", cells_of(&fine));
    }
}

#[test]
fn a_request_fits_the_simulated_gpu() {
    let problem = with(&format!("{SIM}\nsim.gpu_kv_tokens = 1024"));
    assert_mentions(
        &problem,
        &[
            "7:14 a prompt of 1024 and an answer of 8",
            "the 1024 tokens",
            "`gpu_kv_tokens`",
        ],
    );
    assert_mentions(
        &problem_of("[512, 1024]", "[131072]"),
        &["the 131072 tokens"],
    );
}

#[test]
fn names_are_short_and_plain() {
    let long = "x".repeat(61);
    for (label, expected) in [
        ("\"a b\"", "`a b` cannot name a workload"),
        (
            long.as_str(),
            "cannot name a workload | use 1 to 60 letters",
        ),
    ] {
        let more = format!("{SIM}\n[workload.{label}]\nkind = \"unique\"");
        assert_mentions(&with(&more), &["21:11", expected]);
    }
    let more = format!("{SIM}\n[tier.\"a/b\"]\nkind = \"cpu\"");
    assert_mentions(&with(&more), &["21:7 `a/b` cannot name a tier"]);
    let name = format!("name = \"{}\"", "x".repeat(101));
    assert_mentions(&problem_of("name = \"t\"", &name), &["100 at most"]);
}

#[test]
fn a_duplicate_names_its_key_and_hides_what_follows_from_it() {
    let twice = format!("{GOOD}[server]\nlauncher = \"sim\"\nlauncher = \"sim\"\n");
    assert_eq!(
        cells_of(&twice),
        ["21:2 `server` stands twice in one table | remove one, or put all its keys into one"]
    );
    let problems = cells_of("name = \"a\"\nname = \"b\"\nmodel = \"a\"\nmodel = \"b\"\n");
    assert_eq!(problems.len(), 2, "two causes: {problems:?}");
    let problems = cells_of("a = [1,\nb = 2\nc = \"x\n");
    assert_eq!(problems.len(), 1, "one cause: {problems:?}");
}

#[test]
fn a_further_axis_does_not_repeat_the_problems_of_the_plan() {
    let text = GOOD.replace("[run]", "\"run.seed\" = [1, 2]\n[run]\nrequest = 1");
    assert_eq!(cells_of(&text).len(), 1, "{:?}", cells_of(&text));
}
