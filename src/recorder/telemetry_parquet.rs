//! Writes `telemetry.parquet`: every point of every series.

use std::path::Path;

use anyhow::{Context as _, Result};
use polars::prelude::{Column, DataFrame};

use crate::record::frame::save_frame;
use crate::telemetry::sample::{Point, Points, SeriesKey};

/// Writes every point as Parquet (zstd), series by series.
pub fn write_telemetry(all: &Points, path: &Path) -> Result<()> {
    let points = || {
        all.iter()
            .flat_map(|(key, points)| points.iter().map(move |point| (key, point)))
    };
    let number = |name: &str, pick: fn(&Point) -> f64| {
        let values: Vec<f64> = points().map(|(_, point)| pick(point)).collect();
        Column::new(name.into(), values)
    };
    let words = |name: &str, pick: fn(&SeriesKey) -> &str| {
        let values: Vec<&str> = points().map(|(key, _)| pick(key)).collect();
        Column::new(name.into(), values)
    };
    let marks = |name: &str, pick: fn(&Point) -> bool| {
        let values: Vec<bool> = points().map(|(_, point)| pick(point)).collect();
        Column::new(name.into(), values)
    };
    let columns = vec![
        number("time_s", |point| point.at.as_secs_f64()),
        number("span_s", |point| point.span.as_secs_f64()),
        words("source", |key| key.series.source().name()),
        words("device", |key| &key.device),
        words("metric", |key| key.series.name()),
        number("value", |point| point.value),
        words("unit", |key| key.series.unit().name()),
        marks("late", |point| point.late),
        marks("slowed", |point| point.slowed),
    ];
    let mut frame = DataFrame::new(points().count(), columns)
        .context("cannot put the telemetry into columns")?;
    save_frame(&mut frame, path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::frame::load_frame;
    use crate::record::telemetry_frame::{Readings, read_readings};
    use crate::series::Series;

    #[test]
    fn points_survive_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("telemetry.parquet");
        let key = |device: &str, series| SeriesKey {
            series,
            device: device.into(),
        };
        let point = |at, span, value, late| Point {
            at: Duration::from_millis(at),
            span: Duration::from_millis(span),
            value,
            late,
            slowed: late,
        };
        let series = Points::from([
            (
                key("0", Series::GpuPcieRxGpm),
                vec![point(250, 250, 5e10, false), point(750, 500, 1.0, true)],
            ),
            (
                key("", Series::GpuPower),
                vec![point(1000, 0, 350.5, false)],
            ),
        ]);
        write_telemetry(&series, &path).unwrap();
        let readings = read_readings(&path).unwrap();
        let times = |series| -> Vec<(f64, f64, f64)> {
            let devices = &readings[&series];
            let parts = devices.values().flatten();
            parts.map(|r| (r.time_s, r.span_s, r.value)).collect()
        };
        assert_eq!(readings.len(), 2);
        assert_eq!(
            times(Series::GpuPcieRxGpm),
            [(0.25, 0.25, 5e10), (0.75, 0.5, 1.0)]
        );
        assert_eq!(times(Series::GpuPower), [(1.0, 0.0, 350.5)]);
        let frame = load_frame(&path).unwrap();
        let row_at = |time_s: f64| {
            let times = frame.column("time_s").unwrap().f64().unwrap();
            times.iter().position(|at| at == Some(time_s)).unwrap()
        };
        let late = row_at(0.75);
        let word = |name: &str| frame.column(name).unwrap().str().unwrap().get(late);
        let mark = |name: &str, at| frame.column(name).unwrap().bool().unwrap().get(at);
        assert_eq!((word("device"), word("unit")), (Some("0"), Some("bytes/s")));
        for name in ["late", "slowed"] {
            let marks = (mark(name, late), mark(name, row_at(0.25)));
            assert_eq!(marks, (Some(true), Some(false)), "{name}");
        }
        write_telemetry(&Points::new(), &path).unwrap();
        assert_eq!(read_readings(&path).unwrap(), Readings::new());
    }
}
