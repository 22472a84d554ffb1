//! The result file of `vllm bench serve` (vLLM 0.32), written and read.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::plan::state::CacheState;
use crate::record::schema::{CellRecord, PassRecord, RequestOutcome, RequestRow};
use crate::stats::quantile;

/// The four latencies as the file names them.
const LATENCIES: [&str; 4] = ["ttft", "tpot", "itl", "e2el"];

/// One pass as `vllm bench serve --save-result --save-detailed` would have written it, without the
/// generated texts, which labrun does not keep. Percentiles are printed however few requests there
/// were, as vLLM does. What vLLM does not have begins with `labrun_`.
pub fn to_json(cell: &CellRecord, pass: &PassRecord, rows: &[RequestRow], date: &str) -> Value {
    let ok: Vec<&RequestRow> = rows
        .iter()
        .filter(|row| row.outcome == RequestOutcome::Ok)
        .collect();
    let sum =
        |pick: fn(&RequestRow) -> u32| -> u64 { ok.iter().map(|row| u64::from(pick(row))).sum() };
    let (input, output) = (sum(prompt_tokens), sum(output_tokens));
    let rate = |count: u64| (pass.duration_s > 0.0).then(|| count as f64 / pass.duration_s);
    let at = &cell.coordinates;
    let mut result = json!({
        "date": date, "endpoint_type": "openai", "backend": "openai", "label": at.label,
        "model_id": cell.model, "tokenizer_id": cell.model, "num_prompts": rows.len(),
        "request_rate": "inf", "burstiness": 1.0, "max_concurrency": at.concurrency,
        "duration": pass.duration_s, "completed": ok.len(), "failed": rows.len() - ok.len(),
        "total_input_tokens": input, "total_output_tokens": output,
        "request_throughput": rate(ok.len() as u64), "request_goodput": null,
        "output_throughput": rate(output), "total_token_throughput": rate(input + output),
    });
    for name in LATENCIES {
        let values: Vec<f64> = ok.iter().flat_map(|row| values_ms(row, name)).collect();
        statistics(&mut result, name, values);
    }
    let seconds = |ms: Option<f64>| ms.unwrap_or(0.0) / 1e3;
    let each = |pick: &dyn Fn(&RequestRow) -> Value| rows.iter().map(pick).collect::<Value>();
    result["input_lens"] = each(&|row| json!(prompt_tokens(row)));
    result["output_lens"] = each(&|row| json!(output_tokens(row)));
    result["start_times"] = each(&|row| json!(row.sent_ms / 1e3));
    result["ttfts"] = each(&|row| json!(seconds(row.ttft_ms)));
    result["itls"] = each(&|row| row.gaps_ms.iter().map(|gap| json!(gap / 1e3)).collect());
    result["latencies"] = each(&|row| json!(seconds(row.e2e_ms)));
    result["errors"] = each(&|row| match row.outcome {
        RequestOutcome::Ok => json!(""),
        outcome => json!(row.error.as_deref().unwrap_or(outcome.name())),
    });
    result["labrun_cell"] = json!(cell.id);
    result["labrun_tier"] = json!(at.tier);
    result["labrun_state"] = json!(pass.state);
    result["labrun_repeat"] = json!(at.repeat);
    result["labrun_source"] = json!(cell.source);
    result["labrun_verdict"] = json!(pass.verdict.status);
    result
}

/// As the server counted them, else as planned: vLLM's file has a number for every request.
fn prompt_tokens(row: &RequestRow) -> u32 {
    row.prompt_tokens.unwrap_or(row.prompt_len)
}

fn output_tokens(row: &RequestRow) -> u32 {
    let planned = match row.outcome {
        RequestOutcome::Ok => row.gen_len,
        RequestOutcome::Failed | RequestOutcome::Unfinished => 0,
    };
    row.output_tokens.unwrap_or(planned)
}

fn values_ms(row: &RequestRow, name: &str) -> Vec<f64> {
    match name {
        "ttft" => row.ttft_ms.into_iter().collect(),
        "tpot" => row.tpot_ms.into_iter().collect(),
        "itl" => row.gaps_ms.clone(),
        _ => row.e2e_ms.into_iter().collect(),
    }
}

/// Mean, median, standard deviation (of the population, as NumPy's) and p99, in milliseconds.
fn statistics(result: &mut Value, name: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n.max(1.0);
    result[format!("mean_{name}_ms")] = json!(mean);
    result[format!("median_{name}_ms")] = json!(quantile(&values, 0.5).unwrap_or(0.0));
    result[format!("std_{name}_ms")] = json!(variance.sqrt());
    result[format!("p99_{name}_ms")] = json!(quantile(&values, 0.99).unwrap_or(0.0));
}

