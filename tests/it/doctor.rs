//! `labrun doctor`: what it reports of a machine, and what it never shows.

use std::process::Command;

use serde_json::Value;

use crate::support::{Ended, Lab};

const TOKEN: &str = "hf_canary0123456789";
const PASSWORD: &str = "s3cret-canary";

/// Asks for more memory than any machine has, and for a GPU.
const GREEDY: &str = r#"
name = "greedy"
model = "m"
[matrix]
tier = ["cpu"]
prompt_len = [1024]
gen_len = [4]
concurrency = [1]
label = ["rag"]
[workload.rag]
kind = "shared-prefix"
[tier.cpu]
max_local_cpu_size = 100000000
[server]
launcher = "process"
"#;

/// doctor in `lab`, on a machine without Docker and without a token.
fn doctor(lab: &Lab, arguments: &[&str]) -> Command {
    let mut all = vec!["doctor"];
    all.extend(arguments);
    let mut command = lab.command(&all);
    command
        .env("DOCKER_HOST", "unix:///no/such/docker.sock")
        .env("HF_HOME", lab.path("huggingface"))
        .env_remove("HF_TOKEN")
        .env_remove("HF_TOKEN_PATH")
        .env("COLUMNS", "200");
    command
}

#[track_caller]
fn ended(mut command: Command, code: i32) -> String {
    let ended = Ended::of(&command.output().unwrap()).expect_code(code);
    assert_eq!(ended.stderr, "");
    ended.stdout
}

/// Its lines, and the worst of them.
#[track_caller]
fn lines(lab: &Lab, arguments: &[&str], code: i32) -> (Vec<Value>, String) {
    let mut all = arguments.to_vec();
    all.push("--json");
    let report: Value = serde_json::from_str(&ended(doctor(lab, &all), code)).unwrap();
    let worst = report["worst"].as_str().unwrap().to_owned();
    (report["lines"].as_array().unwrap().clone(), worst)
}

fn of<'a>(lines: &'a [Value], topic: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["topic"] == topic);
    found.unwrap_or_else(|| panic!("no line of {topic}: {lines:?}"))
}

#[test]
fn docker_over_ssh_is_refused_with_what_to_do() {
    let lab = Lab::new();
    for arguments in [&["doctor"][..], &["clean", "--dry-run"]] {
        let mut command = lab.command(arguments);
        command
            .env("DOCKER_HOST", "ssh://me@gpu-box")
            .env("COLUMNS", "400");
        let ended = Ended::of(&command.output().unwrap()).expect_code(0);
        let shown = format!("{}{}", ended.stdout, ended.stderr);
        let refusal = "labrun does not reach Docker over ssh (`ssh://me@gpu-box`)";
        assert!(shown.contains(refusal), "{shown}");
        assert!(shown.contains("run labrun on that machine"), "{shown}");
        assert!(!shown.contains("is the daemon running"), "{shown}");
    }
}

#[test]
fn what_is_missing_and_how_to_fix_it() {
    let lab = Lab::new();
    let (lines, _) = lines(&lab, &[], 0);
    let shown = ["Docker", "Redis", "HF token"].map(|topic| {
        let line = of(&lines, topic);
        let part = |key: &str| line[key].as_str().unwrap().to_owned();
        format!(
            "{} {topic}: {}\n-> {}\n",
            part("level"),
            part("message"),
            part("fix")
        )
    });
    insta::assert_snapshot!(shown.concat());
}

