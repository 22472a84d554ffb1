//! Images that are pulled, from a registry of the test's own.

use std::time::Duration;

use serde_json::Value;

use super::faults::{CASE, Case, assert_failed};
use super::registry::{Registry, Sends};
use super::{Docker, DockerPlan, docker};
use crate::support::{Ended, Kill, Lab, wait_until};

/// Runs one cell of `image` into `out`, with the pull policy.
fn run(lab: &Lab, image: &str, pull: &str, more: &[&str]) -> Ended {
    let plan = DockerPlan {
        matrix: r#"tier = ["cpu", "disk"]"#,
        image: &format!("image = \"{image}\"\npull = \"{pull}\""),
        ..DockerPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let mut arguments = vec!["plan.toml", "--out", "out"];
    arguments.extend(more);
    lab.labrun(&arguments)
}

/// A run in a folder of its own: its cells and its manifest all have this digest.
#[track_caller]
fn assert_runs(image: &str, pull: &str, digest: &str) -> Lab {
    let lab = Lab::new();
    run(&lab, image, pull, &[]).expect_code(0);
    assert_ran(&lab, digest);
    lab
}

#[track_caller]
fn assert_ran(lab: &Lab, digest: &str) {
    let cells = lab.cells();
    assert_eq!(cells.len(), 2);
    for (_, cell) in &cells {
        let container = &cell["server"]["containers"][0];
        let ran = container["digest"].as_str().unwrap();
        assert!(ran.ends_with(&format!("@{digest}")), "{container}");
        assert_eq!(cell["identity"]["image.digest"], digest, "{cell}");
        let id = &container["image_id"];
        assert_eq!(&cell["identity"]["version.image"], id);
    }
    let manifest: Value = serde_json::from_str(&lab.read("out/manifest.json")).unwrap();
    let id = &cells[0].1["identity"]["version.image"];
    assert_eq!(manifest["software"]["image.digest"], digest, "{manifest}");
    assert_eq!(&manifest["software"]["version.image"], id, "{manifest}");
}

/// The progress lines of a launch, from `events.jsonl`.
fn launch_lines(lab: &Lab) -> Vec<String> {
    let events = lab.read("out/events.jsonl");
    let events = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    events
        .filter(|event| event["event"] == "launch-progress")
        .map(|event| event["line"].as_str().unwrap().to_owned())
        .collect()
}

fn images() -> String {
    let mut ids: Vec<String> = docker(&["images", "-aq", "--no-trunc"])
        .lines()
        .map(str::to_owned)
        .collect();
    ids.sort_unstable();
    ids.join("\n")
}

#[test]
#[ignore = "needs Docker"]
fn an_image_is_pulled_when_it_is_missing_and_asked_for_again_with_pull_always() {
    let docker_ = Docker::new();
    let before = images();
    let files = Lab::new();
    let registry = Registry::start(&files.path("registry"), Sends::Slowly);
    let (tag, first) = (registry.image(":1"), registry.publish("1"));

    let lab = assert_runs(&tag, "missing", &first);
    let lines = launch_lines(&lab);
    let part = format!("pulling {tag}: ");
    let part = lines.iter().find(|line| line.starts_with(&part));
    let part = part.unwrap_or_else(|| panic!("no progress of a pull: {lines:?}"));
    assert!(part.contains(" of 2 layers, "), "{part}");
    let pulled = format!("pulled {tag}: 2 of 2 layers");
    assert!(lines.last().unwrap().starts_with(&pulled), "{lines:?}");
    assert!(
        registry
            .take_asked()
            .iter()
            .any(|asked| asked.contains("blobs"))
    );

    assert_runs(&tag, "missing", &first);
    assert_eq!(registry.take_asked(), [""; 0], "it is there");

    assert_runs(&tag, "always", &first);
    let asked = registry.take_asked();
    let of_tag = asked.iter().filter(|asked| asked.ends_with("manifests/1"));
    assert!(of_tag.count() >= 2, "each start asks again: {asked:?}");
    let layers = asked.iter().filter(|asked| registry.is_of_layer(asked));
    assert_eq!(layers.count(), 0, "no layer comes twice: {asked:?}");

    let second = registry.publish("2");
    assert_ne!(first, second);
    assert_runs(&tag, "missing", &first);
    assert_runs(&tag, "always", &second);

    registry.remove_pulled();
    let by_digest = registry.image(&format!("@{first}"));
    assert_runs(&by_digest, "missing", &first);
    registry.take_asked();
    assert_runs(&by_digest, "missing", &first);
    assert_eq!(registry.take_asked(), [""; 0], "it is there");
    assert_runs(&by_digest, "always", &first);
    assert!(!registry.take_asked().is_empty());

    drop(registry);
    assert_eq!(images(), before);
    docker_.assert_as_before();
}

#[test]
#[ignore = "needs Docker"]
fn a_pull_that_breaks_fails_each_cell_with_the_cause_and_leaves_nothing() {
    let docker_ = Docker::new();
    let before = images();
    let cases = [
        (Sends::HalfThenRefuses, "the token is over"),
        (Sends::Garbled, "verification failed"),
    ];
    for (sends, message) in cases {
        let lab = Lab::new();
        let registry = Registry::start(&lab.path("registry"), sends);
        let image = registry.image(":1");
        run(&lab, &image, "missing", &[]).expect_code(1);
        let cells = lab.cells();
        assert_eq!(cells.len(), 2, "the matrix goes on");
        for (_, cell) in &cells {
            let case = Case {
                name: message,
                message,
                ..CASE
            };
            assert_failed(&case, cell);
            let error = cell["outcome"]["error"].as_str().unwrap();
            let pulling = format!("pulling the image `{image}`");
            assert!(error.contains(&pulling), "{error}");
        }
        assert_eq!(images(), before, "{message}");
        docker_.assert_as_before();
    }
}

#[test]
#[ignore = "needs Docker"]
fn a_pull_is_interrupted_at_once() {
    let docker_ = Docker::new();
    let lab = Lab::new();
    let registry = Registry::start(&lab.path("registry"), Sends::Slowly);
    let image = format!("image = \"{}\"\npull = \"missing\"", registry.image(":1"));
    let plan = DockerPlan {
        image: &image,
        ..DockerPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    let mut run = Kill(
        lab.command(&["plan.toml", "--out", "out", "--force"])
            .spawn()
            .unwrap(),
    );
    let pulls = wait_until(Duration::from_secs(60), || {
        lab.path("out/events.jsonl").exists() && !launch_lines(&lab).is_empty()
    });
    assert!(pulls, "no pull began");
    let id = run.0.id().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(killed.unwrap().success());
    let ends = wait_until(Duration::from_secs(5), || {
        run.0.try_wait().unwrap().is_some()
    });
    assert!(ends, "it waits for the pull");
    assert_eq!(run.0.wait().unwrap().code(), Some(130));
    docker_.assert_as_before();
}

#[test]
#[ignore = "needs Docker"]
fn a_resumed_run_knows_the_image_that_it_pulled_and_sees_when_the_tag_moved() {
    let docker_ = Docker::new();
    for pull in ["missing", "always"] {
        let lab = Lab::new();
        let registry = Registry::start(&lab.path("registry"), Sends::Slowly);
        let tag = registry.image(":1");
        let first = registry.publish("1");
        // Nothing was known of the image when the first cell began.
        run(&lab, &tag, pull, &[]).expect_code(0);
        let nothing_to_run = |why: &str| {
            let ended = run(&lab, &tag, pull, &["--resume"]).expect_code(0);
            let message = "2 of 2 cells are finished, 0 to run";
            assert!(
                ended.stderr.contains(message),
                "{pull}, {why}: {}",
                ended.stderr
            );
            assert_ran(&lab, &first);
        };
        nothing_to_run("the image is there");
        registry.remove_pulled();
        nothing_to_run("the image was removed, and the registry has the same");

        registry.publish("2");
        let ended = run(&lab, &tag, pull, &["--resume"]).expect_code(0);
        let moved = format!("changed: image.digest: {first} -> sha256:");
        assert_eq!(ended.stderr.matches(&moved).count(), 2, "{}", ended.stderr);
        assert!(ended.stderr.contains("0 of 2 cells are finished, 2 to run"));
    }
    docker_.assert_as_before();
}
