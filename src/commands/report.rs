//! `labrun report`: tables and figures of a run, from its files alone.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{ExitStatus, print, say, width};
use crate::cli::ReportArgs;
use crate::record::reader::read_run;
use crate::record::writer::write_synced;
use crate::report::Report;

/// Writes a run's tables and figures again and shows the tables.
pub fn report(args: &ReportArgs) -> Result<ExitStatus> {
    if !args.run.join("cells").is_dir() {
        bail!(
            "`{}` is no run folder: it has no `cells`",
            args.run.display()
        );
    }
    let report = write_report(&args.run)?;
    print(&report.terminal(width()))?;
    say(&format!("\nwritten to {}", args.run.display()));
    Ok(ExitStatus::Success)
}

/// Writes `summary.csv`, `comparison.csv`, `summary.md` and the figures of the run in `folder`.
pub fn write_report(folder: &Path) -> Result<Report> {
    let run = read_run(folder)?;
    let report = Report::of(&run, &title(folder))?;
    write_synced(&folder.join("summary.csv"), report.summary_csv().as_bytes())?;
    write_synced(
        &folder.join("comparison.csv"),
        report.comparison_csv().as_bytes(),
    )?;
    write_synced(&folder.join("summary.md"), report.markdown().as_bytes())?;
    let figures = report.figures()?;
    if !figures.is_empty() {
        let into = folder.join("figures");
        std::fs::create_dir_all(&into)
            .with_context(|| format!("making the folder `{}`", into.display()))?;
        for figure in figures {
            write_synced(&into.join(&figure.name), &figure.bytes)?;
        }
    }
    Ok(report)
}

/// The plan's name where the manifest says it, else the folder's.
fn title(folder: &Path) -> String {
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
    let named = manifest["plan"]["name"].as_str().map(str::to_owned);
    named.unwrap_or_else(|| folder.display().to_string())
}
