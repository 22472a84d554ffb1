//! What the benchmark prints: each case beside the bare reader, and each target with what was
//! reached.

use std::io;
use std::time::Duration;

use labrun::internals::{
    schema::Counts,
    selftest::{Case, Errors, STALL},
};

/// What one side of a case cost and saw.
#[derive(Clone)]
pub(crate) struct Side {
    pub startup: Duration,
    pub cpu: Duration,
    pub wall: Duration,
    pub peak_rss_mib: f64,
    pub chunks: f64,
    pub tally: Counts,
    /// Token events of all records.
    pub token_events: u64,
    /// The client's audit of itself.
    pub audit: String,
    pub errors: Errors,
}

impl Side {
    fn cpu_per_1000_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.chunks
    }

    fn chunks_per_s(&self) -> f64 {
        self.chunks / self.wall.as_secs_f64()
    }
}

/// The rounds of a case.
#[derive(Clone)]
pub(crate) struct Compared {
    pub case: Case,
    pub bare: Vec<Side>,
    pub client: Vec<Side>,
}

/// The load on a server that cuts, stalls and refuses.
pub(crate) struct Faults {
    pub tally: Counts,
    /// Requests that the server read.
    pub received: u64,
}

/// A figure of one side.
type Figure = fn(&Side) -> f64;

