//! `labrun report`: tables, figures and the report of a run, from its files alone.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{ExitStatus, as_argument, print, run_named, say, width};
use crate::aggregate::Slo;
use crate::bounded;
use crate::cli::ReportArgs;
use crate::record::manifest::Manifest;
use crate::record::reader::{RunData, read_run};
use crate::record::whole;
use crate::recorder::writer::{make_folder, refuse_link, write_synced};
use crate::report::timeline::{Timelines, timelines as timelines_of};
use crate::report::{Drawing, Price, Report, RunFacts};

/// How many timelines are written at once.
const MAX_WRITERS: usize = 16;

/// Writes the tables, figures and report of runs again and shows the tables.
pub(super) fn report(args: &ReportArgs) -> Result<ExitStatus> {
    let named = |run: &String| run_named(run, args.config.as_deref());
    let runs: Vec<PathBuf> = args.runs.iter().map(named).collect::<Result<_>>()?;
    let out = match (&args.out, runs.as_slice()) {
        (Some(out), _) => out,
        (None, [one]) => one,
        (None, several) => bail!(
            "name a folder for the report of {} runs with --out",
            several.len()
        ),
    };
    let slos: Vec<Slo> = args.slo.iter().flat_map(|slos| slos.0.clone()).collect();
    let folders: Vec<&Path> = runs.iter().map(AsRef::as_ref).collect();
    report_lacks(&folders);
    let asked = Asked {
        slos: &slos,
        price: args.price_per_hour,
    };
    let report = write_reports(&folders, out, asked)?;
    if args.tables {
        print(&report.terminal(width()))?;
    }
    print(&report.screen(&as_argument(out), width()))?;
    Ok(ExitStatus::Success)
}

/// Prints on stderr what the runs in `folders` lack.
pub(super) fn report_lacks(folders: &[&Path]) {
    for folder in folders {
        if let Some(lack) = whole::lack(folder) {
            say(&format!("`{}`: {lack}", folder.display()));
        }
    }
}

/// What a report is asked for besides the runs.
#[derive(Clone, Copy, Default)]
struct Asked<'a> {
    slos: &'a [Slo],
    price: Option<Price>,
}

/// Writes the tables, figures and report of the run in `folder` into it.
pub(super) fn write_report(folder: &Path, price: Option<Price>) -> Result<Report> {
    write_reports(&[folder], folder, Asked { slos: &[], price })
}

/// The report of the run in `folder`; nothing is written.
pub(super) fn read_report(folder: &Path) -> Result<Report> {
    let runs = vec![read_run(folder)?];
    summed_up(&[folder], runs, &[facts(folder)], Asked::default())
}

/// Sums `runs` up, which lie in `folders`. Names what is left out.
fn summed_up(
    folders: &[&Path],
    runs: Vec<RunData>,
    facts: &[RunFacts],
    asked: Asked<'_>,
) -> Result<Report> {
    let left_out = runs.iter().flat_map(|run| &run.unreadable);
    let left_out: Vec<String> = left_out
        .map(|why| format!("{why}: it is left out"))
        .collect();
    for why in &left_out {
        say(why);
    }
    let titles: Vec<_> = facts.iter().map(|facts| facts.name.as_str()).collect();
    let mut report = Report::under(&RunData::together(runs), &titles.join(" + "), asked.slos)?;
    report.note_price(asked.price);
    report.note_scope(facts);
    report.add_notes(left_out);
    for (folder, facts) in folders.iter().zip(facts) {
        report.add_notes(whole::lack(folder).map(|lack| format!("`{}`: {lack}", facts.name)));
    }
    Ok(report)
}

fn write_reports(folders: &[&Path], out: &Path, asked: Asked<'_>) -> Result<Report> {
    let runs = folders
        .iter()
        .map(|folder| read_run(folder))
        .collect::<Result<Vec<_>>>()?;
    let facts: Vec<_> = folders.iter().map(|folder| facts(folder)).collect();
    let cells = folders.iter().zip(&runs);
    let cells: Vec<_> = cells.map(|(at, run)| (*at, run.cells.as_slice())).collect();
    let mut timelines = timelines_of(&cells);
    let report = summed_up(folders, runs, &facts, asked)?;
    let drawings = report.drawings()?;
    let into = out.join("figures");
    let drawn = !drawings.is_empty() || timelines.files().next().is_some();
    std::fs::create_dir_all(out)
        .with_context(|| format!("making the folder `{}`", out.display()))?;
    if drawn {
        make_folder(&into)?;
    }
    write_figures(&drawings, &into)?;
    let html = report.html(&facts, &drawings, &mut timelines)?;
    write_pages(&html.pages, out)?;
    write_timelines(&timelines, &into)?;
    for (name, text) in [
        ("summary.csv", report.summary_csv()),
        ("comparison.csv", report.comparison_csv()),
        ("summary.md", report.markdown()),
        ("report.md", report.full_markdown(&facts, &drawings)),
        ("report.html", html.report),
    ] {
        write_synced(&out.join(name), text.as_bytes())?;
    }
    Ok(report)
}

/// The pages of cells; those of an earlier report of more cells go.
fn write_pages(pages: &[(String, String)], out: &Path) -> Result<()> {
    let folder = out.join("evidence");
    refuse_link(&folder)?;
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_page = name.starts_with("cells-");
        let is_written = pages
            .iter()
            .any(|(page, _)| page.ends_with(&format!("/{name}")));
        if is_page && !is_written {
            // Another report may remove it at the same time.
            let _absent = std::fs::remove_file(entry.path());
        }
    }
    if !pages.is_empty() {
        make_folder(&folder)?;
    }
    pages
        .iter()
        .try_for_each(|(name, text)| write_synced(&out.join(name), text.as_bytes()))
}

/// A PNG takes longer than all the tables.
fn write_figures(drawings: &[Drawing], into: &Path) -> Result<()> {
    let hands = std::thread::available_parallelism().map_or(1, usize::from);
    on_threads(hands, drawings, |drawing| {
        let mut files = drawing.files()?.into_iter();
        files.try_for_each(|(name, bytes)| write_synced(&into.join(name), &bytes))
    })
}

/// All at once: each waits for the disk, and a journal commits them together.
fn write_timelines(timelines: &Timelines, into: &Path) -> Result<()> {
    let files: Vec<_> = timelines.files().collect();
    on_threads(MAX_WRITERS, &files, |(name, bytes)| {
        write_synced(&into.join(name), bytes)
    })
}

/// Does `work` with all `items`, each thread with as many; a thread ends at its first failure.
fn on_threads<T: Sync>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let each = items.len().div_ceil(threads).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let parts: Vec<_> = items
            .chunks(each)
            .map(|part| scope.spawn(move || part.iter().try_for_each(work)))
            .collect();
        parts.into_iter().try_for_each(|part| {
            part.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

/// The facts of the run in `folder` besides its cells.
fn facts(folder: &Path) -> RunFacts {
    // `lack` has named one that cannot be read.
    let manifest = Manifest::read(folder).ok().flatten();
    let named = manifest.as_ref().and_then(|it| it.plan.name.clone());
    RunFacts {
        name: named.unwrap_or_else(|| folder.display().to_string()),
        plan: bounded::read(&folder.join("plan.toml"), super::MAX_PLAN_BYTES).ok(),
        manifest,
    }
}
