//! The result file of `vllm bench serve` (vLLM 0.32), written and read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::import::{Defaults, Imported, state_named, state_names};
use crate::matrix::Coordinates;
use crate::plan::state::CacheState;
use crate::record::schema::{CellRecord, PassRecord, RequestOutcome, RequestRow, Source};
use crate::stats::quantile;
use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

/// The four latencies as the file names them.
const LATENCIES: [&str; 4] = ["ttft", "tpot", "itl", "e2el"];

/// The most requests of a result without details, and the largest count in a file.
const MAX_REQUESTS: u32 = 10_000_000;

/// One pass as `vllm bench serve --save-result --save-detailed` would have written it, without the
/// generated texts, which labrun does not store. Percentiles are printed however few requests there
/// were, as vLLM does. What vLLM does not have begins with `labrun_`.
pub(crate) fn to_json(
    cell: &CellRecord,
    pass: &PassRecord,
    rows: &[RequestRow],
    date: &str,
) -> Value {
    let ok: Vec<&RequestRow> = rows
        .iter()
        .filter(|row| row.outcome == RequestOutcome::Ok)
        .collect();
    let sum =
        |pick: fn(&RequestRow) -> u32| -> u64 { ok.iter().map(|row| u64::from(pick(row))).sum() };
    let (input, output) = (sum(prompt_tokens), sum(output_tokens));
    let rate = |count: u64| (pass.duration_s > 0.0).then(|| count as f64 / pass.duration_s);
    let at = &cell.coordinates;
    let axis = |key: &str| {
        at.extra
            .get(key)?
            .parse::<f64>()
            .ok()
            .map(|value| json!(value))
    };
    let mut result = json!({
        "date": date, "endpoint_type": "openai", "backend": "openai", "label": at.label,
        "model_id": cell.model, "tokenizer_id": cell.model, "num_prompts": rows.len(),
        "request_rate": axis("load.rate_rps").unwrap_or_else(|| json!("inf")),
        "burstiness": axis("load.burstiness").unwrap_or_else(|| json!(1.0)),
        "max_concurrency": at.concurrency,
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
    result["labrun_axes"] = json!(at.extra);
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

/// What one result is of, beside its requests.
struct Shape {
    state: CacheState,
    prompt_len: u32,
    gen_len: u32,
}

/// The results in a file: one, a line each (`--append-result`) or a list, with or without
/// `--save-detailed`.
pub(super) fn import(text: &str, defaults: &Defaults) -> Result<Vec<Imported>> {
    let results = results(text)?;
    let count = results.len();
    ensure!(count > 0, "it has no result");
    let mut all = Vec::with_capacity(count);
    for (number, result) in (1..).zip(results) {
        let one = one(&result, defaults);
        let one = if count == 1 {
            one
        } else {
            one.with_context(|| format!("result {number} of {count}"))
        };
        all.push(one?);
    }
    Ok(all)
}

/// All JSON objects of a text, those of a list one by one.
fn results(text: &str) -> Result<Vec<Map<String, Value>>> {
    let text = without_nan(text);
    let mut results = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let values = match value.context("it is not JSON")? {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            match value {
                Value::Object(result) => results.push(result),
                _ => bail!("it is not a JSON object of `vllm bench serve`, nor a list of them"),
            }
        }
    }
    Ok(results)
}

/// Python writes `NaN` and `Infinity` where JSON has no such numbers: `null`, outside of strings.
fn without_nan(text: &str) -> Cow<'_, str> {
    const NO_NUMBERS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];
    if !NO_NUMBERS.iter().any(|word| text.contains(word)) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    let (mut is_string, mut is_escaped) = (false, false);
    while let Some(letter) = rest.chars().next() {
        let word = NO_NUMBERS.iter().find(|word| rest.starts_with(**word));
        if let Some(word) = word.filter(|_| !is_string) {
            out.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        if letter == '"' && !is_escaped {
            is_string = !is_string;
        }
        is_escaped = is_string && letter == '\\' && !is_escaped;
        out.push(letter);
        rest = &rest[letter.len_utf8()..];
    }
    Cow::Owned(out)
}

/// One result.
fn one(file: &Map<String, Value>, defaults: &Defaults) -> Result<Imported> {
    let words = |name: &str| file.get(name).and_then(Value::as_str).map(str::to_owned);
    let completed = whole(file, "completed")?.context("it has no number `completed`")?;
    let duration_s = number(file, "duration")?.context("it has no number `duration`")?;
    ensure!(completed >= 1, "none of its requests was completed");
    let state = match words("labrun_state") {
        Some(name) => Some(state_named(&name).with_context(|| {
            format!(
                "invalid `labrun_state` `{name}`: expected one of {}",
                state_names()
            )
        })?),
        None => None,
    };
    let (prompt_len, gen_len) = lengths(file, completed, defaults)?;
    let shape = Shape {
        state: state.unwrap_or(defaults.state),
        prompt_len,
        gen_len,
    };
    let stated = whole(file, "max_concurrency")?.or(defaults.concurrency);
    let concurrency = stated.context(
        "it does not bound its requests in flight (no `max_concurrency`): state with --concurrency \
         under what number to file it",
    )?;
    let tier = words("labrun_tier").or_else(|| words("tier"));
    let none = "a count of 0";
    let at = Coordinates {
        label: words("label").unwrap_or_else(|| defaults.label.clone()),
        tier: tier.unwrap_or_else(|| defaults.tier.clone()),
        prompt_len: PromptLen::new(prompt_len).context(none)?,
        gen_len: GenLen::new(gen_len).context(none)?,
        concurrency: Concurrency::new(concurrency).context("`max_concurrency` is 0")?,
        repeat: Repeat::new(whole(file, "labrun_repeat")?.unwrap_or(1)).context(none)?,
        extra: axes(file)?,
    };
    let failed = match whole(file, "failed")? {
        Some(failed) => failed,
        None => whole(file, "num_prompts")?
            .unwrap_or(completed)
            .saturating_sub(completed),
    };
    let rows = match detailed(file)? {
        Some(details) => details.rows(&shape),
        None => bare_rows(file, &shape, completed, failed)?,
    };
    let mut warnings = Vec::new();
    if rows.iter().all(|row| row.ttft_ms.is_none()) {
        warnings.push(
            "imported without --save-detailed: latencies are the file's own summary; repeats of it \
             are not pooled, and objectives on them cannot be judged"
                .to_owned(),
        );
    }
    Ok(Imported {
        at,
        is_concurrency_known: true,
        state,
        // The file of `vllm bench serve` itself has no such field: the user states it.
        source: match words("labrun_source") {
            Some(name) => Some(Source::from_name(&name).with_context(|| {
                format!("invalid `labrun_source` `{name}`: expected measured or simulated")
            })?),
            None => Some(defaults.source),
        },
        model: words("model_id").or_else(|| defaults.model.clone()),
        duration_s,
        rows,
        evidence: statistics_of(file, completed),
        warnings,
    })
}

/// A finite number of at least 0; `null` and no such field are none.
fn number(file: &Map<String, Value>, name: &str) -> Result<Option<f64>> {
    match file.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_f64().filter(|number| *number >= 0.0);
            let wrong = || format!("invalid `{name}` `{value}`: expected a number of at least 0");
            number.with_context(wrong).map(Some)
        }
    }
}

