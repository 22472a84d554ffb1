//! `labrun plan`: what a plan would do. Touches nothing.

mod earlier;
mod json;
mod screen;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::launcher::Machine;
use super::plan_source::{Loaded, Source};
use super::{ExitStatus, ad_hoc, print, target};
use crate::cli::{PlanArgs, RunArgs};
use crate::config::{Config, Settings};
use crate::matrix::{Cell, Matrix};
use crate::preflight::lint::{self, Finding, Severity};
use crate::server;

/// Shows what the plan measures, how long that takes, and what labrun sees coming.
pub(super) fn plan(args: &PlanArgs) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let source = Source::read(&args.plan)?;
    let loaded = source.load(&args.changes, &config.settings, Machine::look)?;
    let shown = Shown {
        cells: args.cells,
        commands: args.commands,
        json: args.json,
    };
    show(&loaded, &config.settings, &shown)
}

/// Shows what `labrun run` with these arguments would run.
pub(super) fn dry_run(args: &RunArgs) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let source = target::source(args)?;
    let mut loaded = source.load(&args.changes, &config.settings, Machine::look)?;
    ad_hoc::save(&args.ad_hoc, &source)?;
    if let Some(shard) = args.shard {
        let all = loaded.matrix.cells.len();
        loaded.matrix = loaded.matrix.part(shard);
        loaded.notes.push(format!("shard {shard} of {all} cells"));
    }
    show(&loaded, &config.settings, &Shown::default())
}

/// What is shown beside the page.
#[derive(Default)]
struct Shown {
    cells: bool,
    commands: bool,
    json: bool,
}

fn show(loaded: &Loaded, settings: &Settings, shown: &Shown) -> Result<ExitStatus> {
    let Loaded {
        plan,
        matrix,
        files,
        notes,
    } = loaded;
    // A mistake in a template is no less a mistake where nobody asks for the files.
    check_rendering(matrix, settings)?;
    let cost = lint::cost(matrix, files);
    let mut findings = lint::lint(matrix, settings, files);
    let has_problem = findings.iter().any(|one| one.severity == Severity::Problem);
    let text = if shown.json {
        findings.extend(notes.iter().map(|note| Finding {
            severity: Severity::Note,
            message: note.clone(),
        }));
        json::text(plan, matrix, settings, &cost, &findings)?
    } else {
        let earlier = earlier::took(plan, matrix, &settings.paths.results);
        let mut text = screen::head(plan, matrix, &cost, earlier.as_deref());
        if shown.cells {
            push_cells(&mut text, matrix);
        }
        if shown.commands {
            for cell in distinct_servers(matrix) {
                push_server(&mut text, &cell, settings)?;
            }
        }
        screen::push_findings(&mut text, &findings);
        push_notes(&mut text, notes, findings.is_empty());
        if !shown.cells || !shown.commands {
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

/// What labrun chose or added, below the findings.
fn push_notes(text: &mut String, notes: &[String], is_first: bool) {
    if is_first && !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        let _ = writeln!(text, "note: {note}");
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
