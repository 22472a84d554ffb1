//! What each tier bought, in plain words, from valid rows only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::aggregate::{BASELINE, Clarity, Comparison, ComparisonRow, Place, Standing};
use crate::matrix::controls::is_control;
use crate::plan::state::CacheState;
use crate::record::schema::{Counts, Source};
use crate::report::number::{duration, times};
use crate::units::grouped;

/// A headline names at most this many places; the table has them all.
const MAX_SENTENCES: usize = 8;

/// One sentence a workload and concurrency, at its largest prompt length, in the states that show
/// what a tier does; then what was left out and why.
pub(crate) fn headline(comparison: &Comparison) -> Vec<String> {
    let sound: Vec<&ComparisonRow> = comparison
        .rows
        .iter()
        .filter(|row| row.standing == Standing::Compared)
        .collect();
    let states = tier_states(&sound);
    let mut places: BTreeMap<Place, Vec<&ComparisonRow>> = BTreeMap::new();
    for row in sound.iter().filter(|row| states.contains(&row.place.state)) {
        if is_largest(row, &sound) && row.ttft.speedup.is_some() {
            places.entry(row.place.clone()).or_default().push(row);
        }
    }
    let mut sentences: Vec<_> = places
        .iter()
        .take(MAX_SENTENCES)
        .map(|(place, rows)| sentence(place, rows))
        .collect();
    if places.len() > MAX_SENTENCES {
        sentences.push(format!(
            "{} more places are in the table.",
            places.len() - MAX_SENTENCES
        ));
    }
    if sentences.is_empty() {
        sentences.push(nothing(comparison).to_owned());
    }
    sentences.extend(left_out(comparison));
    sentences
}

/// What is to be read where no row can be compared.
pub(super) fn nothing(comparison: &Comparison) -> &'static str {
    if comparison.rows.is_empty() {
        "Nothing to compare: no cell of a tier besides the baseline finished."
    } else {
        "No tier can be compared with the baseline: no row is valid on both sides."
    }
}

/// Where the tier is what answers: `tier` and `restart`. Runs without them show what they have.
fn tier_states(rows: &[&ComparisonRow]) -> BTreeSet<CacheState> {
    let present: BTreeSet<_> = rows.iter().map(|row| row.place.state).collect();
    let wanted = BTreeSet::from([CacheState::Tier, CacheState::Restart]);
    let of_tiers: BTreeSet<_> = present.intersection(&wanted).copied().collect();
    if of_tiers.is_empty() {
        present
    } else {
        of_tiers
    }
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
        CacheState::Cold => "cold",
        CacheState::Gpu => "GPU hit",
        CacheState::Tier => "tier hit",
        CacheState::Restart => "after restart",
    };
    let mut extra = String::new();
    for (key, value) in &place.extra {
        let _ = write!(extra, ", {key} {value}");
    }
    let baseline = rows
        .iter()
        .find_map(|row| row.ttft.baseline)
        .map_or("-".to_owned(), duration);
    let tiers: Vec<_> = rows.iter().map(|row| bought(row)).collect();
    let at_once = match place.concurrency.get() {
        1 => "one request at a time".to_owned(),
        many => format!("{many} requests at once"),
    };
    format!(
        "{opening} {} prompt tokens, {warm} ({}, {at_once}, {} generated tokens{extra}), the median \
         time to first token was {baseline} without a tier; with {}.",
        grouped(place.prompt_len),
        place.label,
        grouped(place.gen_len),
        tiers.join("; with ")
    )
}

fn bought(row: &ComparisonRow) -> String {
    let tier = row.ttft.tier.map_or("-".to_owned(), duration);
    let mut parts = vec![match (row.ttft.speedup, row.ttft.clarity) {
        (_, Clarity::MayBeNoise) => "no clear difference".to_owned(),
        (Some(ratio), _) if ratio < 1.0 => format!("slower, speedup {}", times(ratio)),
        (Some(ratio), _) => format!("speedup {}", times(ratio)),
        (None, _) => "no ratio".to_owned(),
    }];
    match (row.e2e.speedup, row.e2e.clarity) {
        (Some(_), Clarity::MayBeNoise) => parts.push("end to end no clear difference".to_owned()),
        (Some(ratio), _) => parts.push(format!("end to end {}", times(ratio))),
        (None, _) => {}
    }
    if row.ttft.clarity == Clarity::Untested {
        parts.push("too few requests to exclude chance".to_owned());
    }
    // Latencies of the answered ones flatter a side that lost its slowest.
    for (name, counts) in [
        (BASELINE, row.baseline_counts),
        (&row.tier, Some(row.tier_counts)),
    ] {
        if let Some(Counts { sent, ok, .. }) = counts.filter(|counts| counts.ok < counts.sent) {
            parts.push(format!(
                "{} of {sent} requests of {name} not answered",
                sent - ok
            ));
        }
    }
    format!("{} {tier} ({})", row.tier, parts.join(", "))
}

