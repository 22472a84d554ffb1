//! `pcie_stats_*.csv` and `disk_io_stats_*.csv`: telemetry in the shape of the earlier lab's files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::csv_table::push_row;
use crate::series::{Pcie, Series};
use crate::telemetry::sample::{Point, Points, SeriesKey};

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

/// Writes `pcie_stats_*.csv`; not where no series is of PCIe.
pub(crate) fn write_pcie_csv(points: &Points, path: &Path) -> Result<()> {
    let mut text = String::new();
    for (key, rx) in points {
        let Some(pcie) = Pcie::ALL.iter().find(|pcie| pcie.rx == key.series) else {
            continue;
        };
        for at in rx {
            push_row(
                &mut text,
                &[
                    key.device.to_string(),
                    megabytes(Some(at.value)),
                    megabytes(value_at(points, (pcie.tx, &key.device), at)),
                    seconds(at.at.as_secs_f64()),
                    seconds(at.span.as_secs_f64()),
                    pcie.method.to_owned(),
                    u8::from(at.late).to_string(),
                ],
            );
        }
    }
    write(&PCIE_COLUMNS, &text, path)
}

/// Writes `disk_io_stats_*.csv`; not where no series is of disks.
pub(crate) fn write_disk_csv(points: &Points, tier_disk: Option<&str>, path: &Path) -> Result<()> {
    let mut text = String::new();
    let reads = points
        .iter()
        .filter(|(key, _)| key.series == Series::DiskRead);
    for (key, read) in reads {
        for at in read {
            let of = |series| value_at(points, (series, &key.device), at);
            let plain = |value: Option<f64>| value.map(|v| format!("{v:.1}")).unwrap_or_default();
            let is_tier = tier_disk == Some(&*key.device);
            push_row(
                &mut text,
                &[
                    key.device.to_string(),
                    megabytes(Some(at.value)),
                    megabytes(of(Series::DiskWrite)),
                    plain(of(Series::DiskReads)),
                    plain(of(Series::DiskWrites)),
                    plain(of(Series::DiskBusy)),
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

/// The value that `series` of `device` has at the time of `at`: they were read together.
fn value_at(points: &Points, (series, device): (Series, &Arc<str>), at: &Point) -> Option<f64> {
    let device = Arc::clone(device);
    let other = points.get(&SeriesKey { series, device })?;
    let place = other.binary_search_by_key(&at.at, |point| point.at);
    Some(other[place.ok()?].value)
}

fn write(columns: &[&str], rows: &str, path: &Path) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    push_row(&mut text, columns);
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

    fn points(rows: &[(Series, &str, f64)]) -> Points {
        let one = |&(series, device, value): &(_, &str, f64)| {
            let key = SeriesKey {
                series,
                device: device.into(),
            };
            let point = Point {
                at: Duration::from_millis(1500),
                span: Duration::from_millis(500),
                value,
                late: false,
                slowed: false,
            };
            (key, vec![point])
        };
        rows.iter().map(one).collect()
    }

    #[test]
    fn the_first_columns_are_dmons() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pcie.csv");
        let all = points(&[
            (Pcie::GPM.rx, "0", 51.6e9),
            (Pcie::GPM.tx, "0", 3e6),
            (Pcie::COUNTERS.rx, "0", 54.6e9),
            (Series::GpuPower, "0", 1.0),
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
        write_disk_csv(&points(&[(Series::GpuPower, "0", 1.0)]), None, &path).unwrap();
        assert!(!path.exists());
        let all = points(&[
            (Series::DiskRead, "vda", 2e6),
            (Series::DiskWrite, "vda", 1e6),
            (Series::DiskBusy, "vda", 12.34),
            (Series::DiskRead, "vdb", 0.0),
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
