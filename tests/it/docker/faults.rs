//! What goes wrong with containers: the cell fails with the cause and the last log lines, the matrix
//! goes on, nothing is left behind.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use super::{Docker, DockerPlan, docker, inspect_when_running};
use crate::support::{Kill, Lab, wait_until};

/// A plan's difference, and what its record must say.
pub(crate) struct Case {
    pub name: &'static str,
    pub image: &'static str,
    pub server: &'static str,
    pub sim: Option<&'static str>,
    pub run: &'static str,
    pub phase: &'static str,
    pub message: &'static str,
    /// What stands in the quoted end of the logs.
    pub log: &'static str,
}

pub(crate) const CASE: Case = Case {
    name: "",
    image: r#"image = "labrun-test/sim""#,
    server: "",
    sim: Some("start_ms = 1"),
    run: "",
    phase: "launch",
    message: "",
    log: "",
};

/// Runs each case in a plan of two tiers: both cells are tried, and Docker is as before.
fn check(cases: &[Case]) {
    let docker = Docker::new();
    for case in cases {
        let lab = Lab::new();
        let plan = DockerPlan {
            matrix: r#"tier = ["baseline", "cpu"]"#,
            run: case.run,
            server: case.server,
            sim: case.sim,
            image: case.image,
        };
        let ended = plan.run(&lab);
        let cells = lab.cells();
        assert_eq!(ended.code, Some(1), "{}: {}", case.name, ended.stderr);
        assert_eq!(
            cells.len(),
            2,
            "{}: the matrix goes on: {}",
            case.name,
            ended.stderr
        );
        for (_, cell) in &cells {
            assert_failed(case, cell);
        }
        docker.assert_as_before();
        lab.assert_no_server_is_left();
    }
}

#[track_caller]
pub(crate) fn assert_failed(case: &Case, cell: &Value) {
    let outcome = &cell["outcome"];
    assert_eq!(outcome["kind"], "failed", "{}: {cell}", case.name);
    assert_eq!(outcome["phase"], case.phase, "{}: {outcome}", case.name);
    let error = outcome["error"].as_str().unwrap();
    assert!(error.contains(case.message), "{}: {error}", case.name);
    let log = outcome["log_tail"].to_string();
    assert!(log.contains(case.log), "{}: {log}", case.name);
}

#[test]
#[ignore = "needs Docker"]
fn images_that_cannot_be_had() {
    check(&[
        Case {
            name: "an image that is not there, and must not be pulled",
            image: r#"image = "labrun-test/none""#,
            message: "the image `labrun-test/none` is not on this machine, and `pull = \"never\"`",
            ..CASE
        },
        Case {
            name: "an image whose registry does not answer",
            image: "image = \"127.0.0.1:1/labrun/none\"\npull = \"missing\"",
            message: "pulling the image `127.0.0.1:1/labrun/none`",
            ..CASE
        },
        Case {
            name: "a digest that is not there",
            image: r#"image = "labrun-test/sim@sha256:0000000000000000000000000000000000000000000000000000000000000000""#,
            message: "is not on this machine",
            ..CASE
        },
    ]);
}

#[test]
#[ignore = "needs Docker"]
fn an_image_name_that_cannot_be_one_is_refused_before_anything_runs() {
    let docker = Docker::new();
    let lab = Lab::new();
    let plan = DockerPlan {
        matrix: r#"tier = ["baseline", "cpu"]"#,
        run: "",
        server: "",
        sim: None,
        image: r#"image = "Labrun:::x""#,
    };
    let ended = plan.run(&lab);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("cannot be the name of an image"),
        "{}",
        ended.stderr
    );
    assert!(lab.cells().is_empty(), "{}", ended.stderr);
    docker.assert_as_before();
}

#[test]
#[ignore = "needs Docker"]
fn containers_that_cannot_be_started() {
    check(&[
        Case {
            name: "a program that is not in the image",
            server: r#"command = ["no-such-program"]"#,
            message: "no-such-program",
            ..CASE
        },
        Case {
            name: "a network that is not there",
            server: r#"network = "labrun-no-such-network""#,
            message: "labrun-no-such-network",
            ..CASE
        },
        Case {
            name: "a user that the image does not know",
            server: r#"user = "nobody-at-all""#,
            message: "nobody-at-all",
            ..CASE
        },
        Case {
            name: "CPUs that the machine does not have",
            server: r#"cpuset = "900-901""#,
            message: "900-901",
            ..CASE
        },
        Case {
            name: "GPUs on a machine without NVIDIA's runtime",
            server: r#"gpus = "all""#,
            message: "could not select device driver",
            ..CASE
        },
        Case {
            name: "a mounted folder that is not there",
            server: r#"mounts = ["/no/such/folder:/data"]"#,
            message: "`/no/such/folder` in `mounts` is not there",
            ..CASE
        },
        Case {
            name: "a secret that is not set",
            server: r#"secrets = ["LABTEST_NOT_SET"]"#,
            message: "`LABTEST_NOT_SET`, which is not set",
            ..CASE
        },
    ]);
}

#[test]
#[ignore = "needs Docker"]
fn containers_that_end_before_they_are_ready() {
    check(&[
        Case {
            name: "an early exit with last words on both outputs",
            server: r#"command = ["sh", "-c", "echo out of luck; echo last words >&2; exit 3"]"#,
            phase: "ready",
            message: "the container of sim exited with code 3 before it was ready",
            log: "last words",
            ..CASE
        },
        Case {
            name: "a death while the model loads",
            sim: Some("start_ms = 200\nfaults = [\"exit-while-loading\"]"),
            phase: "ready",
            message: "before it was ready",
            log: "labrun simulator",
            ..CASE
        },
        Case {
            name: "out of memory",
            server: "memory = \"16MiB\"\ncommand = [\"sh\", \"-c\", \"tail /dev/zero\"]",
            phase: "ready",
            message: "out of memory",
            ..CASE
        },
        Case {
            name: "never ready",
            server: "ready_timeout_s = 1",
            sim: Some("start_ms = 60000"),
            phase: "ready",
            message: "not ready after 1 s",
            log: "labrun simulator",
            ..CASE
        },
    ]);
}

