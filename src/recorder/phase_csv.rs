//! `telemetry_phases.csv`: every series over every phase of a cell, also of those beside the
//! measured passes (`cell.json` has these).

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::csv_table::push_row;
use crate::runner::result::PhaseStretch;
use crate::telemetry::sample::Points;
use crate::telemetry::summary::{Summary, Window, summarize};
use crate::verdict::moved::whole_total;

/// The head: times in seconds since the run began; values in `unit`, and `total`, where something is
/// moved or counted, in `unit` without its `/s`.
const COLUMNS: [&str; 12] = [
    "phase",
    "state",
    "started_s",
    "duration_s",
    "source",
    "device",
    "metric",
    "unit",
    "samples",
    "mean",
    "max",
    "total",
];

/// Writes `telemetry_phases.csv`: a row a phase and series, none where nothing was read in it. A phase
/// that was `measured` is described by the readings made at its edges, as in `cell.json`; what was read over
/// an edge of another counts by its share.
pub(crate) fn write_phase_csv<'s>(
    points: &Points,
    phases: &[PhaseStretch],
    measured: impl Fn(&PhaseStretch) -> Option<(Window, &'s [Summary])>,
    path: &Path,
) -> Result<()> {
    let mut text = String::new();
    push_row(&mut text, &COLUMNS);
    for stretch in phases {
        let PhaseStretch { phase, state, .. } = stretch;
        let unmeasured;
        let (window, summaries) = match measured(stretch) {
            Some(own) => own,
            None => {
                unmeasured = summarize(points, stretch.window);
                (stretch.window, unmeasured.as_slice())
            }
        };
        for summary in summaries {
            let number = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
            push_row(
                &mut text,
                &[
                    phase.name().to_owned(),
                    state
                        .map(|state| state.name().to_owned())
                        .unwrap_or_default(),
                    format!("{:.6}", window.from.as_secs_f64()),
                    format!("{:.6}", window.seconds()),
                    summary.key.series.source().name().to_owned(),
                    summary.key.device.to_string(),
                    summary.key.series.name().to_owned(),
                    summary.key.series.unit().name().to_owned(),
                    summary.samples.to_string(),
                    number(summary.mean),
                    number(summary.max),
                    number(whole_total(summary)),
                ],
            );
        }
    }
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::state::CacheState;
    use crate::record::schema::Phase;
    use crate::series::Series;
    use crate::telemetry::sample::{Point, SeriesKey};

    #[test]
    fn each_phase_has_its_mean_its_most_and_its_total() {
        let key = SeriesKey {
            series: Series::DiskRead,
            device: "vda".into(),
        };
        let point = |at: u64, value| Point {
            at: Duration::from_secs(at),
            span: Duration::from_secs(1),
            value,
            late: false,
            slowed: false,
        };
        let all = vec![point(1, 10.0), point(2, 30.0), point(3, 7.0)];
        let stretch = |phase, state, from: u64, to: u64| PhaseStretch {
            phase,
            state,
            window: Window {
                from: Duration::from_secs(from),
                to: Duration::from_secs(to),
            },
        };
        let phases = [
            stretch(Phase::Warm, None, 0, 2),
            stretch(Phase::Load, Some(CacheState::Tier), 2, 4),
            stretch(Phase::Load, Some(CacheState::Cold), 4, 5),
            stretch(Phase::Stop, None, 5, 6),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("telemetry_phases.csv");
        let series = Points::from([(key, all)]);
        let mut edges = summarize(&series, phases[0].window);
        edges[0].total = Some(41.0);
        let measured = |stretch: &PhaseStretch| {
            let is_cold = stretch.state == Some(CacheState::Cold);
            is_cold.then_some((phases[0].window, edges.as_slice()))
        };
        write_phase_csv(&series, &phases, measured, &path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "phase,state,started_s,duration_s,source,device,metric,unit,samples,mean,max,total\n\
             warm,,0.000000,2.000000,disk,vda,read,bytes/s,2,20,30,40\n\
             load,tier,2.000000,2.000000,disk,vda,read,bytes/s,1,7,7,\n\
             load,cold,0.000000,2.000000,disk,vda,read,bytes/s,2,20,30,41\n"
        );
    }
}
