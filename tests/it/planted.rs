//! What somebody else puts into a run's folder, and commands that write there at the same time.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use labrun::internals::verify;

use crate::support::{Ended, Lab, SimPlan};
use crate::verify::differences;

fn measured() -> Lab {
    let lab = Lab::new();
    lab.run_sim(&SimPlan::default()).expect_code(0);
    lab
}

#[test]
fn a_link_in_place_of_a_folder_of_the_run_is_refused_and_nothing_is_written_behind_it() {
    let lab = measured();
    lab.write("elsewhere/cells-9.html", "precious");
    let before = lab.files("elsewhere");
    for (name, arguments) in [
        ("figures", &["report", "out"][..]),
        ("evidence", &["report", "out"]),
        ("export", &["export", "out", "--format", "csv"]),
        ("superseded", &["run", "--resume", "out"]),
        ("cells", &["run", "--resume", "out"]),
    ] {
        let (place, aside) = (lab.path("out").join(name), lab.path("aside"));
        let is_there = place.exists();
        if is_there {
            std::fs::rename(&place, &aside).unwrap();
        }
        symlink(lab.path("elsewhere"), &place).unwrap();
        if name == "superseded" {
            // A damaged cell is put aside.
            std::fs::write(lab.cells()[0].0.join("requests.parquet"), "x").unwrap();
        }
        let refused = lab.labrun(arguments).expect_code(2);
        let expected = format!("/{name}` is a link; remove it");
        let stderr = refused.stderr.replace("out/", "/");
        assert!(
            stderr.contains(&expected) || stderr.contains(&format!("`{name}` is a link")),
            "{name}: {stderr}"
        );
        assert!(lab.files("elsewhere") == before, "{name}");
        std::fs::remove_file(&place).unwrap();
        if is_there {
            std::fs::rename(&aside, &place).unwrap();
        }
    }
}

#[test]
fn a_link_in_place_of_a_file_that_is_written_is_replaced_and_its_target_stays() {
    let lab = measured();
    let victim = lab.write("victim", "precious");
    let link = |place: &Path| {
        std::fs::remove_file(place).unwrap();
        symlink(&victim, place).unwrap();
    };
    let tables = ["summary.csv", "comparison.csv", "report.html", "report.md"];
    for name in tables {
        link(&lab.path("out").join(name));
    }
    lab.labrun(&["report", "out"]).expect_code(0);
    let kept = ["keep", "out", "--into", "kept"];
    lab.labrun(&kept).expect_code(0);
    let files = lab.files("kept").into_iter().map(|(path, _)| path);
    let files: Vec<_> = files.collect();
    for path in &files {
        link(path);
    }
    lab.labrun(&kept).expect_code(0);
    let written = tables.map(|name| lab.path("out").join(name));
    for path in written.iter().chain(&files) {
        let is_file = path.symlink_metadata().unwrap().is_file();
        assert!(is_file, "{}", path.display());
    }
    assert_eq!(lab.read("victim"), "precious");
}

#[test]
fn links_and_pipes_in_a_part_are_not_merged() {
    let lab = Lab::new();
    lab.write("plan.toml", &SimPlan::default().text());
    lab.run_halves();
    let secret = lab.write("secret", "precious");
    let planted = lab.cells_of("part2")[0].0.join("notes.txt");
    let link: &dyn Fn() = &|| symlink(&secret, &planted).unwrap();
    let pipe: &dyn Fn() = &|| {
        let made = Command::new("mkfifo").arg(&planted).status().unwrap();
        assert!(made.success());
    };
    for (plant, why) in [(link, "is a link; remove it"), (pipe, "it is a named pipe")] {
        plant();
        let refused = lab.labrun(&["merge", "both", "part1", "part2"]);
        let refused = refused.expect_code(2);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        let merged = lab.files("both").into_iter();
        let is_secret = |(_, bytes): (_, Vec<u8>)| bytes == b"precious";
        assert!(!merged.into_iter().any(is_secret), "{why}");
        std::fs::remove_file(&planted).unwrap();
    }
    // What was cut short is merged again.
    lab.labrun(&["merge", "both", "part1", "part2"])
        .expect_code(0);
    lab.labrun(&["verify", "both"]).expect_code(0);
}

#[test]
fn reports_keeps_and_imports_at_once_beside_a_run_leave_each_file_whole() {
    let lab = measured();
    let table = lab.files("out/cells").into_iter().map(|(path, _)| path);
    let is_table = |path: &std::path::PathBuf| path.to_string_lossy().contains("/metrics_");
    let table = table.into_iter().find(is_table).unwrap();
    std::fs::remove_dir_all(&lab.cells()[1].0).unwrap();
    let start = |arguments: &[&str]| {
        let mut command = lab.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let run = start(&["run", "--resume", "out"]);
    let table = table.to_string_lossy();
    let import = ["import", &table, "--out", "imported", "--concurrency", "1"];
    let mut all = Vec::new();
    for _ in 0..2 {
        all.push(start(&["report", "out"]));
        all.push(start(&["keep", "out", "--into", "kept", "--partial"]));
        all.push(start(&import));
    }
    let ended: Vec<Ended> = all
        .into_iter()
        .map(|child| Ended::of(&child.wait_with_output().unwrap()))
        .collect();
    Ended::of(&run.wait_with_output().unwrap()).expect_code(0);
    // Of two imports into one folder one is refused.
    let refused: Vec<_> = ended.iter().filter(|one| one.code != Some(0)).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].code, Some(2), "{}", refused[0].stderr);
    lab.labrun(&["report", "out"]).expect_code(0);
    for run in ["out", "imported"] {
        let found = differences(&verify(&lab.path(run)).unwrap());
        assert_eq!(found, [""; 0], "{run}");
    }
    for (path, bytes) in [lab.files("out"), lab.files("kept")].concat() {
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(!name.starts_with(".tmp-"), "{}", path.display());
        assert!(!bytes.is_empty(), "{}", path.display());
    }
}
