//! A CSV of single requests, read: labrun's own, or one with only the first columns of it.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::import::{Defaults, Imported, state_named, state_names};
use crate::csv_table::{Row, Table};
use crate::matrix::Coordinates;
use crate::plan::state::CacheState;
use crate::record::schema::{RequestOutcome, RequestRow, Source};
use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

/// What every file must have; times in seconds.
const NEEDED: [&str; 6] = ["ttft", "e2e", "prompt_len", "gen_len", "tier", "label"];

/// The passes of a file, in the order of their coordinates.
pub(super) fn import(text: &str, defaults: &Defaults) -> Result<Vec<Imported>> {
    let table = Table::parse(text)?;
    table.require(&NEEDED)?;
    ensure!(!table.rows.is_empty(), "it has no row under its head");
    let mut passes: BTreeMap<(Coordinates, Option<CacheState>), Imported> = BTreeMap::new();
    for row in &table.rows {
        let state = named(row, "state", state_named, &state_names())?;
        let source = named(row, "source", Source::from_name, "measured, simulated")?;
        let (at, is_concurrency_known) = coordinates(row, defaults)?;
        let key = (at.clone(), state);
        let pass = passes.entry(key).or_insert_with(|| Imported {
            at,
            is_concurrency_known,
            state,
            source,
            model: defaults.model.clone(),
            duration_s: 0.0,
            rows: Vec::new(),
            evidence: BTreeMap::new(),
            warnings: Vec::new(),
        });
        // One simulated number makes the pass simulated; one of unknown source makes it unknown.
        pass.source = pass.source.zip(source).map(|(a, b)| a.max(b));
        let number = pass.rows.len() as u32;
        let request = request(row, state.unwrap_or(defaults.state), number)?;
        // The pass's length where the file states when its requests were sent; else it has no rates.
        if row.get("sent_ms").is_some() {
            let end_ms = request.sent_ms + request.e2e_ms.unwrap_or(0.0);
            pass.duration_s = pass.duration_s.max(end_ms / 1e3);
        }
        pass.rows.push(request);
    }
    Ok(passes.into_values().collect())
}

/// The field's value where `read` knows it, or an error that lists what is `expected`.
fn named<T>(
    row: &Row,
    name: &str,
    read: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> Result<Option<T>> {
    let value = row.get(name).map(read);
    ensure!(
        !matches!(value, Some(None)),
        row.wrong(name, &format!("one of {expected}"))
    );
    Ok(value.flatten())
}

/// A count that cannot be zero.
fn at_least_one<T>(row: &Row, name: &str, of: fn(u32) -> Option<T>) -> Result<Option<T>> {
    let value = row.count(name)?.map(of);
    ensure!(!matches!(value, Some(None)), row.wrong(name, "at least 1"));
    Ok(value.flatten())
}

/// Where the request belongs, and whether its concurrency is known.
fn coordinates(row: &Row, defaults: &Defaults) -> Result<(Coordinates, bool)> {
    let stated = at_least_one(row, "concurrency", Concurrency::new)?;
    let concurrency = stated.or(defaults.concurrency.and_then(Concurrency::new));
    let prompt_len = at_least_one(row, "prompt_len", PromptLen::new)?;
    let gen_len = at_least_one(row, "gen_len", GenLen::new)?;
    let repeat = at_least_one(row, "repeat", Repeat::new)?;
    // Further axes are columns named by a dotted plan key.
    let axes = row.fields().filter(|(name, _)| name.contains('.'));
    let at = Coordinates {
        label: row.required("label", row.get("label"))?.to_owned(),
        tier: row.required("tier", row.get("tier"))?.to_owned(),
        prompt_len: row.required("prompt_len", prompt_len)?,
        gen_len: row.required("gen_len", gen_len)?,
        concurrency: row.required("concurrency", concurrency.or(Concurrency::new(1)))?,
        repeat: row.required("repeat", repeat.or(Repeat::new(1)))?,
        extra: axes
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    };
    Ok((at, concurrency.is_some()))
}

/// A time of at least 0, milliseconds, from a column in units of `unit_ms`.
fn time_ms(row: &Row, name: &str, unit_ms: f64) -> Result<Option<f64>> {
    let time = row.number(name)?;
    ensure!(
        time.is_none_or(|time| time >= 0.0),
        row.wrong(name, "a time of at least 0")
    );
    Ok(time.map(|time| time * unit_ms))
}

/// `avg_itl`, the mean gap of a request, stands for TPOT where there is none.
fn request(row: &Row, state: CacheState, request: u32) -> Result<RequestRow> {
    let seconds = |name| time_ms(row, name, 1e3);
    let ms = |name| time_ms(row, name, 1.0);
    let (ttft_ms, e2e_ms) = (seconds("ttft")?, seconds("e2e")?);
    let stated = named(row, "outcome", outcome_named, "ok, failed, unfinished")?;
    let outcome = match stated {
        Some(RequestOutcome::Ok) | None if ttft_ms.is_none() || e2e_ms.is_none() => {
            RequestOutcome::Failed
        }
        stated => stated.unwrap_or(RequestOutcome::Ok),
    };
    let status = row.count("http_status")?.map(u16::try_from);
    let is_status =
        |status: &Result<u16, _>| status.as_ref().is_ok_and(|s| (100..=999).contains(s));
    ensure!(
        status.as_ref().is_none_or(is_status),
        row.wrong("http_status", "an HTTP status")
    );
    Ok(RequestRow {
        state,
        request,
        intended_ms: 0.0,
        sent_ms: ms("sent_ms")?.unwrap_or(0.0),
        lateness_ms: row.number("lateness_ms")?.unwrap_or(0.0),
        connect_ms: ms("connect_ms")?,
        ttft_ms,
        e2e_ms,
        tpot_ms: ms("tpot_ms")?.or(seconds("avg_itl")?),
        gaps_ms: Vec::new(),
        prompt_len: row.required("prompt_len", row.count("prompt_len")?)?,
        gen_len: row.required("gen_len", row.count("gen_len")?)?,
        prompt_tokens: row.count("prompt_tokens")?,
        cached_tokens: row.count("cached_tokens")?,
        output_tokens: row.count("output_tokens")?,
        frames: row.count("frames")?.unwrap_or(0),
        coalesced_frames: row.count("coalesced_frames")?.unwrap_or(0),
        token_events: None,
        outcome,
        error: row.get("error").map(str::to_owned),
        http_status: status.transpose()?,
    })
}

fn outcome_named(name: &str) -> Option<RequestOutcome> {
    [
        RequestOutcome::Ok,
        RequestOutcome::Failed,
        RequestOutcome::Unfinished,
    ]
    .into_iter()
    .find(|outcome| outcome.name() == name)
}
