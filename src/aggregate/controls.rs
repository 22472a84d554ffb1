//! Controls: a tier that wins where offloading cannot help gets no comparison at all.

use std::collections::BTreeMap;

use super::comparison::{Clarity, ComparisonRow, Standing};
use super::place::Place;
use crate::matrix::controls::is_control;
use crate::plan::verdict_spec::VerdictSpec;
use crate::record::reader::RunData;

/// The plan's limit among the values that a cell records, where it is not the default.
const LIMIT: &str = "plan.verdict.control_speedup";

/// A tier's servers: its name, and the values of the further axes.
type Servers = (String, BTreeMap<String, String>);

/// How many times as fast each tier may seem on its controls. Where cells of several runs give
/// different limits, the strictest.
pub(super) fn limits(run: &RunData) -> BTreeMap<Servers, f64> {
    let mut limits = BTreeMap::new();
    for cell in &run.cells {
        let at = &cell.coordinates;
        let planned = cell.identity.get(LIMIT).and_then(|text| text.parse().ok());
        let limit: f64 = planned.unwrap_or(VerdictSpec::default().control_speedup);
        if is_control(&at.label) {
            let strictest = limits
                .entry((at.tier.clone(), at.extra.clone()))
                .or_insert(limit);
            *strictest = limit.min(*strictest);
        }
    }
    limits
}

/// What one tier did on one control.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ControlOutcome {
    /// Coordinates of the control.
    pub place: Place,
    /// The tier's name.
    pub tier: String,
    /// Whether the tier won.
    pub result: ControlResult,
}

/// Whether a tier won on a control.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ControlResult {
    /// No win, as expected. Holds the speedup of TTFT against the baseline.
    NoWin(f64),
    /// A win where offloading cannot help. Holds the speedup of TTFT.
    Win(f64),
    /// The control has no result. Holds the reason.
    Inconclusive(String),
}

/// Withholds every comparison of a tier that wins on a control at the same further axes, with the
/// reason. A control's own row is excluded from headlines too. Returns the result of each control.
pub(super) fn void(
    rows: &mut [ComparisonRow],
    limits: &BTreeMap<Servers, f64>,
) -> Vec<ControlOutcome> {
    let limit = |servers: &Servers| {
        let limit = limits.get(servers).copied();
        limit.unwrap_or(VerdictSpec::default().control_speedup)
    };
    let controls = rows.iter().filter(|row| is_control(&row.place.label));
    let outcomes: Vec<ControlOutcome> = controls
        .map(|row| outcome(row, limit(&servers(row))))
        .collect();
    let mut wins: BTreeMap<Servers, String> = BTreeMap::new();
    for ControlOutcome {
        place,
        tier,
        result,
    } in &outcomes
    {
        if let ControlResult::Win(speedup) = result {
            let servers = (tier.clone(), place.extra.clone());
            let reason = format!(
                "{tier} seems {speedup:.2} times as fast as the baseline on `{}`, state `{}`, where \
                 offloading can win nothing (at most {:.2} may be chance): something else differs \
                 between the two",
                place.label,
                place.state.title(),
                limit(&servers)
            );
            wins.entry(servers).or_insert(reason);
        }
    }
    for row in rows {
        if is_control(&row.place.label) {
            let shown = row.ttft.speedup.map_or_else(String::new, |speedup| {
                format!(": TTFT {speedup:.2} times as good as the baseline's")
            });
            if row.standing == Standing::Compared {
                row.withhold(format!("a control{shown}"));
            }
        } else if let Some(reason) = wins.get(&servers(row))
            && row.standing == Standing::Compared
        {
            row.withhold(reason.clone());
        }
    }
    outcomes
}

fn servers(row: &ComparisonRow) -> Servers {
    (row.tier.clone(), row.place.extra.clone())
}

fn outcome(row: &ComparisonRow, limit: f64) -> ControlOutcome {
    let result = match (&row.standing, win(row, limit), row.ttft.speedup) {
        (Standing::Withheld(why), _, _) => ControlResult::Inconclusive(why.clone()),
        (_, Some(speedup), _) => ControlResult::Win(speedup),
        (_, None, Some(speedup)) => ControlResult::NoWin(speedup),
        (_, None, None) => ControlResult::Inconclusive("too few requests were answered".to_owned()),
    };
    ControlOutcome {
        place: row.place.clone(),
        tier: row.tier.clone(),
        result,
    }
}

