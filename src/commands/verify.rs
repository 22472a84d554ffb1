//! `labrun verify`: a run judged again from its files.

use anyhow::Result;

use super::{ExitStatus, print};
use crate::cli::VerifyArgs;
use crate::config::Config;
use crate::record::hashes::CELL_FILE;
use crate::record::named::run_folder;
use crate::verify::verify as check;

/// Checks a run, or a single cell, against its record.
pub(super) fn verify(args: &VerifyArgs) -> Result<ExitStatus> {
    let path = std::path::PathBuf::from(&args.run);
    let folder = if path.join(CELL_FILE).exists() {
        path
    } else {
        let config = Config::load(args.config.as_deref())?;
        run_folder(&args.run, &config.settings.paths.results)?
    };
    let found = check(&folder)?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    } else {
        print(&found.text())?;
    }
    Ok(if found.differs {
        ExitStatus::CellsFailed
    } else {
        ExitStatus::Success
    })
}
