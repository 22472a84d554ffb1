//! What people read, as snapshots: a change of wording is seen in review. `just bless` accepts it.

use crate::support::{Ended, Lab, SimPlan};

/// `text` without the hash at the end of each cell's id.
fn without_hashes(text: &str) -> String {
    let is_hash = |part: &str| part.len() == 10 && part.chars().all(|c| c.is_ascii_hexdigit());
    let strip = |line: &str| match line.rsplit_once('-') {
        Some((id, hash)) if is_hash(hash) => format!("{id}-HASH"),
        _ => line.to_owned(),
    };
    text.lines().map(strip).collect::<Vec<_>>().join("\n")
}

#[test]
fn help_of_every_command() {
    let lab = Lab::new();
    let mut text = lab.labrun(&["--help"]).expect_code(0).stdout;
    let definition = labrun::internals::command_line();
    for command in definition.get_subcommands() {
        let name = command.get_name();
        let help = lab.labrun(&[name, "-h"]).expect_code(0).stdout;
        text.push_str(&format!("\n===== labrun {name} -h\n\n{help}"));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_command_line_that_is_wrong() {
    let lab = Lab::new();
    let mut text = String::new();
    for arguments in [
        &["lst"][..],
        &["reprot", "RUN"],
        &["no-such.toml"],
        &["run", "--no-such-flag", "a=b"],
        &[
            "bench",
            "http://127.0.0.1:1",
            "--model",
            "m",
            "--requests",
            "0",
        ],
        &[
            "bench",
            "http://127.0.0.1:1",
            "--model",
            "m",
            "--rate-rps=-1",
        ],
        &["run", "plan.toml", "--shard", "3/2"],
    ] {
        let ended = lab.labrun(arguments).expect_code(2);
        assert_eq!(ended.stdout, "", "{arguments:?}");
        text.push_str(&format!(
            "$ labrun {}\n{}\n",
            arguments.join(" "),
            ended.stderr
        ));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn the_old_names_of_flags_still_work() {
    let lab = Lab::new();
    for (old, value, new) in [
        ("--num-requests", "0", "--requests"),
        ("--rate", "0", "--rate-rps"),
        ("--duration-s", "0", "--for-s"),
    ] {
        let with = |flag| {
            lab.labrun(&["bench", "http://127.0.0.1:1", "--model", "m", flag, value])
                .expect_code(2)
                .stderr
        };
        assert_eq!(with(old), with(new));
        assert!(with(old).contains(new), "{}", with(old));
    }
}

#[test]
fn a_plan_with_many_mistakes() {
    let lab = Lab::new();
    let plan = SimPlan::default()
        .text()
        .replace("name = \"t\"", "name = \"t\"\nversion = 2")
        .replace("[\"baseline\", \"cpu\"]", "[\"gpu\", \"cpu\"]")
        .replace("promt_len", "prompt_len")
        .replace("prompt_len = [1024]", "prompt_len = [\"1024\"]")
        .replace("gen_len = [4]", "gen_len = [4]\nchunk_size = [64, 256]")
        .replace("requests = 3", "num_requests = 3")
        + "[tier.cpu]\nmax_local_cpu_size = \"30GB\"\nzzzz = 1\n";
    lab.write("plan.toml", &plan);
    let ended = lab.labrun(&["plan", "plan.toml"]).expect_code(2);
    insta::assert_snapshot!(ended.stderr);
}

#[test]
fn a_plan_that_leaves_out_too_much() {
    let lab = Lab::new();
    lab.write(
        "plan.toml",
        "[matrix]\ntier = [\"cpu\"]\n[workload.a]\n[workload.b]\n",
    );
    let mut command = lab.command(&["plan", "plan.toml", "--set", "run.requests=0"]);
    command
        .env("PATH", "/no/such/folder")
        .env("DOCKER_HOST", "unix:///no/such/docker.sock");
    let ended = Ended::of(&command.output().unwrap()).expect_code(2);
    insta::assert_snapshot!(ended.stderr);
}

#[test]
fn what_a_plan_would_do() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let ended = lab.labrun(&["plan", "plan.toml"]).expect_code(0);
    insta::assert_snapshot!(without_hashes(&ended.stdout));
}

/// A plan for a real server in containers or processes, with two tiers.
fn real_plan(server: &str) -> String {
    let plan = SimPlan::default().text();
    let (head, _) = plan.split_once("[server]").unwrap();
    format!("{head}[server]\n{server}\n[server.args]\nmax-model-len = 8192\n")
}

#[test]
fn the_commands_of_a_plan() {
    let lab = Lab::new();
    let commands = |server: &str| {
        lab.write("plan.toml", &real_plan(server));
        let mut command = lab.command(&["plan", "plan.toml", "--commands", "--cells"]);
        let output = command
            .env_remove("HF_TOKEN")
            .env("HF_HOME", lab.path("none"))
            .output()
            .unwrap();
        Ended::of(&output).expect_code(0).stdout
    };
    let process = commands("launcher = \"process\"");
    let docker = commands(
        "launcher = \"docker\"\nimage = \"i:1\"\nlmcache = \"multi-process\"\ngpus = \"all\"",
    );
    insta::assert_snapshot!(without_hashes(&format!("{process}\n=====\n\n{docker}")));
}

#[test]
fn a_plan_as_json_has_its_cells_its_servers_and_its_findings() {
    let lab = Lab::new();
    lab.write("plan.toml", &real_plan("launcher = \"process\""));
    let ended = lab.labrun(&["plan", "plan.toml", "--json"]).expect_code(0);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["servers"].as_array().unwrap().len(), 2);
    assert!(
        json["servers"][1]["script"]
            .as_str()
            .unwrap()
            .contains("vllm serve m")
    );
    let servers = json["servers"].as_array().unwrap();
    let cpu = servers
        .iter()
        .find(|server| server["tier"] == "cpu")
        .unwrap();
    assert!(cpu["files"]["lmcache.yaml"].is_string());
    let short = real_plan("launcher = \"process\"").replace("= 8192", "= 1000");
    lab.write("plan.toml", &short);
    let ended = lab.labrun(&["plan", "plan.toml", "--json"]).expect_code(1);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["problems"].as_array().unwrap().len(), 1, "{json}");
}

#[test]
fn the_plan_in_the_readme_is_valid() {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (plan, _) = rest.split_once("```").unwrap();
    let lab = Lab::new();
    lab.write("plan.toml", plan);
    let shown = lab.labrun(&["plan", "plan.toml"]).expect_code(0).stdout;
    assert!(shown.starts_with("rag: 18 cells"), "{shown}");
}
