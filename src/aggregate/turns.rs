//! The time to the first token of agents, by turn: the first turn of a session finds its document in no GPU
//! cache, later ones mostly do. One median over all turns says what neither of them sees.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::aggregate::place::{BASELINE, Place, baselines_to_lend, tier_order};
use crate::parallel::side_by_side;
use crate::plan::state::CacheState;
use crate::record::reader::{Requests, RunData};
use crate::record::schema::{CellRecord, RequestOutcome, VerdictStatus};
use crate::stats::quantile;

/// The turns of one tier at one place, repeats taken together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TurnRow {
    /// Coordinates without the tier.
    pub place: Place,
    /// The tier's name.
    pub tier: String,
    /// Whether every pass of it is proven.
    pub is_proven: bool,
    /// Median TTFT of the first turns, milliseconds, and how many there are.
    pub first: Option<(f64, usize)>,
    /// The same of all later turns.
    pub later: Option<(f64, usize)>,
}

/// Times to the first token, first turns and later ones.
type Times = [Vec<f64>; 2];

/// Whether all of it is proven, and its times, by place and tier.
type Sums<'a> = BTreeMap<(Place, (usize, &'a str)), (bool, Times)>;

/// The turns of every tier where sessions have several, by place and tier.
pub(crate) fn turns(run: &RunData) -> Result<Vec<TurnRow>> {
    let read = side_by_side(run.cells.len(), |at| match turns_of(&run.cells[at]) {
        Some(turns) => of_cell(&run.requests, at, turns),
        None => Ok(BTreeMap::new()),
    });
    let mut all = Sums::new();
    for (cell, times) in run.cells.iter().zip(read) {
        for (state, [first, later]) in times? {
            let at = &cell.coordinates;
            let key = (Place::of(at, state), tier_order(&at.tier));
            let (is_proven, sum) = all.entry(key).or_insert((true, Times::default()));
            let mut passes = cell.passes.iter();
            let pass = passes.find(|pass| pass.state == state);
            *is_proven &= pass.is_some_and(|pass| pass.verdict.status == VerdictStatus::Valid);
            sum[0].extend(first);
            sum[1].extend(later);
        }
    }
    let row = |((place, (_, tier)), (is_proven, times)): (_, (bool, Times))| {
        let [first, later] = times.map(median);
        let (place, tier): (Place, String) = (place, str::to_owned(tier));
        TurnRow {
            place,
            tier,
            is_proven,
            first,
            later,
        }
    };
    let mut rows: Vec<TurnRow> = all.into_iter().map(row).collect();
    lend_baselines(&mut rows);
    Ok(rows)
}

/// Adds to the places of a tier's settings the baseline that was measured once for all of them.
fn lend_baselines(rows: &mut Vec<TurnRow>) {
    let baselines: BTreeMap<Place, TurnRow> = rows
        .iter()
        .filter(|row| row.tier == BASELINE)
        .map(|row| (row.place.clone(), row.clone()))
        .collect();
    let places: BTreeSet<Place> = rows.iter().map(|row| row.place.clone()).collect();
    let has_baseline = |place: &Place| baselines.contains_key(place);
    for (from, place) in baselines_to_lend(places.iter(), has_baseline) {
        rows.push(TurnRow {
            place,
            ..baselines[&from].clone()
        });
    }
}

/// How many turns a session of the cell has; `None` where it has no sessions, or one turn each.
fn turns_of(cell: &CellRecord) -> Option<u32> {
    let value = |name: &str| cell.identity.get(&format!("plan.workload.{name}"));
    value("kind").filter(|kind| *kind == "multi-turn")?;
    value("turns")?.parse().ok().filter(|turns| *turns > 1)
}

fn of_cell(requests: &Requests, at: usize, turns: u32) -> Result<BTreeMap<CacheState, Times>> {
    let frame = requests.of_cell(at, &["state", "outcome", "ttft_ms", "request"])?;
    let states = frame.column("state")?.str()?.clone();
    let outcomes = frame.column("outcome")?.str()?.clone();
    let times = frame.column("ttft_ms")?.f64()?.clone();
    let indices = frame.column("request")?.u32()?.clone();
    let mut all: BTreeMap<CacheState, Times> = BTreeMap::new();
    let rows = states
        .iter()
        .zip(outcomes.iter())
        .zip(times.iter().zip(indices.iter()));
    for ((state, outcome), (ttft_ms, index)) in rows {
        let is_ok = outcome == Some(RequestOutcome::Ok.name());
        let state = state.and_then(CacheState::from_name);
        if let (Some(state), Some(ttft_ms), Some(index), true) = (state, ttft_ms, index, is_ok) {
            // Sessions stand one after another, all of them whole but for the last.
            let is_later = usize::from(index % turns != 0);
            all.entry(state).or_default()[is_later].push(ttft_ms);
        }
    }
    Ok(all)
}

fn median(mut times: Vec<f64>) -> Option<(f64, usize)> {
    times.retain(|time| time.is_finite());
    times.sort_by(f64::total_cmp);
    let n = times.len();
    Some((quantile(&times, 0.5)?, n)).filter(|_| n >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::fixture::{Bench, rows_of};

    #[test]
    fn turns_of_a_baseline_that_was_measured_once_stand_beside_every_setting_of_a_tier() {
        let mut bench = Bench::new();
        for (tier, chunk) in [
            ("baseline", None),
            ("cpu", Some("64")),
            ("cpu", Some("256")),
        ] {
            let mut cell = bench
                .cell(tier, 1024, 1, 1)
                .planned("plan.workload.kind", "multi-turn")
                .planned("plan.workload.turns", "2");
            if let Some(chunk) = chunk {
                cell = cell.on_axis("tier.cpu.chunk_size", chunk);
            }
            cell.pass(CacheState::Tier, &rows_of(&[30.0, 10.0, 32.0, 12.0], 0));
        }
        let rows = turns(&bench.run()).unwrap();
        for chunk in ["64", "256"] {
            let here = |row: &&TurnRow| {
                let value = row.place.extra.get("tier.cpu.chunk_size");
                value.is_some_and(|value| value == chunk)
            };
            let tiers: Vec<_> = rows.iter().filter(here).map(|row| &row.tier).collect();
            assert_eq!(tiers, ["cpu", BASELINE]);
        }
    }

    #[test]
    fn the_first_turn_of_each_session_stands_apart() {
        let mut bench = Bench::new();
        // Three turns a session: the first is slow, and the tier helps it alone.
        for (tier, times) in [
            ("baseline", [30.0, 10.0, 11.0, 32.0, 12.0, 13.0]),
            ("cpu", [20.0, 14.0, 15.0, 22.0, 16.0, 17.0]),
        ] {
            bench
                .cell(tier, 1024, 1, 1)
                .planned("plan.workload.kind", "multi-turn")
                .planned("plan.workload.turns", "3")
                .pass(CacheState::Tier, &rows_of(&times, 0));
        }
        bench
            .cell("cpu", 4096, 1, 1)
            .pass(CacheState::Tier, &rows_of(&[1.0, 2.0], 0));
        let rows = turns(&bench.run()).unwrap();
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.tier.as_str(), row.first, row.later))
            .collect();
        assert_eq!(
            seen,
            [
                ("baseline", Some((31.0, 2)), Some((11.5, 4))),
                ("cpu", Some((21.0, 2)), Some((15.5, 4))),
            ],
            "the other workload has no sessions"
        );
    }
}
