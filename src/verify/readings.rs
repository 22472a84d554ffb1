//! The bytes of a pass, counted again from its telemetry.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::csv_table::Table;
use crate::record::schema::PassRecord;
use crate::record::telemetry_frame::read_readings;
use crate::series::Pcie;
use crate::telemetry::sample::{Point, SeriesKey};
use crate::telemetry::summary::{Summary, Window, summarize_around};
use crate::verdict::basis::{Stretch, Watched};
use crate::verdict::measures;
use crate::verdict::moved::Moved;

pub(super) use crate::telemetry::sample::Points;

/// The points of a `telemetry.parquet`.
pub(super) fn read(path: &Path) -> Result<Points> {
    let mut points = Points::new();
    for (series, devices) in read_readings(path)? {
        for (device, readings) in devices {
            let key = SeriesKey {
                series,
                device: device.as_str().into(),
            };
            let own = readings.iter().map(|reading| Point {
                at: seconds(reading.time_s),
                span: seconds(reading.span_s),
                value: reading.value,
                late: false,
                slowed: false,
            });
            points.insert(key, own.collect());
        }
    }
    Ok(points)
}

/// The points of a `pcie_stats_*.csv`: all that there is of some cells of labrun 0.1.
pub(super) fn read_pcie_csv(text: &str) -> Result<Points> {
    let table = Table::parse(text)?;
    table.require(&["gpu", "rxpci", "txpci", "time_s", "span_s", "method"])?;
    let mut points = Points::new();
    for row in &table.rows {
        let number = |name: &str| -> Result<f64> {
            let text = row.get(name).unwrap_or_default();
            text.parse()
                .with_context(|| format!("row {}: `{name}` is not a number", row.line))
        };
        let method = row.get("method").unwrap_or_default();
        let Some(pcie) = Pcie::ALL.iter().find(|pcie| pcie.method == method) else {
            continue;
        };
        for (series, column) in [(pcie.rx, "rxpci"), (pcie.tx, "txpci")] {
            let key = SeriesKey {
                series,
                device: row.get("gpu").unwrap_or_default().into(),
            };
            points.entry(key).or_default().push(Point {
                at: seconds(number("time_s")?),
                span: seconds(number("span_s")?),
                value: number(column)? * 1e6,
                late: false,
                slowed: false,
            });
        }
    }
    Ok(points)
}

/// A file may have any number.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

/// Most requests that the engine was seen to run at once during a pass.
pub(super) fn running_max(points: &Points, watched: &Watched) -> Option<f64> {
    let Stretch { window, core } = watched.pass;
    measures::running_max(&summarize_around(points, window, core))
}

/// What moved during a pass, by the readings in `points`.
pub(super) fn moved(points: &Points, watched: &Watched) -> Moved {
    let of = |stretch: Stretch| -> Vec<Summary> {
        summarize_around(points, stretch.window, stretch.core)
    };
    let mut moved = Moved::of(&of(watched.pass), watched.gpus, None);
    let until_stored = watched.until_stored.map(of);
    moved.add_stores(until_stored.as_deref(), watched.gpus);
    moved
}

/// Where the bytes of a pass of labrun 0.1 lie, which recorded its clock alone.
pub(super) fn watched(pass: &PassRecord) -> Watched {
    let from = seconds(pass.started_s);
    let window = Window {
        from,
        to: from + seconds(pass.duration_s),
    };
    let mut gpus: Vec<&str> = pass
        .telemetry
        .iter()
        .filter(|row| row.source == "gpu")
        .map(|row| row.device.as_str())
        .collect();
    gpus.sort_unstable();
    gpus.dedup();
    Watched {
        gpus: gpus.len(),
        pass: Stretch {
            window,
            core: window,
        },
        until_stored: None,
    }
}
