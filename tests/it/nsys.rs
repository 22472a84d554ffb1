//! The real Nsight Systems (`scripts/install-nsys.sh`), which needs no GPU for what is asked of it here.

#[cfg(feature = "nvtx")]
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

#[cfg(feature = "nvtx")]
use serde_json::Value;

use crate::profile;
use crate::support::{Ended, Lab, wait_until};

/// How long to wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of the real `nsys`.
fn nsys_folder() -> PathBuf {
    let folder = std::env::var_os("LABRUN_NSYS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/labrun-nsys"),
        PathBuf::from,
    );
    assert!(folder.join("ready").exists(), "run scripts/install-nsys.sh");
    folder.join("bin")
}

/// How many ranges of each name a report holds, of labrun's own domain.
#[cfg(feature = "nvtx")]
fn ranges(lab: &Lab, report: &str) -> BTreeMap<String, u64> {
    let mut export = Command::new(nsys_folder().join("nsys"));
    export
        .args(["export", "--type=json", "--output"])
        .arg(lab.path("report.json"))
        .arg(lab.path(report));
    Ended::of(&export.output().unwrap()).expect_code(0);
    let text = lab.read("report.json");
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    // The first line holds all texts; an event names its own by the place in it.
    let texts = lines.next().unwrap();
    let mut found = BTreeMap::new();
    for line in lines {
        let event = &line["NvtxEvent"];
        // A range that was started and ended.
        if event["Type"] == 60 && event["EndTimestamp"].is_string() {
            let place = event["TextId"].as_u64().unwrap() as usize;
            let name = texts["data"][place].as_str().unwrap().to_owned();
            *found.entry(name).or_default() += 1;
        }
    }
    found
}

#[cfg(feature = "nvtx")]
#[test]
#[ignore = "needs scripts/install-nsys.sh"]
fn nsys_sees_each_range_of_labrun() {
    use crate::support::SimPlan;
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    let mut command = Command::new(nsys_folder().join("nsys"));
    command
        .args(["profile", "-t", "nvtx", "--sample=none", "--cpuctxsw=none"])
        .arg("--output=seen")
        .arg(env!("CARGO_BIN_EXE_labrun"))
        .args(["plan.toml", "--out", "out"])
        .current_dir(lab.path(""));
    Ended::of(&command.output().unwrap()).expect_code(0);
    let cells = lab.cells();
    let passes = cells
        .iter()
        .map(|(_, cell)| cell["passes"].as_array().unwrap().len() as u64);
    let passes: u64 = passes.sum();
    let found = ranges(&lab, "seen.nsys-rep");
    assert_eq!(found["Run"], 1, "{found:?}");
    assert_eq!(found["Cell"], cells.len() as u64, "{found:?}");
    assert_eq!((found["Load"], found["Verify"]), (passes, passes));
    assert!(found["Prefill"] > 0 && found["Prefill"] == found["Decode"]);
}

/// A run of a stand-in for vLLM under the real nsys.
fn under_nsys(lab: &Lab, requests: u32) -> Command {
    profile::write_plan(lab, requests);
    let path = std::env::var("PATH").unwrap();
    let mut command = lab.command(&profile::RUN);
    command
        .env("PATH", format!("{}:{path}", nsys_folder().display()))
        .env("LAB", lab.path(""))
        .env("LABRUN", env!("CARGO_BIN_EXE_labrun"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Processes whose command line or environment names the lab's folder, but for this one.
fn left(lab: &Lab) -> Vec<String> {
    let folder = lab.path("").display().to_string();
    let named = |pid: &str, file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| pid.parse() != Ok(std::process::id()))
        .filter(|pid| named(pid, "environ").contains(&folder))
        .map(|pid| named(&pid, "cmdline"))
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
#[ignore = "needs scripts/install-nsys.sh"]
fn nsys_takes_labruns_arguments_and_a_server_under_it_is_measured() {
    let lab = Lab::new();
    let ended = under_nsys(&lab, 2).stderr(Stdio::piped()).output().unwrap();
    Ended::of(&ended).expect_code(0);
    let (_, cell) = lab.cells().remove(0);
    for pass in cell["passes"].as_array().unwrap() {
        assert_eq!(pass["verdict"]["status"], "valid", "{pass:#}");
    }
    assert_eq!(left(&lab), [""; 0]);
}

#[test]
#[ignore = "needs scripts/install-nsys.sh"]
fn nsys_a_run_that_is_stopped_or_killed_leaves_no_server() {
    for (signals, cleans) in [
        (&["TERM"][..], false),
        (&["TERM", "TERM"], false),
        (&["KILL"], true),
    ] {
        let lab = Lab::new();
        let mut child = under_nsys(&lab, 3_000).spawn().unwrap();
        let measures = || {
            let events = std::fs::read_to_string(lab.path("out/events.jsonl"));
            events.is_ok_and(|text| text.contains("\"phase\":\"load\""))
        };
        assert!(wait_until(PATIENCE, measures), "the load did not begin");
        let is_server = |line: &String| line.contains("sim --model");
        assert!(left(&lab).iter().any(is_server), "{:?}", left(&lab));
        for signal in signals {
            let pid = child.id().to_string();
            let sent = Command::new("kill").args(["-s", signal, &pid]).status();
            assert!(sent.unwrap().success());
            std::thread::sleep(Duration::from_millis(200));
        }
        child.wait().unwrap();
        if cleans {
            // Any labrun that starts meanwhile, of another test, removes it too.
            Ended::of(&lab.command(&["clean"]).output().unwrap()).expect_code(0);
            wait_until(PATIENCE, || left(&lab).is_empty());
        }
        assert_eq!(left(&lab), [""; 0], "after {signals:?}");
    }
}
