//! `labrun plan`: what a plan would do. Touches nothing.

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

/// Shows the matrix and every distinct rendered file and command.
pub(super) fn plan(args: &PlanArgs) -> Result<ExitStatus> {
    let (plan, matrix, files) = load_plan(&args.plan)?;
    let config = Config::load(args.config.as_deref())?;
    let mut text = format!("{}: {}\n", plan.name, lint::cost(&matrix, &files));
    push_matrix(&mut text, &matrix);
    for cell in distinct_servers(&matrix) {
        push_server(&mut text, &cell, &config.settings)?;
    }
    push_findings(&mut text, lint::lint(&matrix, &config.settings, &files));
    print(&text)?;
    Ok(ExitStatus::Success)
}

fn push_findings(text: &mut String, findings: Vec<lint::Finding>) {
    if !findings.is_empty() {
        text.push('\n');
    }
    for one in findings {
        let word = match one.severity {
            Severity::Problem => "problem",
            Severity::Note => "note",
        };
        let _ = writeln!(text, "{word}: {}", one.message);
    }
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

fn push_matrix(text: &mut String, matrix: &Matrix) {
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
    let spec = &cell.resolved.server;
    let states: Vec<&str> = cell
        .resolved
        .run
        .states
        .iter()
        .map(|state| state.name())
        .collect();
    let _ = writeln!(
        text,
        "\nserver of tier `{}` ({}), states {}, {} requests each",
        cell.tier.name,
        spec.launcher.name(),
        states.join(", "),
        cell.resolved.run.requests,
    );
    let _ = writeln!(text, "  {}", server::describe(cell, settings));
    let rendered = server::rendered(cell, settings, Path::new(SCRATCH))
        .with_context(|| format!("tier `{}` cannot be rendered", cell.tier.name))?;
    if let Some(rendered) = rendered {
        let _ = writeln!(text, "  {}:", rendered.file_name);
        let shown = crate::record::redact::text(&rendered.text);
        for line in shown.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    Ok(())
}