/// A whole number.
fn whole(file: &Map<String, Value>, name: &str) -> Result<Option<u32>> {
    let Some(number) = number(file, name)? else {
        return Ok(None);
    };
    let fits = number.fract() == 0.0 && number <= f64::from(MAX_REQUESTS);
    ensure!(
        fits,
        "invalid `{name}` `{number}`: expected a whole number of at most {MAX_REQUESTS}"
    );
    Ok(Some(number as u32))
}

/// Tokens that each prompt and each answer was to have: as the user states them, else the file's
/// means. Answers that ended on their own have a mean that is no coordinate.
fn lengths(file: &Map<String, Value>, completed: u32, defaults: &Defaults) -> Result<(u32, u32)> {
    let mean = |name: &str| -> Result<f64> {
        let total = number(file, name)?.with_context(|| format!("it has no number `{name}`"))?;
        Ok(total / f64::from(completed))
    };
    let (prompt, answer) = (mean("total_input_tokens")?, mean("total_output_tokens")?);
    ensure!(
        defaults.gen_len.is_some() || answer.fract() == 0.0,
        "its answers have {answer:.1} tokens on average, so that some ended before the length that \
         was asked for: state that length with --gen-len"
    );
    let rounded = |mean: f64| mean.round().clamp(1.0, f64::from(u32::MAX)) as u32;
    Ok((
        defaults.prompt_len.unwrap_or_else(|| rounded(prompt)),
        defaults.gen_len.unwrap_or_else(|| rounded(answer)),
    ))
}

/// What further sets the result apart: labrun's own axes, and the rate of an open loop.
fn axes(file: &Map<String, Value>) -> Result<BTreeMap<String, String>> {
    let own = file
        .get("labrun_axes")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let mut axes: BTreeMap<String, String> =
        serde_json::from_value(own).context("`labrun_axes` is not as labrun writes it")?;
    let rate = match file.get("request_rate") {
        // JSON has no infinity: some tools write it as a word, some as null.
        Some(Value::String(word)) => match word.parse::<f64>() {
            Ok(rate) => Some(rate),
            Err(_) => bail!("invalid `request_rate` `{word}`: expected a number or `inf`"),
        },
        _ => number(file, "request_rate")?,
    };
    if let Some(rate) = rate.filter(|rate| rate.is_finite()) {
        axes.insert("load.rate_rps".to_owned(), rate.to_string());
        let burstiness = number(file, "burstiness")?.filter(|burst| (burst - 1.0).abs() > 1e-9);
        axes.extend(burstiness.map(|burst| ("load.burstiness".to_owned(), burst.to_string())));
    }
    Ok(axes)
}

