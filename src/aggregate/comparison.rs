//! Each tier against the baseline where all else is equal.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::aggregate::place::{BASELINE, Place, tier_order};
use crate::aggregate::samples::{Samples, gather};
use crate::aggregate::summary::per_second;
use crate::metric::{Better, Metric};
use crate::record::reader::RunData;
use crate::record::schema::{CellRecord, Counts, PassRecord, Source, VerdictStatus};
use crate::stats::{Summary, rank_test};

/// Below this probability of being chance, a difference is called clear.
const CLEAR_BELOW: f64 = 0.05;

/// Every tier at every place, and each tier against the baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What is compared, the baseline among them; by place, then tier.
    pub pools: Vec<Pool>,
    /// One row a place and tier other than the baseline, in the same order.
    pub rows: Vec<ComparisonRow>,
}

/// All repeats of one tier at one place, taken together: their requests are one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Where.
    pub place: Place,
    /// The tier's name.
    pub tier: String,
    /// `Simulated` as soon as one repeat is.
    pub source: Source,
    /// The worst verdict among the repeats.
    pub verdict: VerdictStatus,
    /// The first reason of that verdict.
    pub reason: Option<String>,
    /// How many repeats there are.
    pub repeats: usize,
    /// What became of the requests of all repeats.
    pub counts: Counts,
    /// Time to first token.
    pub ttft: Summary,
    /// End to end.
    pub e2e: Summary,
    /// Output tokens of all repeats over the sum of their durations.
    pub output_tokens_per_s: Option<f64>,
}

/// One tier against the baseline at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparisonRow {
    /// Where.
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
}

/// Whether a comparison may be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both sides are valid.
    Compared,
    /// There is no ratio, and why.
    Withheld(String),
}

/// Two values of one metric side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Contrast {
    /// Of what.
    pub metric: Metric,
    /// The baseline's value.
    pub baseline: Option<f64>,
    /// The tier's value.
    pub tier: Option<f64>,
    /// Tier minus baseline; absent where withheld.
    pub difference: Option<f64>,
    /// How many times as good the tier is, above 1 better: baseline / tier for latencies,
    /// tier / baseline for throughput. Absent where withheld.
    pub speedup: Option<f64>,
    /// Whether the difference stands out of the scatter.
    pub clarity: Clarity,
}

/// Whether a difference stands out of the requests' scatter (Mann-Whitney U at 0.05).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clarity {
    /// It does.
    Clear,
    /// It may be noise.
    MayBeNoise,
    /// There is one value a side, or too few, or the comparison is withheld.
    Untested,
}

struct Group<'a> {
    tier: &'a str,
    members: Vec<(&'a CellRecord, &'a PassRecord)>,
    samples: Samples,
}

/// Pools the repeats of each tier and compares each with the baseline at equal coordinates.
pub fn compare(run: &RunData) -> Result<Comparison> {
    let places = grouped(run)?;
    let mut comparison = Comparison {
        pools: vec![],
        rows: vec![],
    };
    for (place, mut groups) in places {
        groups.sort_by(|a, b| tier_order(a.tier).cmp(&tier_order(b.tier)));
        let pools: Vec<_> = groups.iter().map(|group| pool(&place, group)).collect();
        let baseline = groups
            .iter()
            .zip(&pools)
            .find(|(group, _)| group.tier == BASELINE)
            .map(|(group, pool)| Side {
                pool,
                samples: &group.samples,
            });
        for (group, pool) in groups.iter().zip(&pools) {
            if group.tier != BASELINE {
                let tier = Side {
                    pool,
                    samples: &group.samples,
                };
                comparison.rows.push(contrast_sides(baseline, tier));
            }
        }
        comparison.pools.extend(pools);
    }
    Ok(comparison)
}

