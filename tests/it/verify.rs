//! `labrun verify`: a run judged again from its files.

use std::path::{Path, PathBuf};

use labrun::internals::{CacheState, Verification, schema::VerdictStatus, verify};
use serde_json::Value;

use crate::support::{Lab, SimPlan};

/// A folder of the tests' data.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// Everything that differs, the cells' and the passes' too.
pub(crate) fn differences(found: &Verification) -> Vec<String> {
    let mut all = found.differences.clone();
    for cell in &found.cells {
        all.extend(cell.differences.clone());
        all.extend(cell.passes.iter().flat_map(|pass| pass.differences.clone()));
    }
    all
}

#[test]
fn a_run_that_nobody_touched_verifies_and_so_do_its_report_its_continuation_and_its_copy() {
    let lab = Lab::new();
    let tiers = r#"["baseline", "cpu", "disk", "redis", "native", "cpu+disk"]"#;
    let plan = SimPlan {
        tiers,
        ..SimPlan::default()
    };
    lab.run_sim(&plan).expect_code(0);
    let whole = |run: &str| {
        let ended = lab.labrun(&["verify", run]).expect_code(0);
        let stdout = ended.stdout;
        assert!(
            stdout.contains("give the same numbers and verdicts"),
            "{stdout}"
        );
        assert!(
            !stdout.contains("DIFFERS") && !stdout.contains("note:"),
            "{stdout}"
        );
        let cell = &lab.cells_of(run)[0].0;
        lab.labrun(&["verify", &cell.to_string_lossy()])
            .expect_code(0);
    };
    whole("out");
    lab.labrun(&["report", "out", "--slo", "ttft_p50 < 100ms"]);
    whole("out");
    lab.labrun(&["run", "--resume", "out"]).expect_code(0);
    whole("out");
    crate::support::copy(&lab.path("out"), &lab.path("moved"));
    whole("moved");
    let json = lab
        .labrun(&["verify", "out", "--json"])
        .expect_code(0)
        .stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["differs"], false);
    assert_eq!(json["cells"][0]["passes"][0]["judged"]["status"], "valid");
}

#[test]
fn shards_verify_and_so_does_what_they_are_merged_into() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    for out in lab.run_halves() {
        lab.labrun(&["verify", out]).expect_code(0);
    }
    lab.labrun(&["merge", "both", "part1", "part2"])
        .expect_code(0);
    let stdout = lab.labrun(&["verify", "both"]).expect_code(0).stdout;
    assert!(!stdout.contains("note:"), "{stdout}");
    // A part that was damaged is merged by nobody.
    let damaged = &lab.cells_of("part2")[0].0.join("requests.parquet");
    std::fs::write(damaged, "x").unwrap();
    let refused = lab
        .labrun(&["merge", "again", "part1", "part2"])
        .expect_code(2);
    assert!(
        refused.stderr.contains("requests.parquet"),
        "{}",
        refused.stderr
    );
    assert!(!lab.path("again").exists());
}

#[test]
fn an_imported_run_verifies() {
    let lab = Lab::new();
    lab.run_sim(&SimPlan::default()).expect_code(0);
    let cell = &lab.cells()[0].0;
    let csv = std::fs::read_dir(cell).unwrap().flatten();
    let csv = csv.map(|entry| entry.path());
    let csv = csv
        .into_iter()
        .find(|path| path.to_string_lossy().contains("metrics_"))
        .unwrap();
    lab.labrun(&[
        "import",
        &csv.to_string_lossy(),
        "--out",
        "imported",
        "--concurrency",
        "1",
    ])
    .expect_code(0);
    let stdout = lab.labrun(&["verify", "imported"]).expect_code(0).stdout;
    assert!(stdout.contains("nothing to judge it by"), "{stdout}");
}

