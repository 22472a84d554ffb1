//! Each tier against the baseline where all else is equal.

use std::collections::BTreeMap;

#[cfg(test)]
use anyhow::Result;

use crate::aggregate::controls::{self, ControlOutcome};
use crate::aggregate::place::{BASELINE, Place, baselines_to_lend, tier_order};
use crate::aggregate::pool::{Group, Median, Member, Pool, pool};
use crate::aggregate::samples::{Passes, Samples};
use crate::aggregate::slo::Slo;
use crate::matrix::controls::is_control;
use crate::metric::{Better, Metric};
use crate::record::reader::RunData;
use crate::record::schema::{Counts, Source, VerdictStatus};
use crate::stats::{Interval, rank_test};

/// Below this probability of being chance, a difference is called clear.
const CLEAR_BELOW: f64 = 0.05;

/// Every tier at every place, and each tier against the baseline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Comparison {
    /// What is compared, the baseline among them; by place, then tier.
    pub pools: Vec<Pool>,
    /// One row a place and tier other than the baseline, in the same order.
    pub rows: Vec<ComparisonRow>,
    /// The result of each control, in the same order.
    pub controls: Vec<ControlOutcome>,
    /// The objectives that define goodput.
    pub slos: Vec<Slo>,
}

impl Comparison {
    /// The same without the controls.
    #[must_use]
    pub(crate) fn without_controls(&self) -> Self {
        let mut rest = self.clone();
        rest.rows.retain(|row| !is_control(&row.place.label));
        rest.pools.retain(|pool| !is_control(&pool.place.label));
        rest
    }
}

/// One tier against the baseline at one place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ComparisonRow {
    /// Coordinates without the tier.
    pub place: Place,
    /// The tier's name.
    pub tier: String,
    /// `Simulated` as soon as one side is.
    pub source: Source,
    /// Whether the two may be compared.
    pub standing: Standing,
    /// Requests of the baseline; absent without a baseline.
    pub baseline_counts: Option<Counts>,
    /// Requests of the tier.
    pub tier_counts: Counts,
    /// Median time to first token.
    pub ttft: Contrast,
    /// Median end-to-end latency.
    pub e2e: Contrast,
    /// Output tokens a second.
    pub output: Contrast,
    /// Energy of all GPUs by output tokens.
    pub energy: Contrast,
    /// Requests a second that meet the objectives; empty without any.
    pub goodput: Contrast,
    /// Energy of all GPUs by requests.
    pub request_energy: Contrast,
    /// Prompt tokens a request that the tier's server reported as cached, mean.
    pub cached_tokens_mean: Option<f64>,
    /// Whether no text proves the tier, as the plan allows.
    pub text_optional: bool,
}

impl ComparisonRow {
    /// Everything that is compared.
    pub(crate) fn contrasts(&self) -> [&Contrast; 6] {
        let Self {
            ttft,
            e2e,
            output,
            energy,
            goodput,
            request_energy,
            ..
        } = self;
        [ttft, e2e, output, energy, goodput, request_energy]
    }

    /// Removes the comparison and records why; the values of both sides stay.
    pub(super) fn withhold(&mut self, why: String) {
        self.standing = Standing::Withheld(why);
        let Self {
            ttft,
            e2e,
            output,
            energy,
            goodput,
            request_energy,
            ..
        } = self;
        for contrast in [ttft, e2e, output, energy, goodput, request_energy] {
            contrast.difference = None;
            contrast.speedup = None;
            contrast.interval = None;
            contrast.clarity = Clarity::Untested;
        }
    }
}

/// Whether a comparison may be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Both sides are valid.
    Compared,
    /// No ratio is shown. Holds the reason.
    Withheld(String),
}

/// Two values of one metric side by side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contrast {
    /// The compared metric.
    pub metric: Metric,
    /// The baseline's value.
    pub baseline: Option<f64>,
    /// The tier's value.
    pub tier: Option<f64>,
    /// Tier minus baseline; absent where withheld.
    pub difference: Option<f64>,
    /// How many times as good the tier is, above 1 better: baseline / tier for latencies
    /// and energy, tier / baseline for throughput and goodput. Absent where withheld.
    pub speedup: Option<f64>,
    /// 95 % interval of the speedup, from those of its two parts; absent where one of them is.
    pub interval: Option<Interval>,
    /// Whether the difference stands out of the scatter.
    pub clarity: Clarity,
}

/// Whether a difference stands out of the requests' scatter (Mann-Whitney U at 0.05).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clarity {
    /// More than chance explains.
    Clear,
    /// It may be noise.
    MayBeNoise,
    /// There is one value a side, or too few, or the comparison is withheld.
    Untested,
}

