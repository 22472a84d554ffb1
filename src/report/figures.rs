//! Which figures a run has data for, and what stands in each.

mod heat;
mod parts;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::aggregate::{BreakEven, Comparison, Place, Pool, Standing, break_evens};
use crate::metric::Metric;
use crate::plan::state::CacheState;
use crate::record::schema::{Source, VerdictStatus};
use crate::report::figure::{
    Axis, Design, Dot, Figure, Join, Kind, Mark, Picture, Point, facts, token_label,
};
use crate::report::{Drawing, FIGURES};

/// Distance between the tiers of one named place.
const DODGE: f64 = 0.14;

/// All figures that `comparison` has data for. `caption` holds for all of them.
pub(super) fn drawings(comparison: &Comparison, caption: &[String]) -> Result<Vec<Drawing>> {
    let pools = &comparison.pools;
    if pools.is_empty() {
        return Ok(Vec::new());
    }
    let mut drawn = Vec::new();
    if let Some(chart) = parts::chart(comparison, caption) {
        drawn.push(Drawing::of("ttft_parts", Picture::Stack(chart))?);
    }
    for (metric, name) in FIGURES {
        let summary = |pool: &Pool| match metric {
            Metric::E2e => pool.e2e.clone(),
            _ => pool.ttft.clone(),
        };
        let dots: Vec<_> = pools
            .iter()
            .map(|pool| Dot::of(pool, summary(pool)))
            .collect();
        drawn.push(Drawing::of(
            name,
            Picture::Lines(Figure::of(&dots, caption, vec![])),
        )?);
    }
    let lines = [
        ("cold_warm", cold_warm(pools, caption)),
        ("break_even", break_even(comparison, caption)),
        ("throughput_concurrency", throughput(pools, caption)),
        ("latency_throughput", latency_throughput(pools, caption)),
        ("ttft_ecdf", ecdf(pools, caption)),
        ("itl_distribution", itl(pools, caption)),
    ];
    let mut pictures: Vec<_> = lines
        .into_iter()
        .filter_map(|(name, figure)| Some((name, Picture::Lines(figure?))))
        .collect();
    if let Some(map) = heat::map(comparison, caption) {
        pictures.insert(
            pictures.len().min(2),
            ("speedup_heatmap", Picture::Heat(map)),
        );
    }
    for (name, picture) in pictures {
        drawn.push(Drawing::of(name, picture)?);
    }
    Ok(drawn)
}

/// Facts with the state, and with the prompt length where it is not an axis of the figure.
fn facts_of(place: &Place, with_length: bool) -> Vec<(String, String)> {
    let mut facts = facts(place);
    facts.push(("state".to_owned(), place.state.title().to_owned()));
    if with_length {
        facts.push(("prompt_len".to_owned(), place.prompt_len.to_string()));
    }
    facts
}

fn point(x: f64, y: f64, verdict: VerdictStatus) -> Point {
    Point {
        x,
        y,
        band: None,
        verdict,
        label: String::new(),
    }
}

/// Where each tier's warm median lies, with a line from its cold one.
fn cold_warm(pools: &[Pool], caption: &[String]) -> Option<Figure> {
    let lengths: BTreeSet<_> = pools.iter().map(|pool| pool.place.prompt_len).collect();
    let tiers = tiers(pools);
    let cold: BTreeMap<_, _> = pools
        .iter()
        .filter(|pool| pool.place.state == CacheState::Cold)
        .map(|pool| ((&pool.tier, pool.place.clone()), pool))
        .collect();
    let mark = |pool: &Pool| {
        let was = Place {
            state: CacheState::Cold,
            ..pool.place.clone()
        };
        let cold = cold.get(&(&pool.tier, was))?;
        let (before, after) = (cold.ttft.p50?, pool.ttft.p50?);
        let at = lengths
            .iter()
            .position(|length| *length == pool.place.prompt_len)?;
        let tier = tiers.iter().position(|tier| *tier == pool.tier)?;
        let aside = (tier as f64 - (tiers.len() as f64 - 1.0) / 2.0) * DODGE;
        let warm = point(at as f64 + aside, after, cold.verdict.max(pool.verdict));
        Some(Mark {
            facts: facts_of(&pool.place, false),
            concurrency: Some(pool.place.concurrency.get()),
            tier: pool.tier.clone(),
            points: vec![Point {
                band: Some((before.min(after), before.max(after))),
                ..warm
            }],
            source: Some(cold.source.max(pool.source)),
        })
    };
    let warm = pools
        .iter()
        .filter(|pool| pool.place.state != CacheState::Cold);
    let marks: Vec<_> = warm.filter_map(mark).collect();
    let names = lengths
        .iter()
        .map(|length| token_label(length.get()))
        .collect();
    let design = Design {
        title: "Time to first token, cold and warm".to_owned(),
        x: Axis::new("Prompt length (tokens)", Kind::Named(names)),
        y: Axis::new("Time to first token, median", Kind::Times),
        join: Join::Whiskers,
        reference: None,
    };
    let notes = vec![
        "marker: the median when warm; the line leads to the same tier's cold median".to_owned(),
    ];
    (!marks.is_empty()).then(|| Figure::drawn(design, &marks, caption, notes))
}

