//! Accidents and edits in a run's folder: whatever is changed is found by `verify`, and no reader believes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use labrun::internals::schema::CellRecord;
use labrun::internals::{read_run, sealed, verify};

use crate::support::{Lab, SimPlan, copy};
use crate::verify::differences;

/// A run of two cells, and another of the same plan.
fn measured() -> Lab {
    let lab = Lab::new();
    lab.run_sim(&SimPlan::default()).expect_code(0);
    lab
}

/// The cells that can be used, by id.
fn usable(run: &Path) -> BTreeMap<String, CellRecord> {
    let cells = read_run(run).map(|run| run.cells).unwrap_or_default();
    let named = cells.into_iter().map(|cell| (cell.id.clone(), cell));
    named.collect()
}

/// The files of the record: those of the cells, and of the run all but its reports.
fn recorded_files(lab: &Lab) -> Vec<PathBuf> {
    let all = lab.files("out").into_iter().map(|(path, _)| path);
    let is_recorded = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        path.to_string_lossy().contains("/out/cells/")
            || ["manifest.json", "plan.toml", "events.jsonl"].contains(&name.as_str())
    };
    all.filter(is_recorded).collect()
}

/// Whether each cell that can be used now is as it was `before`: it may be refused, never changed.
#[track_caller]
fn assert_not_believed(what: &str, before: &BTreeMap<String, CellRecord>, run: &Path) {
    for (id, cell) in usable(run) {
        assert_eq!(before.get(&id), Some(&cell), "{what}: {id} is believed");
    }
}

#[track_caller]
fn assert_found(what: &str, run: &Path) {
    let found = verify(run).unwrap();
    assert!(
        found.differs && !differences(&found).is_empty(),
        "{what}: `verify` finds nothing"
    );
}

/// The file with a bit changed at a few places, cut, emptied and removed.
fn damages(whole: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
    const PLACES: usize = 5;
    let mut all = vec![("removed".to_owned(), None)];
    let step = whole.len().div_ceil(PLACES).max(1);
    for at in (0..whole.len()).step_by(step) {
        let mut torn = whole.to_vec();
        // Another bit at each place.
        torn[at] ^= 1_u8 << (at / step % 8);
        all.push((format!("a bit at byte {at}"), Some(torn)));
    }
    for length in [0, whole.len() / 2, whole.len().saturating_sub(1)] {
        if length < whole.len() {
            all.push((
                format!("cut to {length} bytes"),
                Some(whole[..length].to_vec()),
            ));
        }
    }
    all
}

