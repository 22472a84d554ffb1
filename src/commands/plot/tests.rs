use std::fs;

use super::*;
use crate::aggregate::fixture::{realistic, rows_of};
use crate::record::frame::tests::failed_row;
use crate::record::lab_csv::write_lab_csv;

/// Files in a folder of their own, and what their names begin with.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let paths = files.iter().map(|(name, text)| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    });
    let paths = paths.collect();
    (folder, paths)
}

fn svg(files: &[(String, Vec<u8>)], name: &str) -> String {
    let (_, bytes) = files.iter().find(|(known, _)| known == name).unwrap();
    String::from_utf8(bytes.clone()).unwrap()
}

#[test]
fn files_of_the_replaced_scripts_are_enough() {
    let (_folder, paths) = folder(&[
        (
            "metrics_baseline.csv",
            "ttft,avg_itl,e2e,prompt_len,gen_len,tier,label\n\
             0.200,0.01,1.2,1024,100,baseline,chat\n\
             0.300,0.01,1.3,1024,100,baseline,chat\n",
        ),
        (
            "metrics_cpu.csv",
            "ttft,avg_itl,e2e,prompt_len,gen_len,tier,label\n\
             ,,,1024,100,cpu,chat\n\
             0.050,0.01,1.1,1024.0,100,cpu,chat\n\
             0.070,0.01,1.1,1024,100,cpu,chat\n",
        ),
    ]);
    let files = figures(&paths).unwrap();
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ttft.png", "ttft.svg", "e2e.png", "e2e.svg"]);
    let ttft = svg(&files, "ttft.svg");
    for text in [
        "Time to first token",
        "baseline",
        "cpu",
        "1k",
        "workload chat, gen_len 100",
        "of 2 ok requests a point",
        "from 2 files, which hold no verdicts",
        "do not state whether their numbers are measured or simulated",
    ] {
        assert!(ttft.contains(text), "{text}");
    }
    assert!(!ttft.contains(">\nsimulated"));
}

#[test]
fn requests_are_grouped_and_seconds_become_milliseconds() {
    let (_folder, paths) = folder(&[(
        "m.csv",
        "ttft,e2e,prompt_len,gen_len,tier,label,outcome,state,concurrency,server.args.x\n\
         0.2,1.0,1024,100,cpu,1,ok,cold,8,a\n\
         0.4,2.0,1024,100,cpu,1,ok,cold,8,a\n\
         0.9,9.0,1024,100,cpu,1,unfinished,cold,8,a\n\
         0.5,3.0,1024,100,cpu,1,ok,cold,8,b\n",
    )]);
    let points = points(read(&paths, &Defaults::default()).unwrap());
    assert_eq!(points.len(), 2);
    let point = &points[0];
    assert_eq!(point.ttft_ms, [200.0, 400.0]);
    assert_eq!(point.e2e_ms, [1000.0, 2000.0]);
    assert_eq!((point.concurrency, point.source), (Some(8), None));
    let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        point.facts,
        [
            fact("workload", "1"),
            fact("gen_len", "100"),
            fact("server.args.x", "a"),
            fact("state", "cold")
        ]
    );
}

#[test]
fn our_own_files_keep_saying_that_they_are_simulated() {
    let run = realistic();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics_a.csv");
    let mut rows = rows_of(&[200.0, 210.0], 0);
    rows.push(failed_row(2));
    write_lab_csv(&rows, &run.cells[0].coordinates, run.cells[0].source, &path).unwrap();
    let files = figures(&[path]).unwrap();
    let ttft = svg(&files, "ttft.svg");
    assert!(
        ttft.contains(">\nsimulated") && ttft.contains("state cold"),
        "{ttft}"
    );
    // The failed request is not a sample.
    assert!(ttft.contains("of 2 ok requests a point") && ttft.contains("from 1 file,"));
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let (_folder, paths) = folder(&[("metrics_odd.csv", text)]);
    let error = format!("{:#}", figures(&paths).unwrap_err());
    assert!(error.ends_with(expected), "{error}");
    assert!(
        error.contains("metrics_odd.csv") || error.contains("1 file"),
        "{error}"
    );
}

#[test]
fn errors_name_the_file_and_what_it_lacks() {
    refused(
        "ttft,e2e,prompt_len,label\n1,2,3,l\n",
        "no column `gen_len`, `tier`; it has `ttft`, `e2e`, `prompt_len`, `label`",
    );
    refused(
        "ttft,e2e,prompt_len,gen_len,tier,label\n0.1,1,many,1,cpu,l\n",
        "row 2, column `prompt_len`: invalid value `many`: expected a number",
    );
    refused(
        "ttft,e2e,prompt_len,gen_len,tier,label\n0.1,1,1024,,cpu,l\n",
        "row 2 has no `gen_len`",
    );
    refused(
        "ttft,e2e,prompt_len,gen_len,tier,label\n,,1024,1,cpu,l\n",
        "no answered request in 1 file",
    );
    let (folder, _) = folder(&[]);
    let refusal = |path: &Path| format!("{:#}", figures(&[path.to_owned()]).unwrap_err());
    assert!(refusal(Path::new("/nowhere/a.csv")).starts_with("reading `/nowhere/a.csv`: "));
    assert!(refusal(folder.path()).ends_with("is a folder: name a regular file"));
}
