//! `labrun keep`: a run's small tables, to be committed.

use anyhow::{Context as _, Result, ensure};

use super::{ExitStatus, print, say};
use crate::cli::KeepArgs;
use crate::config::Config;
use crate::diff::compact::{Compact, FILES};
use crate::diff::resolve::side_of_run;
use crate::record::manifest::Manifest;
use crate::record::named::run_folder;
use crate::record::whole;
use crate::recorder::writer::write_synced;

/// Writes the tables of a run below the results folder.
pub(super) fn keep(args: &KeepArgs) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let results = &config.settings.paths.results;
    let run = run_folder(&args.run, results)?;
    if let Some(lack) = whole::lack(&run) {
        ensure!(
            args.partial,
            "`{}`: {lack}; finish it with `labrun run --resume {0}`, or keep what is there with \
             --partial",
            run.display()
        );
        say(&format!("`{}`: {lack}", run.display()));
    }
    let into = match &args.into {
        Some(into) => into.clone(),
        None => {
            let manifest = Manifest::read(&run)?.unwrap_or_default();
            let plan = manifest.plan.name;
            let plan = plan.context("the run's manifest names no plan; say where with --into")?;
            results.join(plan)
        }
    };
    let side = side_of_run(&args.run, &run)?;
    let compact = Compact::of(&side)?;
    std::fs::create_dir_all(&into)
        .with_context(|| format!("making the folder `{}`", into.display()))?;
    let texts = [
        &compact.cells,
        &compact.measures,
        &compact.samples,
        &compact.provenance,
    ];
    for (name, text) in FILES.iter().zip(texts) {
        let path = into.join(name);
        write_synced(&path, text.as_bytes())?;
        print(&format!("{}\n", path.display()))?;
    }
    Ok(ExitStatus::Success)
}
