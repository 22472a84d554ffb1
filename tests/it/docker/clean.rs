//! What a killed labrun leaves is found by its labels and removed, and nothing else is.

use std::time::{Duration, SystemTime};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Docker, DockerPlan, docker, state};
use crate::support::Lab;

/// How often labrun is killed.
const ROUNDS: u64 = 20;
/// What seeds the moments; without it, the time does.
const SEED: &str = "LABTEST_SEED";
/// Longer than two cells take.
const LATEST_MS: u64 = 6_000;

/// The seed of this test's moments. A failure prints it.
fn seed() -> u64 {
    let now = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        u64::from(now.unwrap().subsec_nanos())
    };
    std::env::var(SEED).map_or_else(|_| now(), |seed| seed.parse().unwrap())
}

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
    let before = state();
    let seed = seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut left = 0;
    for round in 0..ROUNDS {
        let lab = Lab::new();
        lab.write("plan.toml", &plan.text());
        let mut run = lab
            .command(&["plan.toml", "--out", "out", "--quiet"])
            .spawn()
            .unwrap();
        let moment_ms = random.random_range(0..LATEST_MS);
        let which = format!("round {round}, killed after {moment_ms} ms, {SEED}={seed}");
        std::thread::sleep(Duration::from_millis(moment_ms));
        run.kill().unwrap();
        run.wait().unwrap();
        // A request that was under way when it was killed is still carried out by the daemon.
        std::thread::sleep(Duration::from_secs(1));
        let cleaned = lab.labrun(&["clean"]).expect_code(0);
        left += cleaned.stdout.matches("removed container").count();
        let again = lab.labrun(&["clean"]).expect_code(0);
        assert_eq!(again.stdout, "nothing was left behind\n", "{which}");
        assert_eq!(state(), before, "{which}: {}", docker(&["ps", "-a"]));
        assert_eq!(lab.servers(), [""; 0], "{which}");
    }
    assert!(
        left > ROUNDS as usize / 4,
        "only {left} containers were ever left: killed too early ({SEED}={seed})"
    );
    for id in &others {
        docker(&["rm", "-f", "-v", id]);
    }
    docker_.assert_as_before();
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
