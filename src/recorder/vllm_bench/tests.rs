use super::*;
use crate::record::frame::tests::{failed_row, good_row};

const CAPTURED: &str = include_str!(
    "../../../tests/data/captures/vllm-bench-0.32.0/bench_serve_4_BENCH__random_input_len_2048.json"
);

fn cell() -> (CellRecord, PassRecord) {
    let cell = serde_json::from_value(json!({
        "format": 1, "id": "c", "position": 1, "source": "simulated", "model": "m",
        "coordinates": {"label": "l", "tier": "cpu", "prompt_len": 1024, "gen_len": 4,
                        "concurrency": 2, "repeat": 1},
        "outcome": {"kind": "completed"}, "passes": [], "warnings": [],
        "server": {"launcher": "sim", "version": null, "lmcache": "none", "ready_s": null,
                   "stopped": null, "reused": false},
    }));
    let pass = serde_json::from_value(json!({
        "state": "tier", "started_s": 0.0, "duration_s": 2.0,
        "counts": {"sent": 3, "ok": 2, "failed": 1, "unfinished": 0}, "errors": {},
        "verdict": {"status": "valid", "reasons": []}, "evidence": {}, "client": {},
    }));
    (cell.unwrap(), pass.unwrap())
}

#[test]
fn what_is_written_has_every_field_of_vllms_own_file() {
    let (cell, pass) = cell();
    let rows = [good_row(0, 10.0), good_row(1, 20.0), failed_row(2)];
    let ours = to_json(&cell, &pass, &rows, "20261124-060222");
    let theirs: Map<String, Value> = serde_json::from_str(CAPTURED).unwrap();
    // Of a sweep (`run_number` and its axes), of what labrun does not watch, and of audio.
    let without = [
        "run_number",
        "max_num_seqs",
        "random_input_len",
        "rtfx",
        "queue_times",
        "max_output_tokens_per_s",
        "max_concurrent_requests",
    ];
    for name in theirs
        .keys()
        .filter(|name| !without.contains(&name.as_str()))
    {
        assert!(ours.get(name).is_some(), "{name}");
    }
    assert_eq!(
        (ours["completed"].as_u64(), ours["failed"].as_u64()),
        (Some(2), Some(1))
    );
    assert_eq!(ours["mean_ttft_ms"], 15.0);
    assert_eq!(ours["std_ttft_ms"], 5.0);
    assert_eq!(ours["output_throughput"], 4.0);
    assert_eq!(ours["errors"], json!(["", "", "http-500"]));
    assert_eq!(ours["itls"][0], json!([0.005, 0.01, 0.015]));
    assert_eq!(ours["labrun_source"], "simulated");
}

