//! All repeats of one tier at one place, taken together.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::aggregate::energy::{self, joules};
use crate::aggregate::gaps::Gaps;
use crate::aggregate::limit::limit;
use crate::aggregate::parts::{Carrier, Parts};
use crate::aggregate::place::Place;
use crate::aggregate::samples::Samples;
use crate::aggregate::slo::{Service, Slo};
use crate::aggregate::summary::per_second;
use crate::metric::Metric;
use crate::plan::verdict_spec::TextRule;
use crate::record::schema::{Bottleneck, CellRecord, Counts, PassRecord, Source, VerdictStatus};
use crate::stats::{Bootstrap, Interval, Statistic, Summary};

/// Points of a distribution function, at most.
const CURVE_POINTS: usize = 80;
/// Values drawn for an interval over repeats, about; at least [`MIN_RESAMPLES`] samples.
const DRAWS: usize = 40_000;
const MIN_RESAMPLES: usize = 200;

/// All repeats of one tier at one place, taken together: their requests are one sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pool {
    /// Coordinates without the tier.
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
    /// End-to-end latency of all repeats.
    pub e2e: Summary,
    /// The median of TTFT with its interval.
    pub ttft_median: Median,
    /// The median of E2E with its interval.
    pub e2e_median: Median,
    /// Ok requests of all repeats over the sum of their durations.
    pub requests_per_s: Option<f64>,
    /// Output tokens of all repeats over the sum of their durations.
    pub output_tokens_per_s: Option<f64>,
    /// Its interval over repeats; absent for fewer than 3.
    pub output_interval: Option<Interval>,
    /// Requests that met the objectives, of all repeats, over the sum of their durations, with an
    /// interval over repeats; absent without objectives and where a repeat's goodput is unknown.
    pub goodput: Median,
    /// Points of the distribution function of TTFT: a time and the share of requests up to it.
    pub ttft_curve: Vec<(f64, f64)>,
    /// The same of the gaps between tokens.
    pub gaps_curve: Vec<(f64, f64)>,
    /// Energy of all GPUs by output tokens; absent where a repeat lacks it.
    pub energy_j_per_token: Option<f64>,
    /// Energy of all GPUs by ok requests of all repeats; absent where a repeat's was not sampled.
    pub energy_j_per_request: Option<f64>,
    /// Cached prompt tokens a request, mean over the repeats.
    pub cached_tokens_mean: Option<f64>,
    /// Where its time to the first token went.
    pub parts: Option<Parts>,
    /// What limited it: the most frequent of what telemetry named, where the parts name nothing.
    pub bottleneck: Option<String>,
    /// What its loads were carried at, bytes a second; absent where not all repeats agree on the way.
    pub load_bytes_per_s: Option<f64>,
}

/// A number with its 95 % interval: of a median by order statistics of the requests, or by a
/// bootstrap over repeats and requests where there are repeats; of a rate by one over repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Median {
    /// The number; absent where it cannot be computed.
    pub value: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
}

/// One pass of one cell.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub cell: &'a CellRecord,
    pub pass: &'a PassRecord,
    pub samples: &'a Samples,
}

/// The repeats of one tier at one place, with their latencies together, ascending.
pub(super) struct Group<'a> {
    tier: &'a str,
    members: Vec<Member<'a>>,
    pub ttft: Cow<'a, [f64]>,
    pub e2e: Cow<'a, [f64]>,
}

impl<'a> Group<'a> {
    pub(super) fn of(tier: &'a str, members: Vec<Member<'a>>) -> Self {
        let ttft = together(&members, |samples| &samples.ttft);
        let e2e = together(&members, |samples| &samples.e2e);
        Self {
            tier,
            members,
            ttft,
            e2e,
        }
    }
}

impl Pool {
    /// Whether it is valid though no text proves it, as the plan allows.
    pub(crate) fn is_textless(&self) -> bool {
        self.verdict == VerdictStatus::Valid && TextRule::marks(self.reason.as_deref())
    }
}

fn together<'a>(
    members: &[Member<'a>],
    pick: impl Fn(&'a Samples) -> &'a Vec<f64>,
) -> Cow<'a, [f64]> {
    match members {
        [one] => Cow::Borrowed(pick(one.samples)),
        several => {
            let parts = several.iter().map(|member| pick(member.samples).as_slice());
            let mut all = parts.collect::<Vec<_>>().concat();
            all.sort_by(f64::total_cmp);
            Cow::Owned(all)
        }
    }
}

