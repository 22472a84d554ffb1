//! What the client counted is counted again by `verify` from the requests and the telemetry: whoever edits a file and
//! writes every hash again is found by the numbers alone.

use std::path::Path;

use labrun::internals::schema::RequestRow;
use labrun::internals::{
    CacheState, Point, Points, Series, SeriesKey, read_parquet, read_readings, sealed, verify,
    write_parquet, write_telemetry,
};
use serde_json::{Value, json};

use crate::support::{Lab, SimPlan};
use crate::verify::differences;

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Writes the hashes of all files of `cell` into its record, and the digest of that.
fn reseal(cell: &Path) {
    let path = cell.join("cell.json");
    let mut record = read_json(&path);
    for (name, hash) in record["files"].as_object_mut().unwrap() {
        let bytes = std::fs::read(cell.join(name)).unwrap();
        let blake3 = blake3::hash(&bytes).to_hex().to_string();
        *hash = json!({ "bytes": bytes.len(), "blake3": blake3 });
    }
    std::fs::write(&path, sealed(record).unwrap().0).unwrap();
}

/// Changes the requests of the tier pass of `cell`.
fn edit_rows(cell: &Path, edit: impl Fn(&mut RequestRow)) {
    let path = cell.join("requests.parquet");
    let mut rows = read_parquet(&path).unwrap();
    let of_tier = rows.iter_mut().filter(|row| row.state == CacheState::Tier);
    of_tier.for_each(edit);
    write_parquet(&rows, &path).unwrap();
}

/// Changes the facts of the tier pass of `cell`.
fn edit_facts(cell: &Path, edit: impl Fn(&mut Value)) {
    let path = cell.join("facts.json");
    let mut bases = read_json(&path);
    let facts = bases.as_array_mut().unwrap().last_mut().unwrap();
    edit(&mut facts["facts"]);
    std::fs::write(&path, bases.to_string()).unwrap();
}

/// Changes every reading of how many requests the engine runs.
fn edit_running(cell: &Path, requests: f64) {
    let path = cell.join("telemetry.parquet");
    let seconds = std::time::Duration::from_secs_f64;
    let mut points = Points::new();
    for (series, devices) in read_readings(&path).unwrap() {
        for (device, readings) in devices {
            let is_running = series == Series::EngineRunning;
            let own = readings.iter().map(|reading| Point {
                at: seconds(reading.time_s),
                span: seconds(reading.span_s),
                value: if is_running { requests } else { reading.value },
                late: false,
                slowed: false,
            });
            let device = device.as_str().into();
            points.insert(SeriesKey { series, device }, own.collect());
        }
    }
    write_telemetry(&points, &path).unwrap();
}

type Edit = fn(&Path);

/// Edits of a cell of concurrency 1, and the words that must name each.
const EDITS: [(Edit, &str); 11] = [
    (
        |cell| edit_rows(cell, |row| row.output_tokens = Some(5)),
        "an answer has 5 output tokens by its usage, 4 were asked for",
    ),
    (
        |cell| edit_rows(cell, |row| row.token_events = Some(9)),
        "an answer has 4 output tokens by its usage, and came in 9 events with tokens",
    ),
    (
        |cell| {
            edit_rows(cell, |row| {
                (row.gen_len, row.output_tokens) = (40, Some(40));
            });
        },
        "the answers have 120 output tokens by their usage, the server generated",
    ),
    (
        |cell| edit_rows(cell, |row| row.cached_tokens = Some(row.prompt_len + 1)),
        "an answer's usage has 1,025 cached tokens of 1,024 prompt tokens",
    ),
    (
        |cell| edit_rows(cell, |row| row.cached_tokens = Some(0)),
        "cached tokens of the answers: `facts.json` has",
    ),
    (
        |cell| edit_rows(cell, |row| row.prompt_len += 1),
        "prompts of another length than planned: `facts.json` has 0, the requests 3",
    ),
    (
        |cell| edit_rows(cell, |row| row.sent_ms = 0.0),
        "3 requests were in flight at once, the cell's concurrency is 1",
    ),
    (
        |cell| edit_running(cell, 9.0),
        "the server ran 9 requests at once, this load has at most 1 in flight",
    ),
    (
        |cell| edit_facts(cell, |facts| facts["counted"]["running_max"] = 3.0.into()),
        "most requests that the engine ran: `facts.json` has 3, the telemetry gives",
    ),
    (
        |cell| edit_facts(cell, |facts| facts["counted"]["in_flight"] = 7.into()),
        "most requests in flight: `facts.json` has 7, the cell's concurrency is 1",
    ),
    (
        |cell| {
            edit_facts(cell, |facts| {
                facts["counted"]["server_prompt_tokens"] = 9999.0.into();
            });
        },
        "evidence `server_prompt_tokens`: the record has",
    ),
];

/// A cell of a cpu tier, after `plan`.
fn measured(plan: &str) -> (Lab, std::path::PathBuf) {
    let lab = Lab::new();
    lab.write("plan.toml", plan);
    lab.labrun(&["plan.toml", "--out", "out"]).expect_code(0);
    let cell = lab.cells()[1].0.clone();
    (lab, cell)
}

#[test]
fn every_count_of_the_client_is_counted_again_from_the_files() {
    let (lab, cell) = measured(&SimPlan::default().text());
    let whole = lab.path("whole");
    crate::support::copy(&cell, &whole);
    reseal(&cell);
    assert_eq!(differences(&verify(&cell).unwrap()), [""; 0]);
    for (edit, expected) in EDITS {
        edit(&cell);
        reseal(&cell);
        let found = differences(&verify(&cell).unwrap());
        let is_named = found.iter().any(|it| it.contains(expected));
        assert!(is_named, "{expected}: {found:?}");
        std::fs::remove_dir_all(&cell).unwrap();
        crate::support::copy(&whole, &cell);
    }
}

#[test]
fn canaries_within_the_load_hide_no_count_of_the_others() {
    let text = SimPlan::default().text();
    let text = text.replace("warmup = 1", "warmup = 1\ncanaries_in_load = 1");
    let (_lab, cell) = measured(&text);
    assert_eq!(differences(&verify(&cell).unwrap()), [""; 0]);
    edit_rows(&cell, |row| row.output_tokens = Some(3));
    reseal(&cell);
    let found = differences(&verify(&cell).unwrap());
    assert!(
        found
            .iter()
            .any(|it| it.starts_with("output tokens of the answers: `facts.json` has")),
        "{found:?}"
    );
}
