//! One pass: its numbers counted again, and judged by the rules of today.

use super::readings::{self, Points};
use super::{PassCheck, answers, legacy};
use crate::record::redact;
use crate::record::schema::{CellRecord, LedgerRow, PassRecord, RequestRow, Verdict};
use crate::units::Bounds;
use crate::verdict::basis::{Basis, FACTS_FILE, Watched};
use crate::verdict::{Counted, Facts, judge, ledger, measures};

/// Two figures of one thing may differ by this share: numbers are rounded where they are written.
const ROUNDING: f64 = 1e-6;

/// Bytes counted again may differ by this share: a reading that came after the pass was summed up may
/// reach into it.
const READINGS: f64 = 0.02;

/// What a pass is checked against.
pub(super) struct Sources<'a> {
    /// The cell's record.
    pub record: &'a CellRecord,
    /// Whether the record has hashes: without them labrun 0.1 wrote it.
    pub has_hashes: bool,
    /// What it was judged by; labrun 0.1 did not store it.
    pub basis: Option<&'a Basis>,
    /// Its requests, where they can be read.
    pub rows: Option<Vec<&'a RequestRow>>,
    /// The cell's telemetry, where there is any.
    pub points: Option<&'a Points>,
    /// KV bytes per token on the GPU, by the start log of the cell's server.
    pub engine_kv: Option<Bounds>,
}

/// Checks `recorded` against the files of its cell.
pub(super) fn check(recorded: &PassRecord, sources: &Sources<'_>) -> PassCheck {
    let mut found = PassCheck {
        state: recorded.state,
        recorded: recorded.verdict.status,
        judged: None,
        differences: Vec::new(),
        notes: Vec::new(),
    };
    if let Some(rows) = &sources.rows {
        check_requests(recorded, rows, &mut found);
    }
    let facts = match sources.basis {
        Some(basis) => {
            check_derived(recorded, basis, &mut found);
            check_basis(basis, sources, &mut found);
            Some(from_files(basis, sources))
        }
        None if sources.record.server.launcher.is_none() => {
            found
                .notes
                .push("imported: there is nothing to judge it by".to_owned());
            None
        }
        None if sources.has_hashes => {
            let missing = "`facts.json` has nothing of it: it cannot be judged again";
            found.differences.push(missing.to_owned());
            None
        }
        None => legacy::facts(recorded, sources),
    };
    if let Some(facts) = facts {
        let judged = judge(&facts);
        compare_verdicts(&recorded.verdict, &judged, sources.has_hashes, &mut found);
        found.judged = Some(judged);
    }
    found
}

fn check_requests(recorded: &PassRecord, rows: &[&RequestRow], found: &mut PassCheck) {
    let counts = answers::counts(rows);
    if counts != recorded.counts {
        let in_words = |counts: crate::record::schema::Counts| {
            let ok = counts.ok;
            format!("{} sent, {ok} ok, {} failed", counts.sent, counts.failed)
        };
        found.differences.push(format!(
            "the record has {}, the requests {}",
            in_words(recorded.counts),
            in_words(counts)
        ));
    }
    let errors = answers::errors(rows);
    if errors != recorded.errors {
        found.differences.push(format!(
            "the record has the errors {:?}, the requests {errors:?}",
            recorded.errors
        ));
    }
    let ends = rows
        .iter()
        .filter_map(|row| Some(row.sent_ms + row.e2e_ms?));
    let last = ends.fold(0.0, f64::max) / 1e3;
    if last > recorded.duration_s * (1.0 + ROUNDING) + 1e-3 {
        found.differences.push(format!(
            "the record has a duration of {:.3} s, the last answer ended after {last:.3} s",
            recorded.duration_s
        ));
    }
}

/// The figures and the ledger that follow from the facts.
fn check_derived(recorded: &PassRecord, basis: &Basis, found: &mut PassCheck) {
    let figures = measures::of_facts(&basis.facts);
    for (evidence, value) in figures.into_iter().filter(|(_, value)| value.is_finite()) {
        let name = evidence.name();
        let of_record = recorded.evidence.get(name).copied();
        if !of_record.is_some_and(|of_record| are_equal(of_record, value)) {
            found.differences.push(format!(
                "evidence `{name}`: the record has {}, the facts give {value}",
                of_record.map_or_else(|| "none".to_owned(), |value| value.to_string())
            ));
        }
    }
    for row in ledger::rows(&basis.facts) {
        let is_same = |other: &LedgerRow| is_same_row(&row, other);
        if !recorded.ledger.iter().any(is_same) {
            found.differences.push(format!(
                "ledger `{}`: the record's row is not the one that the facts give",
                row.path
            ));
        }
    }
}

