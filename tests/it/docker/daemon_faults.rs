//! A daemon that is not there, hangs, or goes away under a run.

use std::time::Duration;

use super::proxy::{Mode, Proxy};
use super::{Docker, DockerPlan, inspect_when_running};
use crate::support::{Ended, Kill, Lab, wait_until};

fn run_with_host(lab: &Lab, host: &str) -> Ended {
    let mut command = lab.command(&["plan.toml", "--out", "out", "--force"]);
    Ended::of(&command.env("DOCKER_HOST", host).output().unwrap())
}

#[test]
#[ignore = "needs Docker"]
fn a_daemon_that_is_not_there_hangs_or_is_elsewhere_fails_each_cell_with_the_cause() {
    let docker = Docker::new();
    let lab = Lab::new();
    let proxy = Proxy::start(&lab.path("silent.sock"));
    proxy.set(Mode::Silent);
    let silent = proxy.host();
    let cases = [
        (
            "unix:///no/such/docker.sock",
            "cannot reach Docker at `unix:///no/such/docker.sock`",
        ),
        (
            "tcp://127.0.0.1:1",
            "cannot reach Docker at `tcp://127.0.0.1:1`",
        ),
        ("nonsense", "cannot reach Docker at `nonsense`"),
        (silent.as_str(), "no answer within 10 s"),
    ];
    for (host, message) in cases {
        let lab = Lab::new();
        lab.write("plan.toml", &DockerPlan::default().text());
        let ended = run_with_host(&lab, host);
        assert_eq!(ended.code, Some(1), "{host}: {}", ended.stderr);
        let cell = lab.cells().remove(0).1;
        assert_eq!(cell["outcome"]["phase"], "launch", "{cell}");
        let error = cell["outcome"]["error"].as_str().unwrap();
        assert!(error.contains(message), "{host}: {error}");
        docker.assert_as_before();
    }
}

/// A run through a proxy that is in the middle of a load.
fn under_load(lab: &Lab, requests: u32) -> (Proxy, Kill) {
    let proxy = Proxy::start(&lab.path("docker.sock"));
    let plan = DockerPlan {
        run: &format!("requests = {requests}"),
        ..DockerPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let mut command = lab.command(&["plan.toml", "--out", "out", "--force"]);
    let run = command.env("DOCKER_HOST", proxy.host()).spawn();
    let run = Kill(run.unwrap());
    inspect_when_running("sim");
    let loads = wait_until(Duration::from_secs(30), || {
        std::fs::read_to_string(lab.path("out/events.jsonl"))
            .is_ok_and(|events| events.contains("\"load\""))
    });
    assert!(loads, "no load began");
    (proxy, run)
}

#[test]
#[ignore = "needs Docker"]
fn a_daemon_that_is_away_for_a_moment_costs_nothing() {
    let docker = Docker::new();
    let lab = Lab::new();
    let (proxy, mut run) = under_load(&lab, 40);
    proxy.away_for(Duration::from_secs(2));
    assert_eq!(run.0.wait().unwrap().code(), Some(0));
    let cell = lab.cells().remove(0).1;
    assert_eq!(cell["outcome"]["kind"], "completed", "{cell}");
    assert_eq!(cell["server"]["containers"][0]["exit_code"], 0);
    docker.assert_as_before();
}

#[test]
#[ignore = "needs Docker"]
fn a_daemon_that_goes_away_for_good_fails_the_cell_and_clean_removes_the_container() {
    let docker = Docker::new();
    let lab = Lab::new();
    let (proxy, mut run) = under_load(&lab, 400);
    proxy.set(Mode::Cut);
    assert_eq!(run.0.wait().unwrap().code(), Some(1));
    let cell = lab.cells().remove(0).1;
    assert_eq!(cell["outcome"]["phase"], "load", "{cell}");
    let error = cell["outcome"]["error"].as_str().unwrap();
    assert!(error.contains("has not answered for 10 s"), "{error}");
    let warnings = cell["warnings"].to_string();
    assert!(warnings.contains("`labrun clean` removes it"), "{warnings}");
    // The daemon is back, as far as this labrun can see.
    let cleaned = lab.labrun(&["clean"]).expect_code(0);
    assert!(
        cleaned.stdout.contains("removed container"),
        "{}",
        cleaned.stdout
    );
    docker.assert_as_before();
}
