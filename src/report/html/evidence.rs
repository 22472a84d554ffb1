//! What each verdict rests on, as text for the page.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::plan::server::LmcacheMode;
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::record::redact;
use crate::record::schema::{CellOutcome, CellRecord, LedgerRow, MetricSummary, PassRecord};
use crate::report::Report;
use crate::report::html::Pair;
use crate::report::timeline::Timelines;

/// The evidence of one cell.
#[derive(Serialize)]
pub(super) struct CellPart {
    pub id: String,
    pub anchor: String,
    source: &'static str,
    failed: Option<&'static str>,
    passes: Vec<PassPart>,
    server: Vec<Pair>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct PassPart {
    state: &'static str,
    verdict: &'static str,
    reasons: Vec<String>,
    bottleneck: Option<String>,
    bottleneck_reasons: Vec<String>,
    counts: String,
    errors: String,
    ledger: Vec<LedgerPart>,
    telemetry: Vec<TelemetryPart>,
    /// Series that were 0 throughout, and are not shown.
    still: usize,
    evidence: Vec<Pair>,
    client: Vec<Pair>,
}

#[derive(Serialize)]
struct LedgerPart {
    path: String,
    tokens: String,
    expected: String,
    moved: String,
    share: String,
    method: String,
}

#[derive(Serialize)]
struct TelemetryPart {
    name: String,
    device: String,
    mean: String,
    max: String,
    total: String,
    unit: String,
    samples: u64,
    every: String,
}

/// A cell that could not be measured to its end.
#[derive(Serialize)]
pub(in crate::report) struct Failure {
    /// The cell's id.
    pub id: String,
    /// How it failed.
    pub what: String,
    /// The last lines of its server's log.
    pub log: String,
}

/// Every cell, in the order that they ran.
pub(super) fn cells(report: &Report) -> Vec<CellPart> {
    let limits = report.limits();
    (1..)
        .zip(&report.cells)
        .map(|(at, record)| cell(at, record, &limits))
        .collect()
}

/// How many timelines the page has, where it lacks some.
pub(super) fn lacking(timelines: &Timelines) -> Option<String> {
    let (inline, all) = timelines.counts();
    (inline < all).then(|| {
        format!(
            "{inline} of {all} timelines are in this page: those of the cells that took longest for \
             each tier and prompt length, then of those that are not valid, then of as many others \
             as there is room for. Each other cell names the file of its own."
        )
    })
}

/// The id of a cell's part of a page.
pub(super) fn anchor(at: usize) -> String {
    format!("cell-{at}")
}

/// What limited each pass, by cell and state.
type Limits<'a> = HashMap<(&'a str, CacheState), &'a str>;

fn cell(at: usize, record: &CellRecord, limits: &Limits<'_>) -> CellPart {
    let server = &record.server;
    let mut about = vec![
        pair("launcher", server.launcher_name()),
        pair("LMCache", server.lmcache.map_or("none", LmcacheMode::name)),
    ];
    let kind = record.kind_of_tier().map(TierKind::name);
    if let Some(kind) = kind.filter(|kind| *kind != record.coordinates.tier) {
        about.push(pair("tier is made of", kind));
    }
    about.extend(
        server
            .version
            .iter()
            .map(|version| pair("version", version)),
    );
    about.extend(
        server
            .ready_s
            .map(|ready| pair("ready after", &format!("{ready:.1} s"))),
    );
    about.extend(server.stopped.iter().map(|stopped| pair("ended", stopped)));
    if server.reused {
        about.push(pair("started by", "an earlier cell"));
    }
    about.extend(pairs(&record.machine));
    CellPart {
        id: record.id.clone(),
        // Ids may hold characters that a link cannot.
        anchor: anchor(at),
        source: record.source.name(),
        failed: match record.outcome {
            CellOutcome::Completed => None,
            CellOutcome::Failed { .. } => Some("failed"),
            CellOutcome::Aborted { .. } => Some("aborted"),
        },
        passes: record
            .passes
            .iter()
            .map(|one| pass(one, limits.get(&(record.id.as_str(), one.state)).copied()))
            .collect(),
        server: about,
        warnings: record
            .warnings
            .iter()
            .map(|text| redact::text(text))
            .collect(),
    }
}

fn pass(record: &PassRecord, limit: Option<&str>) -> PassPart {
    let counts = record.counts;
    let errors = record.errors.iter();
    let errors: Vec<_> = errors
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    let bottleneck = record.bottleneck.as_ref();
    PassPart {
        state: record.state.title(),
        verdict: record.verdict.status.name(),
        reasons: record
            .verdict
            .reasons
            .iter()
            .map(|text| redact::text(text))
            .collect(),
        bottleneck: limit.map(str::to_owned),
        bottleneck_reasons: bottleneck.map(|it| it.reasons.clone()).unwrap_or_default(),
        counts: format!(
            "{} sent = {} ok + {} failed + {} unfinished in {:.2} s",
            counts.sent, counts.ok, counts.failed, counts.unfinished, record.duration_s
        ),
        errors: errors.join(", "),
        ledger: record.ledger.iter().map(ledger).collect(),
        telemetry: record
            .telemetry
            .iter()
            .filter(|row| !is_still(row))
            .map(telemetry)
            .collect(),
        still: record.telemetry.iter().filter(|row| is_still(row)).count(),
        evidence: pairs(&record.evidence),
        client: pairs(&record.client),
    }
}

