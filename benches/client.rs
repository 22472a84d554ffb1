//! `cargo bench --bench client`: the load client against a bare socket reader on the same loads.
//!
//! Each side runs in a process of its own, pinned to the first core; the reference server runs in
//! this one, pinned to the last. The table's ratios are to the bare reader of the same run.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use labrun::load::bench::{
    CASE_B, CASE_C, CASE_D, CASE_J, Case, Errors, Seen, Server, errors, monotonic_ns, pin,
    read_bare, run_client, schedule_of,
};
use labrun::plan::load_spec::Arrival;
use labrun::plan::state::CacheState;
use labrun::plan::workload_spec::{WorkloadKind, WorkloadSpec};
use labrun::units::{Concurrency, GenLen, PromptLen, RequestCount, Seed};
use labrun::workload::{Pass, Schedule, Workload};

/// 200 distinct prompts of 16,000 tokens; what counts is when the first is sent.
const CASE_E: Case = Case {
    name: "E",
    streams: 8,
    tokens: 8,
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
        [side @ ("client" | "bare"), case, address, spawned_ns] => {
            side_main(side, case, address, spawned_ns)
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

/// What one side of a case cost and saw.
struct Side {
    startup: Duration,
    cpu: Duration,
    wall: Duration,
    peak_rss_mib: f64,
    chunks: f64,
    tally: String,
    errors: Errors,
}

impl Side {
    fn cpu_per_1000_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.chunks
    }

    fn chunks_per_s(&self) -> f64 {
        self.chunks / self.wall.as_secs_f64()
    }
}

fn compare_all(names: &[&str]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for case in CASES
        .iter()
        .filter(|case| names.is_empty() || names.contains(&case.name))
    {
        let mut bare = Vec::new();
        let mut client = Vec::new();
        for _ in 0..ROUNDS {
            bare.push(run_side("bare", case)?);
            client.push(run_side("client", case)?);
        }
        write_case(&mut out, case, &bare, &client)?;
    }
    Ok(())
}

/// The lowest of the rounds: what the machine allows when nothing else runs on it.
fn lowest(sides: &[Side], value: impl Fn(&Side) -> f64) -> f64 {
    sides.iter().map(value).fold(f64::INFINITY, f64::min)
}

/// A row's name and its figure of one side.
type Row<'a> = (&'a str, &'a dyn Fn(&Side) -> f64);

fn median(sides: &[Side], value: impl Fn(&Side) -> f64) -> f64 {
    let mut values: Vec<f64> = sides.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn write_case(
    out: &mut impl io::Write,
    case: &Case,
    bare: &[Side],
    ours: &[Side],
) -> io::Result<()> {
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
    let us = |duration: Duration| duration.as_secs_f64() * 1e6;
    let rows: [Row<'_>; 9] = [
        ("CPU for 1000 chunks, ms", &Side::cpu_per_1000_ms),
        ("chunks a second, thousands", &|side| {
            side.chunks_per_s() / 1e3
        }),
        ("TTFT error p50, us", &|side| us(side.errors.ttft_p50)),
        ("TTFT error p99, us", &|side| us(side.errors.ttft_p99)),
        ("gap error p50, us", &|side| us(side.errors.gap_p50)),
        ("gap error p99, us", &|side| us(side.errors.gap_p99)),
        ("gap p99 seen, ms", &|side| {
            us(side.errors.seen_gap_p99) / 1e3
        }),
        ("start to first send, ms", &|side| us(side.startup) / 1e3),
        ("peak RSS, MiB", &|side| side.peak_rss_mib),
    ];
    for (name, value) in rows {
        let best = lowest(ours, value) / lowest(bare, value);
        let (bare, ours) = (median(bare, value), median(ours, value));
        writeln!(
            out,
            "  {name:<34} {bare:>10.2} {ours:>10.2} {:>8.2} {best:>8.2}",
            ours / bare
        )?;
    }
    let written = median(ours, |side| us(side.errors.written_gap_p99) / 1e3);
    let paired = median(ours, |side| side.errors.paired_share * 100.0);
    writeln!(
        out,
        "  gap p99 written {written:.2} ms; {paired:.0} % of requests paired whole"
    )?;
    writeln!(
        out,
        "  client: {}\n",
        ours.last().map_or("", |side| side.tally.as_str())
    )
}

/// Starts a server here and one side in a child; gathers what both saw.
fn run_side(side: &str, case: &Case) -> io::Result<Side> {
    let server = Server::start(*case, -1)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            side,
            case.name,
            &server.address.to_string(),
            &monotonic_ns().to_string(),
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
    Ok(Side {
        startup: Duration::from_secs_f64(number(0)),
        cpu: Duration::from_secs_f64(number(1)),
        wall: Duration::from_secs_f64(number(2)),
        peak_rss_mib: number(3),
        chunks: f64::from(case.requests) * f64::from(case.tokens),
        tally: fields.get(4).copied().unwrap_or_default().to_owned(),
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
fn side_main(side: &str, case: &str, address: &str, spawned_ns: &str) -> io::Result<()> {
    pin(0);
    let case = CASES
        .iter()
        .find(|known| known.name == case)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let spawned_ns: u64 = spawned_ns.parse().map_err(io::Error::other)?;
    let began = (process_cpu(), monotonic_ns());
    let (seen, tally) = match side {
        "bare" => (read_bare(case, address)?, String::new()),
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
    let tally = outcome.tally();
    let coalesced = outcome.audit.coalesced_share * 100.0;
    let text = format!(
        "sent {} = ok {} + failed {} + unfinished {}; lateness p99 {:.0} us, lag p99 {:.0} us (max {:.0} us), \
         coalesced {coalesced:.1} %",
        tally.sent,
        tally.ok,
        tally.failed,
        tally.unfinished,
        outcome.audit.lateness_p99.as_secs_f64() * 1e6,
        outcome.audit.lag_p99.as_secs_f64() * 1e6,
        outcome.audit.lag_max.as_secs_f64() * 1e6,
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