#[test]
fn without_a_plan_nothing_must_be_there_and_what_is_missing_is_a_warning() {
    let lab = Lab::new();
    let (lines, worst) = lines(&lab, &[], 0);
    assert_eq!(worst, "warning");
    let docker = of(&lines, "Docker");
    assert_eq!(docker["level"], "warning");
    let message = docker["message"].as_str().unwrap();
    assert!(message.contains("unix:///no/such/docker.sock"), "{message}");
    assert_eq!(of(&lines, "HF token")["level"], "good");
    assert_eq!(of(&lines, "memory")["level"], "good");
    for line in &lines {
        let has_fix = line["fix"] != "";
        assert_eq!(has_fix, line["level"] != "good", "{line}");
        // The names of version 0.1.
        assert_eq!(
            (&line["says"], &line["mend"]),
            (&line["message"], &line["fix"])
        );
    }

    let shown = ended(doctor(&lab, &[]), 0);
    let has_row = |level: &str, topic: &str| {
        shown.lines().any(|row| {
            let rest = row.trim_start().strip_prefix(level);
            rest.is_some_and(|rest| rest.trim_start().starts_with(topic))
        })
    };
    // Its speed is measured anew each time, and may lie beside the limit.
    let steady = lines.iter().filter(|line| line["topic"] != "disk speed");
    for line in steady {
        let (level, topic) = (
            line["level"].as_str().unwrap(),
            line["topic"].as_str().unwrap(),
        );
        assert!(has_row(level, topic), "{level} {topic}: {shown}");
    }
    let count = |level: &str| {
        let rows = shown.lines().map(|row| row.split_whitespace().next());
        rows.filter(|first| *first == Some(level)).count()
    };
    let sum = format!(
        "{} good, {} warnings, 0 errors\n",
        count("good"),
        count("warning")
    );
    assert!(shown.ends_with(&sum), "{shown}");
}

#[test]
fn what_a_plan_needs_and_the_machine_lacks_is_an_error_with_a_fix() {
    let lab = Lab::new();
    lab.write("plan.toml", GREEDY);
    let (lines, worst) = lines(&lab, &["plan.toml"], 1);
    assert_eq!(worst, "error");
    let memory = of(&lines, "memory");
    assert_eq!(memory["level"], "error", "{memory}");
    let fix = memory["fix"].as_str().unwrap();
    assert!(fix.contains("`max_local_cpu_size`"), "{fix}");
    assert_eq!(of(&lines, "Docker")["level"], "warning", "it needs none");
    let shown = ended(doctor(&lab, &["plan.toml"]), 1);
    assert!(shown.contains(&format!("-> {fix}")), "{shown}");

    let docker = GREEDY.replace("\"process\"", "\"docker\"\nimage = \"x\"");
    lab.write("plan.toml", &docker);
    let (lines, _) = self::lines(&lab, &["plan.toml"], 1);
    assert_eq!(of(&lines, "Docker")["level"], "error");

    lab.write(
        "plan.toml",
        &GREEDY.replace("tier = [\"cpu\"]", "tier = [\"cpi\"]"),
    );
    let wrong = Ended::of(&doctor(&lab, &["plan.toml"]).output().unwrap()).expect_code(2);
    assert!(wrong.stderr.contains("cpi"), "{}", wrong.stderr);
}

#[test]
fn neither_the_token_nor_a_password_is_ever_shown() {
    let lab = Lab::new();
    let url = format!("redis://user:{PASSWORD}@127.0.0.1:1/0");
    lab.write("box.toml", &format!("[redis]\nurl = \"{url}\"\n"));
    let assert_shown = |place: &str, more: &[&str], variable: Option<&str>| {
        let mut arguments = vec!["--config", "box.toml"];
        arguments.extend(more);
        let mut command = doctor(&lab, &arguments);
        if let Some(token) = variable {
            command.env("HF_TOKEN", token);
        }
        let shown = ended(command, 0);
        for secret in [TOKEN, PASSWORD] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let words: Vec<&str> = shown.split_whitespace().collect();
        let shown = words.join(" ");
        let expected = format!("present in {place} (not shown)");
        assert!(shown.contains(&expected), "{expected}: {shown}");
    };
    for more in [&[][..], &["--json"]] {
        assert_shown("HF_TOKEN", more, Some(TOKEN));
        lab.write(".env", &format!("HF_TOKEN={TOKEN}\n"));
        assert_shown("HF_TOKEN", more, None);
        std::fs::remove_file(lab.path(".env")).unwrap();
        let file = lab.write("huggingface/token", TOKEN);
        assert_shown(&format!("`{}`", file.display()), more, None);
    }
}

#[test]
fn the_documentation_has_every_topic() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md");
    let documented = std::fs::read_to_string(path).unwrap();
    let lab = Lab::new();
    for line in lines(&lab, &[], 0).0 {
        let row = format!("| {} |", line["topic"].as_str().unwrap());
        assert!(documented.contains(&row), "docs/doctor.md has no row {row}");
    }
}