fn tiers(pools: &[Pool]) -> Vec<String> {
    let mut tiers: Vec<_> = pools.iter().map(|pool| pool.tier.clone()).collect();
    tiers.sort_by(|a, b| crate::aggregate::tier_order(a).cmp(&crate::aggregate::tier_order(b)));
    tiers.dedup();
    tiers
}

/// The speedup over prompt lengths, with the length at which it is 1.
fn break_even(comparison: &Comparison, caption: &[String]) -> Option<Figure> {
    let rows = break_evens(comparison);
    let marks: Vec<_> = rows
        .iter()
        .filter(|row| row.speedups.len() >= 2)
        .map(|row| {
            let at = |(length, speedup): &(crate::units::PromptLen, f64)| {
                point(f64::from(length.get()), *speedup, VerdictStatus::Valid)
            };
            let mut points: Vec<_> = row.speedups.iter().map(at).collect();
            if let BreakEven::From { tokens, .. } | BreakEven::UpTo { tokens, .. } = row.crossing {
                points.push(Point {
                    label: format!("{tokens:.0}"),
                    ..point(tokens, 1.0, VerdictStatus::Valid)
                });
                points.sort_by(|a, b| a.x.total_cmp(&b.x));
            }
            Mark {
                facts: facts_of(&row.place, false),
                concurrency: Some(row.place.concurrency.get()),
                tier: row.tier.clone(),
                points,
                source: source_of(comparison, &row.tier, row.place.state),
            }
        })
        .collect();
    let design = Design {
        title: "Break-even prompt length".to_owned(),
        x: Axis::new("Prompt length (tokens)", Kind::Lengths),
        y: Axis::new("TTFT speedup against the baseline", Kind::Ratios),
        join: Join::Line,
        reference: Some(1.0),
    };
    let mut notes = vec![
        "above the line at 1x the tier is faster than no tier; a number beside the line is the \
         break-even length, interpolated"
            .to_owned(),
    ];
    if comparison
        .rows
        .iter()
        .any(|row| row.standing != Standing::Compared)
    {
        notes.push(
            "places that may not be compared (not valid, or nothing to compare with) are left out"
                .to_owned(),
        );
    }
    (!marks.is_empty()).then(|| Figure::drawn(design, &marks, caption, notes))
}

fn source_of(comparison: &Comparison, tier: &str, state: CacheState) -> Option<Source> {
    let rows = comparison.rows.iter();
    rows.filter(|row| row.tier == tier && row.place.state == state)
        .map(|row| row.source)
        .max()
}

/// The pools that differ in nothing but the concurrency, ascending; only where it varies.
fn by_concurrency(pools: &[Pool]) -> Vec<Vec<&Pool>> {
    let mut lines: BTreeMap<(Place, &str), Vec<&Pool>> = BTreeMap::new();
    let Some(least) = pools.iter().map(|pool| pool.place.concurrency).min() else {
        return Vec::new();
    };
    for pool in pools {
        let place = Place {
            concurrency: least,
            ..pool.place.clone()
        };
        lines.entry((place, &pool.tier)).or_default().push(pool);
    }
    lines.into_values().filter(|line| line.len() >= 2).collect()
}

fn marks_by_concurrency(pools: &[Pool], point: impl Fn(&Pool) -> Option<Point>) -> Vec<Mark> {
    by_concurrency(pools)
        .into_iter()
        .map(|line| Mark {
            facts: facts_of(&line[0].place, true),
            concurrency: None,
            tier: line[0].tier.clone(),
            points: line.iter().filter_map(|pool| point(pool)).collect(),
            source: line.iter().map(|pool| pool.source).max(),
        })
        .collect()
}