/// Pools the repeats of each tier and compares each with the baseline at equal coordinates.
#[cfg(test)]
pub(crate) fn compare(run: &RunData) -> Result<Comparison> {
    compare_under(run, &[])
}

/// The same, with goodput under objectives.
#[cfg(test)]
pub(crate) fn compare_under(run: &RunData, slos: &[Slo]) -> Result<Comparison> {
    Ok(compare_passes(run, &Passes::gather(run, slos)?, slos))
}

pub(crate) fn compare_passes(run: &RunData, passes: &Passes, slos: &[Slo]) -> Comparison {
    let none = Samples::none();
    let mut comparison = Comparison {
        pools: vec![],
        rows: vec![],
        controls: vec![],
        slos: slos.to_vec(),
    };
    for (place, tiers) in grouped(run, passes, &none) {
        let mut groups: Vec<_> = tiers.into_iter().collect();
        groups.sort_by(|(a, _), (b, _)| tier_order(a).cmp(&tier_order(b)));
        let groups: Vec<_> = groups
            .into_iter()
            .map(|(tier, members)| Group::of(tier, members))
            .collect();
        let pools: Vec<_> = groups
            .iter()
            .map(|group| pool(&place, group, slos))
            .collect();
        let sides = || {
            groups
                .iter()
                .zip(&pools)
                .map(|(group, pool)| Side { pool, group })
        };
        let baseline = sides().find(|side| side.pool.tier == BASELINE);
        let others = sides().filter(|side| side.pool.tier != BASELINE);
        comparison
            .rows
            .extend(others.map(|tier| contrast_sides(baseline, tier)));
        comparison.pools.extend(pools);
    }
    comparison.controls = controls::void(&mut comparison.rows, &controls::limits(run));
    comparison
}

/// The passes at each place by tier: those that differ in nothing but the repeat are one group.
fn grouped<'a>(
    run: &'a RunData,
    passes: &'a Passes,
    none: &'a Samples,
) -> BTreeMap<Place, BTreeMap<&'a str, Vec<Member<'a>>>> {
    let mut places: BTreeMap<Place, BTreeMap<&str, Vec<Member<'_>>>> = BTreeMap::new();
    for (at, cell) in run.cells.iter().enumerate() {
        for pass in &cell.passes {
            let tiers = places
                .entry(Place::of(&cell.coordinates, pass.state))
                .or_default();
            let members = tiers.entry(cell.coordinates.tier.as_str()).or_default();
            members.push(Member {
                cell,
                pass,
                samples: passes.get(at, pass.state).unwrap_or(none),
            });
        }
    }
    lend_baselines(&mut places);
    places
}

/// Gives the places of a tier's settings the baseline that was measured once for all of them. A place
/// that is left with that baseline alone is removed: it compares nothing.
fn lend_baselines<'a>(places: &mut BTreeMap<Place, BTreeMap<&'a str, Vec<Member<'a>>>>) {
    let has_baseline = |place: &Place| {
        let there = places.get(place);
        there.is_some_and(|tiers| tiers.contains_key(BASELINE))
    };
    let loans = baselines_to_lend(places.keys(), has_baseline);
    for (from, to) in &loans {
        let baseline = places.get(from).and_then(|tiers| tiers.get(BASELINE));
        if let Some(baseline) = baseline.cloned()
            && let Some(tiers) = places.get_mut(to)
        {
            tiers.insert(BASELINE, baseline);
        }
    }
    for (from, _) in loans {
        if places.get(&from).is_some_and(|tiers| tiers.len() == 1) {
            places.remove(&from);
        }
    }
}

#[derive(Clone, Copy)]
struct Side<'a> {
    pool: &'a Pool,
    group: &'a Group<'a>,
}

