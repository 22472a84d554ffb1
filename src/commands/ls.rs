//! `labrun ls`: the runs below the results folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::{ExitStatus, print, say, width};
use crate::cli::LsArgs;
use crate::config::Config;
use crate::csv_table::Table as Rows;
use crate::record::manifest::Manifest;
use crate::record::named::{all_runs, by_start};
use crate::record::reader::cell_folders;
use crate::report::number::brief_times;
use crate::report::table::{Column, Keep, Table};
use crate::text_file;
use crate::units::grouped;

/// What the files of a run say of it, without its requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Line {
    run: String,
    folder: PathBuf,
    started_at: Option<String>,
    plan: Option<String>,
    model: Option<String>,
    cells: usize,
    planned: Option<usize>,
    passes: Option<usize>,
    proven: Option<usize>,
    headline: Option<String>,
}

/// Lists the runs, the one that began last first.
pub(super) fn ls(args: &LsArgs) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let results = &config.settings.paths.results;
    let lines: Vec<Line> = by_start(all_runs(results))
        .iter()
        .map(|run| line(run))
        .collect();
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&lines)?))?;
    } else if lines.is_empty() {
        say(&format!("no run below `{}`", results.display()));
    } else {
        print(&table(&lines).terminal(width()))?;
    }
    Ok(ExitStatus::Success)
}

fn line(run: &Path) -> Line {
    let manifest = Manifest::read(run).ok().flatten().unwrap_or_default();
    let summary = rows(&run.join("summary.csv"));
    let verdicts = |rows: &Rows| {
        let rows = rows.rows.iter();
        rows.filter(|row| row.get("verdict") == Some("valid"))
            .count()
    };
    Line {
        run: run
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        folder: run.to_owned(),
        started_at: manifest.started_at,
        plan: manifest.plan.name,
        model: manifest.model,
        cells: cell_folders(&run.join("cells")).map_or(0, |cells| cells.len()),
        planned: Some(manifest.cells.len()).filter(|planned| *planned > 0),
        passes: summary.as_ref().map(|rows| rows.rows.len()),
        proven: summary.as_ref().map(verdicts),
        headline: rows(&run.join("comparison.csv")).and_then(|rows| headline(&rows)),
    }
}

/// The table in a file, where there is one that can be read.
fn rows(file: &Path) -> Option<Rows> {
    Rows::parse(&text_file::read(file).ok()?).ok()
}

/// The largest speedup of a warm tier among the rows that may be compared: `cpu 2.9x at 4,096`.
fn headline(rows: &Rows) -> Option<String> {
    let best = |states: &[&str]| {
        let rows = rows.rows.iter().filter(|row| {
            let state = row.get("state").unwrap_or_default();
            row.get("standing") == Some("compared") && states.contains(&state)
        });
        let speedups = rows.filter_map(|row| {
            let speedup = row.number("ttft_p50_speedup").ok().flatten()?;
            Some((
                speedup,
                row.get("tier")?,
                row.get("prompt_len")?,
                row.get("source")?,
            ))
        });
        speedups.max_by(|a, b| a.0.total_cmp(&b.0))
    };
    let found = best(&["tier", "restart"]).or_else(|| best(&["cold", "gpu"]));
    let (speedup, tier, length, source) = found?;
    let simulated = if source == "simulated" {
        ", simulated"
    } else {
        ""
    };
    let (times, length) = (brief_times(speedup), grouped(length));
    Some(format!("{tier} {times} at {length}{simulated}"))
}

fn table(lines: &[Line]) -> Table {
    let each = |text: &dyn Fn(&Line) -> Option<String>| -> Vec<String> {
        let texts = lines.iter().map(text);
        texts
            .map(|text| text.unwrap_or_else(|| "-".to_owned()))
            .collect()
    };
    let of = |some: Option<usize>, all: Option<usize>| {
        let all = all.map_or("?".to_owned(), |all| all.to_string());
        Some(format!("{}/{all}", some?))
    };
    let when = |line: &Line| {
        let at = line.started_at.as_deref()?.get(..16)?;
        Some(at.replace('T', " "))
    };
    Table {
        columns: vec![
            Column::words("began (UTC)", Keep::Droppable(2), each(&when)),
            Column::words("run", Keep::Always, each(&|line| Some(line.run.clone()))),
            Column::words("plan", Keep::Always, each(&|line| line.plan.clone())),
            Column::words(
                "model",
                Keep::Droppable(3),
                each(&|line| line.model.clone()),
            ),
            Column::numbers(
                &["cells"],
                Keep::Always,
                each(&|line| of(Some(line.cells), line.planned)),
            ),
            Column::numbers(
                &["proven"],
                Keep::Always,
                each(&|line| of(line.proven, line.passes)),
            ),
            Column::words(
                "largest TTFT gain",
                Keep::Droppable(1),
                each(&|line| line.headline.clone()),
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headline_is_the_largest_gain_of_a_warm_tier_that_may_be_compared() {
        let text = "state,prompt_len,tier,source,standing,ttft_p50_speedup\n\
                    cold,4096,cpu,measured,compared,9.0\n\
                    tier,1024,cpu,measured,compared,1.3\n\
                    tier,4096,cpu,measured,compared,2.86\n\
                    tier,4096,disk,measured,withheld,\n";
        let headline = |text: &str| headline(&Rows::parse(text).unwrap());
        assert_eq!(headline(text).unwrap(), "cpu 2.9x at 4,096");
        let simulated = text
            .replace("measured", "simulated")
            .replace("\ntier,", "\ngpu,");
        assert_eq!(
            headline(&simulated).unwrap(),
            "cpu 9.0x at 4,096, simulated"
        );
        assert_eq!(headline("state,prompt_len\n"), None);
    }
}
