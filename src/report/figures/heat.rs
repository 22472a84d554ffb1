//! The speedup of each tier by prompt length and concurrency.

use std::collections::BTreeSet;

use crate::aggregate::{BASELINE, Clarity, Comparison, ComparisonRow, Place, Standing};
use crate::record::schema::VerdictStatus;
use crate::report::figure::{HeatCell, HeatMap, HeatPanel, simulated, token_label};
use crate::report::figures::facts_of;
use crate::report::number::times;

/// Panels beyond this number are left out, with a note.
const MAX_PANELS: usize = 18;

/// One tier where all else but length and concurrency is equal.
struct Group<'a> {
    tier: &'a str,
    place: Place,
    facts: Vec<(String, String)>,
    rows: Vec<&'a ComparisonRow>,
}

/// Only where both the prompt length and the concurrency vary.
pub(super) fn map(comparison: &Comparison, caption: &[String]) -> Option<HeatMap> {
    let rows = &comparison.rows;
    let lengths: BTreeSet<_> = rows.iter().map(|row| row.place.prompt_len).collect();
    let concurrencies: BTreeSet<_> = rows.iter().map(|row| row.place.concurrency).collect();
    if lengths.len() < 2 || concurrencies.len() < 2 {
        return None;
    }
    let groups = groups(rows);
    let first = &groups.first()?.facts;
    let varies = |at: usize| {
        groups
            .iter()
            .any(|group| group.facts.get(at) != first.get(at))
    };
    let title = |group: &Group<'_>| {
        let varying = group.facts.iter().enumerate().filter(|(at, _)| varies(*at));
        let varying = varying.map(|(_, (name, value))| format!(", {name} {value}"));
        format!("{}{}", group.tier, varying.collect::<String>())
    };
    let cells = |group: &Group<'_>, concurrency| {
        let at = |length| {
            let mut rows = group.rows.iter();
            rows.find(|row| (row.place.prompt_len, row.place.concurrency) == (length, concurrency))
        };
        lengths
            .iter()
            .map(|length| heat_cell(at(*length)))
            .collect()
    };
    let panel = |group: &Group<'_>| HeatPanel {
        title: title(group),
        columns: lengths
            .iter()
            .map(|length| token_label(length.get()))
            .collect(),
        rows: concurrencies.iter().map(ToString::to_string).collect(),
        cells: concurrencies
            .iter()
            .map(|concurrency| cells(group, *concurrency))
            .collect(),
    };
    let constant = first.iter().enumerate().filter(|(at, _)| !varies(*at));
    let constant = constant.map(|(_, (name, value))| format!("{name} {value}"));
    let caption: Vec<_> = caption.iter().cloned().chain(constant).collect();
    let mut notes = vec![format!(
        "TTFT speedup, {BASELINE} / tier of the medians; `~` may be noise; grey: no ratio, and why"
    )];
    if groups.len() > MAX_PANELS {
        let all = groups.len();
        notes.push(format!(
            "only the first {MAX_PANELS} of {all} panels are shown"
        ));
    }
    Some(HeatMap {
        title: "Speedup of time to first token".to_owned(),
        caption: caption.join(", "),
        mark: simulated(rows.iter().map(|row| Some(row.source))),
        panels: groups.iter().take(MAX_PANELS).map(panel).collect(),
        notes,
    })
}

/// By place, then in the order of the tiers.
fn groups(rows: &[ComparisonRow]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for row in rows {
        // Any one length and concurrency stands for all of them.
        let place = Place {
            prompt_len: rows[0].place.prompt_len,
            concurrency: rows[0].place.concurrency,
            ..row.place.clone()
        };
        match groups
            .iter_mut()
            .find(|group| group.place == place && group.tier == row.tier)
        {
            Some(group) => group.rows.push(row),
            None => groups.push(Group {
                tier: &row.tier,
                facts: facts_of(&place, false),
                place,
                rows: vec![row],
            }),
        }
    }
    groups.sort_by(|a, b| a.place.cmp(&b.place));
    groups
}

fn heat_cell(row: Option<&&ComparisonRow>) -> HeatCell {
    let text = match row {
        None => "not run".to_owned(),
        Some(row) => match (row.ttft.speedup, &row.standing) {
            (Some(speedup), _) if row.ttft.clarity == Clarity::MayBeNoise => {
                format!("~{}", times(speedup))
            }
            (Some(speedup), _) => times(speedup),
            (None, Standing::Withheld(reason)) => {
                let words = [VerdictStatus::Invalid, VerdictStatus::Inconclusive];
                let word = words
                    .into_iter()
                    .find(|word| reason.contains(&format!(" is {}:", word.name())));
                word.map_or("no ratio", VerdictStatus::name).to_owned()
            }
            (None, Standing::Compared) => "no ratio".to_owned(),
        },
    };
    HeatCell {
        text,
        speedup: row.and_then(|row| row.ttft.speedup),
    }
}
