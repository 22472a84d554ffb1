//! How long the latest run of a plan took: better than a guess.

use std::path::Path;

use chrono::DateTime;

use crate::matrix::Matrix;
use crate::plan::Plan;
use crate::preflight::lint::shown_time;
use crate::record::manifest::Manifest;
use crate::record::named;

/// `12 cells in 160 s (RUN): about 4 min for these 18`. Absent where the latest run of the plan below
/// `results` was started otherwise, did not finish at once or measured nothing.
pub(super) fn took(plan: &Plan, matrix: &Matrix, results: &Path) -> Option<String> {
    let run = named::run_called(&format!("latest:{}", plan.name), results).ok()??;
    let manifest = Manifest::read(&run).ok()??;
    let launcher = matrix.cells.first()?.resolved.server.launcher;
    let ended = manifest.ended.as_ref()?;
    let is_whole = ended.how == "finished" && manifest.attempt.is_none_or(|attempt| attempt == 1);
    if !is_whole || ended.completed == 0 || manifest.launcher != Some(launcher) {
        return None;
    }
    let began = DateTime::parse_from_rfc3339(manifest.started_at.as_deref()?).ok()?;
    let ended_at = DateTime::parse_from_rfc3339(&ended.at).ok()?;
    let took_s = (ended_at - began).as_seconds_f64();
    let cells = f64::from(ended.completed + ended.failed);
    let name = run.file_name()?.to_string_lossy();
    let now = matrix.cells.len();
    Some(format!(
        "{cells:.0} cells in {} ({name}): about {} for these {now}",
        shown_time(took_s),
        shown_time(took_s / cells * now as f64),
    ))
}
