//! The answer by prompt length, as a table, and in a few words for each tier.

use crate::record::schema::Source;
use crate::report::advice::{Answer, Cost, TierAnswer, answer};
use crate::report::notes::Notes;
use crate::report::number::{brief, brief_times};
use crate::report::screen;
use crate::report::section::Section;
use crate::report::table::{Column, Keep, Table};
use crate::report::{Report, cost, memory};
use crate::units::grouped;

/// A tier and whether to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The tier.
    pub tier: String,
    /// `use`, `partly`, `not` or `open`.
    pub advice: &'static str,
    /// Whether to use it, in a sentence without its name.
    pub words: String,
    /// What it costs, whether it is proven, and what limits it.
    pub details: String,
}

/// Each tier in words; none where nothing was compared.
pub(super) fn told(report: &Report) -> Vec<Told> {
    let Some(answer) = answer(&report.comparison) else {
        return Vec::new();
    };
    let tiers = answer.tiers.iter();
    tiers
        .map(|tier| {
            let (advice, words) = screen::told(&answer, tier, report);
            Told {
                tier: tier.tier.clone(),
                advice: advice.name(),
                words,
                details: details(&answer, tier, report),
            }
        })
        .collect()
}

fn details(answer: &Answer, tier: &TierAnswer, report: &Report) -> String {
    let mut parts = Vec::new();
    if let Some(cost) = tier.miss {
        parts.push(format!("a miss costs {}", cost.text()));
    }
    if let Some(cost) = tier.gpu_hit {
        parts.push(format!("a GPU hit costs {}", cost.text()));
    }
    let proven = tier.points.iter().flatten().count();
    parts.push(format!(
        "proven at {proven} of {} lengths",
        tier.points.len()
    ));
    if let Some(limit) = &tier.limit {
        parts.push(format!("limit: {limit}"));
    }
    parts.extend(memory::of_tier(report, answer, &tier.tier));
    parts.extend(energy(answer, tier, report));
    let cost = |price| cost::of_tier(&report.comparison, answer, tier, price);
    parts.extend(report.price.and_then(cost));
    parts.join("; ")
}

/// The energy of a request with and without the tier, where the GPUs' power was sampled.
fn energy(answer: &Answer, tier: &TierAnswer, report: &Report) -> Option<String> {
    let row = cost::longest(&report.comparison, answer, &tier.tier)?;
    let joules = |value: Option<f64>| Some(format!("{:.1} J", value?));
    let with = joules(row.request_energy.tier)?;
    let without = joules(row.request_energy.baseline)?;
    let length = grouped(row.place.prompt_len);
    Some(format!(
        "a request takes {with} ({without} without) at {length} tokens"
    ))
}

/// One of the costs of a tier.
type CostOf = fn(&TierAnswer) -> Option<Cost>;

/// The table by prompt length; `None` where nothing was compared.
pub(super) fn section(report: &Report) -> Option<Section> {
    let answer = answer(&report.comparison)?;
    let tiers = &answer.tiers;
    let with_baseline = |baseline: &str, text: &dyn Fn(&TierAnswer) -> String| {
        let mut cells = vec![baseline.to_owned()];
        cells.extend(tiers.iter().map(text));
        cells
    };
    let mut columns = vec![Column::words(
        "tier",
        Keep::Always,
        with_baseline("no tier", &|tier| tier.tier.clone()),
    )];
    for (at, length) in answer.lengths.iter().enumerate() {
        let computed = answer.baseline_ms[at].map_or("-".to_owned(), brief);
        let cell = |tier: &TierAnswer| match &tier.points[at] {
            Some(point) => {
                let text = point.text();
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            }
            None => "not proven".to_owned(),
        };
        columns.push(Column::numbers(
            &[&format!("{} tokens", grouped(length))],
            Keep::Always,
            with_baseline(&computed, &cell),
        ));
    }
    let costs: [(&str, CostOf); 2] = [
        ("a miss costs", |tier| tier.miss),
        ("a GPU hit costs", |tier| tier.gpu_hit),
    ];
    for (head, cost) in costs {
        if tiers.iter().any(|tier| cost(tier).is_some()) {
            let text = |tier: &TierAnswer| cost(tier).map_or("-".to_owned(), |cost| cost.text());
            columns.push(Column::numbers(
                &[head],
                Keep::Always,
                with_baseline("-", &text),
            ));
        }
    }
    let limit = |tier: &TierAnswer| tier.limit.clone().unwrap_or_else(|| "-".to_owned());
    columns.push(Column::words(
        "limit",
        Keep::Always,
        with_baseline("-", &limit),
    ));
    let mut notes = Notes::default();
    answer
        .elsewhere
        .iter()
        .for_each(|line| notes.add(line.clone()));
    answer.noise().into_iter().for_each(|line| notes.add(line));
    let caption = format!("{} ({})", answer.title(), answer.circumstances());
    // The page says at its top which numbers are simulated.
    Some(Section::new(
        [Source::Measured],
        caption,
        Table { columns },
        &notes,
    ))
}

/// Why the numbers can be trusted, or not: a sentence each.
pub(super) fn trust(report: &Report) -> Vec<String> {
    let mut lines = vec![sentence(&screen::proof(report))];
    lines.extend(screen::controls(&report.comparison));
    if let Some(answer) = answer(&report.comparison) {
        lines.push(samples(&answer));
    }
    let failed = report.summary.failed.len();
    if failed > 0 {
        let cells = if failed == 1 {
            "cell was"
        } else {
            "cells were"
        };
        lines.push(format!("{failed} {cells} not measured to the end."));
    }
    lines
}

fn samples(answer: &Answer) -> String {
    let n = answer.fewest_requests;
    let clear: Vec<f64> = answer
        .tiers
        .iter()
        .flat_map(|tier| tier.points.iter().flatten())
        .filter(|point| point.clarity != crate::aggregate::Clarity::MayBeNoise)
        .map(|point| {
            if point.speedup >= 1.0 {
                point.speedup
            } else {
                1.0 / point.speedup
            }
        })
        .collect();
    let smallest = clear.into_iter().reduce(f64::min);
    match smallest {
        Some(smallest) => format!(
            "{n} requests a point or more; the smallest difference that stands out is {}.",
            brief_times(smallest)
        ),
        None => format!("{n} requests a point or more; no difference stands out."),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::fixture::realistic;

    #[test]
    fn each_length_is_a_column_and_each_tier_is_told() {
        let report = Report::of(&realistic(), "t").unwrap();
        let section = section(&report).unwrap();
        let heads: Vec<String> = section
            .table
            .columns
            .iter()
            .map(|c| c.head.join(" "))
            .collect();
        assert_eq!(
            heads,
            [
                "tier",
                "1,024 tokens",
                "5,120 tokens",
                "16,384 tokens",
                "a miss costs",
                "limit"
            ]
        );
        assert_eq!(
            section.table.columns[2].cells[2], "not proven",
            "disk is inconclusive there"
        );
        let told = told(&report);
        let of = |tier: &str| told.iter().find(|one| one.tier == tier).unwrap();
        assert_eq!(of("cpu").advice, "use");
        assert!(
            of("disk").details.contains("proven at 2 of 3 lengths"),
            "{told:?}"
        );
        assert!(
            trust(&report)[0].starts_with("46 of 48 passes proven"),
            "{:?}",
            trust(&report)
        );
    }
}
