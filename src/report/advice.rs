//! What a reader wants first: at which prompt lengths each tier pays, what it costs where it does not, and
//! whether to use it. Only proven rows count.

mod elsewhere;
mod words;

use std::collections::BTreeSet;

use crate::aggregate::limit::{MIXED, UNEXPLAINED};
use crate::aggregate::{
    BASELINE, BreakEven, Clarity, Comparison, ComparisonRow, Part, Parts, Place, Pool, Standing,
    break_evens, tier_order,
};
use crate::matrix::controls::is_control;
use crate::plan::state::CacheState;
use crate::units::PromptLen;

/// The answer at one workload and concurrency, over prompt lengths.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// Where; its prompt length is the shortest one.
    pub place: Place,
    /// Prompt lengths, ascending.
    pub lengths: Vec<PromptLen>,
    /// The baseline's median at each length, milliseconds; absent where it is not proven.
    pub baseline_ms: Vec<Option<f64>>,
    /// The tiers, in the plan's order.
    pub tiers: Vec<TierAnswer>,
    /// How the speedups differ elsewhere, a line each.
    pub elsewhere: Vec<String>,
    /// Whether a difference that is shown may be noise.
    pub has_noise: bool,
    /// The fewest requests that a shown median is of.
    pub fewest_requests: u64,
}

/// One tier in an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TierAnswer {
    /// Its name.
    pub tier: String,
    /// At each length; absent where nothing is proven.
    pub points: Vec<Option<Point>>,
    /// Rows that are not proven or not to be compared.
    pub withheld: usize,
    /// What a prompt costs that no cache holds, against no tier.
    pub miss: Option<Cost>,
    /// What a prompt costs that the GPU still holds, against no tier.
    pub gpu_hit: Option<Cost>,
    /// What limited it at the longest length.
    pub limit: Option<String>,
    /// Whether to use it.
    pub advice: Advice,
}

/// A tier at one prompt length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// How many times sooner the first token comes.
    pub speedup: f64,
    /// The tier's median, milliseconds.
    pub ttft_ms: f64,
    /// Whether that is more than noise.
    pub clarity: Clarity,
}

/// Tier minus baseline over the lengths, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    /// The smallest.
    pub low_ms: f64,
    /// The largest.
    pub high_ms: f64,
    /// Whether any of them is more than noise.
    pub is_clear: bool,
}

/// Whether to use a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// At every measured length.
    Use,
    /// At some of the lengths.
    Partly,
    /// At none.
    Not,
    /// The measurement does not tell.
    Open,
}

impl Advice {
    /// The word in files and classes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::Partly => "partly",
            Self::Not => "not",
            Self::Open => "open",
        }
    }
}

/// The answer of a run; `None` where no tier was measured beside a baseline.
pub(crate) fn answer(comparison: &Comparison) -> Option<Answer> {
    let rows: Vec<&ComparisonRow> = comparison
        .rows
        .iter()
        .filter(|row| !is_control(&row.place.label))
        .collect();
    let state = shown_state(&rows)?;
    let shown: Vec<&ComparisonRow> = rows
        .iter()
        .copied()
        .filter(|row| row.place.state == state)
        .collect();
    let line = main_line(&shown)?;
    let own: Vec<&ComparisonRow> = shown
        .iter()
        .copied()
        .filter(|row| line_of(&row.place) == line)
        .collect();
    let lengths: BTreeSet<PromptLen> = own.iter().map(|row| row.place.prompt_len).collect();
    let lengths: Vec<PromptLen> = lengths.into_iter().collect();
    let place = Place {
        prompt_len: *lengths.first()?,
        ..line.clone()
    };
    let tiers: BTreeSet<_> = own.iter().map(|row| tier_order(&row.tier)).collect();
    let tiers = tiers.into_iter();
    let tiers: Vec<TierAnswer> = tiers
        .map(|(_, tier)| tier_answer(comparison, &place, &lengths, tier))
        .collect();
    let compared = || own.iter().filter(|row| row.standing == Standing::Compared);
    Some(Answer {
        baseline_ms: baseline(comparison, &place, &lengths),
        elsewhere: elsewhere::lines(&rows, &line),
        has_noise: compared().any(|row| row.ttft.clarity == Clarity::MayBeNoise)
            || tiers.iter().any(|tier| {
                let mut costs = tier.miss.iter().chain(&tier.gpu_hit);
                costs.any(|cost| !cost.is_clear)
            }),
        fewest_requests: compared().map(|row| row.tier_counts.ok).min().unwrap_or(0),
        place,
        lengths,
        tiers,
    })
}

