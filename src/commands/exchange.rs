//! `labrun export` and `labrun import`: results to and from other tools.

use std::path::Path;

use anyhow::{Context as _, Result};
use chrono::DateTime;

use super::report::report_lacks;
use super::{ExitStatus, print, say};
use crate::cli::{ExportArgs, ExportFormat, ImportArgs};
use crate::config::Config;
use crate::record::frame::read_parquet;
use crate::record::lab_csv::flat_csv;
use crate::record::manifest::Manifest;
use crate::record::named::run_folder;
use crate::record::reader::{read_cell, read_run};
use crate::record::schema::{CellRecord, RequestRow};
use crate::recorder::import::{Defaults, import as import_files};
use crate::recorder::vllm_bench::to_json;
use crate::recorder::writer::{make_folder, write_synced};

/// Writes a run for other tools.
pub(super) fn export(args: &ExportArgs) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let run = run_folder(&args.run, &config.settings.paths.results)?;
    report_lacks(&[run.as_path()]);
    let cells = cells(&run)?;
    let out = match &args.out {
        Some(out) => {
            std::fs::create_dir_all(out).with_context(|| format!("making `{}`", out.display()))?;
            out.clone()
        }
        None => {
            let out = run.join("export");
            make_folder(&out)?;
            out
        }
    };
    let write = |name: &str, text: String| -> Result<()> {
        let path = out.join(name);
        write_synced(&path, text.as_bytes())?;
        print(&format!("{}\n", path.display()))
    };
    match args.format {
        ExportFormat::Csv => write("requests.csv", flat_csv(&cells))?,
        ExportFormat::VllmBench => {
            let date = date(&run)?;
            for (cell, rows) in &cells {
                for pass in &cell.passes {
                    let of_pass: Vec<RequestRow> = rows
                        .iter()
                        .filter(|row| row.state == pass.state)
                        .cloned()
                        .collect();
                    let result = to_json(cell, pass, &of_pass, &date);
                    let name = format!("{}-{}.json", cell.id, pass.state);
                    write(&name, serde_json::to_string_pretty(&result)? + "\n")?;
                }
            }
        }
    }
    Ok(ExitStatus::Success)
}

fn cells(run: &Path) -> Result<Vec<(CellRecord, Vec<RequestRow>)>> {
    let ids: Vec<String> = read_run(run)?
        .whole()?
        .cells
        .into_iter()
        .map(|cell| cell.id)
        .collect();
    ids.iter()
        .map(|id| {
            let folder = run.join("cells").join(id);
            let requests = folder.join("requests.parquet");
            let rows = if requests.exists() {
                read_parquet(&requests)?
            } else {
                Vec::new()
            };
            Ok((read_cell(&folder)?, rows))
        })
        .collect()
}

/// When the run began, as vLLM writes dates.
fn date(run: &Path) -> Result<String> {
    let manifest = Manifest::read(run)?.unwrap_or_default();
    let started = DateTime::parse_from_rfc3339(&manifest.started_at.unwrap_or_default());
    Ok(started.map_or_else(
        |_| String::new(),
        |at| at.format("%Y%m%d-%H%M%S").to_string(),
    ))
}

/// Makes a run of other tools' files.
pub(super) fn import(args: &ImportArgs) -> Result<ExitStatus> {
    let defaults = Defaults {
        tier: args.tier.clone(),
        label: args.label.clone(),
        model: args.model.clone(),
        state: args.state.into(),
        concurrency: args.concurrency,
        source: args.source.into(),
        prompt_len: args.prompt_len,
        gen_len: args.gen_len,
    };
    let count = import_files(&args.files, &defaults, &args.out)?;
    say(&format!(
        "{count} cells in {}; they prove nothing of a tier: `labrun diff` compares them with --allow \
         inconclusive",
        args.out.display()
    ));
    Ok(ExitStatus::Success)
}
