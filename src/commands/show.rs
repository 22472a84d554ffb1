//! `labrun show`: a run's answer, its tables, or one of its cells.

use std::path::Path;

use anyhow::{Result, bail};

use super::report::{read_report, report_lacks};
use super::{ExitStatus, as_argument, print, run_named, width};
use crate::cli::ShowArgs;
use crate::record::reader::cell_folders;

/// Most cells that an error names.
const MAX_NAMED: usize = 5;

/// Shows a run, from its files alone.
pub(super) fn show(args: &ShowArgs) -> Result<ExitStatus> {
    let run = run_named(&args.run, args.config.as_deref())?;
    report_lacks(&[run.as_path()]);
    let cell = match &args.cell {
        Some(part) => Some(cell_named(&run, part)?),
        None => None,
    };
    let report = read_report(&run)?;
    let text = match cell {
        Some(cell) => report.cell(&cell, &run.join("cells").join(&cell), width()),
        None if args.tables => report.terminal(width()),
        None => report.screen(&as_argument(&run), width()),
    };
    print(&text)?;
    Ok(ExitStatus::Success)
}

/// The one cell of `run` whose id is `part`, or has it somewhere.
fn cell_named(run: &Path, part: &str) -> Result<String> {
    let folders = cell_folders(&run.join("cells"))?;
    let mut ids: Vec<String> = folders
        .iter()
        .filter_map(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()))
        .collect();
    ids.sort();
    let named = |ids: &[String]| {
        let mut names: Vec<String> = ids
            .iter()
            .take(MAX_NAMED)
            .map(|id| format!("`{id}`"))
            .collect();
        if ids.len() > MAX_NAMED {
            names.push(format!("and {} more", ids.len() - MAX_NAMED));
        }
        names.join(", ")
    };
    if ids.iter().any(|id| id == part) {
        return Ok(part.to_owned());
    }
    let fitting: Vec<String> = ids.iter().filter(|id| id.contains(part)).cloned().collect();
    match fitting.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!(
            "`{}` has no cell `{part}`; it has {}",
            run.display(),
            named(&ids)
        ),
        several => bail!(
            "{} cells of `{}` have `{part}` in their id: {}",
            several.len(),
            run.display(),
            named(several)
        ),
    }
}
