//! No secret reaches anything that a run writes or prints.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use crate::process::{RUN, lab_with};
use crate::support::{Ended, Kill, Lab, SimPlan, wait_until};

const TOKEN: &str = "hf_canary0123456789";
const PASSWORD: &str = "s3cret-canary";

#[test]
fn tokens_and_passwords_reach_no_file_and_no_output() {
    let lab = Lab::new();
    lab.write(
        ".env",
        &format!("HF_TOKEN={TOKEN}\nLABRUN_ENV__HF_TOKEN={TOKEN}\n"),
    );
    let url = format!("redis://user:{PASSWORD}@127.0.0.1:6379/0");
    lab.write("box.toml", &format!("[redis]\nurl = \"{url}\"\n"));
    lab.write(
        "plan.toml",
        &SimPlan {
            tiers: r#"["redis"]"#,
            ..SimPlan::default()
        }
        .text(),
    );
    let mut command = lab.command(&["plan.toml", "--out", "out", "--config", "box.toml"]);
    let ended = Ended::of(&command.output().unwrap()).expect_code(0);
    let shown = lab
        .labrun(&["plan", "plan.toml", "--commands", "--config", "box.toml"])
        .expect_code(0);
    assert!(
        shown.stdout.contains("redis://***@127.0.0.1:6379/0"),
        "{}",
        shown.stdout
    );
    let printed = [ended.stdout, ended.stderr, shown.stdout, shown.stderr].concat();
    let mut everything = lab.files("out");
    everything.push(("output".into(), printed.into_bytes()));
    assert!(everything.len() > 10);
    for (path, bytes) in everything {
        let text = String::from_utf8_lossy(&bytes);
        for secret in [TOKEN, PASSWORD] {
            assert!(!text.contains(secret), "{} holds a secret", path.display());
        }
    }
    assert!(lab.read("out/manifest.json").contains("***"));
}

#[test]
fn a_plan_that_holds_a_secret_is_refused_before_anything_is_stored() {
    let lab = Lab::new();
    let url = format!("redis://user:{PASSWORD}@127.0.0.1:6379/0");
    let tier = format!("[tier.redis]\nremote_url = \"{url}\"\n");
    let argument = format!("[server.args]\napi-key = \"{TOKEN}\"\n");
    let axis = SimPlan::default().text().replace(
        "[run]",
        &format!("\"server.args.api-key\" = [\"{TOKEN}\"]\n[run]"),
    );
    lab.write("plan.toml", &axis);
    let ended = lab.labrun(&["plan", "plan.toml"]).expect_code(2);
    assert!(!ended.stderr.contains(TOKEN), "{}", ended.stderr);
    for (more, expected) in [
        (tier, "`remote_url` in [tier.redis] holds a URL"),
        (argument, "`api-key` in [server.args] looks like a secret"),
    ] {
        lab.write("plan.toml", &(SimPlan::default().text() + &more));
        let ended = lab.labrun(&["plan.toml", "--out", "out"]).expect_code(2);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        for secret in [TOKEN, PASSWORD] {
            assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
        }
        assert!(!lab.path("out").exists());
    }
}

#[test]
fn a_secret_that_a_server_quotes_is_masked_wherever_it_comes_up() {
    let vllm = r#"echo "ValueError: 401 Client Error: Invalid token $HF_TOKEN for url"
printf 'half of %s' "$HF_TOKEN" | cut -c1-20 | tr -d '\n'; sleep 0.1; printf '%s\n' "$HF_TOKEN" | cut -c13-
printf '%s\n' '{"t": "say uml\u00e4ut-canary"}'
exit 3"#;
    let lab = lab_with(vllm, "exit 9", "in-process");
    lab.write(
        "box.toml",
        "[process]\nbin_dir = \"bin\"\n[env]\nPRIVATE_PASSWORD = \"uml\u{e4}ut-canary\"\n",
    );
    let mut command = lab.command(&RUN);
    command.env("HF_TOKEN", TOKEN);
    let ended = Ended::of(&command.output().unwrap()).expect_code(1);
    let mut everything = lab.files("out");
    everything.push((
        "the terminal".into(),
        [ended.stdout, ended.stderr].concat().into_bytes(),
    ));
    let log = lab.cells()[0].0.join("server.log");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        log.contains("Invalid token *** for url\nhalf of ***\n"),
        "{log}"
    );
    assert!(log.contains("{\"t\": \"say ***\"}"), "{log}");
    for (path, bytes) in everything {
        let text = String::from_utf8_lossy(&bytes);
        for secret in [TOKEN, "ut-canary"] {
            assert!(!text.contains(secret), "{} holds {secret}", path.display());
        }
    }
}

/// Largest file that is searched: what others put into memory may have gibibytes.
const SEARCHED_BYTES: u64 = 1 << 20;

