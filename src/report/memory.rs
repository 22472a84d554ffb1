//! How many tokens the GPU and each tier hold, in words.

use std::collections::BTreeMap;

use crate::aggregate::{BASELINE, Memory, SummaryRow, tier_order};
use crate::matrix::controls::is_control;
use crate::record::schema::VerdictStatus;
use crate::report::Report;
use crate::report::advice::Answer;
use crate::units::grouped;

const GIB: f64 = 1_073_741_824.0;

/// What the GPU holds, and how much more each tier holds; `None` where neither is known.
pub(super) fn line(report: &Report) -> Option<String> {
    let rows = || {
        let rows = report.summary.rows.iter();
        rows.filter(|row| !is_control(&row.coordinates.label))
    };
    let gpu = span(rows().filter_map(|row| row.memory.gpu_tokens));
    let mut tiers: BTreeMap<(usize, &str), Vec<&Memory>> = BTreeMap::new();
    for row in rows().filter(|row| row.coordinates.tier != BASELINE) {
        let tier = tier_order(&row.coordinates.tier);
        tiers.entry(tier).or_default().push(&row.memory);
    }
    let each = tiers.iter().filter_map(|((_, tier), memories)| {
        let tokens = span(memories.iter().filter_map(|memory| memory.tier_tokens))?;
        let bytes = span(memories.iter().filter_map(|memory| memory.tier_bytes))?;
        let (tokens, bytes) = (text(tokens, whole), text(bytes, gibibytes));
        Some(format!("{tier} {tokens} ({bytes} GiB)"))
    });
    let each: Vec<String> = each.collect();
    match (gpu, each.is_empty()) {
        (None, true) => None,
        (None, false) => Some(format!(
            "Tokens held: {}; the GPU not known.",
            each.join(", ")
        )),
        (Some(gpu), true) => Some(format!("The GPU holds {} tokens.", text(gpu, whole))),
        (Some(gpu), false) => Some(format!(
            "The GPU holds {} tokens; beyond it up to: {}.",
            text(gpu, whole),
            each.join(", ")
        )),
    }
}

/// How much of the prompts came from `tier` at the longest proven length of `answer`.
pub(super) fn of_tier(report: &Report, answer: &Answer, tier: &str) -> Option<String> {
    let is_here = |row: &&SummaryRow| {
        let at = &row.coordinates;
        let place = crate::aggregate::Place {
            prompt_len: answer.place.prompt_len,
            ..crate::aggregate::Place::of(at, row.state)
        };
        at.tier == tier && place == answer.place && row.verdict == VerdictStatus::Valid
    };
    let rows = report.summary.rows.iter().filter(is_here);
    let row = rows.max_by_key(|row| row.coordinates.prompt_len)?;
    let Memory {
        tier_tokens,
        hit_percent,
        moved_mib,
        ..
    } = row.memory;
    let mut parts = Vec::new();
    parts.extend(tier_tokens.map(|tokens| format!("holds {} tokens", grouped(whole(tokens)))));
    parts.extend(hit_percent.map(|hits| format!("served {hits:.0} % of the prompt tokens")));
    parts.extend(moved_mib.map(|mib| format!("moved {} MiB a request", grouped(whole(mib)))));
    (!parts.is_empty()).then(|| {
        let length = grouped(row.coordinates.prompt_len);
        format!("{} at {length} tokens", parts.join(", "))
    })
}

/// The smallest and the largest of `values`.
fn span(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |span, value| match span {
        None => Some((value, value)),
        Some((low, high)) => Some((low.min(value), high.max(value))),
    })
}

/// `40,960`, or `40,960 to 81,920`.
fn text((low, high): (f64, f64), write: fn(f64) -> String) -> String {
    let (low, high) = (grouped(write(low)), grouped(write(high)));
    if low == high {
        low
    } else {
        format!("{low} to {high}")
    }
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn gibibytes(bytes: f64) -> String {
    format!("{:.1}", bytes / GIB)
}

#[cfg(test)]
mod tests {
    use crate::aggregate::fixture::{Bench, rows_of};
    use crate::plan::state::CacheState;
    use crate::record::reader::RunData;
    use crate::report::Report;

    #[test]
    fn the_screen_says_what_the_gpu_and_each_tier_hold() {
        let mut bench = Bench::new();
        for (tier, gib) in [("baseline", "0"), ("cpu", "5"), ("disk", "20")] {
            bench
                .cell(tier, 1024, 1, 1)
                .planned("plan.tier.kind", tier)
                .planned("plan.tier.settings.max_local_cpu_size", gib)
                .planned("plan.tier.settings.max_local_disk_size", gib)
                .pass(CacheState::Tier, &rows_of(&[10.0, 11.0], 0));
        }
        let mut run = bench.run();
        let report = |run: &RunData| Report::of(run, "t").unwrap();
        let screen = |run: &RunData| report(run).screen("run", 100);
        assert!(!screen(&run).contains("holds"), "nothing is known");
        for cell in &mut run.cells {
            let evidence = &mut cell.passes[0].evidence;
            for (name, value) in [
                ("gpu_kv_tokens", 224_816.0),
                ("kv_bytes_per_token", 131_072.0),
                ("computed_tokens", 300.0),
                ("gpu_cache_tokens", 0.0),
                ("external_tokens", 700.0),
            ] {
                evidence.insert(name.to_owned(), value);
            }
        }
        let line = "The GPU holds 224,816 tokens; beyond it up to: cpu 40,960 (5.0 GiB), disk 163,840 (20.0 GiB).";
        let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(screen(&run)).contains(line), "{}", screen(&run));
        let told = crate::report::lengths::told(&report(&run));
        let held = "holds 40,960 tokens, served 70 % of the prompt tokens at 1,024 tokens";
        assert!(told[0].details.contains(held), "{told:?}");
    }
}
