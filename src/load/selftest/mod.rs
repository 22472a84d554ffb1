//! The client measured against a server that knows what it wrote when, and against a bare socket
//! reader on the same load.
//!
//! `benches/client.rs` runs the cases, each side in a process of its own; [`calibrate`] runs a
//! short one inside this process, to learn what this machine's floor is.

mod bare;
mod calibrate;
mod compare;
mod server;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use super::{Endpoint, LoadOptions, LoadOutcome, Progress, drive};
use crate::workload::{Keep, PlannedRequest, Schedule, Start};

pub use bare::read_bare;
pub use calibrate::{Calibration, calibrate};
pub use compare::{Errors, errors};
pub use server::{HEAD, Served, Server, TOKEN, chunk, take_request};

/// One load of the benchmark: what the reference server does and what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// A letter or a word, for tables.
    pub name: &'static str,
    /// How many requests are in flight at a time.
    pub streams: u32,
    /// From a request to its first token.
    pub ttft: Duration,
    /// Between tokens; zero: as fast as they can be written.
    pub gap: Duration,
    /// Variation of the gaps.
    pub gaps: Gaps,
    /// Tokens of each answer, one chunk each.
    pub tokens: u32,
    /// How many requests are sent in all.
    pub requests: u32,
    /// Bytes of a request's body.
    pub body_bytes: usize,
}

/// How gaps between tokens vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// All gaps are equal.
    Even,
    /// By up to half of the gap either way, and one in fifty is [`STALL`].
    JitterAndStalls,
}

/// How long a stall lasts.
pub const STALL: Duration = Duration::from_millis(250);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Steady decoding at moderate concurrency.
pub const CASE_B: Case = Case {
    name: "B",
    streams: 64,
    ttft: ms(50),
    gap: ms(10),
    gaps: Gaps::Even,
    tokens: 64,
    requests: 1000,
    body_bytes: 2048,
};
/// Requests of a case. The server distinguishes them by their first bytes.
pub fn schedule_of(case: &Case) -> Schedule {
    let requests = (0..case.requests)
        .map(|number| PlannedRequest {
            path: "/v1/completions",
            body: body_of(number, case.body_bytes),
            prompt_tokens: None,
            shared_tokens: 0,
            repeated_tokens: 0,
            gen_len: case.tokens,
            start: Start::Slot,
            keep: Keep::Hash,
            document: number,
            is_canary: false,
        })
        .collect();
    Schedule::from_requests(requests, case.streams)
}

/// A body that names its request and is filled up to a prompt's size.
fn body_of(number: u32, bytes: usize) -> Bytes {
    let mut body = format!("{{\"request\":{number:010},\"prompt\":\"").into_bytes();
    body.resize(bytes.max(body.len() + 2) - 2, b'x');
    body.extend_from_slice(b"\"}");
    Bytes::from(body)
}

/// What a client saw of one request, on the clock that the server's record uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Number of the request, as its body names it.
    pub number: u32,
    /// Just before its first byte was written, nanoseconds.
    pub sent_ns: u64,
    /// Arrival of each read that carried tokens, nanoseconds.
    pub arrivals_ns: Vec<u64>,
}

/// Runs a case with the real client. Also returns what it saw.
pub async fn run_client(
    schedule: Arc<Schedule>,
    server: SocketAddr,
) -> Result<(LoadOutcome, Vec<Seen>), super::LoadError> {
    let endpoint = Endpoint::parse(&format!("http://{server}"))
        .map_err(|error| super::LoadError::Start(io::Error::other(error)))?;
    let (cancel, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let options = LoadOptions::default();
    let outcome = drive(schedule, &endpoint, &options, &cancel, &progress).await?;
    let since_epoch = outcome.window.epoch.elapsed();
    let epoch_ns = monotonic_ns().saturating_sub(nanos(since_epoch));
    let seen = outcome
        .records
        .iter()
        .map(|record| {
            let sent_ns = epoch_ns + nanos(record.sent.unwrap_or_default());
            Seen {
                number: record.index,
                sent_ns,
                arrivals_ns: record
                    .arrivals_ns
                    .iter()
                    .map(|arrival| sent_ns + arrival)
                    .collect(),
            }
        })
        .collect();
    Ok((outcome, seen))
}

/// The clock that all processes of this machine share, nanoseconds.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// CPU that this thread has used so far.
fn thread_cpu() -> Duration {
    super::audit::CpuTimes::now().thread()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Keeps the calling thread, and those that it starts, on one core; counted from the last if
/// `core` is negative. Does nothing where there is one core only.
pub fn pin(core: isize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return;
    }
    let at = core.rem_euclid(cores.cast_signed()).cast_unsigned();
    let mut set = rustix::thread::CpuSet::new();
    set.set(at);
    // Unpinned figures are noisier, not wrong.
    let _unpinned = rustix::thread::sched_setaffinity(None, &set);
}
