//! Intended instants of open loops.

use rand_distr::{Distribution as _, Exp, Gamma};

use super::prompt::Draft;
use super::{BuildError, Start};
use crate::plan::load_spec::Arrival;
use crate::units::{Seed, span_of_seconds};

/// Gives every request that follows no other its start. Trace times were set with the drafts.
pub(crate) fn set_starts(
    drafts: &mut [Draft],
    arrival: Arrival,
    seed: Seed,
) -> Result<(), BuildError> {
    let firsts = drafts
        .iter_mut()
        .filter(|draft| !matches!(draft.start, Start::After { .. }));
    match arrival {
        Arrival::Closed => firsts.for_each(|draft| draft.start = Start::Slot),
        Arrival::Trace => {
            if drafts.iter().any(|draft| draft.start == Start::Slot) {
                return Err(BuildError::NoTraceTimes);
            }
        }
        _ => {
            let instants = instants(arrival, seed);
            for (draft, seconds) in firsts.zip(instants) {
                draft.start = Start::At(span_of_seconds(seconds));
            }
        }
    }
    Ok(())
}

/// Instants of an open loop, seconds from the start, without end. Rates are above zero.
fn instants(arrival: Arrival, seed: Seed) -> Box<dyn Iterator<Item = f64>> {
    let rng = seed.derive("arrivals").rng();
    match arrival {
        Arrival::Closed | Arrival::Trace => Box::new(std::iter::empty()),
        Arrival::Constant { rate_rps } => Box::new((0_u32..).map(move |n| f64::from(n) / rate_rps)),
        Arrival::Poisson { rate_rps } => {
            let gaps = Exp::new(rate_rps).map(|gaps| gaps.sample_iter(rng));
            sums(gaps.ok().into_iter().flatten())
        }
        Arrival::Gamma {
            rate_rps,
            burstiness,
        } => {
            // Mean shape x scale = 1 / rate, whatever the shape.
            let gaps = Gamma::new(burstiness, 1.0 / (rate_rps * burstiness));
            sums(
                gaps.map(|gaps| gaps.sample_iter(rng))
                    .ok()
                    .into_iter()
                    .flatten(),
            )
        }
        Arrival::Ramp {
            from_rps,
            to_rps,
            over_s,
        } => Box::new((0_u32..).map(move |n| ramp(f64::from(n), from_rps, to_rps, over_s))),
    }
}

/// Running sums, from zero: the first request opens the load.
fn sums(gaps: impl Iterator<Item = f64> + 'static) -> Box<dyn Iterator<Item = f64>> {
    Box::new(std::iter::once(0.0).chain(gaps).scan(0.0, |at, gap| {
        *at += gap;
        Some(*at)
    }))
}

/// When `count` requests have been sent at a rate that goes from `from` to `to` over `over`
/// seconds and then stays: the inverse of the rate's integral.
fn ramp(count: f64, from: f64, to: f64, over: f64) -> f64 {
    let during = f64::midpoint(from, to) * over;
    if count >= during {
        return over + (count - during) / to;
    }
    let slope = (to - from) / over;
    // The smaller root of slope/2 t^2 + from t = count, in the form that holds for slope 0.
    2.0 * count / (from + (from * from + 2.0 * slope * count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(arrival: Arrival, count: usize) -> Vec<f64> {
        instants(arrival, Seed(1)).take(count).collect()
    }

    fn rate_and_variation(arrival: Arrival) -> (f64, f64) {
        let at = first(arrival, 20_001);
        let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (1.0 / mean, variance.sqrt() / mean)
    }

    #[test]
    fn rates_and_burstiness_are_as_asked() {
        assert_eq!(
            first(Arrival::Constant { rate_rps: 4.0 }, 3),
            [0.0, 0.25, 0.5]
        );
        let near = |value: f64, target: f64| (value / target - 1.0).abs() < 0.05;
        let (rate, variation) = rate_and_variation(Arrival::Poisson { rate_rps: 50.0 });
        assert!(
            near(rate, 50.0) && near(variation, 1.0),
            "{rate} {variation}"
        );
        let gamma = Arrival::Gamma {
            rate_rps: 50.0,
            burstiness: 0.25,
        };
        let (rate, variation) = rate_and_variation(gamma);
        assert!(
            near(rate, 50.0) && near(variation, 2.0),
            "{rate} {variation}"
        );
    }

    #[test]
    fn a_ramp_changes_its_rate_and_stays() {
        let arrival = Arrival::Ramp {
            from_rps: 10.0,
            to_rps: 30.0,
            over_s: 10.0,
        };
        let at = first(arrival, 400);
        let rate = |from: f64, to: f64| {
            at.iter()
                .filter(|instant| (from..to).contains(*instant))
                .count() as f64
                / (to - from)
        };
        assert!((rate(0.0, 10.0) - 20.0).abs() < 0.2, "the mean of the ramp");
        assert!((rate(0.0, 1.0) - 11.0).abs() < 1.1 && (rate(9.0, 10.0) - 29.0).abs() < 1.1);
        assert!((rate(10.0, 15.0) - 30.0).abs() < 0.5, "then the last rate");
        let flat = Arrival::Ramp {
            from_rps: 5.0,
            to_rps: 5.0,
            over_s: 2.0,
        };
        assert!((first(flat, 4)[3] - 0.6).abs() < 1e-9);
    }

    #[test]
    fn the_same_seed_gives_the_same_instants() {
        let arrival = Arrival::Poisson { rate_rps: 5.0 };
        assert_eq!(first(arrival, 50), first(arrival, 50));
        let other: Vec<f64> = instants(arrival, Seed(2)).take(50).collect();
        assert_ne!(first(arrival, 50), other);
    }
}