/// The state whose speedups are shown: the tier's, or the next best that can be compared.
fn shown_state(rows: &[&ComparisonRow]) -> Option<CacheState> {
    let order = [
        CacheState::Tier,
        CacheState::Restart,
        CacheState::Gpu,
        CacheState::Cold,
    ];
    let has = |state: &CacheState, wants_compared: bool| {
        rows.iter().any(|row| {
            row.place.state == *state && (!wants_compared || row.standing == Standing::Compared)
        })
    };
    let tiers = &order[..2];
    let compared = order.iter().find(|state| has(state, true));
    // A tier that is not proven must not be hidden behind a cold pass that is.
    let of_tiers = tiers.iter().find(|state| has(state, true));
    let of_tiers = of_tiers.or_else(|| tiers.iter().find(|state| has(state, false)));
    let any = order.iter().find(|state| has(state, false));
    of_tiers.or(compared).or(any).copied()
}

/// A place without its prompt length.
fn line_of(place: &Place) -> Place {
    Place {
        prompt_len: PromptLen::new(1).unwrap_or(place.prompt_len),
        ..place.clone()
    }
}

/// The line with the lowest concurrency; one that has something to compare before others.
fn main_line(rows: &[&ComparisonRow]) -> Option<Place> {
    let key = |row: &&&ComparisonRow| {
        let line = line_of(&row.place);
        (
            row.standing != Standing::Compared,
            line.concurrency,
            line.label.clone(),
            line.gen_len,
            line.extra.clone(),
        )
    };
    rows.iter().min_by_key(key).map(|row| line_of(&row.place))
}

fn baseline(comparison: &Comparison, place: &Place, lengths: &[PromptLen]) -> Vec<Option<f64>> {
    let at = |length: &PromptLen| {
        let pool = pool_at(comparison, place, *length, BASELINE)?;
        let is_proven = pool.verdict == crate::record::schema::VerdictStatus::Valid;
        pool.ttft_median.value.filter(|_| is_proven)
    };
    lengths.iter().map(at).collect()
}

fn pool_at<'a>(
    comparison: &'a Comparison,
    place: &Place,
    prompt_len: PromptLen,
    tier: &str,
) -> Option<&'a Pool> {
    let place = Place {
        prompt_len,
        ..place.clone()
    };
    let mut pools = comparison.pools.iter();
    pools.find(|pool| pool.tier == tier && pool.place == place)
}

fn tier_answer(
    comparison: &Comparison,
    place: &Place,
    lengths: &[PromptLen],
    tier: &str,
) -> TierAnswer {
    let line = line_of(place);
    let of_state = |state: CacheState| -> Vec<&ComparisonRow> {
        let wanted = Place {
            state,
            ..line.clone()
        };
        let rows = comparison.rows.iter();
        rows.filter(|row| row.tier == tier && line_of(&row.place) == wanted)
            .collect()
    };
    let rows = of_state(place.state);
    let points: Vec<Option<Point>> = lengths
        .iter()
        .map(|length| point(rows.iter().find(|row| row.place.prompt_len == *length)?))
        .collect();
    let cost = |state: CacheState| (state != place.state).then(|| cost(&of_state(state)))?;
    let evens = break_evens(comparison);
    let crossing = evens
        .iter()
        .find(|even| even.tier == tier && line_of(&even.place) == line)
        .map_or(&BreakEven::TooFew, |even| &even.crossing);
    TierAnswer {
        tier: tier.to_owned(),
        withheld: rows
            .iter()
            .filter(|row| row.standing != Standing::Compared)
            .count(),
        miss: cost(CacheState::Cold),
        gpu_hit: cost(CacheState::Gpu),
        limit: limit(comparison, place, lengths, tier),
        advice: advice(&points, crossing),
        points,
    }
}