fn statistics_of(file: &Map<String, Value>, completed: u32) -> BTreeMap<String, f64> {
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
    // What a summary is of, where the file has no more: an answer of one token has no gap.
    let output = file.get("total_output_tokens").and_then(Value::as_f64);
    let (completed, output) = (f64::from(completed), output.unwrap_or(0.0));
    let decoded = if output > completed { completed } else { 0.0 };
    for (latency, n) in [
        ("ttft", completed),
        ("tpot", decoded),
        ("itl", (output - completed).max(0.0)),
        ("e2e", completed),
    ] {
        if all.contains_key(&format!("imported_{latency}_mean_ms")) {
            all.insert(format!("imported_{latency}_n"), n);
        }
    }
    all
}

/// The lists of a detailed file, one value a request.
struct Details {
    ttfts: Vec<Option<f64>>,
    itls: Vec<Option<Vec<Option<f64>>>>,
    input: Vec<Option<u32>>,
    output: Vec<Option<u32>>,
    errors: Vec<Option<String>>,
    starts: Vec<Option<f64>>,
    latencies: Vec<Option<f64>>,
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
    fn rows(&self, shape: &Shape) -> Vec<RequestRow> {
        let starts = self.starts.iter().flatten().copied();
        let first = starts.fold(f64::INFINITY, f64::min);
        (0..self.ttfts.len())
            .map(|at| self.row(shape, at, first))
            .collect()
    }

    fn row(&self, shape: &Shape, at: usize, first_s: f64) -> RequestRow {
        let gaps = self.itls[at].iter().flatten();
        let gaps_ms: Vec<f64> = gaps.flatten().map(|gap| gap * 1e3).collect();
        let ms = |all: &[Option<f64>]| all.get(at).copied().flatten().map(|seconds| seconds * 1e3);
        let sent_ms = ms(&self.starts).map_or(0.0, |start| start - first_s * 1e3);
        let error = self.errors.get(at).and_then(Option::as_ref);
        let has_error = error.is_some_and(|error| !error.is_empty());
        let tokens = self.output[at].filter(|tokens| *tokens > 0 && !has_error);
        let mut row = blank(shape, at as u32, sent_ms);
        row.prompt_tokens = self.input[at];
        row.frames = gaps_ms.len() as u32 + u32::from(tokens.is_some());
        let (Some(tokens), Some(ttft_ms)) = (tokens, ms(&self.ttfts)) else {
            row.outcome = RequestOutcome::Failed;
            row.error = Some("imported".to_owned());
            return row;
        };
        // Older files have no `latencies`: the last token came after all gaps.
        let e2e_ms = ms(&self.latencies).unwrap_or_else(|| ttft_ms + gaps_ms.iter().sum::<f64>());
        row.output_tokens = Some(tokens);
        row.ttft_ms = Some(ttft_ms);
        row.e2e_ms = Some(e2e_ms);
        row.tpot_ms = (tokens > 1).then(|| (e2e_ms - ttft_ms) / f64::from(tokens - 1));
        row.gaps_ms = gaps_ms;
        row
    }
}

/// Requests of which the file has no more than, perhaps, E2E.
fn bare_rows(
    file: &Map<String, Value>,
    shape: &Shape,
    completed: u32,
    failed: u32,
) -> Result<Vec<RequestRow>> {
    let requests = completed.saturating_add(failed);
    ensure!(
        requests <= MAX_REQUESTS,
        "it has {requests} requests, more than the {MAX_REQUESTS} that labrun imports"
    );
    let latencies = file.get("latencies").and_then(Value::as_array);
    // With failed requests, which value is whose is not known.
    let latencies = latencies.filter(|all| failed == 0 && all.len() == completed as usize);
    let row = |at: u32| {
        let mut row = blank(shape, at, 0.0);
        let latency = latencies.and_then(|all| all[at as usize].as_f64());
        row.e2e_ms = latency.map(|seconds| seconds * 1e3);
        row
    };
    let lost = |at: u32| RequestRow {
        outcome: RequestOutcome::Failed,
        error: Some("imported".to_owned()),
        ..blank(shape, at, 0.0)
    };
    Ok((0..completed)
        .map(row)
        .chain((completed..requests).map(lost))
        .collect())
}

fn blank(shape: &Shape, request: u32, sent_ms: f64) -> RequestRow {
    RequestRow {
        state: shape.state,
        request,
        intended_ms: sent_ms,
        sent_ms,
        lateness_ms: 0.0,
        connect_ms: None,
        ttft_ms: None,
        e2e_ms: None,
        tpot_ms: None,
        gaps_ms: Vec::new(),
        prompt_len: shape.prompt_len,
        gen_len: shape.gen_len,
        prompt_tokens: None,
        cached_tokens: None,
        output_tokens: None,
        frames: 0,
        coalesced_frames: 0,
        token_events: None,
        outcome: RequestOutcome::Ok,
        error: None,
        http_status: None,
    }
}

#[cfg(test)]
mod tests;