/// What a result file says.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchResult {
    /// The model.
    pub model: String,
    /// Its label, where it has one.
    pub label: Option<String>,
    /// Requests in flight, where they were bounded.
    pub concurrency: Option<u32>,
    /// Mean prompt length, tokens.
    pub prompt_len: u32,
    /// Mean length of an answer, tokens.
    pub gen_len: u32,
    /// Seconds from first to last.
    pub duration_s: f64,
    /// When it was made, as vLLM wrote it.
    pub date: String,
    /// The requests; with times where the file is detailed, else with none but E2E.
    pub rows: Vec<RequestRow>,
    /// The file's own statistics, under the names of labrun's columns with `imported_` before.
    pub statistics: BTreeMap<String, f64>,
}

/// Reads a result file, with or without `--save-detailed`.
pub fn from_json(text: &str, state: CacheState) -> Result<BenchResult> {
    let file: Map<String, Value> = serde_json::from_str(text).context("not a JSON object")?;
    let number = |name: &str| file.get(name).and_then(Value::as_f64);
    let needed = |name: &str| number(name).with_context(|| format!("it has no number `{name}`"));
    let (completed, duration_s) = (needed("completed")?, needed("duration")?);
    ensure!(completed >= 1.0, "none of its requests was completed");
    let mean =
        |name: &str| -> Result<u32> { Ok((needed(name)? / completed).round().max(1.0) as u32) };
    let (prompt_len, gen_len) = (mean("total_input_tokens")?, mean("total_output_tokens")?);
    let words = |name: &str| file.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut result = BenchResult {
        model: words("model_id").context("it has no `model_id`")?,
        label: words("label"),
        concurrency: number("max_concurrency").map(|value| value as u32),
        prompt_len,
        gen_len,
        duration_s,
        date: words("date").unwrap_or_default(),
        rows: Vec::new(),
        statistics: statistics_of(&file),
    };
    let output = needed("total_output_tokens")?;
    // What a summary is of, where the file has no more: an answer of one token has no gap.
    let decoded = if gen_len > 1 { completed } else { 0.0 };
    for (latency, n) in [
        ("ttft", completed),
        ("tpot", decoded),
        ("itl", (output - completed).max(0.0)),
        ("e2e", completed),
    ] {
        let stated = format!("imported_{latency}_mean_ms");
        if result.statistics.contains_key(&stated) {
            result.statistics.insert(format!("imported_{latency}_n"), n);
        }
    }
    let failed =
        number("failed").unwrap_or_else(|| number("num_prompts").unwrap_or(completed) - completed);
    result.rows = match detailed(&file)? {
        Some(details) => details.rows(&result, state),
        None => bare_rows(
            &file,
            &result,
            state,
            completed as u32,
            failed.max(0.0) as u32,
        ),
    };
    Ok(result)
}

fn statistics_of(file: &Map<String, Value>) -> BTreeMap<String, f64> {
    let ours = |name: &str| {
        if name == "e2el" {
            "e2e".to_owned()
        } else {
            name.to_owned()
        }
    };
    let mut all = BTreeMap::new();
    for name in LATENCIES {
        for (theirs, mine) in [
            ("mean", "mean"),
            ("median", "p50"),
            ("p90", "p90"),
            ("p95", "p95"),
            ("p99", "p99"),
        ] {
            let value = file
                .get(&format!("{theirs}_{name}_ms"))
                .and_then(Value::as_f64);
            all.extend(value.map(|value| (format!("imported_{}_{mine}_ms", ours(name)), value)));
        }
    }
    for (theirs, mine) in [
        ("request_throughput", "requests_per_s"),
        ("output_throughput", "output_tokens_per_s"),
        ("total_token_throughput", "total_tokens_per_s"),
    ] {
        let value = file.get(theirs).and_then(Value::as_f64);
        all.extend(value.map(|value| (format!("imported_{mine}"), value)));
    }
    all
}

/// The lists of a detailed file, one value a request.
struct Details {
    ttfts: Vec<f64>,
    itls: Vec<Vec<f64>>,
    input: Vec<u32>,
    output: Vec<u32>,
    errors: Vec<String>,
    starts: Vec<f64>,
    latencies: Vec<f64>,
}