fn point(row: &ComparisonRow) -> Option<Point> {
    if row.standing != Standing::Compared {
        return None;
    }
    Some(Point {
        speedup: row.ttft.speedup?,
        ttft_ms: row.ttft.tier?,
        clarity: row.ttft.clarity,
    })
}

fn cost(rows: &[&ComparisonRow]) -> Option<Cost> {
    let compared = rows.iter().filter(|row| row.standing == Standing::Compared);
    let each: Vec<(f64, Clarity)> = compared
        .filter_map(|row| Some((row.ttft.difference?, row.ttft.clarity)))
        .collect();
    let values = || each.iter().map(|(value, _)| *value);
    Some(Cost {
        low_ms: values().reduce(f64::min)?,
        high_ms: values().reduce(f64::max)?,
        is_clear: each.iter().any(|(_, clarity)| *clarity == Clarity::Clear),
    })
}

/// What limited the tier at the longest proven length, with the speed of its loads.
fn limit(
    comparison: &Comparison,
    place: &Place,
    lengths: &[PromptLen],
    tier: &str,
) -> Option<String> {
    let at = |length: &PromptLen| {
        let pool = pool_at(comparison, place, *length, tier)?;
        let is_proven = pool.verdict == crate::record::schema::VerdictStatus::Valid;
        let name = pool.bottleneck.clone().filter(|_| is_proven)?;
        let speed = pool.load_bytes_per_s.filter(|_| {
            ["load ", "batch behind "]
                .iter()
                .any(|it| name.starts_with(it))
        });
        Some(match speed {
            Some(speed) => format!("{name} at {:.1} GB/s", speed / 1e9),
            None => match pool
                .parts
                .filter(|_| [MIXED, UNEXPLAINED].contains(&&*name))
            {
                Some(parts) => largest_two(&parts),
                None => name,
            },
        })
    };
    lengths.iter().rev().find_map(at)
}

/// `load 45 %, compute 30 %`, of what no part is more than half; `not known (48 % of TTFT is unexplained,
/// load 23 %)` where what no part explains is one of the two: it is no cause.
fn largest_two(parts: &Parts) -> String {
    let known = Part::ALL.into_iter();
    let mut known: Vec<(Part, f64)> = known
        .filter_map(|part| Some((part, parts.get(part)? / parts.ttft_ms)))
        .collect();
    known.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (unexplained, named): (Vec<_>, Vec<_>) = known
        .into_iter()
        .take(2)
        .partition(|(part, _)| *part == Part::Unexplained);
    let named: Vec<String> = named
        .iter()
        .map(|(part, share)| format!("{} {:.0} %", part.name(), share * 100.0))
        .collect();
    let named = named.join(", ");
    match unexplained.first() {
        Some((_, share)) => {
            let percent = share * 100.0;
            format!("not known ({percent:.0} % of TTFT is unexplained, {named})")
        }
        None => named,
    }
}

fn advice(points: &[Option<Point>], crossing: &BreakEven) -> Advice {
    let proven: Vec<&Point> = points.iter().flatten().collect();
    let is_noise = proven
        .iter()
        .all(|point| point.clarity == Clarity::MayBeNoise);
    if proven.is_empty() || is_noise {
        return Advice::Open;
    }
    match crossing {
        BreakEven::Everywhere(_) => Advice::Use,
        BreakEven::From { .. } | BreakEven::UpTo { .. } => Advice::Partly,
        BreakEven::Several { .. } => Advice::Open,
        BreakEven::TooFew if proven.iter().all(|point| point.speedup >= 1.0) => Advice::Use,
        BreakEven::Nowhere(_) | BreakEven::TooFew => Advice::Not,
    }
}

#[cfg(test)]
mod tests;
