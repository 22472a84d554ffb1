//! `cargo bench --bench client`: the load client against a bare socket reader on the same loads.
//!
//! Each side runs in a process of its own, pinned to a core; the reference server runs in this one,
//! pinned to another. The table's ratios are to the bare reader of the same run, whose rounds take
//! turns with the client's. Names of cases as arguments run only those. The built binary needs
//! neither cargo nor the source: `target/release/deps/client-<hash> [CASE...]`.
//!
//! Both sides do the same work: the same requests over persistent connections in the same closed loop,
//! the next request written where the end of an answer was read. They differ in what an arrival is.
//! The bare reader reads its clock after its `read`; the client takes the kernel's receive stamp,
//! which asks for the same read (`load/socket.rs`). While 512 streams came to be served in bursts,
//! the time that a token waits for the reads before it was nearly all of the error of either side.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use labrun::internals::{
    Arrival, CacheState, Concurrency, GenLen, Pass, PromptLen, RequestCount, Schedule, Seed,
    Workload, WorkloadKind, WorkloadSpec,
    schema::Counts,
    selftest::{
        CASE_B, Case, Gaps, Seen, Server, errors, monotonic_ns, pin, read_bare, run_client,
        schedule_of,
    },
};

#[path = "client/faulty.rs"]
mod faulty;
#[path = "client/table.rs"]
mod table;

use faulty::run_faults;
use table::{Compared, Faults, Side};

/// Many streams, long answers.
const CASE_C: Case = Case {
    name: "C",
    streams: 512,
    ttft: Duration::from_millis(200),
    gap: Duration::from_millis(20),
    tokens: 256,
    requests: 2000,
    ..CASE_B
};
/// As fast as the server can write, one chunk a write.
const CASE_D: Case = Case {
    name: "D",
    streams: 32,
    ttft: Duration::ZERO,
    gap: Duration::ZERO,
    tokens: 128,
    requests: 5000,
    ..CASE_B
};
/// 200 distinct prompts of 16,000 tokens; what counts is when the first is sent.
const CASE_E: Case = Case {
    name: "E",
    streams: 8,
    tokens: 8,
    requests: 200,
    ..CASE_B
};
/// Jittered gaps with rare stalls, which the gap's 99th percentile must show.
const CASE_J: Case = Case {
    name: "J",
    streams: 32,
    gaps: Gaps::JitterAndStalls,
    tokens: 100,
    requests: 200,
    ..CASE_B
};
const CASES: [Case; 5] = [CASE_B, CASE_C, CASE_D, CASE_E, CASE_J];

/// Runs of each side of a case; the medians are compared, and the lowest.
const ROUNDS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let result = match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [side @ ("client" | "bare"), case, address, spawned_ns, core] => {
            side_main(side, case, address, (spawned_ns, core))
        }
        names => compare_all(names),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _unwritable = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases and prints them, then what each was to reach. Where there are cores enough, two
/// lanes run at the same time, each pinned to two cores of its own; bursts and faults run alone.
fn compare_all(names: &[&str]) -> io::Result<()> {
    let chosen = |lane: &[Case]| -> Vec<Case> {
        let named = |case: &&Case| names.is_empty() || names.contains(&case.name);
        lane.iter().filter(named).copied().collect()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (slow, quick) = (chosen(&[CASE_C]), chosen(&[CASE_B, CASE_J, CASE_E]));
    let mut compared = if cores >= 12 {
        std::thread::scope(|scope| {
            let beside = scope.spawn(|| compare_lane(&slow, 1));
            let here = compare_lane(&quick, 0);
            let beside = beside.join();
            let beside = beside.unwrap_or_else(|_| Err(io::Error::other("a lane panicked")))?;
            Ok::<_, io::Error>([here?, beside].concat())
        })?
    } else {
        compare_lane(&[quick, slow].concat(), 0)?
    };
    compared.extend(compare_lane(&chosen(&[CASE_D]), 0)?);
    compared.sort_by_key(|compared| compared.case.name);
    let faults = (names.is_empty() || names.contains(&"F"))
        .then(faults)
        .transpose()?;
    table::write(&mut io::stdout().lock(), &compared, faults.as_ref())
}

fn compare_lane(cases: &[Case], lane: isize) -> io::Result<Vec<Compared>> {
    cases.iter().map(|case| compare(*case, lane)).collect()
}

/// Both sides of a case, turn by turn.
fn compare(case: Case, lane: isize) -> io::Result<Compared> {
    let (mut bare, mut client) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(run_side("bare", &case, lane)?);
        client.push(run_side("client", &case, lane)?);
    }
    Ok(Compared { case, bare, client })
}

/// The client against a server that cuts, stalls and refuses.
fn faults() -> io::Result<Faults> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let load = runtime.block_on(run_faults(Duration::from_secs(4)));
    let (outcome, received) = load.map_err(io::Error::other)?;
    let tally = outcome.counts();
    Ok(Faults { tally, received })
}

