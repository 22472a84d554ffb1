//! `labrun merge`: joins the run folders of shards into one.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::report::write_report;
use super::{ExitStatus, as_argument, print, say, width};
use crate::cli::MergeArgs;
use crate::recorder::merge;

pub(super) fn merge(args: &MergeArgs) -> Result<ExitStatus> {
    join(&args.out, &args.runs, args.allow_missing, false)
}

/// Joins `runs` in `out` and reports on them.
pub(super) fn join(
    out: &Path,
    runs: &[PathBuf],
    allow_missing: bool,
    resume: bool,
) -> Result<ExitStatus> {
    let merged = merge::merge(out, runs, allow_missing, resume)?;
    merged.notes.iter().for_each(|note| say(note));
    let report = write_report(out, None)?;
    print(&report.screen(&as_argument(out), width()))?;
    Ok(if merged.outcomes.failed + merged.outcomes.invalid > 0 {
        ExitStatus::CellsFailed
    } else {
        ExitStatus::Success
    })
}
