//! How long the latest run of a plan took: better than a guess.

use std::path::Path;

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
    let is_whole = ended.how == "finished" && ended.completed > 0;
    if !is_whole || manifest.launcher != Some(launcher) {
        return None;
    }
    let took_s = manifest.span_s()?;
    let cells = f64::from(ended.completed + ended.failed);
    let name = run.file_name()?.to_string_lossy();
    let now = matrix.cells.len();
    Some(format!(
        "{cells:.0} cells in {} ({name}): about {} for these {now}",
        shown_time(took_s),
        shown_time(took_s / cells * now as f64),
    ))
}
