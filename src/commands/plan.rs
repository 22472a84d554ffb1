//! `labrun plan`: what a plan would do. Touches nothing.

mod json;
mod screen;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{ExitStatus, load_plan, print};
use crate::cli::PlanArgs;
use crate::config::{Config, Settings};
use crate::matrix::{Cell, Matrix};
use crate::preflight::lint::{self, Severity};
use crate::server;

/// Shows what the plan measures, how long that takes, and what labrun sees coming.
pub(super) fn plan(args: &PlanArgs) -> Result<ExitStatus> {
    let (plan, matrix, files) = load_plan(&args.plan)?;
    let config = Config::load(args.config.as_deref())?;
    let settings = &config.settings;
    // A mistake in a template is no less a mistake where nobody asks for the files.
    check_rendering(&matrix, settings)?;
    let cost = lint::cost(&matrix, &files);
    let findings = lint::lint(&matrix, settings, &files);
    let has_problem = findings.iter().any(|one| one.severity == Severity::Problem);
    let text = if args.json {
        json::text(&plan, &matrix, settings, &cost, &findings)?
    } else {
        let mut text = screen::head(&plan, &matrix, &cost);
        if args.cells {
            push_cells(&mut text, &matrix);
        }
        if args.commands {
            for cell in distinct_servers(&matrix) {
                push_server(&mut text, &cell, settings)?;
            }
        }
        screen::push_findings(&mut text, &findings);
        if !args.cells || !args.commands {
            text.push_str("\n--cells lists the cells, --commands prints the commands and the rendered files\n");
        }
        text
    };
    print(&text)?;
    Ok(if has_problem {
        ExitStatus::CellsFailed
    } else {
        ExitStatus::Success
    })
}

/// Where a server's chunks would be; the run's folder is not known before it is made.
const SCRATCH: &str = "<run>/scratch";

/// Renders every distinct server's files: a mistake in a template is reported before anything is
/// written.
pub(super) fn check_rendering(matrix: &Matrix, settings: &Settings) -> Result<()> {
    for cell in distinct_servers(matrix) {
        server::rendered(&cell, settings, Path::new(SCRATCH))
            .with_context(|| format!("tier `{}` cannot be rendered", cell.tier.name))?;
    }
    Ok(())
}

/// One cell of each distinct server, in their order.
pub(super) fn distinct_servers(matrix: &Matrix) -> impl Iterator<Item = Cell> {
    let mut seen = BTreeSet::new();
    matrix
        .cells
        .iter()
        .filter(move |cell| seen.insert(cell.server_key.clone()))
}

fn push_cells(text: &mut String, matrix: &Matrix) {
    text.push('\n');
    let width = matrix.cells.len().to_string().len();
    let mut last: Option<Cell> = None;
    for (index, cell) in matrix.cells.iter().enumerate() {
        let starts = last.is_none_or(|last| !crate::matrix::shares_server(&last, &cell));
        let mark = if starts { "*" } else { " " };
        let _ = writeln!(text, "{:>width$} {mark} {}", index + 1, cell.id);
        last = Some(cell);
    }
    text.push_str("* starts a server\n");
}

fn push_server(text: &mut String, cell: &Cell, settings: &Settings) -> Result<()> {
    let _ = writeln!(
        text,
        "\n# tier `{}` ({})",
        cell.tier.name,
        cell.resolved.server.launcher.name(),
    );
    let rendered = server::rendered(cell, settings, Path::new(SCRATCH))?;
    text.push_str(&server::script(cell, rendered.as_ref(), settings)?);
    if let Some(rendered) = rendered {
        let _ = writeln!(text, "# {}:", rendered.file_name);
        let shown = crate::record::redact::text(&rendered.text);
        for line in shown.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    Ok(())
}