#[test]
fn what_is_no_run_is_a_usage_error() {
    let lab = Lab::new();
    lab.labrun(&["verify", "nowhere"]).expect_code(2);
    lab.write("folder/file", "");
    lab.labrun(&["verify", "folder"]).expect_code(2);
}

#[test]
fn a_run_of_version_0_1_is_judged_and_its_lack_of_hashes_named() {
    let found = verify(&data("run_0.1")).unwrap();
    assert_eq!(found.without_hashes, 4);
    assert_eq!(differences(&found), [""; 0]);
    assert!(
        found.notes.iter().any(|note| note.contains("no hashes")),
        "{found:?}"
    );
    for pass in found.cells.iter().flat_map(|cell| &cell.passes) {
        let judged = pass.judged.as_ref().map(|judged| judged.status);
        assert_eq!(judged, Some(VerdictStatus::Valid));
    }
}

/// The verdict of today on the tier pass of a cell of labrun 0.1.
fn tier_pass(cell: &str) -> (VerdictStatus, VerdictStatus, Vec<String>) {
    let found = verify(&data("h200").join(cell)).unwrap();
    let passes = &found.cells[0].passes;
    let tier = passes
        .iter()
        .find(|pass| pass.state == CacheState::Tier)
        .unwrap();
    let judged = tier.judged.clone().unwrap();
    (tier.recorded, judged.status, judged.reasons)
}

#[test]
fn a_tier_that_gave_back_half_of_the_kv_is_invalid_by_its_bytes() {
    let short = "moved to the GPU over PCIe for 12288 MiB of KV: the hits were not loaded";
    // labrun 0.1 judged the disk's own bytes alone.
    for (cell, was) in [
        ("disk-0.5.2", VerdictStatus::Valid),
        ("cpu-0.5.2", VerdictStatus::Invalid),
    ] {
        let (recorded, judged, reasons) = tier_pass(cell);
        assert_eq!(
            (recorded, judged),
            (was, VerdictStatus::Invalid),
            "{cell}: {reasons:?}"
        );
        assert!(
            reasons.iter().any(|reason| reason.contains(short)),
            "{cell}: {reasons:?}"
        );
    }
    let lab = Lab::new();
    crate::support::copy(&data("h200/disk-0.5.2"), &lab.path("disk"));
    let ended = lab.labrun(&["verify", "disk"]).expect_code(1);
    let differs = "DIFFERS: judged `valid` by labrun 0.1, `invalid` by this labrun: ";
    assert!(ended.stdout.contains(differs), "{}", ended.stdout);
    assert!(ended.stdout.contains(short), "{}", ended.stdout);
}

#[test]
fn a_tier_that_gave_back_all_of_it_stays_as_good_as_its_text() {
    for cell in ["native", "cpu-0.5.6-multi-process"] {
        let (_, judged, reasons) = tier_pass(cell);
        assert_ne!(judged, VerdictStatus::Invalid, "{cell}: {reasons:?}");
        let is_text = |reason: &String| reason.contains("canar") || reason.contains("text");
        let worst = reasons.first().unwrap();
        assert!(
            judged == VerdictStatus::Valid || is_text(worst),
            "{cell}: {reasons:?}"
        );
        let moved = "MiB moved to the GPU over PCIe for 12288 MiB of KV";
        let moved: Vec<_> = reasons
            .iter()
            .filter(|reason| reason.ends_with(moved))
            .collect();
        assert_eq!(moved.len(), 1, "{cell}: {reasons:?}");
    }
    let (_, judged, _) = tier_pass("baseline");
    assert_eq!(judged, VerdictStatus::Valid);
    let (_, judged, reasons) = tier_pass("disk-0.5.2-sensitive");
    assert_eq!(judged, VerdictStatus::Invalid);
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("canary answers changed"))
    );
    let (_, judged, reasons) = tier_pass("disk-0.5.6-multi-process");
    assert_eq!(judged, VerdictStatus::Invalid);
    assert!(reasons[0].contains("81920 of 98304"), "{reasons:?}");
}
