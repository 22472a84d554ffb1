//! No secret reaches a log, a record, a command line, or what `docker inspect` shows.

use std::process::Stdio;
use std::time::Duration;

use super::{Docker, DockerPlan, inspect_when_running};
use crate::support::{Ended, Lab, wait_until};

const TOKEN: &str = "hf_canary0123456789";
const OTHER: &str = "it's a s3cret-canary";

#[test]
#[ignore = "needs Docker"]
fn a_token_is_in_the_container_and_nowhere_else() {
    let docker = Docker::new();
    let lab = Lab::new();
    lab.write(
        ".env",
        &format!("HF_TOKEN={TOKEN}\nLABTEST_KEY=\"{OTHER}\"\n"),
    );
    // The container prints how long each secret is that it can read, and who else might read it.
    let server = r#"secrets = ["LABTEST_KEY"]
command = ["sh", "-c", "echo token $(wc -c < $HF_TOKEN_PATH) $(stat -c %a $HF_TOKEN_PATH) other ${#LABTEST_KEY}; exec labrun \"$@\"", "sh"]"#;
    let plan = DockerPlan {
        run: "requests = 60",
        server,
        ..DockerPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let mut command = lab.command(&["plan.toml", "--out", "out"]);
    command
        .env_remove("HF_TOKEN")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = command.spawn().unwrap();
    let inspected = inspect_when_running("sim").to_string();
    let processes = std::process::Command::new("ps")
        .args(["-eo", "args"])
        .output()
        .unwrap();
    let processes = String::from_utf8_lossy(&processes.stdout).into_owned();
    let in_memory = std::fs::read_dir("/dev/shm").unwrap().flatten();
    let folders = in_memory
        .filter(|e| e.file_name().to_string_lossy().contains("_secrets-"))
        .count();
    assert_eq!(
        folders, 1,
        "the secrets' folder is in memory while the container runs"
    );
    let ended = Ended::of(&run.wait_with_output().unwrap()).expect_code(0);
    let shown = lab.labrun(&["plan", "plan.toml"]).expect_code(0);

    let mut everything = lab.files("out");
    let printed = [ended.stdout, ended.stderr, shown.stdout, shown.stderr].concat();
    everything.push(("output".into(), printed.into_bytes()));
    everything.push(("docker inspect".into(), inspected.into_bytes()));
    everything.push(("ps".into(), processes.into_bytes()));
    assert!(everything.len() > 8, "{everything:?}");
    for (path, bytes) in &everything {
        let text = String::from_utf8_lossy(bytes);
        for secret in [TOKEN, "s3cret-canary"] {
            assert!(!text.contains(secret), "{} holds a secret", path.display());
        }
    }
    let log = everything
        .iter()
        .find(|(path, _)| path.ends_with("server.log"))
        .unwrap();
    let log = String::from_utf8_lossy(&log.1).into_owned();
    let expected = format!("token {} 600 other {}", TOKEN.len(), OTHER.len());
    assert!(log.contains(&expected), "{log}");
    let gone = wait_until(Duration::from_secs(3), || {
        let mut left = std::fs::read_dir("/dev/shm").unwrap().flatten();
        !left.any(|entry| entry.file_name().to_string_lossy().contains("_secrets-"))
    });
    assert!(gone, "secrets stay in memory");
    docker.assert_as_before();
}
