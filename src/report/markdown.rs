//! `summary.md` and `report.md`.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::plan::state::CacheState;
use crate::record::redact;
use crate::record::schema::{CellRecord, LedgerRow, VerdictStatus};
use crate::report::escape::{markdown, markdown_code};
use crate::report::{Drawing, FIGURES, Report, RunFacts, glossary, html, lengths};

/// The headline, the tables and the glossary.
pub(super) fn summary(report: &Report) -> String {
    let mut text = opening(report);
    for sentence in report.headline() {
        let _ = writeln!(text, "- {}", markdown(&sentence));
    }
    if let Some(section) = report.comparison_section() {
        text.push_str("\n## Each tier against the baseline\n\n");
        text.push_str(&section.markdown());
    }
    if !report.comparison.pools.is_empty() {
        text.push_str("\n## Figures\n\n");
        for (metric, name) in FIGURES {
            let _ = writeln!(text, "![{}](figures/{name}.png)\n", metric.spec().title);
        }
        text.pop();
    }
    if let Some(section) = report.cells_section() {
        text.push_str("\n## Every cell and cache state\n\n");
        text.push_str(&section.markdown());
    }
    notes(&mut text, report);
    let _ = write!(text, "\n## Glossary\n\n{}", glossary());
    text
}

/// The summary with the answer first, and what the verdicts rest on.
pub(super) fn full(report: &Report, runs: &[RunFacts], drawings: &[Drawing]) -> String {
    let mut text = opening(report);
    told(&mut text, report);
    text.push_str("## What each tier bought, whether it is proven, and what limited it\n\n");
    if let Some(section) = report.answer() {
        text.push_str(&section.markdown());
        text.push('\n');
    }
    for sentence in report.headline() {
        let _ = writeln!(text, "- {}", markdown(&sentence));
    }
    let sections = [
        (
            "Each tier against the baseline",
            report.comparison_section(),
        ),
        ("Break-even prompt length", report.break_even_section()),
        ("Every cell and cache state", report.cells_section()),
    ];
    for (title, section) in sections {
        if let Some(section) = section {
            let _ = write!(text, "\n## {title}\n\n{}", section.markdown());
        }
    }
    if !drawings.is_empty() {
        text.push_str("\n## Figures\n");
        for drawing in drawings {
            let _ = writeln!(
                text,
                "\n![{}](figures/{}.png)",
                markdown(&drawing.title),
                drawing.name
            );
        }
    }
    text.push_str("\n## Verdict and ledger of each cell\n");
    let limits = report.limits();
    for cell in &report.cells {
        evidence(&mut text, cell, &limits);
    }
    for failure in html::failures(report) {
        let _ = writeln!(
            text,
            "\n### Failure of {}\n\n{}",
            markdown_code(&failure.id),
            markdown(&failure.what)
        );
        if !failure.log.is_empty() {
            fenced(&mut text, "", &failure.log);
        }
    }
    notes(&mut text, report);
    for run in runs {
        if let Some(plan) = &run.plan {
            let _ = writeln!(text, "\n## Plan of {}", markdown_code(&run.name));
            fenced(&mut text, "toml", &redact::text(plan));
        }
        if let Some(manifest) = run.manifest_text() {
            let _ = writeln!(text, "\n## Manifest of {}", markdown_code(&run.name));
            fenced(&mut text, "json", &manifest);
        }
    }
    let _ = write!(text, "\n## Glossary\n\n{}", glossary());
    text
}

/// Each tier in words, and the table by prompt length.
fn told(text: &mut String, report: &Report) {
    let told = lengths::told(report);
    if !told.is_empty() {
        text.push_str("## Which tier pays, and from where\n\n");
    }
    for one in &told {
        let (tier, words) = (markdown(&one.tier), markdown(&one.words));
        let _ = writeln!(text, "- **{tier}: {words}**; {}", markdown(&one.details));
    }
    if let Some(section) = lengths::section(report) {
        let _ = writeln!(text, "\n{}", section.markdown());
    }
}

fn opening(report: &Report) -> String {
    let mut text = format!("# {}\n\n", markdown(&report.title));
    if let Some(banner) = report.banner() {
        let _ = writeln!(text, "**{banner}**\n");
    }
    text
}

fn notes(text: &mut String, report: &Report) {
    let remarks = report.remarks();
    if !remarks.is_empty() {
        text.push_str("\n## Notes\n\n");
    }
    for remark in remarks {
        let _ = writeln!(text, "- {}", markdown(&redact::text(&remark)));
    }
}

fn evidence(text: &mut String, cell: &CellRecord, limits: &HashMap<(&str, CacheState), &str>) {
    let _ = writeln!(
        text,
        "\n### {} ({})\n",
        markdown_code(&cell.id),
        cell.source.name()
    );
    for pass in &cell.passes {
        let limit = match limits.get(&(cell.id.as_str(), pass.state)) {
            Some(limit) => format!("; limit: {}", markdown(limit)),
            None => String::new(),
        };
        let verdict = pass.verdict.status.name();
        let _ = writeln!(text, "- {}: **{verdict}**{limit}", pass.state);
        // The first reason of a valid pass is its ledger; others need all of theirs.
        let words = if pass.verdict.status == VerdictStatus::Valid {
            1
        } else {
            pass.verdict.reasons.len()
        };
        for reason in pass.verdict.reasons.iter().take(words) {
            let _ = writeln!(text, "  - {}", markdown(&redact::text(reason)));
        }
        for row in &pass.ledger {
            let _ = writeln!(text, "  - {}", markdown(&ledger(row)));
        }
    }
}

/// A row of a ledger in a line.
pub(super) fn ledger(row: &LedgerRow) -> String {
    let bytes = |value: Option<f64>| value.map_or("unknown".to_owned(), |v| format!("{v:.0}"));
    format!(
        "{}: {:.0} tokens, {} bytes expected, {} bytes moved (seen by {})",
        row.path,
        row.tokens,
        bytes(row.expected_bytes),
        bytes(row.moved_bytes),
        row.method
    )
}

/// Text between fences longer than any in it.
fn fenced(text: &mut String, language: &str, inside: &str) {
    let longest = inside.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = writeln!(text, "\n{fence}{language}\n{}\n{fence}", inside.trim_end());
}