fn grouped(run: &RunData) -> Result<BTreeMap<Place, Vec<Group<'_>>>> {
    // Cells that differ in nothing but the repeat are one group.
    let alike = |cell: &CellRecord| {
        let mut at = cell.coordinates.clone();
        at.repeat = run.cells[0].coordinates.repeat;
        at
    };
    let distinct: Vec<_> = run
        .cells
        .iter()
        .map(alike)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let index = |cell| distinct.binary_search(&alike(cell)).unwrap_or_else(|at| at);
    let group_of: Vec<u32> = run
        .cells
        .iter()
        .map(|cell| u32::try_from(index(cell)))
        .collect::<Result<_, _>>()?;
    let mut samples = gather(&run.requests, &group_of)?;

    let mut members: BTreeMap<(u32, Place), Vec<_>> = BTreeMap::new();
    for (cell, group) in run.cells.iter().zip(&group_of) {
        for pass in &cell.passes {
            let place = Place::of(&cell.coordinates, pass.state);
            members
                .entry((*group, place))
                .or_default()
                .push((cell, pass));
        }
    }
    let mut places: BTreeMap<Place, Vec<Group<'_>>> = BTreeMap::new();
    for ((group, place), members) in members {
        let samples = samples
            .remove(&(group, place.state))
            .unwrap_or_else(Samples::none);
        let tier = members[0].0.coordinates.tier.as_str();
        places.entry(place).or_default().push(Group {
            tier,
            members,
            samples,
        });
    }
    Ok(places)
}

fn pool(place: &Place, group: &Group<'_>) -> Pool {
    let mut counts = Counts {
        sent: 0,
        ok: 0,
        failed: 0,
        unfinished: 0,
    };
    let mut duration_s = 0.0;
    let mut verdict = VerdictStatus::Valid;
    let mut reason = None;
    let mut source = Source::Measured;
    for (cell, pass) in &group.members {
        counts.sent += pass.counts.sent;
        counts.ok += pass.counts.ok;
        counts.failed += pass.counts.failed;
        counts.unfinished += pass.counts.unfinished;
        duration_s += pass.duration_s;
        source = source.max(cell.source);
        let status = pass.verdict.status;
        if status > verdict || (status == verdict && reason.is_none()) {
            verdict = status;
            reason = pass.verdict.reasons.first().cloned();
        }
    }
    Pool {
        place: place.clone(),
        tier: group.tier.to_owned(),
        source,
        verdict,
        reason,
        repeats: group.members.len(),
        counts,
        ttft: group.samples.summary(Metric::Ttft),
        e2e: group.samples.summary(Metric::E2e),
        output_tokens_per_s: per_second(group.samples.output_tokens, duration_s),
    }
}

#[derive(Clone, Copy)]
struct Side<'a> {
    pool: &'a Pool,
    samples: &'a Samples,
}

fn contrast_sides(baseline: Option<Side<'_>>, tier: Side<'_>) -> ComparisonRow {
    let standing = standing(baseline.map(|side| side.pool), tier.pool);
    let latency = |metric, values: fn(&Samples) -> &[f64], median: fn(&Pool) -> Option<f64>| {
        let clarity = match baseline {
            Some(baseline) => clarity(values(baseline.samples), values(tier.samples)),
            None => Clarity::Untested,
        };
        let before = baseline.and_then(|side| median(side.pool));
        contrast(metric, before, median(tier.pool), clarity, &standing)
    };
    let ttft = latency(Metric::Ttft, |samples| &samples.ttft, |pool| pool.ttft.p50);
    let e2e = latency(Metric::E2e, |samples| &samples.e2e, |pool| pool.e2e.p50);
    let output = contrast(
        Metric::OutputThroughput,
        baseline.and_then(|side| side.pool.output_tokens_per_s),
        tier.pool.output_tokens_per_s,
        Clarity::Untested,
        &standing,
    );
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
    baseline: Option<f64>,
    tier: Option<f64>,
    clarity: Clarity,
    standing: &Standing,
) -> Contrast {
    let both = baseline
        .zip(tier)
        .filter(|_| *standing == Standing::Compared);
    let quotient = |(baseline, tier): (f64, f64)| match metric.spec().better {
        Better::Higher => tier / baseline,
        Better::Lower | Better::Neither => baseline / tier,
    };
    Contrast {
        metric,
        baseline,
        tier,
        difference: both.map(|(baseline, tier)| tier - baseline),
        speedup: both.map(quotient).filter(|speedup| speedup.is_finite()),
        clarity: if both.is_some() {
            clarity
        } else {
            Clarity::Untested
        },
    }
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