#[test]
#[ignore = "needs Docker"]
fn containers_that_fail_under_load() {
    check(&[
        Case {
            name: "a death mid-load",
            sim: Some("start_ms = 1\nfaults = [\"exit-mid-load\"]\nfault_after_requests = 3"),
            run: "requests = 8",
            phase: "load",
            message: "the container of sim exited with code",
            log: "POST /v1/completions",
            ..CASE
        },
        Case {
            name: "a cache that cannot be reset",
            sim: Some("start_ms = 1\nfaults = [\"reset-refused\"]"),
            phase: "warm",
            message: "/reset_prefix_cache was refused",
            ..CASE
        },
    ]);
}

#[test]
#[ignore = "needs Docker"]
fn a_port_that_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let docker = Docker::new();
    let lab = Lab::new();
    let server = format!("port = {port}");
    let plan = DockerPlan {
        server: &server,
        ..DockerPlan::default()
    };
    plan.run(&lab).expect_code(1);
    let case = Case {
        name: "a port that is taken",
        message: "address already in use",
        ..CASE
    };
    assert_failed(&case, &lab.cells()[0].1);
    docker.assert_as_before();
}

#[test]
#[ignore = "needs Docker"]
fn sidecars_that_fail() {
    let docker = Docker::new();
    let cases = [
        (
            "redis",
            Case {
                name: "Redis's image is not there",
                server: r#"redis_image = "labrun-test/none""#,
                message: "the image `labrun-test/none` is not on this machine",
                ..CASE
            },
        ),
        (
            "cpu",
            Case {
                name: "an LMCache server that ends at once",
                sim: None,
                server: "lmcache = \"multi-process\"\nlmcache_command = [\"sh\", \"-c\", \"echo no cache today; exit 4\"]",
                message: "the container of lmcache exited with code 4 before it was ready",
                ..CASE
            },
        ),
        (
            "cpu",
            Case {
                name: "an LMCache server that is never healthy",
                sim: None,
                server: "lmcache = \"multi-process\"\nready_timeout_s = 1\nlmcache_command = [\"sleep\", \"infinity\", \"#\"]",
                message: "",
                ..CASE
            },
        ),
        (
            "redis",
            Case {
                name: "a Redis that containers cannot reach",
                sim: None,
                message: "",
                ..CASE
            },
        ),
    ];
    for (tier, case) in cases {
        let lab = Lab::new();
        let plan = DockerPlan {
            matrix: &format!("tier = [\"{tier}\"]"),
            server: case.server,
            sim: case.sim,
            ..DockerPlan::default()
        };
        if case.name.contains("cannot reach") {
            lab.write("plan.toml", &plan.text());
            let refused = lab.labrun(&["plan.toml", "--out", "out"]).expect_code(2);
            assert!(
                refused.stderr.contains("`redis_image`"),
                "{}",
                refused.stderr
            );
        } else {
            let ended = plan.run(&lab);
            assert_eq!(ended.code, Some(1), "{}: {}", case.name, ended.stderr);
            assert_failed(&case, &lab.cells()[0].1);
        }
        docker.assert_as_before();
    }
}

/// Starts a run that is long enough to be interfered with, does so to the container in this role,
/// and returns the first record.
fn interfere(role: &str, matrix: &str, server: &str, with: &[&str]) -> Value {
    let lab = Lab::new();
    let plan = DockerPlan {
        matrix,
        run: "requests = 200",
        server,
        ..DockerPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let mut run = Kill(
        lab.command(&["plan.toml", "--out", "out", "--force"])
            .spawn()
            .unwrap(),
    );
    // The server's container is the last one; requests run a little later.
    inspect_when_running("sim");
    let loads = wait_until(Duration::from_secs(30), || {
        std::fs::read_to_string(lab.path("out/events.jsonl"))
            .is_ok_and(|events| events.contains("\"load\""))
    });
    assert!(loads, "no load began");
    let id = inspect_when_running(role)["Id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut arguments = with.to_vec();
    arguments.push(&id);
    docker(&arguments);
    assert_eq!(run.0.wait().unwrap().code(), Some(1));
    lab.cells().remove(0).1
}

#[test]
#[ignore = "needs Docker"]
fn containers_that_someone_else_ends() {
    let docker = Docker::new();
    let cpu = r#"tier = ["cpu"]"#;
    let cases: [(&str, &[&str], &str); 3] = [
        (
            "sim",
            &["kill"],
            "the container of sim ended by signal 9 while requests ran",
        ),
        ("sim", &["stop"], "the container of sim"),
        ("sim", &["rm", "-f"], "the container of sim"),
    ];
    for (role, with, message) in cases {
        let cell = interfere(role, cpu, "", with);
        let case = Case {
            name: message,
            phase: "load",
            message,
            ..CASE
        };
        assert_failed(&case, &cell);
        docker.assert_as_before();
    }
    let server = r#"redis_image = "labrun-test/redis""#;
    let cell = interfere("redis", r#"tier = ["redis"]"#, server, &["kill"]);
    let message = "the container of redis ended by signal 9";
    assert_failed(
        &Case {
            name: message,
            phase: "load",
            message,
            ..CASE
        },
        &cell,
    );
    docker.assert_as_before();
}
