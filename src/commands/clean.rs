//! `labrun clean`: removes servers that a killed run left behind.

use anyhow::Result;

use super::{ExitStatus, print};
use crate::cli::CleanArgs;
use crate::config::Config;
use crate::server::leftovers;

/// Lists and removes leftovers.
pub fn clean(args: &CleanArgs) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let found = leftovers::find(&config.settings.paths.scratch)?;
    if found.is_empty() {
        print("nothing was left behind\n")?;
        return Ok(ExitStatus::Success);
    }
    if !args.dry_run {
        leftovers::remove(&found);
    }
    let did = if args.dry_run {
        "would remove"
    } else {
        "removed"
    };
    for left in &found {
        print(&format!("{did} {left}\n"))?;
    }
    Ok(ExitStatus::Success)
}
