//! Reads `telemetry.parquet`: every point of every series.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use polars::prelude::DataFrame;

use super::frame::load_columns;
use crate::series::Series;

/// One value of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// When it was read, seconds since the run began.
    pub time_s: f64,
    /// The time up to then that it is the mean of, seconds; 0 for what is true at one instant.
    pub span_s: f64,
    /// The value, in the unit of its series.
    pub value: f64,
}

/// Readings of one metric by device, in the order of the file.
pub(crate) type Devices = BTreeMap<String, Vec<Reading>>;

/// All readings of the series that this labrun knows.
pub(crate) type Readings = BTreeMap<Series, Devices>;

/// Reads no more than a timeline needs: a cell of hours has
/// millions of rows.
pub fn read_readings(path: &Path) -> Result<Readings> {
    let frame = load_columns(
        path,
        &["time_s", "span_s", "source", "device", "metric", "value"],
    )?;
    let readings = readings_of(&frame);
    readings.with_context(|| format!("`{}` is not a telemetry file", path.display()))
}

fn readings_of(frame: &DataFrame) -> Result<Readings> {
    let number = |name: &str| frame.column(name)?.f64();
    let word = |name: &str| frame.column(name)?.str();
    let (time, span, value) = (number("time_s")?, number("span_s")?, number("value")?);
    let (source, device, metric) = (word("source")?, word("device")?, word("metric")?);
    let row = |at: usize| {
        let reading = Reading {
            time_s: time.get(at)?,
            span_s: span.get(at)?,
            value: value.get(at)?,
        };
        let series = (source.get(at)?, metric.get(at)?, device.get(at)?);
        Some((series, reading))
    };
    let mut all = Readings::new();
    let mut at = 0;
    while at < frame.height() {
        let lacks = |at| format!("row {at} lacks a value");
        let (series, first) = row(at).with_context(|| lacks(at))?;
        let (source, metric, device) = series;
        let mut own = vec![first];
        at += 1;
        // Rows stand series by series.
        while at < frame.height() {
            let (next, reading) = row(at).with_context(|| lacks(at))?;
            if next != series {
                break;
            }
            own.push(reading);
            at += 1;
        }
        if let Some(known) = Series::find(source, metric) {
            let devices = all.entry(known).or_default();
            devices
                .entry(device.to_owned())
                .or_default()
                .append(&mut own);
        }
    }
    Ok(all)
}
