//! `timeline_<cell>`: TTFT of the requests over what PCIe, disks, Redis and the GPU or the engine
//! did, on the one clock of the run.

mod envelope;
pub(super) mod page;
mod strip;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use plotters::style::RGBColor;

use super::Drawing;
use super::figure::{Picture, TimeLine, TimePanel, Timeline};
use crate::aggregate::side_by_side;
use crate::record::frame::{FirstToken, read_first_tokens};
use crate::record::schema::CellRecord;
use crate::record::telemetry_frame::{Reading, Readings, read_readings};

pub(super) use page::Strip;
pub use page::Timelines;

const IN: RGBColor = RGBColor(0, 114, 178);
const OUT: RGBColor = RGBColor(213, 94, 0);

/// What can be drawn of one cell.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    /// It has no telemetry.
    Nothing,
    /// Its files cannot be read, and why.
    Unreadable(String),
    /// All of it.
    Drawn(Box<Timeline>),
}

/// The timelines of `runs`, each a folder and its cells: one a cell for the page, and as a figure
/// that of the cell of each tier that took longest.
pub fn timelines(runs: &[(&Path, &[CellRecord])]) -> Result<Timelines> {
    let mut all = Timelines::default();
    let mut taken = BTreeSet::new();
    for (folder, cells) in runs {
        let places: Vec<Option<PathBuf>> = cells.iter().map(|cell| place(folder, cell)).collect();
        let longest = longest(cells, &places);
        let made = side_by_side(cells.len(), |at| {
            let seen = match &places[at] {
                None => Seen::Nothing,
                Some(place) => match of_cell(place, &cells[at]) {
                    Ok(timeline) => Seen::Drawn(Box::new(timeline)),
                    Err(error) => Seen::Unreadable(format!("{error:#}")),
                },
            };
            let strip = Strip::of(&seen);
            let figure = match seen {
                Seen::Drawn(timeline) if longest.contains(&at) => {
                    let name = format!("timeline_{}", cells[at].id);
                    Some(Drawing::of(&name, Picture::Timeline(*timeline))?)
                }
                _ => None,
            };
            anyhow::Ok((strip, figure))
        });
        for one in made {
            let (strip, figure) = one?;
            all.strips.push(strip);
            all.figures.extend(figure.map(|figure| Drawing {
                name: page::free_name(&figure.name, &mut taken),
                ..figure
            }));
        }
    }
    Ok(all)
}

