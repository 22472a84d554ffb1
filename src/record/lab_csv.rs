//! `metrics_*.csv`: the requests of one pass. The columns of the scripts that labrun replaces come
//! first, which keeps tools that read those files working.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::csv_table::push_row;
use crate::matrix::Coordinates;
use crate::matrix::file_name::file_name;
use crate::plan::state::CacheState;
use crate::record::schema::{CellRecord, RequestRow, Source};
use crate::stats::quantile;

/// The head. The first seven are those of the replaced scripts, times in seconds; ours follow in
/// milliseconds.
const COLUMNS: [&str; 29] = [
    "ttft",
    "avg_itl",
    "e2e",
    "prompt_len",
    "gen_len",
    "tier",
    "label",
    "source",
    "state",
    "request",
    "concurrency",
    "repeat",
    "sent_ms",
    "lateness_ms",
    "connect_ms",
    "ttft_ms",
    "e2e_ms",
    "tpot_ms",
    "itl_p50_ms",
    "itl_p99_ms",
    "itl_max_ms",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "frames",
    "coalesced_frames",
    "outcome",
    "error",
    "http_status",
];

/// Writes the requests of one pass. Failed requests are rows too, with their times empty.
///
/// `avg_itl` is the mean of the request's gaps between token arrivals. The ITL columns are over
/// the gaps of the one request, by [`quantile`]. Further axes are columns at the end, named by
/// their dotted plan key.
pub(crate) fn write_lab_csv(
    rows: &[RequestRow],
    coordinates: &Coordinates,
    source: Source,
    path: &Path,
) -> Result<()> {
    let mut head = COLUMNS.map(str::to_owned).to_vec();
    head.extend(coordinates.extra.keys().cloned());
    let mut text = String::new();
    push_row(&mut text, &head);
    for row in rows {
        push_row(&mut text, &fields(row, coordinates, source));
    }
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

/// All requests of these cells as one table, with the columns of [`write_lab_csv`].
pub(crate) fn flat_csv(cells: &[(CellRecord, Vec<RequestRow>)]) -> String {
    let axes: BTreeSet<&String> = cells
        .iter()
        .flat_map(|(cell, _)| cell.coordinates.extra.keys())
        .collect();
    let mut head = COLUMNS.map(str::to_owned).to_vec();
    head.extend(axes.iter().map(|axis| (*axis).clone()));
    let mut text = String::new();
    push_row(&mut text, &head);
    for (cell, rows) in cells {
        let mut at = cell.coordinates.clone();
        // A cell without one of the axes has an empty field there.
        for axis in &axes {
            at.extra.entry((*axis).clone()).or_default();
        }
        for row in rows {
            push_row(&mut text, &fields(row, &at, cell.source));
        }
    }
    text
}

fn fields(row: &RequestRow, at: &Coordinates, source: Source) -> Vec<String> {
    let mut gaps = row.gaps_ms.clone();
    gaps.sort_by(f64::total_cmp);
    let mean_gap = (!gaps.is_empty()).then(|| gaps.iter().sum::<f64>() / gaps.len() as f64);
    let mut fields = vec![
        seconds(row.ttft_ms),
        seconds(mean_gap),
        seconds(row.e2e_ms),
        row.prompt_len.to_string(),
        row.gen_len.to_string(),
        at.tier.clone(),
        at.label.clone(),
        source.name().to_owned(),
        row.state.name().to_owned(),
        row.request.to_string(),
        at.concurrency.to_string(),
        at.repeat.to_string(),
        milliseconds(Some(row.sent_ms)),
        milliseconds(Some(row.lateness_ms)),
        milliseconds(row.connect_ms),
        milliseconds(row.ttft_ms),
        milliseconds(row.e2e_ms),
        milliseconds(row.tpot_ms),
        milliseconds(quantile(&gaps, 0.5)),
        milliseconds(quantile(&gaps, 0.99)),
        milliseconds(gaps.last().copied()),
        count(row.prompt_tokens),
        count(row.cached_tokens),
        count(row.output_tokens),
        row.frames.to_string(),
        row.coalesced_frames.to_string(),
        row.outcome.name().to_owned(),
        row.error.clone().unwrap_or_default(),
        count(row.http_status.map(u32::from)),
    ];
    fields.extend(at.extra.values().cloned());
    fields
}

/// Microsecond resolution, as in milliseconds below.
fn seconds(value_ms: Option<f64>) -> String {
    value_ms
        .map(|ms| format!("{:.6}", ms / 1000.0))
        .unwrap_or_default()
}

fn milliseconds(value: Option<f64>) -> String {
    value.map(|ms| format!("{ms:.3}")).unwrap_or_default()
}

fn count(value: Option<u32>) -> String {
    value.map(|count| count.to_string()).unwrap_or_default()
}

/// The file's name:
/// `metrics_<label>_<tier>_p<prompt>_g<gen>_c<concurrency>_r<repeat>_<state>.csv`, with the
/// values of further axes before the state.
pub(crate) fn lab_csv_name(at: &Coordinates, state: CacheState) -> String {
    let mut name = cell_file_stem("metrics", at);
    let _ = write!(name, "_{state}.csv");
    name
}

/// The begin of the name of a file that belongs to the cell at `at`: `kind` and every coordinate.
pub(crate) fn cell_file_stem(kind: &str, at: &Coordinates) -> String {
    let mut name = format!(
        "{kind}_{}_{}_p{}_g{}_c{}_r{}",
        slug(&at.label),
        slug(&at.tier),
        at.prompt_len,
        at.gen_len,
        at.concurrency,
        at.repeat
    );
    for value in at.extra.values() {
        let _ = write!(name, "_{}", slug(value));
    }
    file_name(&name)
}

/// Only letters, digits, `.` and `-`: safe as a part of a file name and never `_`, which parts
/// the name.
fn slug(text: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::frame::tests::{failed_row, good_row};
    use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

    fn coordinates() -> Coordinates {
        Coordinates {
            label: "long_context".to_owned(),
            tier: "cpu".to_owned(),
            prompt_len: PromptLen::new(1024).unwrap(),
            gen_len: GenLen::new(4).unwrap(),
            concurrency: Concurrency::new(8).unwrap(),
            repeat: Repeat::new(2).unwrap(),
            extra: BTreeMap::new(),
        }
    }

    #[test]
    fn the_columns_of_the_replaced_scripts_come_first_and_failures_are_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.csv");
        let mut failed = failed_row(1);
        failed.error = Some("sent \"no\", twice".to_owned());
        write_lab_csv(
            &[good_row(0, 120.5), failed],
            &coordinates(),
            Source::Simulated,
            &path,
        )
        .unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "ttft,avg_itl,e2e,prompt_len,gen_len,tier,label,source,state,request,concurrency,\
             repeat,sent_ms,lateness_ms,connect_ms,ttft_ms,e2e_ms,tpot_ms,itl_p50_ms,itl_p99_ms,\
             itl_max_ms,prompt_tokens,cached_tokens,output_tokens,frames,coalesced_frames,outcome,\
             error,http_status\n\
             0.120500,0.010000,0.150500,1024,4,cpu,long_context,simulated,cold,0,8,2,0.250,0.250,,\
             120.500,150.500,10.000,10.000,14.900,15.000,1030,0,4,4,0,ok,,200\n\
             ,,,1024,4,cpu,long_context,simulated,cold,1,8,2,0.250,0.250,,,,,,,,,,,0,0,failed,\
             \"sent \"\"no\"\", twice\",500\n"
        );
    }

    #[test]
    fn the_name_holds_every_coordinate() {
        let mut at = coordinates();
        assert_eq!(
            lab_csv_name(&at, CacheState::Restart),
            "metrics_long-context_cpu_p1024_g4_c8_r2_restart.csv"
        );
        at.extra
            .insert("server.args.x".to_owned(), "a/b c".to_owned());
        assert_eq!(
            lab_csv_name(&at, CacheState::Cold),
            "metrics_long-context_cpu_p1024_g4_c8_r2_a-b-c_cold.csv"
        );
    }
}
