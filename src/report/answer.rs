//! The first table of a report: what each tier bought, whether it is proven, and its bottleneck.

use std::collections::BTreeSet;

use crate::aggregate::{
    BASELINE, BreakEven, BreakEvenRow, Comparison, Gain, TierRow, break_evens, tiers,
};
use crate::plan::state::CacheState;
use crate::plan::verdict_spec::TextRule;
use crate::record::schema::VerdictStatus;
use crate::report::axes::{Axis, Shown, extra_axes, split};
use crate::report::notes::Notes;
use crate::report::number::times;
use crate::report::section::Section;
use crate::report::table::{Column, Keep, Table};
use crate::units::grouped;

/// More break-evens than this do not fit into one field.
const MAX_BREAK_EVENS: usize = 3;

/// One row a tier, in the states where the tier answers; without such states, in all.
pub(crate) fn section(comparison: &Comparison) -> Option<Section> {
    let tier_states = [CacheState::Tier, CacheState::Restart];
    let all = tiers(comparison);
    let has_tier_state = all.iter().any(|row| tier_states.contains(&row.state));
    let rows: Vec<&TierRow> = all
        .iter()
        .filter(|row| !has_tier_state || tier_states.contains(&row.state))
        .collect();
    rows.first()?;
    let evens = break_evens(comparison);
    let each = |text: &dyn Fn(&TierRow) -> String| rows.iter().map(|row| text(row)).collect();
    let (mut columns, caption) = split(vec![
        Axis::words(
            "source",
            Shown::WhereItVaries,
            each(&|row| row.source.name().into()),
        ),
        Axis::words(
            "state",
            Shown::WhereItVaries,
            each(&|row| row.state.title().into()),
        ),
        Axis::words("tier", Shown::Always, each(&|row| row.tier.clone())),
    ]);
    let numbers = |head: &str, text: &dyn Fn(&TierRow) -> String| {
        Column::numbers(&[head], Keep::Always, each(text))
    };
    columns.extend([
        numbers("TTFT speedup", &|row| gain(row, row.ttft)),
        numbers("E2E speedup", &|row| gain(row, row.e2e)),
        numbers("output speedup", &|row| gain(row, row.output)),
        Column::words(
            "pays from (tokens)",
            Keep::Always,
            each(&|row| pays(row, &evens)),
        ),
        Column::words("proven", Keep::Always, each(&|row| proven(row))),
    ]);
    columns.push(Column::words(
        "bottleneck",
        Keep::Always,
        each(&|row| bottlenecks(row)),
    ));
    let mut notes = Notes::default();
    notes.add(
        "speedup: geometric mean over the compared rows, with minimum and maximum in brackets; \
         proven: rows with a valid verdict, of all; clear: compared rows whose TTFT differs by \
         more than the scatter of requests"
            .to_owned(),
    );
    let sources = rows.iter().map(|row| row.source);
    Some(Section::new(sources, caption, Table { columns }, &notes))
}

fn gain(row: &TierRow, gain: Option<Gain>) -> String {
    match gain {
        _ if row.tier == BASELINE => "1".to_owned(),
        None => "-".to_owned(),
        Some(Gain { mean, low, high }) if (low - high).abs() < f64::EPSILON => times(mean),
        Some(Gain { mean, low, high }) => {
            format!("{} [{} to {}]", times(mean), times(low), times(high))
        }
    }
}

fn proven(row: &TierRow) -> String {
    let all: usize = row.verdicts.values().sum();
    let count = |status| row.verdicts.get(&status).copied().unwrap_or(0);
    let mut parts = vec![format!("{} of {all}", count(VerdictStatus::Valid))];
    for status in [VerdictStatus::Inconclusive, VerdictStatus::Invalid] {
        if count(status) > 0 {
            parts.push(format!("{} {}", count(status), status.name()));
        }
    }
    if row.text_optional > 0 {
        parts.push(format!("{} {}", row.text_optional, TextRule::MARK));
    }
    if row.tier != BASELINE && row.compared > 0 {
        parts.push(format!("{} of {} clear", row.clear, row.compared));
    }
    parts.join(", ")
}

fn bottlenecks(row: &TierRow) -> String {
    let each = row.bottlenecks.iter();
    let each: Vec<_> = each
        .map(|(name, places)| format!("{name} ({places})"))
        .collect();
    if each.is_empty() {
        "not sampled".to_owned()
    } else {
        each.join(", ")
    }
}