#[test]
fn no_bit_no_cut_and_no_missing_file_of_a_record_is_believed() {
    let lab = measured();
    let run = lab.path("out");
    let before = usable(&run);
    assert_eq!(before.len(), 2);
    let mut tried = 0;
    for path in recorded_files(&lab) {
        let whole = std::fs::read(&path).unwrap();
        let name = path.strip_prefix(&run).unwrap().display().to_string();
        let cell = path.parent().unwrap();
        let is_of_cell = cell != run;
        for (how, bytes) in damages(&whole) {
            match bytes {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let what = format!("{name}, {how}");
            // Without its record a folder is no cell: the run misses it.
            let is_cell = is_of_cell && cell.join("cell.json").exists();
            assert_found(&what, if is_cell { cell } else { &run });
            assert_not_believed(&what, &before, &run);
            if ["requests.parquet", "telemetry.parquet", "cell.json"]
                .iter()
                .any(|read| name.ends_with(read))
            {
                assert_eq!(usable(&run).len(), 1, "{what}: it is used");
            }
            tried += 1;
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(tried > 100, "{tried}");
    assert_eq!(
        differences(&verify(&run).unwrap()),
        [""; 0],
        "all is as it was"
    );
}

#[test]
fn files_of_two_cells_that_changed_places_are_not_believed() {
    let lab = measured();
    let run = lab.path("out");
    let before = usable(&run);
    let cells: Vec<PathBuf> = lab.cells().into_iter().map(|(path, _)| path).collect();
    let [a, b] = cells.as_slice() else {
        panic!("{cells:?}")
    };
    let swap = |one: &Path, other: &Path| {
        let aside = run.join("aside");
        std::fs::rename(one, &aside).unwrap();
        std::fs::rename(other, one).unwrap();
        std::fs::rename(&aside, other).unwrap();
    };
    let names = [
        "cell.json",
        "requests.parquet",
        "telemetry.parquet",
        "facts.json",
        "server.log",
    ];
    for name in names {
        let (one, other) = (a.join(name), b.join(name));
        swap(&one, &other);
        assert_found(name, &run);
        assert_not_believed(name, &before, &run);
        swap(&one, &other);
    }
    swap(a, b);
    assert_found("the folders", &run);
    assert_eq!(usable(&run).len(), 0);
    // Exchanged, and with the records back in their places: only the other files are wrong.
    swap(&a.join("cell.json"), &b.join("cell.json"));
    assert_found("all but the records", &run);
    assert_eq!(usable(&run).len(), 0);
}

#[test]
fn a_copied_cell_and_one_of_another_run_are_not_believed() {
    let lab = measured();
    let run = lab.path("out");
    let before = usable(&run);
    let cell = lab.cells()[1].0.clone();
    let name = cell.file_name().unwrap().to_string_lossy().into_owned();
    let twin = cell.with_file_name(format!("{name}.bak"));
    copy(&cell, &twin);
    assert_found("copied", &run);
    assert_eq!(usable(&run), before);
    let report = lab.labrun(&["report", "out"]).expect_code(0);
    assert!(
        report.stderr.contains("copied or renamed"),
        "{}",
        report.stderr
    );
    for refused in [
        &["keep", "out", "--into", "kept"][..],
        &["diff", "out", "out"],
    ] {
        let ended = lab.labrun(refused).expect_code(2);
        assert!(
            ended.stderr.contains("copied or renamed"),
            "{}",
            ended.stderr
        );
    }
    std::fs::remove_dir_all(&twin).unwrap();
    // The same plan, measured again: the same id, other numbers.
    lab.labrun(&["plan.toml", "--out", "other"]).expect_code(0);
    std::fs::remove_dir_all(&cell).unwrap();
    copy(&lab.path("other/cells").join(&name), &cell);
    assert_found("of another run", &run);
    assert_eq!(usable(&run).len(), 1);
}

#[test]
fn damaged_cells_are_measured_again_when_a_run_is_continued() {
    let lab = measured();
    let cells: Vec<PathBuf> = lab.cells().into_iter().map(|(path, _)| path).collect();
    let cut = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    for (name, damage) in [
        ("requests.parquet", &cut as &dyn Fn(&Path)),
        ("requests.parquet", &|path| {
            std::fs::remove_file(path).unwrap();
        }),
        ("telemetry.parquet", &cut),
        ("cell.json", &|path| {
            let text = std::fs::read_to_string(path).unwrap();
            std::fs::write(path, text.replacen("\"ok\": 3", "\"ok\": 4", 1)).unwrap();
        }),
    ] {
        damage(&cells[1].join(name));
        let ended = lab.labrun(&["run", "--resume", "out"]).expect_code(0);
        let stderr = ended.stderr;
        assert!(
            stderr.contains("1 of 2 cells are finished, 1 to run"),
            "{name}: {stderr}"
        );
        assert!(
            stderr.contains(name) && stderr.contains("superseded"),
            "{name}: {stderr}"
        );
        assert_eq!(
            differences(&verify(&lab.path("out")).unwrap()),
            [""; 0],
            "{name}"
        );
    }
}

#[test]
fn a_newer_cell_stops_a_continued_run_and_nothing_is_changed() {
    let lab = measured();
    let cell = lab.cells()[1].0.join("cell.json");
    let text = std::fs::read_to_string(&cell).unwrap();
    std::fs::write(&cell, text.replacen("\"format\": 1", "\"format\": 9", 1)).unwrap();
    let before = lab.files("out");
    let ended = lab.labrun(&["run", "--resume", "out"]).expect_code(2);
    assert!(
        ended.stderr.contains("nothing in it was changed"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("format 9"), "{}", ended.stderr);
    assert!(lab.files("out") == before);
}

/// Edits of a run's files: what is replaced by what, and the words that must name it.
fn edits(lab: &Lab) -> Vec<(PathBuf, String, &'static str, &'static str)> {
    let (run, cpu) = (lab.path("out"), lab.cells()[1].0.clone());
    let summary = lab.read("out/summary.csv");
    let number = summary
        .lines()
        .nth(1)
        .unwrap()
        .split(',')
        .nth(18)
        .unwrap()
        .to_owned();
    let all = [
        (
            cpu.join("cell.json"),
            "\"valid\"",
            "\"invalid\"",
            "`cell.json` was changed",
        ),
        (
            cpu.join("cell.json"),
            "\"ok\": 3",
            "\"ok\": 2",
            "the record has 3 sent, 2 ok",
        ),
        (
            cpu.join("facts.json"),
            "\"failed\": 0",
            "\"failed\": 9",
            "`facts.json` is not the file",
        ),
        (
            run.join("manifest.json"),
            "\"seed\": 42",
            "\"seed\": 43",
            "the digest in it differs",
        ),
        (
            run.join("manifest.json"),
            "\"digest\"",
            "\"digest_\"",
            "the digest in it is gone",
        ),
        (
            run.join("plan.toml"),
            "requests = 3",
            "requests = 4",
            "`plan.toml` is not the plan",
        ),
        (
            run.join("events.jsonl"),
            "run-finished",
            "run-finishes",
            "`events.jsonl` was changed",
        ),
        (
            run.join("summary.csv"),
            &number,
            "0.001",
            "`summary.csv`, row",
        ),
    ];
    all.map(|(path, from, to, expected)| (path, from.to_owned(), to, expected))
        .to_vec()
}

#[test]
fn edits_are_named_with_what_they_changed() {
    let lab = measured();
    let run = lab.path("out");
    let cpu = lab.cells()[1].0.clone();
    let edit = |path: &Path, from: &str, to: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{from} in {}", path.display());
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
        text
    };
    for (path, from, to, expected) in edits(&lab) {
        let whole = edit(&path, &from, to);
        let found = differences(&verify(&run).unwrap());
        let is_named = found.iter().any(|it| it.contains(expected));
        assert!(is_named, "{}, {from}: {found:?}", path.display());
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(differences(&verify(&run).unwrap()), [""; 0]);
    // A file that labrun would read, where none was recorded; and one for people.
    std::fs::write(cpu.join("notes.txt"), "x").unwrap();
    let found = verify(&run).unwrap();
    assert!(!found.differs, "{found:?}");
}

#[test]
fn a_record_that_lies_consistently_is_found_by_what_it_says() {
    let lab = measured();
    let run = lab.path("out");
    let cpu = lab.cells()[1].0.join("cell.json");
    // Whoever writes every hash again is found by the numbers.
    let text = std::fs::read_to_string(&cpu).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["passes"][1]["evidence"]["external_tokens"] = 1.0.into();
    let (text, _) = sealed(record).unwrap();
    std::fs::write(&cpu, text).unwrap();
    let found = differences(&verify(&run).unwrap());
    let is_named = |words: &str| found.iter().any(|it| it.contains(words));
    assert!(
        is_named("evidence `external_tokens`: the record has 1"),
        "{found:?}"
    );
    assert!(is_named("`events.jsonl` has another digest"), "{found:?}");
}

#[test]
fn damaged_requests_of_version_0_1_are_refused_or_read_and_never_panic() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/run_0.1");
    let lab = Lab::new();
    copy(&old, &lab.path("out"));
    let cell = lab.cells()[0].0.join("requests.parquet");
    let whole = std::fs::read(&cell).unwrap();
    let run = lab.path("out");
    for at in (0..whole.len()).step_by(61) {
        let mut torn = whole.clone();
        torn[at] ^= 8;
        std::fs::write(&cell, &torn).unwrap();
        assert!(verify(cell.parent().unwrap()).is_ok(), "byte {at}");
    }
    std::fs::remove_file(&cell).unwrap();
    assert_found("removed", &run);
    assert_eq!(read_run(&run).unwrap().unreadable.len(), 1);
}
