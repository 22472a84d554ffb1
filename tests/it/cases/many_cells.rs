//! Reports of thousands of cells.

use std::path::Path;

use serde_json::Value;

use crate::support::{Lab, SimPlan};

/// A run of `count` cells of each of two tiers, made of one that was measured. The copies are as labrun 0.1
/// wrote cells: a seal would show that they were changed.
fn run_of(lab: &Lab, count: u32) {
    lab.run_sim(&SimPlan::default()).expect_code(0);
    let cells = lab.cells();
    for (folder, record) in cells {
        for number in 0..count {
            let mut record = record.clone();
            let fields = record.as_object_mut().unwrap();
            for seal in ["files", "digest"] {
                fields.remove(seal).unwrap();
            }
            let tier = record["coordinates"]["tier"].as_str().unwrap().to_owned();
            let id = format!("x-{tier}-{number}");
            record["coordinates"]["prompt_len"] = (600 + number).into();
            record["position"] = (10 + number).into();
            record["id"] = Value::from(id.clone());
            let to = lab.path(&format!("out/cells/{id}"));
            std::fs::create_dir_all(&to).unwrap();
            std::fs::write(to.join("cell.json"), record.to_string()).unwrap();
            for name in ["requests.parquet", "telemetry.parquet"] {
                std::fs::hard_link(folder.join(name), to.join(name)).unwrap();
            }
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}

fn megabytes(path: &Path) -> f64 {
    std::fs::metadata(path).unwrap().len() as f64 / 1e6
}

/// The report of so many cells, whose page and every page beside it opens in a browser.
#[expect(clippy::print_stdout, reason = "figures for whoever runs it by hand")]
fn check(cells: u32) {
    let lab = Lab::new();
    run_of(&lab, cells / 2);
    let began = std::time::Instant::now();
    lab.labrun(&["report", "out"]).expect_code(0);
    println!("{cells} cells: {:.1} s", began.elapsed().as_secs_f64());
    let page = lab.path("out/report.html");
    println!("report.html {:.2} MB", megabytes(&page));
    assert!(megabytes(&page) < 5.0, "{} MB", megabytes(&page));
    let text = lab.read("out/report.html");
    let answer = text.find("id=\"answer\"").or_else(|| text.find("<table"));
    assert!(
        answer.is_some_and(|at| at < 200_000),
        "the summary comes first"
    );
    let mut shown = 0;
    for (path, bytes) in lab.files("out/evidence") {
        assert!(bytes.len() < 5_000_000, "{}", path.display());
        let text = String::from_utf8_lossy(&bytes);
        shown += text.matches("<details id=\"cell-").count();
    }
    assert_eq!(shown, cells as usize, "each cell's evidence is in a page");
    println!("report.md {:.2} MB", megabytes(&lab.path("out/report.md")));
}

#[test]
#[ignore = "takes a while without optimizations"]
fn report_of_2_000_cells_opens() {
    check(2_000);
}

#[test]
#[ignore = "takes a minute without optimizations"]
fn report_of_10_000_cells_opens() {
    check(10_000);
}
