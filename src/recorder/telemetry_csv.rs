//! `pcie_stats_*.csv` and `disk_io_stats_*.csv`: telemetry in the shape of the earlier lab's files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::record::csv;
use crate::telemetry::sample::{Point, Series, SeriesKey};

/// The head of `pcie_stats_*.csv`: the first columns are those of `nvidia-smi dmon -s t` (MB/s,
/// 10^6 bytes), rx into the GPU. Each row is the mean over `span_s` up to `time_s`.
const PCIE_COLUMNS: [&str; 7] = [
    "gpu", "rxpci", "txpci", "time_s", "span_s", "method", "late",
];

/// The head of `disk_io_stats_*.csv`: means over `span_s` up to `time_s`; `tier` marks the disk of
/// the disk tier.
const DISK_COLUMNS: [&str; 10] = [
    "device",
    "read_mb_s",
    "write_mb_s",
    "reads_s",
    "writes_s",
    "busy_percent",
    "time_s",
    "span_s",
    "tier",
    "late",
];

/// Writes `pcie_stats_*.csv`; not where nothing told of PCIe.
pub fn write_pcie_csv(series: &BTreeMap<SeriesKey, Series>, path: &Path) -> Result<()> {
    let mut text = String::new();
    for (key, rx) in series {
        let Some(method) = key.metric.strip_prefix("pcie_rx_") else {
            continue;
        };
        for at in &rx.points {
            let other = |metric: &SeriesKey| {
                metric.source == key.source
                    && metric.device == key.device
                    && metric.metric.strip_prefix("pcie_tx_") == Some(method)
            };
            csv::push_row(
                &mut text,
                &[
                    key.device.to_string(),
                    megabytes(Some(at.value)),
                    megabytes(value_at(series, other, at)),
                    seconds(at.at.as_secs_f64()),
                    seconds(at.span.as_secs_f64()),
                    method.to_owned(),
                    u8::from(at.late).to_string(),
                ],
            );
        }
    }
    write(&PCIE_COLUMNS, &text, path)
}

/// Writes `disk_io_stats_*.csv`; not where nothing told of disks.
pub fn write_disk_csv(
    series: &BTreeMap<SeriesKey, Series>,
    tier_disk: Option<&str>,
    path: &Path,
) -> Result<()> {
    let mut text = String::new();
    let reads = series
        .iter()
        .filter(|(key, _)| key.source == "disk" && key.metric == "read");
    for (key, read) in reads {
        for at in &read.points {
            let of = |name: &str| {
                let same = |other: &SeriesKey| {
                    other.source == "disk" && other.device == key.device && other.metric == name
                };
                value_at(series, same, at)
            };
            let plain = |value: Option<f64>| value.map(|v| format!("{v:.1}")).unwrap_or_default();
            let is_tier = tier_disk == Some(&*key.device);
            csv::push_row(
                &mut text,
                &[
                    key.device.to_string(),
                    megabytes(Some(at.value)),
                    megabytes(of("write")),
                    plain(of("reads")),
                    plain(of("writes")),
                    plain(of("busy")),
                    seconds(at.at.as_secs_f64()),
                    seconds(at.span.as_secs_f64()),
                    u8::from(is_tier).to_string(),
                    u8::from(at.late).to_string(),
                ],
            );
        }
    }
    write(&DISK_COLUMNS, &text, path)
}

/// The value that the series of `wanted` has at the time of `at`: they were read together.
fn value_at(
    series: &BTreeMap<SeriesKey, Series>,
    wanted: impl Fn(&SeriesKey) -> bool,
    at: &Point,
) -> Option<f64> {
    let (_, other) = series.iter().find(|(key, _)| wanted(key))?;
    let place = other.points.binary_search_by_key(&at.at, |point| point.at);
    Some(other.points[place.ok()?].value)
}

fn write(columns: &[&str], rows: &str, path: &Path) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    csv::push_row(&mut text, columns);
    text.push_str(rows);
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

fn megabytes(bytes: Option<f64>) -> String {
    bytes.map(|b| format!("{:.3}", b / 1e6)).unwrap_or_default()
}

fn seconds(value: f64) -> String {
    format!("{value:.6}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::sample::Unit;

    fn series(rows: &[(&'static str, &str, &'static str, f64)]) -> BTreeMap<SeriesKey, Series> {
        let one = |&(source, device, metric, value): &(_, &str, _, f64)| {
            let key = SeriesKey {
                source,
                device: device.into(),
                metric,
            };
            let point = Point {
                at: Duration::from_millis(1500),
                span: Duration::from_millis(500),
                value,
                late: false,
                slowed: false,
            };
            let series = Series {
                unit: Unit::BytesPerSecond,
                points: vec![point],
            };
            (key, series)
        };
        rows.iter().map(one).collect()
    }

    #[test]
    fn the_first_columns_are_dmons() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pcie.csv");
        let all = series(&[
            ("gpu", "0", "pcie_rx_gpm", 51.6e9),
            ("gpu", "0", "pcie_tx_gpm", 3e6),
            ("gpu", "0", "pcie_rx_counters", 54.6e9),
            ("gpu", "0", "power", 1.0),
        ]);
        write_pcie_csv(&all, &path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "gpu,rxpci,txpci,time_s,span_s,method,late\n\
             0,54600.000,,1.500000,0.500000,counters,0\n\
             0,51600.000,3.000,1.500000,0.500000,gpm,0\n"
        );
    }

    #[test]
    fn the_tiers_disk_is_marked_and_no_file_is_made_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.csv");
        write_disk_csv(&series(&[("gpu", "0", "power", 1.0)]), None, &path).unwrap();
        assert!(!path.exists());
        let all = series(&[
            ("disk", "vda", "read", 2e6),
            ("disk", "vda", "write", 1e6),
            ("disk", "vda", "busy", 12.34),
            ("disk", "vdb", "read", 0.0),
        ]);
        write_disk_csv(&all, Some("vda"), &path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "device,read_mb_s,write_mb_s,reads_s,writes_s,busy_percent,time_s,span_s,tier,late\n\
             vda,2.000,1.000,,,12.3,1.500000,0.500000,1,0\n\
             vdb,0.000,,,,,1.500000,0.500000,0,0\n"
        );
    }
}