/// Rows that may not be compared, by reason.
fn left_out(comparison: &Comparison) -> Option<String> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    // What controls are for is not to be compared.
    let rows = comparison.rows.iter();
    let rows: Vec<_> = rows.filter(|row| !is_control(&row.place.label)).collect();
    for row in &rows {
        if let Standing::Withheld(reason) = &row.standing {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    let count: usize = reasons.values().sum();
    let each: Vec<_> = reasons
        .iter()
        .map(|(reason, rows)| format!("{reason} ({rows})"))
        .collect();
    let total = rows.len();
    (count > 0).then(|| format!("Left out, {count} of {total} rows: {}.", each.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::compare;
    use crate::aggregate::fixture::{Bench, rows_of};
    use crate::record::schema::VerdictStatus;

    const SLOW: [f64; 4] = [100.0, 110.0, 120.0, 130.0];
    const FAST: [f64; 4] = [20.0, 22.0, 28.0, 30.0];

    #[track_caller]
    fn assert_headline(bench: &Bench, expected: &[&str]) {
        assert_eq!(headline(&compare(&bench.run()).unwrap()), expected);
    }

    #[test]
    fn the_largest_prompt_and_the_warm_tier_make_the_headline() {
        let mut bench = Bench::new();
        for (tier, ttft) in [("baseline", SLOW), ("cpu", FAST)] {
            for prompt_len in [1024, 5120] {
                bench
                    .cell(tier, prompt_len, 1, 1)
                    .source(Source::Measured)
                    .pass(CacheState::Cold, &rows_of(&SLOW, 0))
                    .pass(CacheState::Tier, &rows_of(&ttft, 0));
            }
        }
        assert_headline(
            &bench,
            &[
                "At 5,120 prompt tokens, tier hit (long_context, one request at a time, \
               4 generated tokens), the median time to first token was 115 ms without a tier; with cpu \
               25.0 ms (speedup 4.60x, end to end 2.64x).",
            ],
        );
    }

    #[test]
    fn what_is_not_valid_is_left_out_even_when_it_is_the_largest() {
        let mut bench = Bench::new();
        for prompt_len in [1024, 5120] {
            bench
                .cell("baseline", prompt_len, 8, 1)
                .pass(CacheState::Tier, &rows_of(&SLOW, 0));
            let cell = bench
                .cell("cpu", prompt_len, 8, 1)
                .pass(CacheState::Tier, &rows_of(&FAST, 0));
            if prompt_len == 5120 {
                cell.verdict(VerdictStatus::Inconclusive, "no counters");
            }
        }
        assert_headline(
            &bench,
            &[
                "Simulated: at 1,024 prompt tokens, tier hit (long_context, 8 requests \
                 at once, 4 generated tokens), the median time to first token was 115 ms without a \
                 tier; with cpu 25.0 ms (speedup 4.60x, end to end 2.64x).",
                "Left out, 1 of 2 rows: cpu is inconclusive: no counters (1).",
            ],
        );
    }

    #[test]
    fn doubts_stand_beside_the_number() {
        let mut bench = Bench::new();
        let cold = CacheState::Cold;
        bench
            .cell("baseline", 1024, 1, 1)
            .pass(cold, &rows_of(&FAST, 0));
        bench
            .cell("cpu", 1024, 1, 1)
            .pass(cold, &rows_of(&[21.0, 23.0, 27.0, 31.0], 0));
        bench
            .cell("disk", 1024, 1, 1)
            .pass(cold, &rows_of(&[40.0, 50.0, 50.0, 60.0], 2));
        bench
            .cell("redis", 1024, 1, 1)
            .pass(cold, &rows_of(&[10.0, 15.0], 0));
        assert_headline(
            &bench,
            &[
                "Simulated: at 1,024 prompt tokens, cold (long_context, one request at a \
               time, 4 generated tokens), the median time to first token was 25.0 ms without a tier; with \
               cpu 25.0 ms (no clear difference, end to end no clear difference); with disk 50.0 ms \
               (slower, speedup 0.50x, end to end 0.69x, 2 of 6 requests of disk not answered); with redis \
               12.5 ms (speedup 2.00x, end to end 1.29x, too few requests to exclude chance).",
            ],
        );
    }

    #[test]
    fn nothing_to_compare_is_reported() {
        let mut bench = Bench::new();
        bench
            .cell("baseline", 1024, 1, 1)
            .pass(CacheState::Cold, &rows_of(&FAST, 0));
        assert_headline(
            &bench,
            &["Nothing to compare: no cell of a tier besides the baseline finished."],
        );
        let mut bench = Bench::new();
        bench
            .cell("cpu", 1024, 1, 1)
            .pass(CacheState::Cold, &rows_of(&FAST, 0));
        assert_headline(
            &bench,
            &[
                "No tier can be compared with the baseline: no row is valid on both sides.",
                "Left out, 1 of 1 rows: no `baseline` at these coordinates (1).",
            ],
        );
    }
}
