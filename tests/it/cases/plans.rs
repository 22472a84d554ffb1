//! Plans and settings as people write them, by hand and by mistake.

use super::passes;
use crate::support::{Lab, SimPlan};

/// What `labrun plan` says of the plan with `from` replaced, or of its end followed by `to`.
fn plan_of(lab: &Lab, from: &str, to: &str) -> crate::support::Ended {
    let text = SimPlan::default().text();
    let text = if from.is_empty() {
        format!("{text}{to}\n")
    } else {
        assert!(text.contains(from), "the plan has no `{from}`");
        text.replace(from, to)
    };
    lab.write("plan.toml", &text);
    lab.labrun(&["plan", "plan.toml"])
}

#[test]
fn what_cannot_work_or_be_proven_is_refused_where_it_stands() {
    let lab = Lab::new();
    let image = |name: &str| format!("launcher = \"docker\"\nimage = \"{name}\"\n");
    let launcher = "launcher = \"sim\"\n\n[server.sim]\nstart_ms = 1\n";
    let tier = |keys: &str| format!("[tier.cpu]\n{keys}");
    let far = |keys: &str| format!("[tier.far]\nkind = \"redis\"\n{keys}");
    for (from, to, expected) in [
        (launcher, image("LMCache/vllm-openai:v0.4.7"), "image"),
        (
            launcher,
            image("docker://lmcache/vllm-openai:v0.4.7"),
            "image",
        ),
        (launcher, image("lmcache/vllm openai"), "image"),
        (launcher, image("lmcache/vllm-openai:"), "image"),
        ("", tier("external_backends = \"a\""), "`storage_plugins`"),
        (
            "",
            tier("plugin_locations = \"x\""),
            "`runtime_plugin_locations`",
        ),
        (
            "",
            tier("controller_url = \"h:1\""),
            "`controller_pull_url`",
        ),
        ("", tier("nixl_role = \"sender\""), "`pd_role`"),
        (
            "",
            far("remote_url = \"lm://localhost:65432\""),
            "`lm://` cannot be proven",
        ),
        (
            "",
            far("remote_url = \"s3://bucket\""),
            "`s3://` cannot be proven",
        ),
        (
            "",
            far("remote_storage_plugins = [\"mooncake\"]"),
            "`mooncake` cannot be proven",
        ),
        (
            "",
            "[load]\narrival = \"poisson\"\nrate_rps = 1e-300".to_owned(),
            "rate_rps",
        ),
        ("", "[load]\ndrain_s = 1e300".to_owned(), "drain_s"),
        (
            "model = \"m\"",
            "model = \"a\\u0000b\"".to_owned(),
            "control character",
        ),
        ("label = [\"rag\"]", "label = [\".rag\"]".to_owned(), "rag"),
        (
            "prompt_len = [1024]",
            "prompt_len = [1024, \"x\"]".to_owned(),
            "plan.toml:6:21",
        ),
    ] {
        let refused = plan_of(&lab, from, &to).expect_code(2).stderr;
        assert!(refused.contains(expected), "{to}: {refused}");
    }
}

#[test]
fn what_answers_before_the_tier_is_reported_before_a_server_starts() {
    let lab = Lab::new();
    let plan = SimPlan {
        tiers: r#"["disk"]"#,
        ..SimPlan::default()
    };
    for (more, expected) in [
        (
            "[tier.disk]\nlocal_cpu = true\n",
            "RAM answers before the disk",
        ),
        (
            "[tier.disk.extra_config]\nuse_odirect = false\n",
            "through the page cache",
        ),
        // Another key of it leaves O_DIRECT on.
        (
            "[tier.disk.extra_config]\nsave_chunk_meta = false\n",
            "\"use_odirect\":true",
        ),
    ] {
        lab.write("plan.toml", &(plan.text() + more));
        let shown = lab.labrun(&["plan", "plan.toml", "--commands"]);
        let output = format!("{}{}", shown.stdout, shown.stderr);
        assert!(output.contains(expected), "{expected}: {output}");
    }
}

#[test]
fn long_and_strange_values_are_measured_under_names_that_every_disk_takes() {
    let lab = Lab::new();
    let long = format!("/mnt/drafts/{}", "m".repeat(200));
    let axis =
        format!("label = [\"rag\"]\n\"server.args.draft\" = [\"{long}\", \"-rf\", \"a/../b\"]");
    let plan = SimPlan {
        tiers: r#"["cpu"]"#,
        ..SimPlan::default()
    };
    let text = plan.text().replace("label = [\"rag\"]", &axis);
    lab.write("plan.toml", &text);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    assert_eq!(lab.cells().len(), 3);
    assert_eq!(passes(&lab).len(), 6);
}

#[test]
fn a_name_that_a_spreadsheet_would_run_is_text_in_every_table() {
    let lab = Lab::new();
    let text = SimPlan::default().text();
    let text = text.replace("model = \"m\"", "model = \"=cmd|'/c calc'!A1\"");
    lab.write("plan.toml", &text);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    lab.labrun(&["export", "out", "--format", "csv", "--out", "flat"])
        .expect_code(0);
    let mut tables = 0;
    for (path, bytes) in [lab.files("out"), lab.files("flat")].concat() {
        if path.extension().is_some_and(|ending| ending == "csv") {
            tables += 1;
            let text = String::from_utf8_lossy(&bytes);
            let runs = |line: &str| {
                line.split(',')
                    .any(|cell| cell.trim_start_matches('"').starts_with("=cmd"))
            };
            assert!(!text.lines().any(runs), "{}", path.display());
        }
    }
    assert!(tables > 2);
}

#[test]
fn a_template_without_an_end_and_an_absurd_limit_of_bench_are_refused() {
    let lab = Lab::new();
    let depth = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}\
                 {% endfor %}{% endfor %}{% endfor %}chunk_size: 256\n";
    lab.write("templates/t.yaml.j2", depth);
    lab.write("box.toml", "[paths]\ntemplates = \"templates\"\n");
    let text = SimPlan::default().text();
    lab.write(
        "plan.toml",
        &format!("{text}[tier.cpu]\ntemplate = \"t.yaml.j2\"\n"),
    );
    let refused = lab
        .labrun(&["plan", "plan.toml", "--config", "box.toml"])
        .expect_code(2)
        .stderr;
    assert!(refused.contains("t.yaml.j2"), "{refused}");
    let bench = "bench http://127.0.0.1:1 --model m --for-s 1e300";
    let refused = lab.labrun(&bench.split(' ').collect::<Vec<_>>());
    assert!(
        refused.code != Some(101) && !refused.stderr.contains("panicked"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_misspelt_variable_is_refused_and_a_password_is_shown_nowhere() {
    let lab = Lab::new();
    let mut command = lab.command(&["doctor"]);
    let output = command
        .env("LABRUN_REDIS__ULR", "redis://:s3same@h:1")
        .output()
        .unwrap();
    let ended = crate::support::Ended::of(&output).expect_code(2);
    assert!(
        ended.stderr.contains("LABRUN_REDIS__ULR"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("s3same"), "{}", ended.stderr);
    let refused = lab.labrun(&["bench", "http://me:s3same@127.0.0.1:1", "--model", "m"]);
    let refused = refused.expect_code(2).stderr;
    assert!(!refused.contains("s3same"), "{refused}");
}