/// The speedup of a control that is a win: clear, and more than two servers differ.
fn win(row: &ComparisonRow, limit: f64) -> Option<f64> {
    let ttft = &row.ttft;
    let is_clear = ttft
        .interval
        .map_or(ttft.clarity == Clarity::Clear, |interval| {
            interval.low > 1.0
        });
    ttft.speedup.filter(|speedup| is_clear && *speedup > limit)
}

#[cfg(test)]
mod tests {
    use super::LIMIT;
    use crate::aggregate::comparison::{Standing, compare_under};
    use crate::aggregate::fixture::{Bench, gpu_total, rows_of};
    use crate::aggregate::slo::Slos;
    use crate::matrix::controls::NO_REUSE;
    use crate::plan::state::CacheState::Cold;
    use crate::series::Series;

    /// Two tiers that are twice as fast as the baseline, and what each takes on a control.
    fn standings(cpu_on_control_ms: f64) -> Vec<(String, String, String)> {
        standings_within(cpu_on_control_ms, None)
    }

    /// The same where the plan limits how fast a tier may seem on a control.
    fn standings_within(
        cpu_on_control_ms: f64,
        limit: Option<&str>,
    ) -> Vec<(String, String, String)> {
        let mut bench = Bench::new();
        let around = |ms: f64| -> Vec<f64> { (0..12).map(|i| ms + f64::from(i)).collect() };
        for (tier, ms) in [("baseline", 200.0), ("cpu", 100.0), ("disk", 100.0)] {
            bench
                .cell(tier, 1024, 1, 1)
                .pass(Cold, &rows_of(&around(ms), 0));
        }
        let control = [
            ("baseline", 200.0),
            ("cpu", cpu_on_control_ms),
            ("disk", 201.0),
        ];
        for (tier, ms) in control {
            let cell = bench.cell(tier, 512, 1, 1).labelled(NO_REUSE);
            let cell = match limit {
                Some(limit) => cell.planned(LIMIT, limit),
                None => cell,
            };
            cell.pass(Cold, &rows_of(&around(ms), 0));
        }
        let mut run = bench.run();
        for pass in run.cells.iter_mut().flat_map(|cell| &mut cell.passes) {
            pass.telemetry = vec![gpu_total("0", Series::GpuPower, 100.0)];
        }
        let rows = compare_under(&run, &"ttft=1s".parse::<Slos>().unwrap().0);
        let rows = rows.unwrap().rows.into_iter();
        rows.map(|row| {
            let why = match row.standing.clone() {
                Standing::Compared => {
                    assert!(row.contrasts().iter().all(|one| one.speedup.is_some()));
                    "compared".to_owned()
                }
                Standing::Withheld(why) => {
                    for one in row.contrasts() {
                        assert_eq!((one.speedup, one.difference), (None, None), "{one:?}");
                        assert!(one.tier.is_some(), "{one:?}");
                    }
                    why
                }
            };
            (row.place.label, row.tier, why)
        })
        .collect()
    }

    fn why<'a>(rows: &'a [(String, String, String)], label: &str, tier: &str) -> &'a str {
        let row = rows.iter().find(|row| row.0 == label && row.1 == tier);
        &row.unwrap().2
    }

    #[test]
    fn a_win_on_a_control_voids_that_tiers_comparisons_alone() {
        let rows = standings(100.0);
        let reason = why(&rows, "long_context", "cpu");
        assert!(
            reason.contains("on `control-no-reuse`, state `cold`"),
            "{reason}"
        );
        assert_eq!(why(&rows, "long_context", "disk"), "compared");
    }

    #[test]
    fn the_plan_limits_how_fast_a_tier_may_seem_on_a_control() {
        // 200 ms on the baseline: about 1.21 times as fast.
        let on = |limit| standings_within(165.0, limit);
        assert_ne!(why(&on(None), "long_context", "cpu"), "compared");
        assert_eq!(why(&on(Some("1.3")), "long_context", "cpu"), "compared");
        let rows = on(Some("1.05"));
        let reason = why(&rows, "long_context", "cpu");
        assert!(reason.contains("at most 1.05 may be chance"), "{reason}");
    }

    #[test]
    fn a_control_without_a_win_voids_nothing_and_is_no_headline() {
        let rows = standings(195.0);
        assert_eq!(why(&rows, "long_context", "cpu"), "compared");
        assert!(why(&rows, NO_REUSE, "cpu").starts_with("a control: TTFT 1.0"));
    }
}