/// The distinct break-evens of a tier in a state.
fn pays(row: &TierRow, evens: &[BreakEvenRow]) -> String {
    let own = evens
        .iter()
        .filter(|even| even.tier == row.tier && even.place.state == row.state);
    let texts: BTreeSet<String> = own.map(|even| short(&even.crossing)).collect();
    match texts.len() {
        0 => "-".to_owned(),
        few if few <= MAX_BREAK_EVENS => texts.into_iter().collect::<Vec<_>>().join("; "),
        _ => "varies: see the table".to_owned(),
    }
}

/// Tokens without a fraction.
fn whole(tokens: f64) -> String {
    grouped(format!("{tokens:.0}"))
}

fn short(crossing: &BreakEven) -> String {
    match crossing {
        BreakEven::Everywhere(from) => format!("{} or fewer", grouped(from)),
        BreakEven::Nowhere(_) => "nowhere".to_owned(),
        BreakEven::From { tokens, .. } => format!("about {}", whole(*tokens)),
        BreakEven::UpTo { tokens, .. } => format!("only up to about {}", whole(*tokens)),
        BreakEven::Several { .. } => "unclear".to_owned(),
        BreakEven::TooFew => "-".to_owned(),
    }
}

/// The table of break-evens: one row a tier where all else is equal. None where no prompt length
/// varies.
pub(crate) fn break_even_section(comparison: &Comparison) -> Option<Section> {
    let mut rows = break_evens(comparison);
    rows.retain(|row| row.crossing != BreakEven::TooFew);
    rows.first()?;
    let each = |text: &dyn Fn(&BreakEvenRow) -> String| rows.iter().map(text).collect();
    let extras: Vec<_> = rows.iter().map(|row| &row.place.extra).collect();
    let mut axes = vec![
        Axis::words(
            "workload",
            Shown::WhereItVaries,
            each(&|row| row.place.label.clone()),
        ),
        Axis::numbers(
            "gen_len",
            &["gen"],
            Shown::WhereItVaries,
            each(&|row| row.place.gen_len.to_string()),
        ),
    ];
    axes.extend(extra_axes(&extras));
    axes.extend([
        Axis::words(
            "state",
            Shown::Always,
            each(&|row| row.place.state.title().into()),
        ),
        Axis::numbers(
            "concurrency",
            &["conc"],
            Shown::WhereItVaries,
            each(&|row| row.place.concurrency.to_string()),
        ),
        Axis::words("tier", Shown::Always, each(&|row| row.tier.clone())),
    ]);
    let (mut columns, caption) = split(axes);
    columns.push(Column::words(
        "break-even (TTFT p50)",
        Keep::Always,
        each(&|row| long(&row.crossing)),
    ));
    columns.push(Column::words(
        "speedup by prompt length",
        Keep::Always,
        each(&speedups),
    ));
    let mut notes = Notes::default();
    notes.add(
        "from compared rows only; interpolated between measured lengths, never beyond them"
            .to_owned(),
    );
    let sources = comparison.rows.iter().map(|row| row.source);
    Some(Section::new(sources, caption, Table { columns }, &notes))
}

fn speedups(row: &BreakEvenRow) -> String {
    let each = row.speedups.iter();
    let each: Vec<_> = each
        .map(|(length, speedup)| format!("{}: {}", grouped(length), times(*speedup)))
        .collect();
    each.join(", ")
}

fn long(crossing: &BreakEven) -> String {
    match crossing {
        BreakEven::Everywhere(from) => {
            format!(
                "pays at every measured length, from {} tokens on",
                grouped(from)
            )
        }
        BreakEven::Nowhere(to) => {
            format!(
                "none: slower at every measured length, up to {} tokens",
                grouped(to)
            )
        }
        BreakEven::From {
            tokens,
            between: (low, high),
        } => format!(
            "pays from about {} tokens on (between {} and {})",
            whole(*tokens),
            grouped(low),
            grouped(high)
        ),
        BreakEven::UpTo {
            tokens,
            between: (low, high),
        } => format!(
            "pays only up to about {} tokens (between {} and {})",
            whole(*tokens),
            grouped(low),
            grouped(high)
        ),
        BreakEven::Several { crossings } => {
            format!("none: faster and slower by turns ({crossings} crossings)")
        }
        BreakEven::TooFew => "none: fewer than two lengths can be compared".to_owned(),
    }
}
