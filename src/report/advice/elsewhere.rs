//! How the speedups differ at other workloads, concurrencies and states.

use std::collections::BTreeMap;

use super::line_of;
use crate::aggregate::{ComparisonRow, Place, tier_order};
use crate::plan::state::CacheState;
use crate::report::number::brief_times;
use crate::units::grouped;

/// The smallest and the largest speedup of each tier.
type Ends<'a> = BTreeMap<(usize, &'a str), (f64, f64)>;

/// The speedups of the other lines in states of a tier; more than two lines are taken together.
pub(super) fn lines(rows: &[&ComparisonRow], main: &Place) -> Vec<String> {
    let mut lines: BTreeMap<Place, Ends<'_>> = BTreeMap::new();
    let states = if main.state == CacheState::Cold {
        vec![CacheState::Cold]
    } else if main.state == CacheState::Gpu {
        vec![CacheState::Gpu]
    } else {
        vec![CacheState::Tier, CacheState::Restart]
    };
    for row in rows {
        let line = line_of(&row.place);
        let is_wanted = line != *main && states.contains(&line.state);
        let Some(speedup) = row.ttft.speedup.filter(|_| is_wanted) else {
            continue;
        };
        let ends = lines.entry(line).or_default();
        let ends = ends
            .entry(tier_order(&row.tier))
            .or_insert((speedup, speedup));
        *ends = (ends.0.min(speedup), ends.1.max(speedup));
    }
    let text = |name: &str, tiers: &Ends<'_>| {
        let each: Vec<String> = tiers
            .iter()
            .map(|((_, tier), ends)| format!("{tier} {}", range(*ends)))
            .collect();
        format!("{name}: {}", each.join(", "))
    };
    if lines.len() <= 2 {
        let each = lines.iter();
        return each
            .map(|(line, tiers)| text(&difference(main, line), tiers))
            .collect();
    }
    let mut all = Ends::new();
    for (tier, ends) in lines.values().flatten() {
        let sum = all.entry(*tier).or_insert(*ends);
        *sum = (sum.0.min(ends.0), sum.1.max(ends.1));
    }
    let name = format!("Elsewhere ({} other settings)", lines.len());
    vec![text(&name, &all)]
}

fn range((low, high): (f64, f64)) -> String {
    let (low, high) = (brief_times(low), brief_times(high));
    if low == high {
        low
    } else {
        format!("{low} to {high}")
    }
}

/// In what `other` differs from `main`.
fn difference(main: &Place, other: &Place) -> String {
    let mut parts = Vec::new();
    if other.label != main.label {
        parts.push(other.label.clone());
    }
    if other.concurrency != main.concurrency {
        parts.push(format!("{} at a time", other.concurrency));
    }
    if other.gen_len != main.gen_len {
        parts.push(format!("{} generated tokens", grouped(other.gen_len)));
    }
    for (key, value) in &other.extra {
        if main.extra.get(key) != Some(value) {
            parts.push(format!("{key} {value}"));
        }
    }
    if other.state != main.state {
        parts.push(other.state.title().to_owned());
    }
    let text = parts.join(", ");
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    format!("{}{}", first.unwrap_or_default(), letters.as_str())
}
