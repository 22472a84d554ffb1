//! No secret reaches anything that a run writes or says.

use crate::support::{Ended, Lab, SimPlan};

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
        .labrun(&["plan", "plan.toml", "--config", "box.toml"])
        .expect_code(0);
    assert!(
        shown.stdout.contains("redis://***@127.0.0.1:6379/0"),
        "{}",
        shown.stdout
    );
    let said = [ended.stdout, ended.stderr, shown.stdout, shown.stderr].concat();
    let mut everything = lab.files("out");
    everything.push(("what was said".into(), said.into_bytes()));
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
fn a_plan_that_holds_a_secret_is_refused_before_anything_is_kept() {
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
