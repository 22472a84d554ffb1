//! `repeats = "auto"`: which cells still need a repeat.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::load::{Outcome, RequestRecord};
use crate::matrix::Coordinates;
use crate::plan::pace::{AutoMetric, AutoRepeats};
use crate::plan::state::CacheState;
use crate::runner::result::Pass;
use crate::stats::{quantile, t_quantile};
use crate::units::Repeat;

/// Medians of earlier repeats, by cell and state. A cell is what differs in the repeat alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Medians(HashMap<Coordinates, BTreeMap<CacheState, Vec<f64>>>);

/// The coordinates that all repeats of a cell share.
fn shared(at: &Coordinates) -> Coordinates {
    Coordinates {
        repeat: Repeat::new(1).unwrap_or(at.repeat),
        ..at.clone()
    }
}

impl Medians {
    /// Adds what one repeat measured in one state, milliseconds of each request.
    pub(crate) fn add(&mut self, at: &Coordinates, state: CacheState, mut values_ms: Vec<f64>) {
        values_ms.sort_by(f64::total_cmp);
        if let Some(median) = quantile(&values_ms, 0.5) {
            let states = self.0.entry(shared(at)).or_default();
            states.entry(state).or_default().push(median);
        }
    }

    /// Adds a pass.
    pub(crate) fn add_pass(&mut self, at: &Coordinates, metric: AutoMetric, pass: &Pass) {
        let ok = |record: &&RequestRecord| matches!(record.outcome, Outcome::Ok);
        let records = pass.load.records.iter().filter(ok);
        let values = records.filter_map(|record| match metric {
            AutoMetric::Ttft => record.ttft(),
            AutoMetric::E2e => record.e2e(),
            AutoMetric::Tpot => record.tpot(),
        });
        let values_ms = values.map(|value| value.as_secs_f64() * 1e3).collect();
        self.add(at, pass.state, values_ms);
    }

    /// Whether the cell at `at` is to be run, `elapsed` after the run's start: always up to the least
    /// number of repeats; then while the interval of a state is too wide and the budget lasts.
    pub(crate) fn wants(&self, at: &Coordinates, auto: &AutoRepeats, elapsed: Duration) -> bool {
        if at.repeat <= auto.min_repeats {
            return true;
        }
        if auto.budget.is_some_and(|budget| elapsed >= budget) {
            return false;
        }
        let states = self.0.get(&shared(at));
        states.is_none_or(|states| {
            let narrow = |medians: &Vec<f64>| {
                relative_width(medians).is_some_and(|width| width <= auto.relative_width)
            };
            !states.values().all(narrow)
        })
    }
}

/// The width of Student's 95 % interval of the mean, as a share of the mean.
fn relative_width(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    if n < 2.0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|value| (value - mean).powi(2));
    let deviation = (squares.sum::<f64>() / (n - 1.0)).sqrt();
    let half = t_quantile(0.05, n - 1.0) * deviation / n.sqrt();
    (mean > 0.0).then_some(2.0 * half / mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Concurrency, GenLen, PromptLen};

    fn at(repeat: u32) -> Coordinates {
        Coordinates {
            label: "l".to_owned(),
            tier: "cpu".to_owned(),
            prompt_len: PromptLen::new(1).unwrap(),
            gen_len: GenLen::new(1).unwrap(),
            concurrency: Concurrency::new(1).unwrap(),
            repeat: Repeat::new(repeat).unwrap(),
            extra: BTreeMap::new(),
        }
    }

    #[test]
    fn the_interval_is_students() {
        // Mean 11, deviation 1, t(0.975, 2) = 4.3027: 2 * 4.3027 / sqrt(3) / 11.
        let width = relative_width(&[10.0, 11.0, 12.0]).unwrap();
        assert!((width - 0.451_66).abs() < 1e-4, "{width}");
        assert_eq!(relative_width(&[10.0]), None);
    }

    #[test]
    fn a_cell_is_repeated_until_every_state_is_narrow_or_the_budget_is_over() {
        let auto = AutoRepeats {
            metric: AutoMetric::Ttft,
            relative_width: 0.05,
            min_repeats: Repeat::new(2).unwrap(),
            max_repeats: Repeat::new(9).unwrap(),
            budget: Some(Duration::from_secs(10)),
        };
        let soon = Duration::from_secs(1);
        let mut medians = Medians::default();
        assert!(medians.wants(&at(2), &auto, Duration::MAX), "the least");
        for value in [10.0, 10.001, 10.002] {
            medians.add(&at(1), CacheState::Cold, vec![value]);
        }
        assert!(!medians.wants(&at(3), &auto, soon), "narrow");
        medians.add(&at(1), CacheState::Tier, vec![10.0]);
        medians.add(&at(2), CacheState::Tier, vec![20.0]);
        assert!(medians.wants(&at(3), &auto, soon), "one state is wide");
        assert!(
            !medians.wants(&at(3), &auto, Duration::from_secs(11)),
            "too late"
        );
    }
}