fn throughput(pools: &[Pool], caption: &[String]) -> Option<Figure> {
    let marks = marks_by_concurrency(pools, |pool| {
        let interval = pool
            .output_interval
            .map(|interval| (interval.low, interval.high));
        let concurrency = f64::from(pool.place.concurrency.get());
        Some(Point {
            band: interval,
            ..point(concurrency, pool.output_tokens_per_s?, pool.verdict)
        })
    });
    let spec = Metric::OutputThroughput.spec();
    let design = Design {
        title: "Throughput by concurrency".to_owned(),
        x: Axis::new("Concurrency (requests in flight)", Kind::Counts),
        y: Axis::new(&format!("{} (tok/s)", spec.title), Kind::Rates),
        join: Join::Line,
        reference: None,
    };
    (!marks.is_empty()).then(|| Figure::drawn(design, &marks, caption, vec![]))
}

fn latency_throughput(pools: &[Pool], caption: &[String]) -> Option<Figure> {
    let marks = marks_by_concurrency(pools, |pool| {
        Some(Point {
            label: format!("c{}", pool.place.concurrency),
            ..point(pool.output_tokens_per_s?, pool.ttft.p50?, pool.verdict)
        })
    });
    let design = Design {
        title: "Time to first token by throughput".to_owned(),
        x: Axis::new("Output token throughput (tok/s)", Kind::Rates),
        y: Axis::new("Time to first token, median", Kind::Times),
        join: Join::Line,
        reference: None,
    };
    let notes = vec!["right and low is better; c8: 8 requests in flight".to_owned()];
    if marks.is_empty() {
        return None;
    }
    let mut figure = Figure::drawn(design, &marks, caption, notes);
    for panel in &mut figure.panels {
        let valid = panel.lines.values().flatten();
        let valid = valid.filter(|point| point.verdict == VerdictStatus::Valid);
        panel.front = front(valid.map(|point| (point.x, point.y)).collect());
    }
    Some(figure)
}

/// The points that no other beats in both: more of x and less of y. By x, ascending.
fn front(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.total_cmp(&b.1)));
    let mut front: Vec<(f64, f64)> = Vec::new();
    for point in points {
        if front.last().is_none_or(|best| point.1 < best.1) {
            front.push(point);
        }
    }
    front.reverse();
    front
}

fn distribution(
    pools: &[Pool],
    caption: &[String],
    design: Design,
    notes: Vec<String>,
    curve: impl Fn(&Pool) -> &[(f64, f64)],
) -> Option<Figure> {
    let mark = |pool: &Pool| {
        let first = curve(pool).first().map(|(value, _)| (*value, 0.0));
        let points = first.into_iter().chain(curve(pool).iter().copied());
        let points = points.filter(|(value, _)| *value > 0.0);
        let points: Vec<_> = points
            .map(|(value, share)| point(value, share, pool.verdict))
            .collect();
        (points.len() >= 3).then(|| Mark {
            facts: facts_of(&pool.place, true),
            concurrency: Some(pool.place.concurrency.get()),
            tier: pool.tier.clone(),
            points,
            source: Some(pool.source),
        })
    };
    let marks: Vec<_> = pools.iter().filter_map(mark).collect();
    (!marks.is_empty()).then(|| Figure::drawn(design, &marks, caption, notes))
}

fn ecdf(pools: &[Pool], caption: &[String]) -> Option<Figure> {
    let design = Design {
        title: "Distribution of time to first token".to_owned(),
        x: Axis::new("Time to first token", Kind::Times),
        y: Axis::new("Share of requests up to it", Kind::Shares),
        join: Join::Steps,
        reference: None,
    };
    distribution(pools, caption, design, vec![], |pool| &pool.ttft_curve)
}

fn itl(pools: &[Pool], caption: &[String]) -> Option<Figure> {
    let design = Design {
        title: "Distribution of inter-token latency".to_owned(),
        x: Axis::new("Time between tokens", Kind::Times),
        y: Axis::new("Share of gaps up to it", Kind::Shares),
        join: Join::Curve,
        reference: None,
    };
    let notes = vec!["every gap of every ok request is one sample".to_owned()];
    distribution(pools, caption, design, notes, |pool| &pool.gaps_curve)
}

#[cfg(test)]
mod tests;
