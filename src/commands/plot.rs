//! `labrun plot`: imports results and draws the two figures of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::{ExitStatus, print};
use crate::cli::PlotArgs;
use crate::record::schema::{RequestOutcome, Source};
use crate::recorder::import::{Defaults, Imported, read};
use crate::report::plot::{PlotPoint, files};

/// Draws the figures of the matching files.
pub(super) fn plot(args: &PlotArgs) -> Result<ExitStatus> {
    let mut inputs = BTreeSet::new();
    for pattern in &args.input {
        inputs.extend(matching(pattern)?);
    }
    let inputs: Vec<PathBuf> = inputs.into_iter().collect();
    for (suffix, bytes) in figures(&inputs)? {
        let path = format!("{}_{suffix}", args.output_prefix);
        std::fs::write(&path, bytes).with_context(|| format!("writing `{path}`"))?;
        print(&format!("{path}\n"))?;
    }
    Ok(ExitStatus::Success)
}

fn figures(inputs: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>> {
    let points = points(read(inputs, &Defaults::default())?);
    let from = counted(inputs.len(), "file");
    ensure!(!points.is_empty(), "no answered request in {from}");
    let mut notes = vec![format!(
        "from {from}, which hold no verdicts: whether each tier served was not checked here"
    )];
    if points.iter().any(|point| point.source.is_none()) {
        notes.push(
            "some files do not state whether their numbers are measured or simulated".to_owned(),
        );
    }
    files(&points, &notes)
}

/// The answered requests of passes that differ in their repeat alone are one point.
fn points(passes: Vec<Imported>) -> Vec<PlotPoint> {
    type Key = (
        Vec<(String, String)>,
        Option<u32>,
        u32,
        String,
        Option<Source>,
    );
    let mut points: BTreeMap<Key, PlotPoint> = BTreeMap::new();
    for pass in passes {
        let answered = pass
            .rows
            .iter()
            .filter(|row| row.outcome == RequestOutcome::Ok);
        let times: Vec<(f64, f64)> = answered
            .filter_map(|row| row.ttft_ms.zip(row.e2e_ms))
            .collect();
        if times.is_empty() {
            continue;
        }
        let at = pass.at;
        let mut facts = vec![
            ("workload".to_owned(), at.label),
            ("gen_len".to_owned(), at.gen_len.to_string()),
        ];
        facts.extend(at.extra);
        let state = pass
            .state
            .map(|state| ("state".to_owned(), state.title().to_owned()));
        facts.extend(state);
        let concurrency = pass.is_concurrency_known.then(|| at.concurrency.get());
        let (prompt_len, tier, source) = (at.prompt_len.get(), at.tier, pass.source);
        let key = (facts.clone(), concurrency, prompt_len, tier.clone(), source);
        let point = points.entry(key).or_insert_with(|| PlotPoint {
            facts,
            concurrency,
            prompt_len,
            tier,
            source,
            ..PlotPoint::default()
        });
        point
            .ttft_ms
            .extend(times.iter().map(|(ttft_ms, _)| ttft_ms));
        point.e2e_ms.extend(times.iter().map(|(_, e2e_ms)| e2e_ms));
    }
    points.into_values().collect()
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// Files whose name matches. The shell may have done it already: a name without `*` and `?` is
/// itself.
fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(pattern);
    if !pattern.contains(['*', '?']) {
        return Ok(vec![path.to_owned()]);
    }
    let files: Vec<PathBuf> = glob::glob(pattern)
        .with_context(|| format!("`{pattern}` is not a pattern"))?
        .collect::<Result<_, _>>()
        .with_context(|| format!("looking for `{pattern}`"))?;
    if files.is_empty() {
        bail!("no file matches `{pattern}`");
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
