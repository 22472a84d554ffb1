//! The cache state `restart` with a Redis of the cell's own, which lives on.

use serde_json::Value;

use super::{Docker, DockerPlan, docker};
use crate::support::Lab;

fn container<'a>(cell: &'a Value, role: &str) -> &'a Value {
    let mut all = cell["server"]["containers"].as_array().unwrap().iter();
    all.find(|container| container["role"] == role).unwrap()
}

#[test]
#[ignore = "needs Docker"]
fn a_redis_of_the_cells_own_lives_on_when_the_server_is_restarted() {
    let docker_ = Docker::new();
    let lab = Lab::new();
    let since = docker(&["info", "-f", "{{.SystemTime}}"]);
    let plan = DockerPlan {
        matrix: r#"tier = ["redis", "cpu"]"#,
        run: "states = [\"cold\", \"restart\"]",
        server: "redis_image = \"labrun-test/redis\"",
        ..DockerPlan::default()
    };
    plan.run(&lab).expect_code(0);
    let until = docker(&["info", "-f", "{{.SystemTime}}"]);
    let starts = |role: &str| {
        let filter = format!("label=labrun.role={role}");
        let (since, until) = (["--since", &since], ["--until", &until]);
        let mut arguments = vec!["events", "--filter", "event=start", "--filter", &filter];
        arguments.extend(since.into_iter().chain(until));
        docker(&arguments).lines().count()
    };
    assert_eq!(starts("sim"), 4, "two cells, each restarted once");
    assert_eq!(starts("redis"), 1, "it lives on");
    for (_, cell) in lab.cells() {
        let restart = &cell["passes"][1];
        assert_eq!(restart["state"], "restart");
        assert_eq!(restart["verdict"]["status"], "valid", "{restart}");
        let served = restart["evidence"]["external_tokens"].as_f64().unwrap();
        if cell["coordinates"]["tier"] == "redis" {
            assert!(served > 0.0, "{restart}");
            let at = |role: &str| container(&cell, role)["started_at"].as_str().unwrap();
            assert!(at("redis") < at("sim"), "{cell}");
            assert_eq!(container(&cell, "redis")["exit_code"], 0);
        } else {
            assert!(served == 0.0, "what was in memory is gone: {restart}");
        }
    }
    docker_.assert_as_before();
}

#[test]
#[ignore = "needs Docker"]
fn a_server_that_does_not_come_back_takes_its_redis_with_it() {
    let docker_ = Docker::new();
    let lab = Lab::new();
    // It starts once: its mark stays in the folder that both starts see.
    let marks = lab.write("marks/.keep", "");
    let server = format!(
        "redis_image = \"labrun-test/redis\"\nmounts = [\"{}:/marks\"]\n\
         command = [\"sh\", \"-c\", \"mkdir /marks/began || exit 9; exec labrun \\\"$@\\\"\", \"sh\"]",
        marks.parent().unwrap().display()
    );
    let plan = DockerPlan {
        matrix: r#"tier = ["redis"]"#,
        run: "states = [\"cold\", \"restart\"]",
        server: &server,
        ..DockerPlan::default()
    };
    plan.run(&lab).expect_code(1);
    let cell = lab.cells().remove(0).1;
    assert_eq!(cell["outcome"]["phase"], "ready", "{cell}");
    let error = cell["outcome"]["error"].as_str().unwrap();
    assert!(error.contains("exited with code 9"), "{error}");
    assert_eq!(
        cell["passes"].as_array().unwrap().len(),
        1,
        "the cold pass is stored"
    );
    docker_.assert_as_before();
}
