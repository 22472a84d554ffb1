//! `labrun telemetry`: records this machine for a while, without a load.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::{ExitStatus, print, say};
use crate::cli::TelemetryArgs;
use crate::config::{self, Config};
use crate::recorder::telemetry_csv::{write_disk_csv, write_pcie_csv};
use crate::recorder::telemetry_parquet::write_telemetry;
use crate::series::Unit;
use crate::telemetry::collector::{Recorded, Target, Telemetry};
use crate::telemetry::nvml::choice::Gpus;
use crate::telemetry::nvml::replay::Recorder;
use crate::telemetry::summary::{Summary, Window, summarize};

/// Records, then prints a summary.
pub(super) fn telemetry(args: &TelemetryArgs, runtime: &Runtime) -> Result<ExitStatus> {
    ensure!(
        args.seconds > 0.0 && args.seconds.is_finite(),
        "invalid `--seconds {}`: expected a positive number",
        args.seconds
    );
    let config = Config::load(args.config.as_deref())?;
    let mut settings = config.settings.telemetry;
    settings.pcie = args.pcie.unwrap_or(settings.pcie);
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| format!("making `{}`", out.display()))?;
    }
    let recorder = args.record_replay.as_deref().map(Recorder::create);
    let recorder = recorder.transpose()?;
    let scratch = config.settings.paths.scratch;
    let target = Target {
        gpus: if args.gpu.is_empty() {
            Gpus::All
        } else {
            Gpus::These(args.gpu.clone())
        },
        disk_tier: (!scratch.as_os_str().is_empty()).then_some(scratch),
        recorder: recorder.clone(),
        ..Target::default()
    };
    let (recorded, window, epoch_s) = watch(args, &settings, &target, runtime)?;
    if let Some(recorder) = recorder {
        recorder.finish()?;
    }
    let summaries = summarize(&recorded.series, window);
    if let Some(out) = &args.out {
        write(
            out,
            &recorded,
            &summaries,
            (window, epoch_s, settings.budget_percent),
        )?;
        say(&format!("written to {}", out.display()));
    }
    print(&table(&summaries))?;
    for warning in &recorded.warnings {
        say(&format!("warning: {warning}"));
    }
    let used = recorded.cpu_share_percent();
    let seconds = window.seconds();
    print(&format!(
        "the samplers themselves used {used:.2} % of one core over {seconds:.1} s ({})\n",
        allowed(settings.budget_percent)
    ))?;
    Ok(ExitStatus::Success)
}

/// What the samplers may use, in words.
fn allowed(budget_percent: f64) -> String {
    if budget_percent > 0.0 {
        format!("{budget_percent} % is allowed")
    } else {
        "without a limit".to_owned()
    }
}

/// Watches until the time is over or labrun is stopped. Also returns the epoch on the system's
/// monotonic clock (`CLOCK_MONOTONIC`), for tools that match times.
fn watch(
    args: &TelemetryArgs,
    settings: &config::Telemetry,
    target: &Target,
    runtime: &Runtime,
) -> Result<(Recorded, Window, f64)> {
    runtime.block_on(async {
        let epoch = Instant::now();
        let monotonic = clock_gettime(ClockId::Monotonic);
        let epoch_s = monotonic.tv_sec as f64 + monotonic.tv_nsec as f64 / 1e9;
        let telemetry = Telemetry::start(settings, epoch, target);
        let from = telemetry.edge();
        let limit = Duration::try_from_secs_f64(args.seconds)
            .context("`--seconds` is longer than any clock")?;
        let mut asked_to_end = signal(SignalKind::terminate()).context("waiting for signals")?;
        tokio::select! {
            () = tokio::time::sleep(limit) => {}
            interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for signals")?,
            _ = asked_to_end.recv() => {}
        }
        let to = telemetry.edge();
        let to = telemetry.settle(to).await;
        Ok((telemetry.stop(), Window { from, to }, epoch_s))
    })
}

fn write(
    out: &Path,
    recorded: &Recorded,
    summaries: &[Summary],
    (window, epoch_s, budget_percent): (Window, f64, f64),
) -> Result<()> {
    write_telemetry(&recorded.series, &out.join("telemetry.parquet"))?;
    write_pcie_csv(&recorded.series, &out.join("pcie_stats.csv"))?;
    let disk = recorded.tier_disk.as_deref();
    write_disk_csv(&recorded.series, disk, &out.join("disk_io_stats.csv"))?;
    let metrics: Vec<Value> = summaries.iter().map(metric).collect();
    let summary = json!({
        "epoch_monotonic_s": epoch_s,
        "from_s": window.from.as_secs_f64(),
        "to_s": window.to.as_secs_f64(),
        "tier_disk": recorded.tier_disk,
        "samplers_cpu_share_percent": recorded.cpu_share_percent(),
        "samplers_budget_percent": budget_percent,
        "warnings": recorded.warnings,
        "metrics": metrics,
    });
    let path = out.join("summary.json");
    let text = serde_json::to_string_pretty(&summary)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("writing `{}`", path.display()))
}

fn metric(summary: &Summary) -> Value {
    json!({
        "source": summary.key.series.source().name(), "device": &*summary.key.device,
        "metric": summary.key.series.name(), "unit": summary.key.series.unit().name(),
        "samples": summary.samples, "late": summary.late, "slowed": summary.slowed,
        "every_s": summary.every_s, "mean": summary.mean,
        "max": summary.max, "total": summary.total, "covered": summary.covered,
    })
}

fn table(summaries: &[Summary]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "source", "device", "metric", "mean", "max", "total", "unit", "samples", "late", "slowed",
        "every",
    ]);
    for summary in summaries {
        let number = |value: Option<f64>| value.map(scaled).unwrap_or_default();
        let total = summary.total.map(|total| match summary.key.series.unit() {
            Unit::WattsMean => format!("{} J", scaled(total)),
            _ => scaled(total),
        });
        table.add_row([
            summary.key.series.source().name().to_owned(),
            summary.key.device.to_string(),
            summary.key.series.name().to_owned(),
            number(summary.mean),
            number(summary.max),
            total.unwrap_or_default(),
            summary.key.series.unit().name().to_owned(),
            summary.samples.to_string(),
            summary.late.to_string(),
            summary.slowed.to_string(),
            summary
                .every_s
                .map(|every_s| format!("{every_s:.2} s"))
                .unwrap_or_default(),
        ]);
    }
    for column in [3, 4, 5, 7, 8, 9, 10] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\n")
}

/// Four significant digits, with a decimal prefix.
fn scaled(value: f64) -> String {
    let (divisor, prefix) = match value.abs() {
        1e12.. => (1e12, " T"),
        1e9.. => (1e9, " G"),
        1e6.. => (1e6, " M"),
        1e4.. => (1e3, " k"),
        _ => (1.0, ""),
    };
    let value = value / divisor;
    let digits = match value.abs() {
        100.0.. => 1,
        _ if value.fract() == 0.0 && prefix.is_empty() => 0,
        _ => 2,
    };
    format!("{value:.digits$}{prefix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_matters() {
        for (value, text) in [
            (0.0, "0"),
            (3.0, "3"),
            (12.345, "12.35"),
            (350.04, "350.0"),
            (51_600_000_000.0, "51.60 G"),
            (12_345.0, "12.35 k"),
        ] {
            assert_eq!(scaled(value), text);
        }
    }
}
