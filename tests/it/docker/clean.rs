//! What a killed labrun leaves is found by its labels and removed, and nothing else is.

use std::time::Duration;

use super::{Docker, DockerPlan, docker};
use crate::support::Lab;

/// How often labrun is killed.
const ROUNDS: u64 = 20;

#[test]
#[ignore = "needs Docker"]
fn a_labrun_that_is_killed_at_any_moment_leaves_nothing_that_clean_does_not_remove() {
    let docker_ = Docker::new();
    // Someone else's container, with labels of its own, and one of a labrun that lives.
    let living = format!("labrun.owner={}", living_owner());
    let others: Vec<String> = ["purpose=mine", living.as_str()]
        .iter()
        .map(|label| {
            docker(&[
                "run",
                "-d",
                "--label",
                label,
                "labrun-test/redis",
                "--save",
                "",
            ])
        })
        .collect();
    let plan = DockerPlan {
        matrix: r#"tier = ["redis", "cpu"]"#,
        run: "repeats = 3",
        server: "redis_image = \"labrun-test/redis\"",
        ..DockerPlan::default()
    };
    let mut left = 0;
    for round in 0..ROUNDS {
        let lab = Lab::new();
        lab.write("plan.toml", &plan.text());
        let mut run = lab
            .command(&["plan.toml", "--out", "out", "--quiet"])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(moment(round)));
        run.kill().unwrap();
        run.wait().unwrap();
        // A request that was under way when it was killed is still carried out by the daemon.
        std::thread::sleep(Duration::from_millis(300));
        let cleaned = lab.labrun(&["clean"]).expect_code(0);
        left += cleaned.stdout.matches("removed container").count();
        let again = lab.labrun(&["clean"]).expect_code(0);
        assert_eq!(again.stdout, "nothing was left behind\n", "round {round}");
    }
    assert!(
        left > ROUNDS as usize / 4,
        "only {left} containers were ever left: killed too early"
    );
    for id in &others {
        docker(&["rm", "-f", "-v", id]);
    }
    docker_.assert_as_before();
}

/// When to kill, milliseconds: spread over the time of two cells, in no order.
fn moment(round: u64) -> u64 {
    (round * 1_237 + 190) % 4_000
}

/// The owner label of this test's own process, which lives.
fn living_owner() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let started = stat[stat.rfind(')').unwrap()..]
        .split_whitespace()
        .nth(20)
        .unwrap()
        .to_owned();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let digits: String = namespace
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    format!("{}-{started}-{digits}", std::process::id())
}
