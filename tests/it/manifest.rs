//! What a report takes from the manifest that a run wrote.

use std::path::Path;
use std::process::Command;

use labrun::internals::manifest::{Gpu, Gpus, MANIFEST_FILE, Manifest};

use crate::support::{Lab, SimPlan};

fn git(folder: &Path, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=n", "-c", "user.email=e@x"];
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(who)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The value of a fact at the head of the report, as the page has it.
fn fact(page: &str, name: &str) -> Option<String> {
    let (_, after) = page.split_once(&format!("<span>{name} <b>"))?;
    let (value, _) = after.split_once("</b>")?;
    Some(value.to_owned())
}

#[test]
fn a_report_names_the_commit_of_the_plan_and_the_gpu() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let here = lab.path("");
    git(&here, &["init", "-q"]);
    git(&here, &["add", "plan.toml"]);
    git(&here, &["commit", "-qm", "m"]);
    let commit = git(&here, &["rev-parse", "HEAD"]);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let page = lab.read("out/report.html");
    assert_eq!(fact(&page, "plan at"), Some(format!("commit {commit}")));
    assert_eq!(fact(&page, "launcher").as_deref(), Some("sim"));

    // As on a machine with GPUs, in the manifest that the run wrote.
    let out = lab.path("out");
    let mut manifest = Manifest::read(&out).unwrap().unwrap();
    let gpu = |index, name: &str| Gpu {
        index,
        name: Some(name.to_owned()),
        ..Gpu::default()
    };
    manifest.host.gpu = Some(Gpus {
        devices: vec![gpu(0, "NVIDIA H100"), gpu(1, "NVIDIA H100"), gpu(2, "L4")],
        ..Gpus::default()
    });
    let text = serde_json::to_vec(&manifest).unwrap();
    std::fs::write(out.join(MANIFEST_FILE), text).unwrap();
    lab.labrun(&["report", "out"]).expect_code(0);
    let gpus = fact(&lab.read("out/report.html"), "GPU");
    assert_eq!(gpus.as_deref(), Some("L4, 2 x NVIDIA H100"));
}