/// Where the files of a cell are; none where it has no telemetry or no pass.
fn place(folder: &Path, cell: &CellRecord) -> Option<PathBuf> {
    let place = folder.join("cells").join(&cell.id);
    let told = place.join("telemetry.parquet").is_file() && !cell.passes.is_empty();
    told.then_some(place)
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
    let mut panels = vec![TimePanel {
        title: "TTFT, ms; a tick where a request was sent".to_owned(),
        lines: Vec::new(),
        dots: ttft(cell, requests),
    }];
    panels.extend(sources(readings));
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

fn ttft(cell: &CellRecord, requests: &[FirstToken]) -> Vec<(f64, f64)> {
    let place = |row: &FirstToken| {
        let pass = cell.passes.iter().find(|pass| pass.state == row.state)?;
        Some((pass.started_s + row.sent_ms / 1e3, row.ttft_ms?))
    };
    requests.iter().filter_map(place).collect()
}

/// A panel for each source that told anything.
fn sources(readings: &Readings) -> Vec<TimePanel> {
    let simulated = readings.keys().any(|(source, _)| source == "simulated");
    let said = if simulated { " (simulated)" } else { "" };
    let way = |source: &str, metric: &str, scale: f64| {
        let key = (source.to_owned(), metric.to_owned());
        readings.get(&key).map_or(vec![], |all| steps(all, scale))
    };
    // What this machine's disk does is not what a simulated one pretends.
    let bytes = |source: &str, metric: &str| {
        if simulated {
            way("simulated", &format!("{source}_{metric}"), 1e6)
        } else {
            way(source, metric, 1e6)
        }
    };
    let mut panels: Vec<TimePanel> = pcie(readings).into_iter().collect();
    for (source, name, [read, write]) in [
        ("disk", "disk", ["read", "written"]),
        ("redis", "Redis", ["sent", "received"]),
    ] {
        let lines = [
            line(read, IN, bytes(source, "read")),
            line(write, OUT, bytes(source, "write")),
        ];
        let moved = lines.iter().flat_map(|line| &line.steps);
        if moved.map(|step| step.2).fold(0.0, f64::max) > 0.1 {
            panels.extend(panel(format!("{name}{said}, MB/s"), lines));
        }
    }
    let mut gpu = way("gpu", "sm_active", 1.0);
    if gpu.is_empty() {
        gpu = way("gpu", "utilization", 1.0);
    }
    panels.extend(panel("GPU, % busy".to_owned(), [line("busy", IN, gpu)]));
    let requests = [
        line("running", IN, way("engine", "running", 1.0)),
        line("waiting", OUT, way("engine", "waiting", 1.0)),
    ];
    panels.extend(panel(format!("requests in the engine{said}"), requests));
    panels
}

/// PCIe by the best method that answered.
fn pcie(readings: &Readings) -> Option<TimePanel> {
    let of = |way: &str, method: &str| {
        let wanted = format!("pcie_{way}_{method}");
        let (_, all) = readings.iter().find(|((_, metric), _)| *metric == wanted)?;
        Some(steps(all, 1e9))
    };
    let (method, said) = [
        ("gpm", ", by GPM"),
        ("counters", ", by NVML's counters"),
        ("simulated", " (simulated)"),
    ]
    .into_iter()
    .find(|(method, _)| of("rx", method).is_some())?;
    let of = |way: &str| of(way, method).unwrap_or_default();
    let lines = [
        line("into the GPU", IN, of("rx")),
        line("out of it", OUT, of("tx")),
    ];
    panel(format!("PCIe{said}, GB/s"), lines)
}

/// A panel of the lines that say anything; none where none does.
fn panel<const N: usize>(title: String, lines: [TimeLine; N]) -> Option<TimePanel> {
    let told = lines.into_iter().filter(|line| !line.steps.is_empty());
    let lines: Vec<TimeLine> = told.collect();
    (!lines.is_empty()).then_some(TimePanel {
        title,
        lines,
        dots: Vec::new(),
    })
}

fn line(name: &'static str, colour: RGBColor, steps: Vec<(f64, f64, f64)>) -> TimeLine {
    TimeLine {
        name,
        colour,
        steps,
    }
}

/// Stretches of a series, added up over devices that were read together. A level holds from the
/// reading before it.
fn steps(readings: &[Reading], scale: f64) -> Vec<(f64, f64, f64)> {
    let mut found: Vec<(f64, f64, f64)> = Vec::new();
    let mut ordered = readings.to_vec();
    ordered.sort_by(|a, b| a.time_s.total_cmp(&b.time_s));
    for read in ordered {
        let value = read.value / scale;
        match found.last_mut() {
            // Two disks, read in one go.
            Some(last) if (last.1 - read.time_s).abs() < 1e-6 => last.2 += value,
            last => {
                let from = match last {
                    Some(last) if read.span_s == 0.0 => last.1,
                    _ => read.time_s - read.span_s,
                };
                found.push((from, read.time_s, value));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(time_s: f64, span_s: f64, value: f64) -> Reading {
        Reading {
            time_s,
            span_s,
            value,
        }
    }

    #[test]
    fn devices_add_up_and_levels_hold_from_the_reading_before() {
        let two_disks = [
            read(1.0, 0.5, 3e6),
            read(1.5, 0.5, 1e6),
            read(1.0, 0.5, 2e6),
        ];
        let found = steps(&two_disks, 1e6);
        assert_eq!(found, [(0.5, 1.0, 5.0), (1.0, 1.5, 1.0)]);
        let levels = [read(1.0, 0.0, 4.0), read(3.0, 0.0, 6.0)];
        let found = steps(&levels, 1.0);
        assert_eq!(found, [(1.0, 1.0, 4.0), (1.0, 3.0, 6.0)]);
    }
}