/// Starts a server here and one side in a child; gathers what both saw.
fn run_side(side: &str, case: &Case, lane: isize) -> io::Result<Side> {
    // Client cores are counted from the first, server cores from the last: no two are siblings.
    let server = Server::start(*case, -1 - 4 * lane)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            side,
            case.name,
            &server.address.to_string(),
            &monotonic_ns().to_string(),
            &(4 * lane).to_string(),
        ])
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut lines = BufReader::new(stdout).lines();
    let head = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    let seen = lines
        .map(|line| line.and_then(|line| seen_of(&line)))
        .collect::<Result<Vec<_>, _>>()?;
    child.wait()?;
    let fields: Vec<&str> = head.split('\t').collect();
    let number = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse().ok())
            .unwrap_or(0.0)
    };
    let count = |at| number(at) as u64;
    Ok(Side {
        startup: Duration::from_secs_f64(number(0)),
        cpu: Duration::from_secs_f64(number(1)),
        wall: Duration::from_secs_f64(number(2)),
        peak_rss_mib: number(3),
        chunks: f64::from(case.requests) * f64::from(case.tokens),
        tally: Counts {
            sent: count(4),
            ok: count(5),
            failed: count(6),
            unfinished: count(7),
        },
        token_events: count(8),
        audit: fields.get(9).copied().unwrap_or_default().to_owned(),
        errors: errors(&seen, &server.join()?),
    })
}

fn seen_of(line: &str) -> io::Result<Seen> {
    let mut numbers = line
        .split(' ')
        .map(|field| field.parse::<u64>().map_err(io::Error::other));
    let mut next = || {
        numbers
            .next()
            .unwrap_or(Err(io::ErrorKind::UnexpectedEof.into()))
    };
    let number = u32::try_from(next()?).map_err(io::Error::other)?;
    Ok(Seen {
        number,
        sent_ns: next()?,
        arrivals_ns: numbers.collect::<Result<_, _>>()?,
    })
}

/// One side, in the child.
fn side_main(
    side: &str,
    case: &str,
    address: &str,
    (spawned_ns, core): (&str, &str),
) -> io::Result<()> {
    pin(core.parse().map_err(io::Error::other)?);
    let case = CASES
        .iter()
        .find(|known| known.name == case)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let spawned_ns: u64 = spawned_ns.parse().map_err(io::Error::other)?;
    let began = (process_cpu(), monotonic_ns());
    let (seen, tally) = match side {
        "bare" => (read_bare(case, address)?, "0\t0\t0\t0\t0\t".to_owned()),
        _ => client_side(case, address)?,
    };
    let cpu = process_cpu().saturating_sub(began.0);
    let rss = peak_rss_mib();
    let first_ns = seen
        .iter()
        .map(|seen| seen.sent_ns)
        .min()
        .unwrap_or_default();
    let wall = seen
        .iter()
        .filter_map(|seen| seen.arrivals_ns.last())
        .max()
        .copied();
    let wall = Duration::from_nanos(wall.unwrap_or_default().saturating_sub(first_ns));
    let startup = Duration::from_nanos(first_ns.saturating_sub(spawned_ns));
    let (startup, cpu, wall) = (startup.as_secs_f64(), cpu.as_secs_f64(), wall.as_secs_f64());
    let mut out = io::BufWriter::new(io::stdout().lock());
    writeln!(out, "{startup}\t{cpu}\t{wall}\t{rss}\t{tally}")?;
    for seen in seen {
        write!(out, "{} {}", seen.number, seen.sent_ns)?;
        for arrival in seen.arrivals_ns {
            write!(out, " {arrival}")?;
        }
        writeln!(out)?;
    }
    out.flush()
}

fn client_side(case: &Case, address: SocketAddr) -> io::Result<(Vec<Seen>, String)> {
    let schedule = if case.name == "E" {
        prompts(case)?
    } else {
        schedule_of(case)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (outcome, seen) = runtime
        .block_on(run_client(Arc::new(schedule), address))
        .map_err(io::Error::other)?;
    let tally = outcome.counts();
    let coalesced = outcome.audit.coalesced_share * 100.0;
    let events: u64 = outcome
        .records
        .iter()
        .map(|record| u64::from(record.token_events))
        .sum();
    let audit = &outcome.audit;
    let us = |duration: Duration| duration.as_secs_f64() * 1e6;
    let text = format!(
        "{}\t{}\t{}\t{}\t{events}\tlateness p99 {:.0} us, lag p99 {:.0} us, read wait p99 {:.0} us, \
         stamped by the kernel {:.1} %, coalesced {coalesced:.1} %",
        tally.sent,
        tally.ok,
        tally.failed,
        tally.unfinished,
        us(audit.lateness_p99),
        us(audit.lag_p99),
        us(audit.read_wait_p99),
        audit.stamped_share * 100.0,
    );
    Ok((seen, text))
}

/// The long prompts of case E, made as a run makes them.
fn prompts(case: &Case) -> io::Result<Schedule> {
    let spec = WorkloadSpec {
        kind: WorkloadKind::Unique,
        ..WorkloadSpec::default()
    };
    let missing = || io::Error::from(io::ErrorKind::InvalidInput);
    let workload = Workload {
        spec: &spec,
        label: "long",
        model: "model",
        prompt_len: PromptLen::new(16_000).ok_or_else(missing)?,
        gen_len: GenLen::new(case.tokens).ok_or_else(missing)?,
        concurrency: Concurrency::new(case.streams).ok_or_else(missing)?,
        requests: RequestCount::new(case.requests).ok_or_else(missing)?,
        arrival: Arrival::Closed,
        seed: Seed(42),
        vocab: 1000..30_000,
        chunk_tokens: 256,
        file: None,
    };
    workload
        .build(Pass::State(CacheState::Cold))
        .map_err(io::Error::other)
}

/// CPU of this process, all threads.
fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The most memory that this process has had.
fn peak_rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}
