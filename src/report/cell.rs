//! One cell for a terminal: its verdicts, where its time went, and its ledger.

use std::fmt::Write as _;
use std::path::Path;

use crate::aggregate::{Part, Parts, SummaryRow};
use crate::plan::server::LmcacheMode;
use crate::record::schema::{CellRecord, PassRecord};
use crate::report::Report;
use crate::report::markdown::ledger;
use crate::report::number::brief;
use crate::report::wrap::push_wrapped;

/// The cell called `id`, whose files lie in `folder`.
pub(super) fn cell(report: &Report, id: &str, folder: &Path, width: u16) -> String {
    let mut text = String::new();
    let Some(record) = report.cells.iter().find(|cell| cell.id == id) else {
        let why = format!("the record of `{id}` cannot be used; see the notes above");
        push_wrapped(&mut text, &why, width);
        return text;
    };
    push_wrapped(
        &mut text,
        &format!("{id} ({})", record.source.name()),
        width,
    );
    push_wrapped(&mut text, &server(record), width);
    let _ = writeln!(text, "files: {}", folder.display());
    if let Some(why) = record.outcome.failure() {
        push_wrapped(&mut text, &why, width);
    }
    for pass in &record.passes {
        let mut rows = report.summary.rows.iter();
        let row = rows.find(|row| row.cell == id && row.state == pass.state);
        push_pass(&mut text, pass, row, width);
    }
    text
}

fn server(record: &CellRecord) -> String {
    let server = &record.server;
    let lmcache = server.lmcache.map_or("none", LmcacheMode::name);
    let mut text = format!("server: {}, LMCache {lmcache}", server.launcher_name());
    if let Some(version) = &server.version {
        let _ = write!(text, ", version {version}");
    }
    if let Some(ready_s) = server.ready_s {
        let _ = write!(text, ", ready after {ready_s:.1} s");
    }
    text
}

fn push_pass(text: &mut String, pass: &PassRecord, row: Option<&SummaryRow>, width: u16) {
    let counts = pass.counts;
    let heading = format!(
        "{}: {}; {} sent = {} ok + {} failed + {} unfinished in {:.2} s",
        pass.state.title(),
        pass.verdict.status.name(),
        counts.sent,
        counts.ok,
        counts.failed,
        counts.unfinished,
        pass.duration_s
    );
    text.push('\n');
    push_wrapped(text, &heading, width);
    if let Some(parts) = row.and_then(|row| row.parts) {
        push_wrapped(text, &format!("  {}", sum(&parts)), width);
    }
    if let Some(limit) = row.and_then(|row| row.bottleneck.as_ref()) {
        push_wrapped(text, &format!("  limit: {limit}"), width);
    }
    let reasons = pass.bottleneck.iter().flat_map(|one| &one.reasons);
    for reason in pass.verdict.reasons.iter().chain(reasons) {
        push_wrapped(text, &format!("  - {reason}"), width);
    }
    for row in &pass.ledger {
        push_wrapped(text, &format!("  - {}", ledger(row)), width);
    }
}

/// `mean TTFT 271 ms = queue 2.3 ms + load 235 ms + ... + frontend 12 ms`; unknown parts are named behind it.
fn sum(parts: &Parts) -> String {
    let (known, unknown): (Vec<Part>, Vec<Part>) = Part::ALL
        .into_iter()
        .partition(|part| parts.get(*part).is_some());
    let each = known
        .iter()
        .filter_map(|part| Some(format!("{} {}", part.name(), brief(parts.get(*part)?))));
    let each: Vec<String> = each.collect();
    let mut text = format!("mean TTFT {} = {}", brief(parts.ttft_ms), each.join(" + "));
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.iter().map(|part| part.name()).collect();
        let _ = write!(text, " (not known: {})", names.join(", "));
    }
    text
}
