//! Timelines: TTFT of the requests over what PCIe, disks, Redis and the GPU or the engine
//! did, on the one clock of the run.

mod envelope;
mod model;
pub(super) mod page;
mod panels;
mod strip;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::matrix::file_name::file_name;
use crate::parallel::side_by_side;
use crate::record::frame::{FirstToken, read_first_tokens};
use crate::record::schema::CellRecord;
use crate::record::telemetry_frame::{Readings, read_readings};
use model::{TimePanel, Timeline};

pub(super) use page::Strip;
pub(crate) use page::Timelines;
pub(super) use page::is_doubtful;

/// The timelines of `runs`, each a folder and its cells: one a cell for the page, and as a file
/// too that of the cell of each tier that took longest.
pub(crate) fn timelines(runs: &[(&Path, &[CellRecord])]) -> Timelines {
    let mut all = Timelines::default();
    let mut taken = BTreeSet::new();
    for (folder, cells) in runs {
        let places: Vec<Option<PathBuf>> = cells.iter().map(|cell| place(folder, cell)).collect();
        let longest = longest(cells, &places);
        let names = cells
            .iter()
            .map(|cell| file_name(&format!("timeline_{}", cell.id)));
        let files: Vec<String> = names.map(|name| free_name(&name, &mut taken)).collect();
        let strips = side_by_side(cells.len(), |at| match &places[at] {
            None => Strip::Nothing,
            Some(place) => match of_cell(place, &cells[at]) {
                Ok(timeline) => Strip::of(&timeline, files[at].clone()),
                Err(error) => Strip::Unreadable(format!("{error:#}")),
            },
        });
        for (at, strip) in strips.into_iter().enumerate() {
            all.add(strip, longest.contains(&at));
        }
    }
    all
}

/// `wanted`.svg, or with a number behind it: cells of two runs may have one id.
fn free_name(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = format!("{wanted}.svg");
    let mut at = 2;
    while !taken.insert(name.clone()) {
        name = format!("{wanted}_{at}.svg");
        at += 1;
    }
    name
}

/// The folder of a cell; none without telemetry or passes.
fn place(folder: &Path, cell: &CellRecord) -> Option<PathBuf> {
    let place = folder.join("cells").join(&cell.id);
    let has_telemetry = place.join("telemetry.parquet").is_file() && !cell.passes.is_empty();
    has_telemetry.then_some(place)
}

fn took_s(cell: &CellRecord) -> f64 {
    cell.passes.iter().map(|pass| pass.duration_s).sum()
}

/// Of each tier, the cell with telemetry that took longest.
fn longest(cells: &[CellRecord], places: &[Option<PathBuf>]) -> Vec<usize> {
    let mut chosen: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, cell) in cells.iter().enumerate() {
        if places[at].is_some() {
            let best = chosen.entry(&cell.coordinates.tier).or_insert(at);
            if took_s(cell) > took_s(&cells[*best]) {
                *best = at;
            }
        }
    }
    chosen.into_values().collect()
}

fn of_cell(place: &Path, cell: &CellRecord) -> Result<Timeline> {
    let readings = read_readings(&place.join("telemetry.parquet"))?;
    let requests = read_first_tokens(&place.join("requests.parquet"))?;
    Ok(timeline(cell, &requests, &readings))
}

fn timeline(cell: &CellRecord, requests: &[FirstToken], readings: &Readings) -> Timeline {
    let begin = cell.passes.first().map_or(0.0, |pass| pass.started_s);
    let ends = cell
        .passes
        .iter()
        .map(|pass| pass.started_s + pass.duration_s);
    let end = ends.fold(begin, f64::max);
    let margin = (end - begin) * 0.02;
    let at = &cell.coordinates;
    let phases = cell.passes.iter().map(|pass| {
        let to = pass.started_s + pass.duration_s;
        (pass.started_s, to, pass.state.to_string())
    });
    let mut panels = vec![ttft(cell, requests)];
    panels.extend(panels::sources(readings));
    Timeline {
        title: format!(
            "{} on {}, {} prompt tokens, {} at a time",
            at.label, at.tier, at.prompt_len, at.concurrency
        ),
        subtitle: format!("{} numbers; cell {}", cell.source.name(), cell.id),
        span: (begin - margin, end + margin),
        phases: phases.collect(),
        panels,
    }
}

/// A dot a first token, and a tick a request, answered or not.
fn ttft(cell: &CellRecord, requests: &[FirstToken]) -> TimePanel {
    let sent = |row: &FirstToken| {
        let pass = cell.passes.iter().find(|pass| pass.state == row.state)?;
        Some(pass.started_s + row.sent_ms / 1e3)
    };
    let dot = |row: &FirstToken| Some((sent(row)?, row.ttft_ms?));
    TimePanel {
        title: "TTFT, ms; a tick where a request was sent".to_owned(),
        lines: Vec::new(),
        dots: requests.iter().filter_map(dot).collect(),
        ticks: requests.iter().filter_map(sent).collect(),
    }
}