/// The one result of a file.
fn read(text: &str, defaults: &Defaults) -> Imported {
    let mut all = import(text, defaults).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn lengths_of(result: &Imported) -> (u32, u32) {
    (result.at.prompt_len.get(), result.at.gen_len.get())
}

#[test]
fn a_detailed_file_gives_the_requests_back() {
    let (cell, pass) = cell();
    let rows = [good_row(0, 10.0), good_row(1, 20.0), failed_row(2)];
    let text = to_json(&cell, &pass, &rows, "").to_string();
    let read = read(&text, &Defaults::default());
    assert_eq!((read.rows.len(), lengths_of(&read)), (3, (1030, 4)));
    assert_eq!(
        (read.model.as_deref(), read.at.concurrency.get()),
        (Some("m"), 2)
    );
    assert_eq!(
        (read.state, read.source),
        (Some(CacheState::Tier), Some(Source::Simulated))
    );
    let close = |got: Option<f64>, expected: f64| (got.unwrap() - expected).abs() < 1e-9;
    let second = &read.rows[1];
    assert!(
        close(second.ttft_ms, 20.0) && close(second.e2e_ms, 50.0),
        "{second:?}"
    );
    assert!(close(second.tpot_ms, 10.0) && second.gaps_ms.len() == 3);
    assert_eq!(second.output_tokens, Some(4));
    assert_eq!(
        (read.rows[2].outcome, read.rows[2].ttft_ms),
        (RequestOutcome::Failed, None)
    );
}

#[test]
fn every_axis_of_a_cell_comes_back() {
    let (mut cell, pass) = cell();
    for (key, value) in [("load.rate_rps", "7.5"), ("server.args.x", "a,b")] {
        cell.coordinates
            .extra
            .insert(key.to_owned(), value.to_owned());
    }
    cell.coordinates.repeat = Repeat::new(3).unwrap();
    let result = to_json(&cell, &pass, &[good_row(0, 10.0)], "");
    assert_eq!(result["request_rate"], 7.5);
    let read = read(&result.to_string(), &Defaults::default());
    assert_eq!(read.at.extra, cell.coordinates.extra);
    assert_eq!(read.at.repeat, cell.coordinates.repeat);
}

#[test]
fn a_file_without_details_gives_what_it_has() {
    let read = read(CAPTURED, &Defaults::default());
    assert_eq!((read.rows.len(), lengths_of(&read)), (20, (2048, 32)));
    assert_eq!(
        (read.at.concurrency.get(), read.at.label.as_str()),
        (4, "imported")
    );
    // Its `latencies` are E2E, one a request: their mean is the one that it states.
    let e2e: Vec<f64> = read.rows.iter().filter_map(|row| row.e2e_ms).collect();
    let mean = e2e.iter().sum::<f64>() / 20.0;
    assert!(read.rows.iter().all(|row| row.ttft_ms.is_none()));
    assert!(
        (mean - read.evidence["imported_e2e_mean_ms"]).abs() < 1e-6,
        "{mean}"
    );
    assert!((read.evidence["imported_ttft_p50_ms"] - 156.847).abs() < 1e-3);
    assert!((read.evidence["imported_output_tokens_per_s"] - 390.374).abs() < 1e-3);
    // 640 tokens of 20 requests: 620 gaps.
    for (latency, n) in [
        ("ttft", 20.0),
        ("tpot", 20.0),
        ("itl", 620.0),
        ("e2e", 20.0),
    ] {
        let stated = read.evidence[&format!("imported_{latency}_n")];
        assert!((stated - n).abs() < f64::EPSILON, "{latency} {stated}");
    }
}

/// The captured result with these fields.
fn with(fields: Value) -> String {
    let mut result: Map<String, Value> = serde_json::from_str(CAPTURED).unwrap();
    let Value::Object(fields) = fields else {
        unreachable!()
    };
    result.extend(fields);
    Value::Object(result).to_string()
}

#[test]
fn several_results_in_one_file_are_all_read() {
    let (one, two) = (with(json!({})), with(json!({"max_concurrency": 9})));
    let pretty = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    };
    for text in [
        format!("{one}\n{two}\n"),
        format!("{one}\r\n\r\n{two}"),
        format!("[{one}, {two}]"),
        format!("{}{}", pretty(&one), pretty(&two)),
    ] {
        let all = import(&text, &Defaults::default()).unwrap();
        let concurrency: Vec<u32> = all.iter().map(|one| one.at.concurrency.get()).collect();
        assert_eq!(concurrency, [4, 9]);
    }
    let second = format!("{one}\n{}\n", with(json!({"completed": 0})));
    let refusal = format!("{:#}", import(&second, &Defaults::default()).unwrap_err());
    assert_eq!(refusal, "result 2 of 2: none of its requests was completed");
}

