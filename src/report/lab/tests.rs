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
fn files_of_the_earlier_lab_are_enough() {
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
    let files = plot_lab_csvs(&paths).unwrap();
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ttft.png", "ttft.svg", "e2e.png", "e2e.svg"]);
    let ttft = svg(&files, "ttft.svg");
    for text in [
        "Time to first token",
        "baseline",
        "cpu",
        "1k",
        "label chat, gen_len 100",
        "of 2 ok requests a point",
        "from 2 CSV files, which hold no verdicts",
        "do not say whether their numbers are measured or simulated",
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
    let mut groups = BTreeMap::new();
    collect(&paths[0], &mut groups).unwrap();
    let groups: Vec<_> = groups.into_iter().collect();
    assert_eq!(groups.len(), 2);
    let (key, values) = &groups[0];
    assert_eq!(values.ttft_ms, [200.0, 400.0]);
    assert_eq!(values.e2e_ms, [1000.0, 2000.0]);
    assert_eq!(
        (key.label.as_str(), key.concurrency, key.source),
        ("1", Some(8), None)
    );
    assert_eq!(key.extra, [("server.args.x".to_owned(), "a".to_owned())]);
}

#[test]
fn our_own_files_keep_saying_that_they_are_simulated() {
    let run = realistic();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics_a.csv");
    let mut rows = rows_of(&[200.0, 210.0], 0);
    rows.push(failed_row(2));
    write_lab_csv(&rows, &run.cells[0].coordinates, run.cells[0].source, &path).unwrap();
    let files = plot_lab_csvs(&[path.clone(), path]).unwrap();
    let ttft = svg(&files, "ttft.svg");
    assert!(
        ttft.contains(">\nsimulated") && ttft.contains("state cold"),
        "{ttft}"
    );
    // The same file twice is one file, and the failed request is no sample.
    assert!(ttft.contains("of 2 ok requests a point") && ttft.contains("from 1 CSV file,"));
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let (_folder, paths) = folder(&[("metrics_odd.csv", text)]);
    let error = format!("{:#}", plot_lab_csvs(&paths).unwrap_err());
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
        "column `prompt_len` is not all numbers: conversion from `str` to `f64` failed in column \
         'prompt_len' for 1 out of 1 values: [\"many\"]",
    );
    refused(
        "ttft,e2e,prompt_len,gen_len,tier,label\n0.1,1,1024,,cpu,l\n",
        "row 1 has no usable `gen_len`",
    );
    refused(
        "ttft,e2e,prompt_len,gen_len,tier,label\n,,1024,1,cpu,l\n",
        "no answered request in 1 file",
    );
    let none = plot_lab_csvs(&[PathBuf::from("/nowhere/metrics_a.csv")]).unwrap_err();
    assert!(
        format!("{none:#}").starts_with("cannot plot `/nowhere/metrics_a.csv`: "),
        "{none:#}"
    );
}
