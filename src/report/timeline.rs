//! `timeline_<cell>`: TTFT of the requests over what PCIe, disks, Redis and the GPU or the engine
//! did, on the one clock of the run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use plotters::style::RGBColor;

use super::Drawing;
use super::figure::{Picture, TimeLine, TimePanel, Timeline};
use crate::record::frame::read_parquet;
use crate::record::schema::{CellRecord, RequestRow};
use crate::record::telemetry_frame::{TelemetryRow, read_telemetry};

const IN: RGBColor = RGBColor(0, 114, 178);
const OUT: RGBColor = RGBColor(213, 94, 0);

/// One cell's timeline for each tier of the run in `folder`: the cell that took longest.
pub fn timelines(folder: &Path, cells: &[CellRecord]) -> Result<Vec<Drawing>> {
    let took = |cell: &CellRecord| cell.passes.iter().map(|pass| pass.duration_s).sum::<f64>();
    let mut chosen: BTreeMap<&str, &CellRecord> = BTreeMap::new();
    for cell in cells {
        let has_files = folder
            .join("cells")
            .join(&cell.id)
            .join("telemetry.parquet")
            .is_file();
        if !has_files || cell.passes.is_empty() {
            continue;
        }
        let best = chosen.entry(&cell.coordinates.tier).or_insert(cell);
        if took(cell) > took(best) {
            *best = cell;
        }
    }
    chosen
        .into_values()
        .map(|cell| {
            let place = folder.join("cells").join(&cell.id);
            let rows = read_telemetry(&place.join("telemetry.parquet"))?;
            let requests = read_parquet(&place.join("requests.parquet"))?;
            let picture = Picture::Timeline(timeline(cell, &requests, &rows));
            Drawing::of(&format!("timeline_{}", cell.id), picture)
        })
        .collect()
}

fn timeline(cell: &CellRecord, requests: &[RequestRow], rows: &[TelemetryRow]) -> Timeline {
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
    panels.extend(sources(rows));
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

fn ttft(cell: &CellRecord, requests: &[RequestRow]) -> Vec<(f64, f64)> {
    let place = |row: &RequestRow| {
        let pass = cell.passes.iter().find(|pass| pass.state == row.state)?;
        Some((pass.started_s + row.sent_ms / 1e3, row.ttft_ms?))
    };
    requests.iter().filter_map(place).collect()
}

/// A panel for each source that told anything.
fn sources(rows: &[TelemetryRow]) -> Vec<TimePanel> {
    let simulated = rows.iter().any(|row| row.source == "simulated");
    let said = if simulated { " (simulated)" } else { "" };
    let way = |source: &str, metric: &str, scale: f64| {
        let wanted = |row: &TelemetryRow| row.source == source && row.metric == metric;
        steps(rows, wanted, scale)
    };
    // What this machine's disk does is not what a simulated one pretends.
    let bytes = |source: &str, metric: &str| {
        if simulated {
            way("simulated", &format!("{source}_{metric}"), 1e6)
        } else {
            way(source, metric, 1e6)
        }
    };
    let mut panels: Vec<TimePanel> = pcie(rows).into_iter().collect();
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
fn pcie(rows: &[TelemetryRow]) -> Option<TimePanel> {
    let (method, said) = [
        ("gpm", ", by GPM"),
        ("counters", ", by NVML's counters"),
        ("simulated", " (simulated)"),
    ]
    .into_iter()
    .find(|(method, _)| {
        let rx = format!("pcie_rx_{method}");
        rows.iter().any(|row| row.metric == rx)
    })?;
    let of = |way: &str| {
        let metric = format!("pcie_{way}_{method}");
        steps(rows, |row| row.metric == metric, 1e9)
    };
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

/// Stretches of the series that `wanted` picks, added up over devices that were read together. A
/// level holds from the reading before it.
fn steps(
    rows: &[TelemetryRow],
    wanted: impl Fn(&TelemetryRow) -> bool,
    scale: f64,
) -> Vec<(f64, f64, f64)> {
    let mut found: Vec<(f64, f64, f64)> = Vec::new();
    let mut picked: Vec<&TelemetryRow> = rows.iter().filter(|row| wanted(row)).collect();
    picked.sort_by(|a, b| a.time_s.total_cmp(&b.time_s));
    for row in picked {
        let value = row.value / scale;
        match found.last_mut() {
            // Two disks, read in one go.
            Some(last) if (last.1 - row.time_s).abs() < 1e-6 => last.2 += value,
            last => {
                let from = match last {
                    Some(last) if row.span_s == 0.0 => last.1,
                    _ => row.time_s - row.span_s,
                };
                found.push((from, row.time_s, value));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(time_s: f64, span_s: f64, device: &str, value: f64) -> TelemetryRow {
        TelemetryRow {
            time_s,
            span_s,
            source: "disk".to_owned(),
            device: device.to_owned(),
            metric: "read".to_owned(),
            value,
            unit: "bytes/s".to_owned(),
            late: false,
            slowed: false,
        }
    }

    #[test]
    fn devices_add_up_and_levels_hold_from_the_reading_before() {
        let rows = [
            row(1.0, 0.5, "vda", 3e6),
            row(1.5, 0.5, "vda", 1e6),
            row(1.0, 0.5, "vdb", 2e6),
        ];
        let found = steps(&rows, |_| true, 1e6);
        assert_eq!(found, [(0.5, 1.0, 5.0), (1.0, 1.5, 1.0)]);
        let levels = [row(1.0, 0.0, "", 4.0), row(3.0, 0.0, "", 6.0)];
        let found = steps(&levels, |_| true, 1.0);
        assert_eq!(found, [(1.0, 1.0, 4.0), (1.0, 3.0, 6.0)]);
    }
}
