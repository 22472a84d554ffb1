//! `labrun open`: a run's report in the browser.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::{ExitStatus, as_argument, print, run_named, say};
use crate::cli::OpenArgs;

/// Opens the report where there is a display; prints its path everywhere.
pub(super) fn open(args: &OpenArgs) -> Result<ExitStatus> {
    let run = run_named(&args.run, args.config.as_deref())?;
    let page = run.join("report.html");
    ensure!(
        page.is_file(),
        "`{}` has no `report.html`; `labrun report {}` writes it",
        run.display(),
        as_argument(&run)
    );
    let page = page.canonicalize().unwrap_or(page);
    print(&format!("{}\n", page.display()))?;
    if has_display() && !show(&page) {
        say("no program opened it: `xdg-open` (or `open`) is missing or failed");
    }
    Ok(ExitStatus::Success)
}

fn has_display() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

/// Whether the desktop took the page. The program hands it to a browser and ends.
fn show(page: &Path) -> bool {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let opened = Command::new(program)
        .arg(page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    opened.is_ok_and(|status| status.success())
}