fn detailed(file: &Map<String, Value>) -> Result<Option<Details>> {
    fn list<T: serde::de::DeserializeOwned>(
        file: &Map<String, Value>,
        name: &str,
    ) -> Result<Vec<T>> {
        let value = file.get(name).cloned().unwrap_or(Value::Array(Vec::new()));
        serde_json::from_value(value).with_context(|| format!("`{name}` is not as vLLM writes it"))
    }

    if !file.contains_key("ttfts") {
        return Ok(None);
    }
    let details = Details {
        ttfts: list(file, "ttfts")?,
        itls: list(file, "itls")?,
        input: list(file, "input_lens")?,
        output: list(file, "output_lens")?,
        errors: list(file, "errors")?,
        starts: list(file, "start_times")?,
        latencies: list(file, "latencies")?,
    };
    let n = details.ttfts.len();
    let lists = [
        ("itls", details.itls.len()),
        ("input_lens", details.input.len()),
        ("output_lens", details.output.len()),
    ];
    for (name, length) in lists {
        if length != n {
            bail!("`ttfts` has {n} values and `{name}` {length}");
        }
    }
    Ok(Some(details))
}

impl Details {
    fn rows(&self, result: &BenchResult, state: CacheState) -> Vec<RequestRow> {
        let first = self.starts.iter().copied().fold(f64::INFINITY, f64::min);
        (0..self.ttfts.len())
            .map(|at| {
                let gaps_ms: Vec<f64> = self.itls[at].iter().map(|gap| gap * 1e3).collect();
                let ttft_ms = self.ttfts[at] * 1e3;
                // Older files have no `latencies`: the last token came after all gaps.
                let decode_ms = match self.latencies.get(at) {
                    Some(latency) => latency * 1e3 - ttft_ms,
                    None => gaps_ms.iter().sum(),
                };
                let error = self.errors.get(at).filter(|error| !error.is_empty());
                let ok = error.is_none() && self.output[at] > 0;
                let tokens = self.output[at];
                let sent_ms = self
                    .starts
                    .get(at)
                    .map_or(0.0, |start| (start - first) * 1e3);
                let mut row = blank(result, state, at as u32, sent_ms);
                row.prompt_tokens = Some(self.input[at]);
                row.frames = gaps_ms.len() as u32 + u32::from(ok);
                if ok {
                    row.output_tokens = Some(tokens);
                    row.ttft_ms = Some(ttft_ms);
                    row.e2e_ms = Some(ttft_ms + decode_ms);
                    row.tpot_ms = (tokens > 1).then(|| decode_ms / f64::from(tokens - 1));
                    row.gaps_ms = gaps_ms;
                } else {
                    row.outcome = RequestOutcome::Failed;
                    row.error = Some("imported".to_owned());
                }
                row
            })
            .collect()
    }
}

/// Requests of which the file has no more than, perhaps, E2E.
fn bare_rows(
    file: &Map<String, Value>,
    result: &BenchResult,
    state: CacheState,
    completed: u32,
    failed: u32,
) -> Vec<RequestRow> {
    let latencies = file.get("latencies").and_then(Value::as_array);
    // With failed requests, which value is whose is not known.
    let latencies = latencies.filter(|all| failed == 0 && all.len() == completed as usize);
    let row = |at: u32| {
        let mut row = blank(result, state, at, 0.0);
        let latency = latencies.and_then(|all| all[at as usize].as_f64());
        row.e2e_ms = latency.map(|seconds| seconds * 1e3);
        row
    };
    let lost = |at: u32| RequestRow {
        outcome: RequestOutcome::Failed,
        error: Some("imported".to_owned()),
        ..blank(result, state, at, 0.0)
    };
    (0..completed)
        .map(row)
        .chain((completed..completed + failed).map(lost))
        .collect()
}

fn blank(result: &BenchResult, state: CacheState, request: u32, sent_ms: f64) -> RequestRow {
    RequestRow {
        state,
        request,
        intended_ms: sent_ms,
        sent_ms,
        lateness_ms: 0.0,
        connect_ms: None,
        ttft_ms: None,
        e2e_ms: None,
        tpot_ms: None,
        gaps_ms: Vec::new(),
        prompt_len: result.prompt_len,
        gen_len: result.gen_len,
        prompt_tokens: None,
        cached_tokens: None,
        output_tokens: None,
        frames: 0,
        coalesced_frames: 0,
        outcome: RequestOutcome::Ok,
        error: None,
        http_status: None,
    }
}

#[cfg(test)]
mod tests;