#[test]
fn what_sets_results_apart_is_a_coordinate() {
    let extra = |fields| read(&with(fields), &Defaults::default()).at.extra;
    let rate = |value: &str| BTreeMap::from([("load.rate_rps".to_owned(), value.to_owned())]);
    assert_eq!(extra(json!({"request_rate": 10.0})), rate("10"));
    assert_eq!(extra(json!({"request_rate": "30.5"})), rate("30.5"));
    for none in [json!("inf"), json!("Infinity"), json!(null)] {
        assert_eq!(extra(json!({"request_rate": none})), BTreeMap::new());
    }
    let bursts = extra(json!({"request_rate": 10, "burstiness": 0.5}));
    assert_eq!(bursts["load.burstiness"], "0.5");
}

#[test]
fn answers_of_different_lengths_need_the_length_asked_for() {
    let text = with(json!({"total_output_tokens": 641}));
    let refusal = import(&text, &Defaults::default()).unwrap_err().to_string();
    assert!(
        refusal.starts_with("its answers have 32.0 tokens on average"),
        "{refusal}"
    );
    assert!(refusal.ends_with("with --gen-len"), "{refusal}");
    let asked = Defaults {
        gen_len: Some(64),
        prompt_len: Some(2000),
        ..Defaults::default()
    };
    assert_eq!(lengths_of(&read(&text, &asked)), (2000, 64));
}

#[test]
fn what_python_writes_for_no_number_is_none() {
    let nan = CAPTURED.replacen("156.8471464997856", "NaN", 1);
    assert_ne!(nan, CAPTURED);
    let read = read(
        &nan.replace("\"label\": null", "\"label\": \"NaN \\\"Infinity\""),
        &Defaults::default(),
    );
    assert!(!read.evidence.contains_key("imported_ttft_p50_ms"));
    assert_eq!(read.at.label, "NaN \"Infinity");
    let (cell, pass) = cell();
    let mut detailed = to_json(&cell, &pass, &[good_row(0, 10.0), good_row(1, 20.0)], "");
    detailed["ttfts"][1] = Value::Null;
    detailed["itls"][0][0] = Value::Null;
    detailed["errors"] = json!([null, null]);
    let rows = import(&detailed.to_string(), &Defaults::default())
        .unwrap()
        .remove(0)
        .rows;
    assert_eq!(
        (rows[0].outcome, rows[0].gaps_ms.len()),
        (RequestOutcome::Ok, 2)
    );
    assert_eq!(
        (rows[1].outcome, rows[1].ttft_ms),
        (RequestOutcome::Failed, None)
    );
}

#[test]
fn odd_results_are_refused() {
    let odd = json!({"completed": 1, "duration": 1, "total_input_tokens": 1,
        "total_output_tokens": 1, "model_id": "m", "max_concurrency": 1, "ttfts": [1.0],
        "itls": [], "input_lens": [1], "output_lens": [1]});
    for (text, expected) in [
        ("[]".to_owned(), "it has no result"),
        (
            "[1]".to_owned(),
            "it is not a JSON object of `vllm bench serve`",
        ),
        ("{".to_owned(), "it is not JSON"),
        ("{}".to_owned(), "it has no number `completed`"),
        (odd.to_string(), "`ttfts` has 1 values and `itls` 0"),
        (with(json!({"completed": 1.5})), "invalid `completed` `1.5`"),
        (
            with(json!({"completed": 4e9})),
            "invalid `completed` `4000000000`",
        ),
        (with(json!({"duration": "x"})), "invalid `duration` `\"x\"`"),
        (
            with(json!({"max_concurrency": 0})),
            "`max_concurrency` is 0",
        ),
        (
            with(json!({"max_concurrency": null})),
            "it does not bound its requests in flight",
        ),
        (
            with(json!({"labrun_state": "warm"})),
            "invalid `labrun_state` `warm`",
        ),
        (
            with(json!({"labrun_source": "dreamt"})),
            "invalid `labrun_source` `dreamt`",
        ),
        (
            with(json!({"request_rate": "fast"})),
            "invalid `request_rate` `fast`",
        ),
    ] {
        let refusal = format!("{:#}", import(&text, &Defaults::default()).unwrap_err());
        assert!(refusal.starts_with(expected), "{refusal}");
    }
}
