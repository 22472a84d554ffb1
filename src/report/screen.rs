//! The last screen of a run: what was measured, whether it is proven, and what to do about it. Fits 24 lines
//! of 80 columns; the tables are elsewhere.

use std::fmt::Write as _;

use crate::aggregate::{Comparison, ControlResult, break_evens};
use crate::foreign::shortened;
use crate::matrix::controls::is_control;
use crate::plan::verdict_spec::TextRule;
use crate::record::schema::{Source, VerdictStatus};
use crate::report::advice::{Advice, Answer, TierAnswer, answer};
use crate::report::causes::causes;
use crate::report::number::brief;
use crate::report::wrap::push_wrapped;
use crate::report::{Report, by_turn, cost, headline, memory};
use crate::units::grouped;

/// Causes that are spelt out.
const MAX_CAUSES: usize = 3;
/// Letters of a cause.
const MAX_CAUSE_CHARS: usize = 400;
/// Tiers that have a row and a line.
const MAX_TIERS: usize = 6;

/// The screen for a terminal of `width` columns. `folder` is the run's, as a command takes it.
pub(super) fn screen(report: &Report, folder: &str, width: u16) -> String {
    let width = width.min(100);
    let mut text = String::new();
    push_wrapped(&mut text, &opening(report), width);
    text.push('\n');
    let answer = answer(&report.comparison);
    match &answer {
        Some(answer)
            if answer
                .tiers
                .iter()
                .any(|tier| tier.points.iter().any(Option::is_some)) =>
        {
            table(&mut text, answer, width);
            text.push('\n');
            let cost = |price| cost::line(&report.comparison, answer, price);
            let cost = report.price.and_then(cost);
            for line in advice(answer, report).into_iter().chain(cost) {
                push_wrapped(&mut text, &line, width);
            }
        }
        _ => push_wrapped(&mut text, headline::nothing(&report.comparison), width),
    }
    for line in memory::line(report).into_iter().chain(doubts(report)) {
        push_wrapped(&mut text, &line, width);
    }
    let _ = writeln!(text, "\nreport: {folder}/report.html");
    let _ = writeln!(text, "tables: labrun show {folder} --tables");
    text
}

/// `quickstart: 24 cells in 1:07, all 48 passes proven, SIMULATED`.
fn opening(report: &Report) -> String {
    let cells = report.cells.len();
    let scope = &report.scope;
    let mut text = format!("{}: {}", report.title, grouped(cells));
    let planned = scope.planned.filter(|planned| *planned > cells);
    if let Some(planned) = planned {
        let _ = write!(text, " of {}", grouped(planned));
    }
    let is_one = planned.unwrap_or(cells) == 1;
    text.push_str(if is_one { " cell" } else { " cells" });
    if let Some(span_s) = scope.span_s {
        let _ = write!(text, " in {}", clock(span_s));
    }
    let failed = report.summary.failed.len();
    if failed > 0 {
        let _ = write!(text, ", {} failed", grouped(failed));
    }
    let _ = write!(text, ", {}", proof(report));
    let sources = || report.cells.iter().map(|cell| cell.source);
    if sources().all(|source| source == Source::Simulated) && cells > 0 {
        text.push_str(", SIMULATED");
    } else if sources().any(|source| source == Source::Simulated) {
        text.push_str(", PARTLY SIMULATED");
    }
    text
}

/// How many passes are proven.
pub(super) fn proof(report: &Report) -> String {
    let rows = &report.summary.rows;
    let valid = rows
        .iter()
        .filter(|row| row.verdict == VerdictStatus::Valid);
    let proven = valid.clone().count();
    let textless = valid
        .filter(|row| TextRule::marks(row.reason.as_deref()))
        .count();
    let mut text = match (proven, rows.len()) {
        (_, 0) => "no pass ended".to_owned(),
        (some, all) if some == all => format!("all {} passes proven", grouped(all)),
        (0, all) => format!("none of {} passes proven", grouped(all)),
        (some, all) => format!("{} of {} passes proven", grouped(some), grouped(all)),
    };
    if textless > 0 {
        let _ = write!(text, " ({} {})", grouped(textless), TextRule::MARK);
    }
    text
}