fn ledger(row: &LedgerRow) -> LedgerPart {
    let share = row
        .moved_bytes
        .zip(row.expected_bytes.filter(|expected| *expected > 0.0))
        .map_or("-".to_owned(), |(moved, expected)| {
            format!("{:.2}", moved / expected)
        });
    LedgerPart {
        path: row.path.clone(),
        tokens: short(row.tokens),
        expected: row.expected_bytes.map_or("-".to_owned(), bytes),
        moved: row.moved_bytes.map_or("-".to_owned(), bytes),
        share,
        method: row.method.clone(),
    }
}

/// Whether a series was 0 from the begin to the end.
fn is_still(row: &MetricSummary) -> bool {
    let zero = |value: Option<f64>| value.is_none_or(|value| value == 0.0);
    row.mean.or(row.max).is_some() && zero(row.mean) && zero(row.max) && zero(row.total)
}

fn telemetry(row: &MetricSummary) -> TelemetryPart {
    let is_bytes = row.unit.starts_with("bytes");
    let number = if is_bytes { bytes } else { short };
    let text = |value: Option<f64>| value.map_or("-".to_owned(), number);
    TelemetryPart {
        name: format!("{} {}", row.source, row.metric),
        device: row.device.clone(),
        mean: text(row.mean),
        max: text(row.max),
        total: text(row.total),
        unit: match row.unit.strip_prefix("bytes") {
            Some(per) => per.to_owned(),
            None => row.unit.clone(),
        },
        samples: row.samples,
        every: match row.every_s {
            Some(every_s) if row.slowed > 0 => format!("{} (slowed)", short(every_s)),
            every_s => every_s.map_or("-".to_owned(), short),
        },
    }
}

/// Those of the cells that were not measured to their end.
pub(in crate::report) fn failures(records: &[CellRecord]) -> Vec<Failure> {
    let failure = |record: &CellRecord| {
        let what = record.outcome.failure()?;
        let log = match &record.outcome {
            CellOutcome::Failed { log_tail, .. } => log_tail.join("\n"),
            CellOutcome::Completed | CellOutcome::Aborted { .. } => String::new(),
        };
        Some(Failure {
            id: record.id.clone(),
            what: redact::text(&what),
            log: redact::text(&log),
        })
    };
    records.iter().filter_map(failure).collect()
}

fn pair(name: &str, value: &str) -> Pair {
    Pair {
        name: name.to_owned(),
        value: redact::text(value),
    }
}

fn pairs(values: &BTreeMap<String, f64>) -> Vec<Pair> {
    values
        .iter()
        .map(|(name, value)| pair(name, &short(*value)))
        .collect()
}

/// A number in few digits: whole ones whole, others with three decimals at most.
fn short(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1e6 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes with the unit that leaves up to three digits.
fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut at) = (value, 0);
    while value.abs() >= 1024.0 && at + 1 < units.len() {
        value /= 1024.0;
        at += 1;
    }
    if at == 0 {
        format!("{value:.0} B")
    } else {
        format!("{value:.1} {}", units[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [3.0, 0.25, 1234.5678, 12_345_678.9].map(short);
        assert_eq!(texts, ["3", "0.25", "1234.568", "12345679"]);
        let texts = [0.0, 1023.0, 1536.0, 57_344.0 * 4096.0].map(bytes);
        assert_eq!(texts, ["0 B", "1023 B", "1.5 KiB", "224.0 MiB"]);
    }

    #[test]
    fn bytes_have_units_for_people_and_what_never_moved_is_left_out() {
        let row = |mean: f64| MetricSummary {
            source: "disk".to_owned(),
            device: "nvme0n1".to_owned(),
            metric: "read".to_owned(),
            unit: "bytes/s".to_owned(),
            samples: 20,
            every_s: Some(0.25),
            slowed: 0,
            mean: Some(mean),
            max: Some(2.0 * mean),
            total: None,
        };
        let part = telemetry(&row(1536.0));
        let texts = [part.mean, part.max, part.total, part.unit, part.every];
        assert_eq!(texts, ["1.5 KiB", "3.0 KiB", "-", "/s", "0.25"]);
        assert!(is_still(&row(0.0)) && !is_still(&row(1.0)));
    }

    #[test]
    fn a_ledger_row_shows_how_much_of_what_had_to_move_did() {
        let row = LedgerRow {
            path: "disk-read".to_owned(),
            tokens: 1024.0,
            expected_bytes: Some(2048.0),
            moved_bytes: Some(1024.0),
            method: "proc-io".to_owned(),
        };
        assert_eq!(ledger(&row).share, "0.50");
        let unseen = LedgerRow {
            moved_bytes: None,
            ..row
        };
        assert_eq!(
            (ledger(&unseen).share, ledger(&unseen).moved),
            ("-".into(), "-".into())
        );
    }
}