fn contrast_sides(baseline: Option<Side<'_>>, tier: Side<'_>) -> ComparisonRow {
    let standing = standing(baseline.map(|side| side.pool), tier.pool);
    let latency = |metric, side: fn(Side<'_>) -> (&[f64], Median)| {
        let (after, to) = side(tier);
        let (clarity, from) = match baseline.map(side) {
            Some((before, from)) => (clarity(before, after), from),
            None => (Clarity::Untested, Median::default()),
        };
        contrast(metric, from, to, clarity, &standing)
    };
    let ttft = latency(Metric::Ttft, |side| {
        (&side.group.ttft, side.pool.ttft_median)
    });
    let e2e = latency(Metric::E2e, |side| (&side.group.e2e, side.pool.e2e_median));
    let rate = |metric, value: fn(&Pool) -> Median| {
        let before = baseline.map(|side| value(side.pool)).unwrap_or_default();
        let after = value(tier.pool);
        contrast(metric, before, after, Clarity::Untested, &standing)
    };
    let output = rate(Metric::OutputThroughput, |pool| Median {
        value: pool.output_tokens_per_s,
        interval: pool.output_interval,
    });
    let energy = rate(Metric::Energy, |pool| Median {
        value: pool.energy_j_per_token,
        interval: None,
    });
    let goodput = rate(Metric::Goodput, |pool| pool.goodput);
    let request_energy = rate(Metric::RequestEnergy, |pool| Median {
        value: pool.energy_j_per_request,
        interval: None,
    });
    ComparisonRow {
        place: tier.pool.place.clone(),
        tier: tier.pool.tier.clone(),
        source: baseline.map_or(tier.pool.source, |side| {
            side.pool.source.max(tier.pool.source)
        }),
        standing,
        baseline_counts: baseline.map(|side| side.pool.counts),
        tier_counts: tier.pool.counts,
        ttft,
        e2e,
        output,
        energy,
        goodput,
        request_energy,
        cached_tokens_mean: tier.pool.cached_tokens_mean,
        text_optional: tier.pool.is_textless(),
    }
}

fn standing(baseline: Option<&Pool>, tier: &Pool) -> Standing {
    let Some(baseline) = baseline else {
        return Standing::Withheld(format!("no `{BASELINE}` at these coordinates"));
    };
    for side in [tier, baseline] {
        if side.verdict != VerdictStatus::Valid {
            let reason = side.reason.as_deref().unwrap_or("no reason recorded");
            let verdict = side.verdict.name();
            return Standing::Withheld(format!("{} is {verdict}: {reason}", side.tier));
        }
    }
    if baseline.source != tier.source {
        let (one, other) = (baseline.source.name(), tier.source.name());
        return Standing::Withheld(format!("{BASELINE} is {one} and {} is {other}", tier.tier));
    }
    match [tier, baseline]
        .into_iter()
        .find(|side| side.counts.ok == 0)
    {
        Some(side) => Standing::Withheld(format!("no request of {} was answered", side.tier)),
        None => Standing::Compared,
    }
}

fn contrast(
    metric: Metric,
    baseline: Median,
    tier: Median,
    clarity: Clarity,
    standing: &Standing,
) -> Contrast {
    let compared = *standing == Standing::Compared;
    let both = baseline.value.zip(tier.value).filter(|_| compared);
    let (over, under) = match metric.spec().better {
        Better::Higher => (tier, baseline),
        Better::Lower | Better::Neither => (baseline, tier),
    };
    let speedup = both
        .and_then(|_| Some(over.value? / under.value?))
        .filter(|speedup| speedup.is_finite());
    Contrast {
        metric,
        baseline: baseline.value,
        tier: tier.value,
        difference: both.map(|(baseline, tier)| tier - baseline),
        speedup,
        interval: speedup.and_then(|_| quotient_interval(over, under)),
        clarity: if both.is_some() {
            clarity
        } else {
            Clarity::Untested
        },
    }
}

/// The interval of a quotient from those of its parts, by the recovery of variances on the log
/// scale: Zou & Donner, "Construction of Confidence Limits about Effect Measures: A General
/// Approach", Statistics in Medicine 27(10), 2008. The parts must be independent; they come from
/// different servers.
fn quotient_interval(over: Median, under: Median) -> Option<Interval> {
    let logs = |part: Median| -> Option<[f64; 3]> {
        let interval = part.interval?;
        let logs = [interval.low, part.value?, interval.high].map(f64::ln);
        logs.iter().all(|log| log.is_finite()).then_some(logs)
    };
    let ([over_low, over_mid, over_high], [under_low, under_mid, under_high]) =
        (logs(over)?, logs(under)?);
    let middle = over_mid - under_mid;
    let confidence = over.interval?.confidence.min(under.interval?.confidence);
    Some(Interval {
        low: (middle - (over_mid - over_low).hypot(under_high - under_mid)).exp(),
        high: (middle + (over_high - over_mid).hypot(under_mid - under_low)).exp(),
        confidence,
    })
}

fn clarity(baseline: &[f64], tier: &[f64]) -> Clarity {
    match rank_test(baseline, tier) {
        None => Clarity::Untested,
        Some(test) if test.p < CLEAR_BELOW => Clarity::Clear,
        Some(_) => Clarity::MayBeNoise,
    }
}

#[cfg(test)]
mod tests;