/// `1:07`, `2:15:00`.
fn clock(span_s: f64) -> String {
    let seconds = span_s.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

fn table(text: &mut String, answer: &Answer, width: u16) {
    let title = format!("{} ({})", answer.title(), answer.circumstances());
    push_wrapped(text, &title, width);
    let tiers = || answer.tiers.iter().take(MAX_TIERS);
    let mut costs: Vec<Vec<String>> = Vec::new();
    for (head, cost) in [
        ("a miss costs", (|tier| tier.miss) as fn(&TierAnswer) -> _),
        ("a GPU hit", |tier| tier.gpu_hit),
    ] {
        if tiers().any(|tier| cost(tier).is_some()) {
            let mut column = vec![head.to_owned(), String::new()];
            column.extend(tiers().map(|tier| cost(tier).map_or("-".to_owned(), |one| one.text())));
            costs.push(column);
        }
    }
    let mut names = vec![String::new(), "no tier".to_owned()];
    names.extend(tiers().map(|tier| tier.tier.clone()));
    let lengths = answer.lengths.iter().enumerate().map(|(at, length)| {
        let mut column = vec![
            format!("{} tokens", grouped(length)),
            answer.baseline_ms[at].map_or("-".to_owned(), brief),
        ];
        let shown = |tier: &TierAnswer| match &tier.points[at] {
            Some(point) => point.text(),
            None => "not proven".to_owned(),
        };
        column.extend(tiers().map(shown));
        column
    });
    let lengths: Vec<Vec<String>> = lengths.collect();
    let fixed: usize = std::iter::once(&names)
        .chain(&costs)
        .map(|column| wide(column) + 2)
        .sum();
    let room = usize::from(width).saturating_sub(fixed);
    let each = lengths.iter().map(|column| wide(column) + 2).max();
    let chosen = spread(lengths.len(), (room / each.unwrap_or(1)).max(1));
    let left_out = lengths.len() - chosen.len();
    let shown = chosen.into_iter().map(|at| &lengths[at]);
    let columns: Vec<&Vec<String>> = std::iter::once(&names).chain(shown).chain(&costs).collect();
    for row in 0..names.len() {
        let mut line = String::new();
        for (at, column) in columns.iter().enumerate() {
            let (cell, width) = (&column[row], wide(column));
            let _ = match at {
                0 => write!(line, "  {cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if left_out > 0 {
        let _ = writeln!(text, "  ({left_out} more prompt lengths are in the report)");
    }
}

fn wide(column: &[String]) -> usize {
    let widths = column.iter().map(|cell| cell.chars().count());
    widths.max().unwrap_or(0)
}

/// At most `most` of `count` places, evenly spread, the last one always among them.
pub(super) fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    match most {
        1 => vec![count - 1],
        most => (0..most).map(|at| at * (count - 1) / (most - 1)).collect(),
    }
}

/// One line a tier, then how it differs elsewhere.
fn advice(answer: &Answer, report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = answer
        .tiers
        .iter()
        .take(MAX_TIERS)
        .map(|tier| tier_line(answer, tier, report))
        .collect();
    if answer.tiers.len() > MAX_TIERS {
        let more = answer.tiers.len() - MAX_TIERS;
        lines.push(format!("{more} more tiers are in the report."));
    }
    lines.extend(answer.elsewhere.iter().cloned());
    lines.extend(answer.noise());
    lines
}

/// `cpu: use it from about 620 tokens on (2.9x at 4,096 tokens); limit: compute`.
fn tier_line(answer: &Answer, tier: &TierAnswer, report: &Report) -> String {
    let mut line = format!("{}: {}", tier.tier, told(answer, tier, report).1);
    if let Some(limit) = &tier.limit {
        let _ = write!(line, "; limit: {limit}");
    }
    line
}

/// Whether to use a tier, in a word and in a sentence without its name.
pub(super) fn told(answer: &Answer, tier: &TierAnswer, report: &Report) -> (Advice, String) {
    if let Some(told) = by_turn::told(&report.turns, answer, &tier.tier) {
        return told;
    }
    let evens = break_evens(&report.comparison);
    let own = evens.iter().find(|even| {
        let place = crate::aggregate::Place {
            prompt_len: answer.place.prompt_len,
            ..even.place.clone()
        };
        even.tier == tier.tier && place == answer.place
    });
    let words = answer.words(tier, own.map(|even| &even.crossing));
    (tier.advice, words)
}

/// What is not proven or failed, by cause, and what the controls show.
fn doubts(report: &Report) -> Vec<String> {
    let causes = causes(&report.summary);
    let mut lines: Vec<String> = causes
        .iter()
        .take(MAX_CAUSES)
        .map(|cause| {
            let what = shortened(&cause.what, MAX_CAUSE_CHARS).into_owned();
            crate::report::causes::Cause {
                what,
                ..cause.clone()
            }
            .line()
        })
        .collect();
    if causes.len() > MAX_CAUSES {
        let more = causes.len() - MAX_CAUSES;
        lines.push(format!("{more} more causes are in the report."));
    }
    lines.extend(controls(&report.comparison));
    let uncompared = report
        .comparison
        .rows
        .iter()
        .any(|row| !is_control(&row.place.label) && row.baseline_counts.is_none());
    if uncompared {
        lines.push("Rows without a baseline at the same place are not compared.".to_owned());
    }
    lines
}

/// What the controls show, in one line; nothing without controls.
pub(super) fn controls(comparison: &Comparison) -> Option<String> {
    let all = &comparison.controls;
    if all.is_empty() {
        return None;
    }
    let tiers = |wanted: fn(&ControlResult) -> bool| -> Vec<&str> {
        let mut tiers: Vec<&str> = all
            .iter()
            .filter(|one| wanted(&one.result))
            .map(|one| one.tier.as_str())
            .collect();
        tiers.sort_unstable();
        tiers.dedup();
        tiers
    };
    let winners = tiers(|result| matches!(result, ControlResult::Win(_)));
    let open = tiers(|result| matches!(result, ControlResult::Inconclusive(_)));
    Some(match (winners.as_slice(), open.as_slice()) {
        ([], []) => "Controls: no tier appears faster where offloading cannot help.".to_owned(),
        ([], open) => format!("Controls: no result for {}.", open.join(", ")),
        (winners, _) => format!(
            "Controls: {} appears FASTER where offloading cannot help: its comparisons are withheld.",
            winners.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests;