/// Small files under `folder` that hold `password`, with their modes.
fn holding(password: &str, folder: PathBuf, found: &mut Vec<(PathBuf, u32)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_searched = entry
            .metadata()
            .is_ok_and(|file| file.is_file() && file.len() <= SEARCHED_BYTES);
        if path.is_dir() {
            holding(password, path, found);
        } else if is_searched
            && std::fs::read(&path).is_ok_and(|bytes| {
                bytes
                    .windows(password.len())
                    .any(|part| part == password.as_bytes())
            })
        {
            let mode = std::fs::metadata(&path).map_or(0, |found| found.mode() & 0o777);
            found.push((path, mode));
        }
    }
}

#[test]
fn a_configuration_with_a_password_is_private_and_gone_after_a_kill_and_clean() {
    let lab = Lab::new();
    let password = "in-memory-only-canary";
    lab.write(
        "box.toml",
        &format!("[redis]\nurl = \"redis://:{password}@127.0.0.1:6379/0\"\n"),
    );
    let plan = SimPlan {
        tiers: r#"["redis"]"#,
        // Killed long before.
        start_ms: 600_000,
        ..SimPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let mut command = lab.command(&[
        "plan.toml",
        "--out",
        "out",
        "--config",
        "box.toml",
        "--quiet",
    ]);
    let mut run = Kill(command.spawn().unwrap());
    let in_memory = || {
        let mut found = Vec::new();
        holding(password, "/dev/shm".into(), &mut found);
        found
    };
    assert!(wait_until(Duration::from_secs(20), || !in_memory().is_empty()));
    assert!(
        in_memory().iter().all(|(_, mode)| *mode == 0o600),
        "{:?}",
        in_memory()
    );
    let mut results = Vec::new();
    holding(password, lab.path("out"), &mut results);
    assert_eq!(results, [], "the results hold the password");
    let folder = lab.path("out/servers");
    assert!(wait_until(Duration::from_secs(20), || folder.exists()));
    let servers = std::fs::metadata(folder).unwrap();
    assert_eq!(
        servers.permissions().mode() & 0o777,
        0o700,
        "raw logs are there"
    );
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    lab.labrun(&["clean"]).expect_code(0);
    assert_eq!(in_memory(), []);
}

#[test]
fn servers_inherit_no_credential_of_others() {
    let lab = lab_with("env\nexit 3", "exit 9", "in-process");
    let mut command = lab.command(&RUN);
    command
        .env("OPENAI_API_KEY", "openai-canary")
        .env("AWS_SECRET_ACCESS_KEY", "aws-canary")
        .env("https_proxy", "http://proxy-canary:1")
        .env("HF_TOKEN", TOKEN)
        .env("NCCL_DEBUG", "INFO");
    command.output().unwrap();
    let log = std::fs::read_to_string(lab.cells()[0].0.join("server.log")).unwrap();
    assert!(
        log.contains("HF_TOKEN=***") && log.contains("NCCL_DEBUG=INFO"),
        "{log}"
    );
    for name in ["OPENAI", "AWS_", "canary"] {
        assert!(!log.contains(name), "{name} in {log}");
    }
}

#[test]
fn settings_and_plans_that_cannot_be_read_quote_no_secret() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    lab.write(
        "box.toml",
        &format!("[redis]\nurl = \"redis://:{PASSWORD}@127.0.0.1:6379/0\n"),
    );
    let ended = lab
        .labrun(&["plan", "plan.toml", "--config", "box.toml"])
        .expect_code(2);
    assert!(ended.stderr.contains("box.toml:2:"), "{}", ended.stderr);
    let doctor = {
        let mut command = lab.command(&["doctor"]);
        command.env("DOCKER_HOST", format!("tcp://me:{PASSWORD}@127.0.0.1:1"));
        Ended::of(&command.output().unwrap())
    };
    let torn = SimPlan {
        server: &format!("args.api-key = \"{TOKEN}"),
        ..SimPlan::default()
    };
    lab.write("plan.toml", &torn.text());
    let plan = lab.labrun(&["plan", "plan.toml"]).expect_code(2);
    let all = [ended.stderr, doctor.stdout, doctor.stderr, plan.stderr].concat();
    for secret in [TOKEN, PASSWORD] {
        assert!(!all.contains(secret), "{all}");
    }
}

#[test]
fn a_secret_is_refused_anywhere_in_a_plan_by_its_form() {
    let lab = Lab::new();
    let key = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";
    lab.write(
        "plan.toml",
        &format!("# {key}\n{}", SimPlan::default().text()),
    );
    let ended = lab.labrun(&["plan", "plan.toml"]).expect_code(2);
    assert!(
        ended.stderr.contains("has the form of a secret"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains(key), "{}", ended.stderr);
}

#[test]
fn a_pipe_in_place_of_the_hubs_token_delays_nothing() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let pipe = lab.path("token");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    // Opening it would wait for whoever writes to it.
    let mut command = lab.command(&["plan", "plan.toml"]);
    command.env("HF_TOKEN_PATH", pipe);
    Ended::of(&command.output().unwrap()).expect_code(0);
}
