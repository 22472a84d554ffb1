//! The simulator against a machine that none of its constants was fitted to: the rows of the study of
//! one H200 (`docs/study-h200.md`), read from the tables that the study keeps.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{CalibrationRow, Case, FRESH, Measured, Offload, REDIS, median, simulate};
use crate::plan::sim_spec::SimSpec;

/// KV tokens of the study's server: what it was given, not a constant that is fitted.
const GPU_KV_TOKENS: u64 = 668_000;
/// The link of that machine, GB/s: LMCache's loads of 16,384 tokens in 45.3 ms, its stores in 55.2 ms.
const LINK_GB_PER_S: (f64, f64) = (47.4, 38.9);
/// The tiers that are held against the simulator: of `native+fs` the study has too few proven rows.
const TIERS: [(&str, Offload); 4] = [
    ("baseline", Offload::None),
    ("cpu", Offload::Lmcache("max_local_cpu_size: 75")),
    ("native", Offload::Native(75.0)),
    ("redis", REDIS),
];
const STATES: [&str; 3] = ["cold", "gpu", "tier"];

/// Place among [`TIERS`], prompt length and concurrency.
type Place = (usize, u32, usize);

/// Medians of proven passes, by place and state.
type Found = BTreeMap<Place, [Measured; 3]>;

fn measured() -> Result<Found> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/h200_llama3_8b");
    let mut proven = BTreeMap::new();
    let mut found = Found::new();
    for row in rows_of(&folder.join("cells.csv"))? {
        proven.insert(key(&row), row["verdict"] == "valid");
    }
    for row in rows_of(&folder.join("measures.csv"))? {
        let tier = TIERS.iter().position(|(name, _)| *name == row["tier"]);
        let state = STATES.iter().position(|name| *name == row["state"]);
        let (Some(tier), Some(state)) = (tier, state) else {
            continue;
        };
        if row["label"] != "rag" || proven.get(&key(&row)) != Some(&true) {
            continue;
        }
        let place = (
            tier,
            row["prompt_len"].parse()?,
            row["concurrency"].parse()?,
        );
        let entry = found.entry(place).or_default()[state].get_or_insert((f64::NAN, f64::NAN));
        match row["metric"].as_str() {
            "ttft_ms" => entry.0 = row["p50"].parse()?,
            "tpot_ms" => entry.1 = row["p50"].parse()?,
            _ => {}
        }
    }
    Ok(found)
}

type Row = BTreeMap<String, String>;

fn rows_of(path: &Path) -> Result<Vec<Row>> {
    let mut reader =
        csv::Reader::from_path(path).with_context(|| format!("reading `{}`", path.display()))?;
    Ok(reader.deserialize().collect::<Result<_, _>>()?)
}

fn key(row: &Row) -> Vec<String> {
    ["label", "state", "concurrency", "prompt_len", "tier"]
        .map(|name| row[name].clone())
        .into()
}

/// The rows, simulated with `spec`.
fn rows(spec: &SimSpec) -> Result<Vec<CalibrationRow>> {
    let mut rows = Vec::new();
    for ((tier, prompt_len, concurrency), measured) in measured()? {
        let (tier, offload) = TIERS[tier];
        let case = Case {
            tier,
            offload,
            prefix: prompt_len - FRESH,
            fresh: FRESH,
            concurrency,
            requests: 12,
            measured,
        };
        rows.extend(simulate(&case, spec)?);
    }
    Ok(rows)
}

/// With the constants of the H100, and with the link of the H200 in their place.
fn both() -> Result<[Vec<CalibrationRow>; 2]> {
    let before = SimSpec {
        gpu_kv_tokens: GPU_KV_TOKENS,
        ..SimSpec::default()
    };
    let after = SimSpec {
        pcie_load_gb_per_s: LINK_GB_PER_S.0,
        pcie_store_gb_per_s: LINK_GB_PER_S.1,
        ..before.clone()
    };
    Ok([rows(&before)?, rows(&after)?])
}

/// The section of `docs/simulator-calibration.md`.
pub(super) fn page() -> Result<String> {
    let [before, after] = both()?;
    let of = |rows: &[CalibrationRow], at_once: bool| {
        let judged = rows.iter().filter(|row| (row.concurrency > 1) == at_once);
        median(judged.map(|row| row.error().abs() * 100.0).collect())
    };
    let mut page = format!(
        "\n## Held out: one H200\n\n\
         No constant was fitted to these rows: they are the proven passes of [the study on an H200](study-h200.md), \
         vLLM 0.24.0\nand LMCache 0.4.7, 12 requests each, 32 fresh tokens behind each prefix. *Before* uses the constants \
         of the H100;\n*after* has the link of that machine ({:.1} GB/s in, {:.1} GB/s out; its disk served no row). TTFT in \
         ms.\n\n\
         The median error is {:.0} % one at a time and {:.0} % eight at a time, after the link {:.0} % and {:.0} %. The H200 \
         reads its\nmemory faster: TPOT is {:.0} % shorter than simulated. Long prompts take the study's client 26 to 50 ms \
         more, for it\nsends token ids; the simulator has no client.\n\n\
         | tier | state | prefix | concurrency | TTFT measured | before | error | after | error | TPOT measured | simulated |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        LINK_GB_PER_S.0,
        LINK_GB_PER_S.1,
        of(&before, false),
        of(&before, true),
        of(&after, false),
        of(&after, true),
        shorter_tpot_percent(&before),
    );
    for (row, after) in before.iter().zip(&after) {
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {:.1} | {:.1} | {:+.0} % | {:.1} | {:+.0} % | {:.2} | {:.2} |",
            row.tier,
            row.state,
            row.prefix,
            row.concurrency,
            row.measured_ms,
            row.simulated_ms,
            row.error() * 100.0,
            after.simulated_ms,
            after.error() * 100.0,
            row.measured_itl_ms,
            row.simulated_itl_ms,
        );
    }
    Ok(page)
}

/// By how much TPOT was shorter than simulated, one request at a time, median, percent.
fn shorter_tpot_percent(rows: &[CalibrationRow]) -> f64 {
    let alone = rows.iter().filter(|row| row.concurrency == 1);
    let shorter = alone.map(|row| (1.0 - row.measured_itl_ms / row.simulated_itl_ms) * 100.0);
    median(shorter.collect())
}

/// What was not fitted is further off: half of the rows are within this, one request at a time.
#[test]
fn half_of_the_rows_of_another_machine_are_within_a_fifth() {
    let [before, _] = both().unwrap();
    let alone = before.iter().filter(|row| row.concurrency == 1);
    let errors: Vec<f64> = alone.map(|row| row.error().abs()).collect();
    assert_eq!(errors.len(), 42);
    assert!(median(errors) <= 0.2);
}
