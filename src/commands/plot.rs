//! `labrun plot`: figures from `metrics_*.csv` files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{ExitStatus, print};
use crate::cli::PlotArgs;
use crate::report::lab::plot_lab_csvs;

/// Draws the figures of the matching files.
pub fn plot(args: &PlotArgs) -> Result<ExitStatus> {
    let mut files = Vec::new();
    for pattern in &args.input {
        files.extend(matching(pattern)?);
    }
    files.sort();
    files.dedup();
    for (suffix, bytes) in plot_lab_csvs(&files)? {
        let path = format!("{}_{suffix}", args.output_prefix);
        std::fs::write(&path, bytes).with_context(|| format!("writing `{path}`"))?;
        print(&format!("{path}\n"))?;
    }
    Ok(ExitStatus::Success)
}

/// Files whose name matches. The shell may have done it already: a name without `*` and `?` is
/// itself.
fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(pattern);
    if !pattern.contains(['*', '?']) {
        return Ok(vec![path.to_owned()]);
    }
    let found: Vec<PathBuf> = glob::glob(pattern)
        .with_context(|| format!("`{pattern}` is no pattern"))?
        .collect::<Result<_, _>>()
        .with_context(|| format!("looking for `{pattern}`"))?;
    if found.is_empty() {
        bail!("no file matches `{pattern}`");
    }
    Ok(found)
}