const CPU: Figure = Side::cpu_per_1000_ms;
const CHUNKS: Figure = Side::chunks_per_s;
const TTFT_ERROR: Figure = |side| us(side.errors.ttft_p50);
const GAP_ERROR: Figure = |side| us(side.errors.gap_p99);
const STARTUP: Figure = |side| us(side.startup) / 1e3;
const RSS: Figure = |side| side.peak_rss_mib;
const GAP_SEEN: Figure = |side| us(side.errors.seen_gap_p99) / 1e3;

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn median(sides: &[Side], value: impl Fn(&Side) -> f64) -> f64 {
    let mut values: Vec<f64> = sides.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The lowest of the rounds: what the machine allows when nothing else runs on it.
fn lowest(sides: &[Side], value: impl Fn(&Side) -> f64) -> f64 {
    sides.iter().map(value).fold(f64::INFINITY, f64::min)
}

fn highest(sides: &[Side], value: impl Fn(&Side) -> f64) -> f64 {
    sides.iter().map(value).fold(0.0, f64::max)
}

/// Prints all of it.
pub(crate) fn write(
    out: &mut impl io::Write,
    compared: &[Compared],
    faults: Option<&Faults>,
) -> io::Result<()> {
    for case in compared {
        write_case(out, case)?;
    }
    writeln!(
        out,
        "{:<58} {:>9} {:>9} {:>9}",
        "to reach", "target", "median", "best"
    )?;
    for case in compared {
        write_targets(out, case)?;
    }
    if let Some(Faults { tally, received }) = faults {
        let recorded = tally.ok + tally.failed + tally.unfinished;
        let sound = tally.sent == recorded && tally.sent == *received;
        writeln!(
            out,
            "F: cuts, stalls, refusals: the server read {received}; {}  {}",
            sum(tally),
            met(sound)
        )?;
    }
    Ok(())
}

fn sum(tally: &Counts) -> String {
    format!(
        "sent {} = ok {} + failed {} + unfinished {}",
        tally.sent, tally.ok, tally.failed, tally.unfinished
    )
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn write_case(out: &mut impl io::Write, compared: &Compared) -> io::Result<()> {
    let Compared { case, bare, client } = compared;
    writeln!(
        out,
        "{}: {} streams, {} ms to the first token, {} ms apart, {} tokens, {} requests",
        case.name,
        case.streams,
        case.ttft.as_millis(),
        case.gap.as_millis(),
        case.tokens,
        case.requests
    )?;
    writeln!(
        out,
        "  {:<34} {:>10} {:>10} {:>8} {:>8}",
        "", "bare", "client", "ratio", "lowest"
    )?;
    let rows: [(&str, Figure); 9] = [
        ("CPU for 1000 chunks, ms", CPU),
        ("chunks a second", CHUNKS),
        ("TTFT error p50, us", TTFT_ERROR),
        ("TTFT error p99, us", |side| us(side.errors.ttft_p99)),
        ("gap error p50, us", |side| us(side.errors.gap_p50)),
        ("gap error p99, us", GAP_ERROR),
        ("gap p99 seen, ms", GAP_SEEN),
        ("start to first send, ms", STARTUP),
        ("peak RSS, MiB", RSS),
    ];
    for (name, value) in rows {
        let best = lowest(client, value) / lowest(bare, value);
        let (bare, ours) = (median(bare, value), median(client, value));
        writeln!(
            out,
            "  {name:<34} {bare:>10.2} {ours:>10.2} {:>8.2} {best:>8.2}",
            ours / bare
        )?;
    }
    let paired = |sides| median(sides, |side| side.errors.paired_share * 100.0);
    writeln!(
        out,
        "  gap p99 written {:.2} ms; requests paired whole: bare {:.0} %, client {:.0} %",
        median(client, |side| us(side.errors.written_gap_p99) / 1e3),
        paired(bare),
        paired(client),
    )?;
    let audit = client.last().map_or("", |side| side.audit.as_str());
    writeln!(out, "  client: {audit}\n")
}

/// One line for each thing that the case was to reach: the target, the median, the best round.
fn write_targets(out: &mut impl io::Write, compared: &Compared) -> io::Result<()> {
    let Compared { case, bare, client } = compared;
    let name = case.name;
    let mut at_most = |what: &str, limit: f64, (of_median, best): (f64, f64)| {
        let verdict = if of_median <= limit {
            "met"
        } else if best <= limit {
            "met by the best round"
        } else {
            "MISSED"
        };
        let what = format!("{name}: {what}");
        writeln!(
            out,
            "{what:<58} {limit:>9.2} {of_median:>9.2} {best:>9.2}  {verdict}"
        )
    };
    let ratio = |value: Figure| {
        (
            median(client, value) / median(bare, value),
            lowest(client, value) / lowest(bare, value),
        )
    };
    let own = |value: Figure| (median(client, value), lowest(client, value));
    if matches!(name, "B" | "C") {
        at_most("CPU for 1000 chunks, of the bare reader's", 2.0, ratio(CPU))?;
    }
    if matches!(name, "B" | "C" | "J") {
        at_most(
            "TTFT error p50, of the bare reader's",
            1.5,
            ratio(TTFT_ERROR),
        )?;
        at_most("gap error p99, of the bare reader's", 1.5, ratio(GAP_ERROR))?;
    }
    let limit = if name == "E" { 2000.0 } else { 200.0 };
    at_most("start to first send, ms", limit, own(STARTUP))?;
    if name == "C" {
        at_most("peak RSS, MiB", 100.0, own(RSS))?;
    }
    if name == "D" {
        let median = median(client, CHUNKS) / median(bare, CHUNKS);
        let best = highest(client, CHUNKS) / highest(bare, CHUNKS);
        let verdict = met(median.max(best) >= 0.55);
        let what = "D: chunks a second, of the bare reader's, at least";
        writeln!(
            out,
            "{what:<58} {:>9.2} {median:>9.2} {best:>9.2}  {verdict}",
            0.55
        )?;
    }
    if name == "J" {
        let (seen, stall) = (median(client, GAP_SEEN), us(STALL) / 1e3);
        let what = "J: gap p99 seen, ms: the stall, at least";
        let best = highest(client, GAP_SEEN);
        let verdict = met(seen >= stall * 0.99);
        writeln!(
            out,
            "{what:<58} {stall:>9.2} {seen:>9.2} {best:>9.2}  {verdict}"
        )?;
    }
    write_tally(out, case, client)
}

/// Whether every request of every round was sent, ended well with all of its tokens.
fn write_tally(out: &mut impl io::Write, case: &Case, client: &[Side]) -> io::Result<()> {
    let whole = client.iter().all(|side| {
        let tally = side.tally;
        tally.sent == tally.ok + tally.failed + tally.unfinished
            && tally.sent == u64::from(case.requests)
            && tally.ok == tally.sent
            && side.token_events == u64::from(case.requests) * u64::from(case.tokens)
    });
    let (tally, events) = client.last().map_or((Counts::default(), 0), |side| {
        (side.tally, side.token_events)
    });
    writeln!(
        out,
        "{}: {}; {events} tokens recorded  {}",
        case.name,
        sum(&tally),
        met(whole)
    )
}