fn is_same_row(a: &LedgerRow, b: &LedgerRow) -> bool {
    let both = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => are_equal(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    let tokens = |row: &LedgerRow| Some(row.tokens).filter(|tokens| !tokens.is_nan());
    a.path == b.path
        && a.method == b.method
        && both(tokens(a), tokens(b))
        && both(a.expected_bytes, b.expected_bytes)
        && both(a.moved_bytes, b.moved_bytes)
}

/// The facts that the requests and the telemetry give too.
fn check_basis(basis: &Basis, sources: &Sources<'_>, found: &mut PassCheck) {
    if let Some(rows) = &sources.rows {
        check_counted(&basis.facts, rows, found);
        check_in_flight(&basis.facts, rows, sources.record, found);
    }
    if let (Some(points), Some(watched)) = (sources.points, &basis.watched) {
        check_readings(&basis.facts, points, watched, found);
    }
    if let Some((recorded, logged)) = other_kv(&basis.facts, sources) {
        found.differences.push(format!(
            "KV bytes per token: `{FACTS_FILE}` has {:.0}, the engine's start log gives {:.0}",
            recorded.middle(),
            logged.middle()
        ));
    }
}

/// KV bytes per token on the GPU: those that were recorded and those of the engine's start log, where
/// they differ.
fn other_kv(facts: &Facts, sources: &Sources<'_>) -> Option<(Bounds, Bounds)> {
    let (recorded, logged) = (facts.kv.device?, sources.engine_kv?);
    (!facts.simulated && !recorded.agrees(logged, READINGS)).then_some((recorded, logged))
}

/// What the requests came to.
fn check_counted(facts: &Facts, rows: &[&RequestRow], found: &mut PassCheck) {
    if let Some(again) = answers::counted_again(rows, facts) {
        for (name, recorded, counted) in figures_of(&facts.counted, &again) {
            let is_same = match (recorded, counted) {
                (Some(recorded), Some(counted)) => are_equal(recorded, counted),
                (recorded, counted) => recorded.is_none() && counted.is_none(),
            };
            if !is_same {
                found.differences.push(format!(
                    "{name}: `facts.json` has {}, the requests {}",
                    shown(recorded),
                    shown(counted)
                ));
            }
        }
    }
    let counts = answers::counts(rows);
    if (counts.ok, counts.failed) != (facts.ok, facts.failed) {
        found.differences.push(format!(
            "`facts.json` has {} ok and {} failed requests, the requests {} and {}",
            facts.ok, facts.failed, counts.ok, counts.failed
        ));
    }
    // A canary within the load has no row.
    let wrong = answers::wrong_prompt_length(rows);
    if !(wrong..=wrong + facts.in_load).contains(&facts.wrong_prompt_length) {
        found.differences.push(format!(
            "prompts of another length than planned: `facts.json` has {}, the requests {wrong}",
            facts.wrong_prompt_length
        ));
    }
}

/// The bound on requests in flight: of a closed load it is the cell's concurrency.
fn check_in_flight(
    facts: &Facts,
    rows: &[&RequestRow],
    record: &CellRecord,
    found: &mut PassCheck,
) {
    let concurrency = record.coordinates.concurrency.get();
    let stated = facts.counted.in_flight;
    if let Some(stated) = stated.filter(|stated| *stated != concurrency) {
        found.differences.push(format!(
            "most requests in flight: `facts.json` has {stated}, the cell's concurrency is {concurrency}"
        ));
    }
    let most = answers::most_in_flight(rows);
    if stated.is_some() && most > concurrency {
        found.differences.push(format!(
            "{most} requests were in flight at once, the cell's concurrency is {concurrency}"
        ));
    }
}

/// What telemetry saw.
fn check_readings(facts: &Facts, points: &Points, watched: &Watched, found: &mut PassCheck) {
    // A reading that came after the pass was summed up may be higher.
    let running = readings::running_max(points, watched);
    if let Some(recorded) = facts.counted.running_max
        && running.is_none_or(|running| running < recorded)
    {
        found.differences.push(format!(
            "most requests that the engine ran: `facts.json` has {recorded}, the telemetry gives {}",
            shown(running)
        ));
    }
    if facts.simulated {
        return;
    }
    let pcie = readings::moved(points, watched).pcie;
    for (way, recorded, again) in [
        ("to", facts.pcie_rx_bytes, pcie.map(|pcie| pcie.rx_bytes)),
        ("from", facts.pcie_tx_bytes, pcie.map(|pcie| pcie.tx_bytes)),
    ] {
        if let (Some(recorded), Some(again)) = (recorded, again)
            && !recorded.agrees(again, READINGS)
        {
            found.differences.push(format!(
                "bytes {way} the GPU over PCIe: `facts.json` has {:.0}, the telemetry gives {:.0}",
                recorded.middle(),
                again.middle()
            ));
        }
    }
}

type Pick = fn(&Counted) -> Option<f64>;
type Figure = (&'static str, Option<f64>, Option<f64>);

fn figures_of(recorded: &Counted, again: &Counted) -> [Figure; 9] {
    let named: [(&str, Pick); 9] = [
        ("prompt tokens of the answers", |it| {
            it.answered_prompt_tokens
        }),
        ("prompt tokens sent", |it| it.sent_prompt_tokens),
        ("output tokens of the answers", |it| {
            it.answered_output_tokens
        }),
        ("most output tokens", |it| it.most_output_tokens),
        ("cached tokens of the answers", |it| Some(it.cached_tokens)),
        ("cached tokens, where every answer has them", |it| {
            it.all_cached_tokens
        }),
        (
            "output tokens of the first answer with more than were asked for",
            |it| first_of(it.too_long),
        ),
        (
            "events with tokens of the first answer with more of them than tokens",
            |it| first_of(it.more_events),
        ),
        (
            "cached tokens of the first answer with more of them than prompt tokens",
            |it| first_of(it.too_cached),
        ),
    ];
    named.map(|(name, pick)| (name, pick(recorded), pick(again)))
}

fn first_of(pair: Option<(u32, u32)>) -> Option<f64> {
    pair.map(|(count, _)| f64::from(count))
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn are_equal(a: f64, b: f64) -> bool {
    (a - b).abs() <= ROUNDING * a.abs().max(b.abs()).max(1.0)
}

/// The facts of `basis` with all that the files beside them give.
fn from_files(basis: &Basis, sources: &Sources<'_>) -> Facts {
    let mut facts = basis.facts.clone();
    if let Some(rows) = &sources.rows {
        let counts = answers::counts(rows);
        (facts.ok, facts.failed) = (counts.ok, counts.failed);
        if let Some(counted) = answers::counted_again(rows, &facts) {
            facts.counted = counted;
        }
        let wrong = answers::wrong_prompt_length(rows);
        facts.wrong_prompt_length = facts.wrong_prompt_length.max(wrong);
    }
    if let Some((recorded, logged)) = other_kv(&facts, sources) {
        let is_device = |stored: Bounds| stored.agrees(recorded, ROUNDING);
        facts.kv.stored = match facts.kv.stored {
            Some(stored) if is_device(stored) => Some(logged),
            stored => stored,
        };
        facts.kv.device = Some(logged);
    }
    if let (Some(points), Some(watched)) = (sources.points, &basis.watched)
        && let Some(running) = readings::running_max(points, watched)
    {
        let recorded = facts.counted.running_max;
        facts.counted.running_max = Some(recorded.map_or(running, |most| most.max(running)));
    }
    facts
}

/// What today's rules say against what was recorded. Reasons of a sealed record may differ in words
/// where another version judged; another status is a difference whoever judged.
fn compare_verdicts(recorded: &Verdict, judged: &Verdict, has_hashes: bool, found: &mut PassCheck) {
    let reason = |verdict: &Verdict| verdict.reasons.first().cloned().unwrap_or_default();
    let (was, is) = (recorded.status.name(), judged.status.name());
    if recorded.status != judged.status {
        let by = if has_hashes {
            "an older rule, or another record"
        } else {
            "labrun 0.1"
        };
        found.differences.push(format!(
            "judged `{was}` by {by}, `{is}` by this labrun: {}",
            redact::text(&reason(judged))
        ));
        return;
    }
    let judged: Vec<String> = judged.reasons.iter().map(|it| redact::text(it)).collect();
    if judged != recorded.reasons {
        found.notes.push(format!(
            "`{was}` as recorded; this labrun gives the reasons in other words"
        ));
    }
}

/// A count of bytes that nothing bounds better than by the share that its method errs.
pub(super) fn about(bytes: f64, error: f64) -> Bounds {
    Bounds::exact(bytes).widened(error)
}