/// Sums up a group, under objectives.
pub(super) fn pool(place: &Place, group: &Group<'_>, slos: &[Slo]) -> Pool {
    let members = &group.members;
    let mut counts = Samples::none().counts;
    let mut verdict = VerdictStatus::Valid;
    let mut reason = None;
    for Member { cell, pass, .. } in members {
        counts.sent += pass.counts.sent;
        counts.ok += pass.counts.ok;
        counts.failed += pass.counts.failed;
        counts.unfinished += pass.counts.unfinished;
        let status = pass.verdict.status;
        if status > verdict || (status == verdict && reason.is_none()) {
            verdict = status;
            reason = cell.reason(&pass.verdict);
        }
    }
    let duration_s: f64 = members.iter().map(|member| member.pass.duration_s).sum();
    let output_tokens: Option<u64> = members.iter().map(|m| m.samples.output_tokens).sum();
    let energy: Option<f64> = members.iter().map(|member| joules(member.pass)).sum();
    let ttft = summary(Metric::Ttft, &group.ttft, members);
    let e2e = summary(Metric::E2e, &group.e2e, members);
    let parts = Parts::pooled(&members.iter().map(parts_of).collect::<Vec<_>>());
    let carrier = carrier(members);
    Pool {
        place: place.clone(),
        tier: group.tier.to_owned(),
        source: members
            .iter()
            .map(|m| m.cell.source)
            .max()
            .unwrap_or(Source::Measured),
        verdict,
        reason,
        repeats: members.len(),
        counts,
        ttft_median: median(&ttft, members, |samples| &samples.ttft),
        e2e_median: median(&e2e, members, |samples| &samples.e2e),
        ttft,
        e2e,
        requests_per_s: per_second(Some(counts.ok), duration_s),
        output_tokens_per_s: per_second(output_tokens, duration_s),
        output_interval: over_repeats(rates(members)),
        goodput: goodput(members, slos, duration_s),
        ttft_curve: curve(&group.ttft),
        gaps_curve: Gaps::mixed(members.iter().map(|member| &member.samples.gaps)),
        energy_j_per_token: energy::each(energy, output_tokens),
        energy_j_per_request: energy::each(energy, Some(counts.ok)),
        cached_tokens_mean: mean(members.iter().map(|m| m.samples.cached_tokens_mean)),
        bottleneck: limit(parts.as_ref(), most_frequent(members), carrier),
        parts,
        load_bytes_per_s: carrier.map(|carrier| carrier.bytes_per_s),
    }
}

/// Of all values; of a single repeat without any, what it was imported with. Summaries of several
/// cannot be taken together.
fn summary(metric: Metric, values: &[f64], members: &[Member<'_>]) -> Summary {
    match members {
        [one] => one.samples.summary(metric),
        _ => Summary::of_sorted(metric, values),
    }
}

fn median(
    summary: &Summary,
    members: &[Member<'_>],
    pick: impl Fn(&Samples) -> &Vec<f64>,
) -> Median {
    let interval = if members.len() < 2 {
        summary.median_interval
    } else {
        let bootstrap = Bootstrap {
            resamples: (DRAWS / summary.n.max(1)).clamp(MIN_RESAMPLES, 1000),
            ..Bootstrap::default()
        };
        let repeats: Vec<&[f64]> = members.iter().map(|m| pick(m.samples).as_slice()).collect();
        bootstrap.nested(&repeats, Statistic::Quantile(0.5))
    };
    Median {
        value: summary.p50,
        interval,
    }
}

/// The output throughput of each repeat.
fn rates(members: &[Member<'_>]) -> Option<Vec<f64>> {
    members
        .iter()
        .map(|member| per_second(member.samples.output_tokens, member.pass.duration_s))
        .collect()
}

/// Each repeat is checked against the objectives on its own, as in the table of cells: one that
/// breaks an objective on itself adds time and no request.
fn goodput(members: &[Member<'_>], slos: &[Slo], duration_s: f64) -> Median {
    let one = |member: &Member<'_>| {
        Service::of(slos, member.samples, member.pass.duration_s).goodput_per_s
    };
    let each: Option<Vec<f64>> = members.iter().map(one).collect();
    let Some(each) = each.filter(|_| !slos.is_empty() && duration_s > 0.0) else {
        return Median::default();
    };
    let good: f64 = each
        .iter()
        .zip(members)
        .map(|(goodput, member)| goodput * member.pass.duration_s)
        .sum();
    Median {
        value: Some(good / duration_s),
        interval: over_repeats(Some(each)),
    }
}

/// Of a rate: each repeat is one value.
fn over_repeats(rates: Option<Vec<f64>>) -> Option<Interval> {
    let rates = rates.filter(|rates| rates.len() >= 3)?;
    Bootstrap::default().percentile(&rates, Statistic::Mean)
}

/// The distribution function at up to [`CURVE_POINTS`] of the values.
fn curve(sorted: &[f64]) -> Vec<(f64, f64)> {
    let n = sorted.len();
    let shown = n.min(CURVE_POINTS);
    let rank = |at: usize| (at + 1) * n / shown;
    (0..shown)
        .map(|at| (sorted[rank(at) - 1], rank(at) as f64 / n as f64))
        .collect()
}

fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Option<Vec<f64>> = values.collect();
    let values = values.filter(|values| !values.is_empty())?;
    Some(values.iter().sum::<f64>() / values.len() as f64)
}

fn parts_of(member: &Member<'_>) -> (Option<Parts>, u64) {
    let mean = member.samples.summary(Metric::Ttft).mean;
    let parts = Parts::of(member.cell, member.pass, mean);
    (parts, member.pass.counts.ok)
}

/// What carried the loads of all repeats, with the mean of its speeds.
fn carrier(members: &[Member<'_>]) -> Option<Carrier> {
    let each = members.iter().map(|m| Carrier::of(m.cell, m.pass));
    let each: Vec<Carrier> = each.collect::<Option<_>>()?;
    let first = each.first()?;
    let sum: f64 = each.iter().map(|one| one.bytes_per_s).sum();
    let is_one = each.iter().all(|one| one.name == first.name);
    is_one.then(|| Carrier {
        name: first.name,
        bytes_per_s: sum / each.len() as f64,
    })
}

fn most_frequent<'a>(members: &[Member<'a>]) -> Option<&'a Bottleneck> {
    let mut seen: BTreeMap<&str, (usize, &Bottleneck)> = BTreeMap::new();
    for member in members {
        if let Some(bottleneck) = &member.pass.bottleneck {
            let entry = seen.entry(&bottleneck.name);
            entry.or_insert((0, bottleneck)).0 += 1;
        }
    }
    let most = seen.into_values().max_by_key(|(times, _)| *times);
    most.map(|(_, bottleneck)| bottleneck)
}
