//! `labrun completions` and `labrun man`: the command line for shells and for `man`.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{ExitStatus, print};
use crate::cli::{CompletionsArgs, ManArgs, definition};

/// Prints a shell's completion script.
pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition(), "labrun", &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(ExitStatus::Success)
}

/// Prints the manual page, or writes the pages of all commands.
pub(super) fn man(args: &ManArgs) -> Result<ExitStatus> {
    if let Some(folder) = &args.out {
        write_pages(folder)?;
    } else {
        let mut page = Vec::new();
        clap_mangen::Man::new(definition()).render(&mut page)?;
        print(&String::from_utf8(page)?)?;
    }
    Ok(ExitStatus::Success)
}

fn write_pages(folder: &Path) -> Result<()> {
    let shown = folder.display();
    std::fs::create_dir_all(folder).with_context(|| format!("making the folder `{shown}`"))?;
    clap_mangen::generate_to(definition(), folder)
        .with_context(|| format!("writing manual pages to `{shown}`"))
}
