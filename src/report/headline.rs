//! What each tier bought, in plain words, from valid rows only.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::{Clarity, Comparison, ComparisonRow, Place, Standing};
use crate::plan::state::CacheState;
use crate::record::schema::Source;
use crate::report::number::{duration, times};

/// A headline names at most this many places; the table has them all.
const MOST: usize = 8;

/// One sentence a workload and concurrency, at its largest prompt length, in the states that show
/// what a tier does; then what was left out and why.
pub(crate) fn headline(comparison: &Comparison) -> Vec<String> {
    let sound: Vec<&ComparisonRow> = comparison
        .rows
        .iter()
        .filter(|row| row.standing == Standing::Compared)
        .collect();
    let states = telling(&sound);
    let mut places: BTreeMap<Place, Vec<&ComparisonRow>> = BTreeMap::new();
    for row in sound.iter().filter(|row| states.contains(&row.place.state)) {
        if is_largest(row, &sound) && row.ttft.speedup.is_some() {
            places.entry(row.place.clone()).or_default().push(row);
        }
    }
    let mut sentences: Vec<_> = places
        .iter()
        .take(MOST)
        .map(|(place, rows)| sentence(place, rows))
        .collect();
    if places.len() > MOST {
        sentences.push(format!(
            "{} more places are in the table.",
            places.len() - MOST
        ));
    }
    if sentences.is_empty() {
        sentences.push(nothing(comparison).to_owned());
    }
    sentences.extend(left_out(comparison));
    sentences
}

fn nothing(comparison: &Comparison) -> &'static str {
    if comparison.rows.is_empty() {
        "No tier besides the baseline was run, so there is nothing to compare."
    } else {
        "No tier can be compared with the baseline: no row is valid on both sides."
    }
}

/// Where the tier is what answers: `tier` and `restart`. Runs without them show what they have.
fn telling(rows: &[&ComparisonRow]) -> BTreeSet<CacheState> {
    let present: BTreeSet<_> = rows.iter().map(|row| row.place.state).collect();
    let wanted = BTreeSet::from([CacheState::Tier, CacheState::Restart]);
    let telling: BTreeSet<_> = present.intersection(&wanted).copied().collect();
    if telling.is_empty() { present } else { telling }
}

/// Whether no sound row that differs only in tier and prompt length has a longer prompt.
fn is_largest(row: &ComparisonRow, rows: &[&ComparisonRow]) -> bool {
    rows.iter().all(|other| {
        let alike = Place {
            prompt_len: row.place.prompt_len,
            ..other.place.clone()
        } == row.place;
        !alike || other.place.prompt_len <= row.place.prompt_len
    })
}

fn sentence(place: &Place, rows: &[&ComparisonRow]) -> String {
    let simulated = rows.iter().any(|row| row.source == Source::Simulated);
    let opening = if simulated { "Simulated: at" } else { "At" };
    let warm = match place.state {
        CacheState::Cold => "nothing warm",
        CacheState::Gpu => "the GPU prefix cache warm",
        CacheState::Tier => "only the tier warm",
        CacheState::Restart => "only the tier warm after a restart",
    };
    let extra: String = place
        .extra
        .iter()
        .map(|(key, value)| format!(", {key} {value}"))
        .collect();
    let baseline = rows
        .iter()
        .find_map(|row| row.ttft.baseline)
        .map_or("-".to_owned(), duration);
    let tiers: Vec<_> = rows.iter().map(|row| bought(row)).collect();
    format!(
        "{opening} {} prompt tokens with {warm} ({}, {} at once, {} generated tokens{extra}), the \
         median time to first token was {baseline} without a tier; {}.",
        place.prompt_len,
        place.label,
        place.concurrency,
        place.gen_len,
        tiers.join("; ")
    )
}

fn bought(row: &ComparisonRow) -> String {
    let tier = row.ttft.tier.map_or("-".to_owned(), duration);
    let ttft = match (row.ttft.speedup, row.ttft.clarity) {
        (_, Clarity::MayBeNoise) => "no clear difference".to_owned(),
        (Some(ratio), _) if ratio < 1.0 => format!("slower, speedup {}", times(ratio)),
        (Some(ratio), _) => format!("speedup {}", times(ratio)),
        (None, _) => "no ratio".to_owned(),
    };
    let e2e = match (row.e2e.speedup, row.e2e.clarity) {
        (Some(_), Clarity::MayBeNoise) => ", end to end no clear difference".to_owned(),
        (Some(ratio), _) => format!(", end to end {}", times(ratio)),
        (None, _) => String::new(),
    };
    format!("{} {tier} ({ttft}{e2e})", row.tier)
}

/// Rows that may not be compared, by reason.
fn left_out(comparison: &Comparison) -> Option<String> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &comparison.rows {
        if let Standing::Withheld(reason) = &row.standing {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    let count: usize = reasons.values().sum();
    let each: Vec<_> = reasons
        .iter()
        .map(|(reason, rows)| format!("{reason} ({rows})"))
        .collect();
    let total = comparison.rows.len();
    (count > 0).then(|| format!("Left out, {count} of {total} rows: {}.", each.join("; ")))
}
