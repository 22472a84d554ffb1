//! `labrun clean`: removes servers that a killed run left behind.

use anyhow::Result;

use super::{ExitStatus, print};
use crate::cli::CleanArgs;
use crate::server::leftovers::{self, Leftover};

/// Lists and removes leftovers.
pub fn clean(args: &CleanArgs) -> Result<ExitStatus> {
    let found = leftovers::find()?;
    if found.is_empty() {
        print("nothing was left behind\n")?;
        return Ok(ExitStatus::Success);
    }
    for left in &found {
        if !args.dry_run {
            leftovers::remove(left);
        }
        print(&format!("{}\n", line(left, args.dry_run)))?;
    }
    Ok(ExitStatus::Success)
}

fn line(left: &Leftover, dry_run: bool) -> String {
    let did = if dry_run { "would remove" } else { "removed" };
    format!(
        "{did} process {} of run `{}`: {}",
        left.pid, left.run, left.command
    )
}
