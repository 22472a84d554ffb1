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

#[test]
fn a_detailed_file_gives_the_requests_back() {
    let (cell, pass) = cell();
    let rows = [good_row(0, 10.0), good_row(1, 20.0), failed_row(2)];
    let text = to_json(&cell, &pass, &rows, "").to_string();
    let read = from_json(&text, CacheState::Tier).unwrap();
    assert_eq!(
        (read.rows.len(), read.prompt_len, read.gen_len),
        (3, 1030, 4)
    );
    assert_eq!((read.model.as_str(), read.concurrency), ("m", Some(2)));
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
fn a_file_without_details_gives_what_it_has() {
    let read = from_json(CAPTURED, CacheState::Cold).unwrap();
    assert_eq!(
        (read.rows.len(), read.prompt_len, read.gen_len),
        (20, 2048, 32)
    );
    assert_eq!((read.concurrency, read.label), (Some(4), None));
    // Its `latencies` are E2E, one a request: their mean is the one that it states.
    let e2e: Vec<f64> = read.rows.iter().filter_map(|row| row.e2e_ms).collect();
    let mean = e2e.iter().sum::<f64>() / 20.0;
    assert!(read.rows.iter().all(|row| row.ttft_ms.is_none()));
    assert!(
        (mean - read.statistics["imported_e2e_mean_ms"]).abs() < 1e-6,
        "{mean}"
    );
    assert!((read.statistics["imported_ttft_p50_ms"] - 156.847).abs() < 1e-3);
    assert!((read.statistics["imported_output_tokens_per_s"] - 390.374).abs() < 1e-3);
    // 640 tokens of 20 requests: 620 gaps.
    for (latency, n) in [
        ("ttft", 20.0),
        ("tpot", 20.0),
        ("itl", 620.0),
        ("e2e", 20.0),
    ] {
        let told = read.statistics[&format!("imported_{latency}_n")];
        assert!((told - n).abs() < f64::EPSILON, "{latency} {told}");
    }
}

#[test]
fn what_is_no_result_file_is_told() {
    let told = |text: &str| format!("{:#}", from_json(text, CacheState::Cold).unwrap_err());
    assert!(told("[]").starts_with("not a JSON object"));
    assert_eq!(told("{}"), "it has no number `completed`");
    let odd = r#"{"completed": 1, "duration": 1, "total_input_tokens": 1, "total_output_tokens": 1,
        "model_id": "m", "ttfts": [1.0], "itls": [], "input_lens": [1], "output_lens": [1]}"#;
    assert_eq!(told(odd), "`ttfts` has 1 values and `itls` 0");
}
