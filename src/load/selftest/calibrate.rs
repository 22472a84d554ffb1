//! What the client can do on this machine, measured over loopback in a few seconds.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{
    CASE_B, Case, Errors, Server, errors, monotonic_ns, pin, read_bare, run_client, schedule_of,
    thread_cpu,
};
use crate::load::{LoadError, LoadOutcome};

/// This machine's floor. Times in the unit that their names end in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Streams of the paced part, 10 ms between tokens.
    pub streams: u32,
    /// Client CPU for 1000 chunks of the paced part.
    pub cpu_per_1000_chunks_ms: f64,
    /// The bare socket reader's, on the same load.
    pub bare_cpu_per_1000_chunks_ms: f64,
    /// From the server's write to the client's stamp, first token, median.
    pub ttft_error_p50_us: f64,
    /// The same, 99th percentile.
    pub ttft_error_p99_us: f64,
    /// |gap seen - gap written|, 99th percentile.
    pub gap_error_p99_us: f64,
    /// The same of the bare socket reader.
    pub bare_gap_error_p99_us: f64,
    /// Chunks a second that the client took from a server that writes as fast as it can.
    pub burst_chunks_per_s: f64,
    /// The same of the bare socket reader.
    pub bare_burst_chunks_per_s: f64,
    /// Streams of 50 tokens a second that would fill the load's core, by the paced CPU.
    pub streams_for_a_core: f64,
}

const PACED: Case = Case {
    requests: 256,
    ..CASE_B
};
/// As fast as the server can write, one chunk a write.
const BURST: Case = Case {
    name: "burst",
    streams: 32,
    ttft: Duration::ZERO,
    gap: Duration::ZERO,
    tokens: 128,
    requests: 1000,
    ..CASE_B
};

/// Measures this machine's floor. Takes about four seconds and two cores; run it while nothing else runs.
pub async fn calibrate() -> Result<Calibration, LoadError> {
    let (ours, our_errors) = client(PACED).await?;
    let (burst, _) = client(BURST).await?;
    let bare = tokio::task::spawn_blocking(|| Ok::<_, io::Error>((bare(PACED)?, bare(BURST)?)));
    let (bare_paced, bare_burst) = bare.await.map_err(io::Error::other)??;
    let us = |duration: Duration| duration.as_secs_f64() * 1e6;
    let thousands = chunks(&PACED) / 1000.0;
    // The audit's share is of the busy time, which is the window and the last request's tail.
    let cpu_ms = ours.audit.thread_share * ours.audit.busy.as_secs_f64() * 1e3;
    let cpu_per_1000_chunks_ms = cpu_ms / thousands;
    Ok(Calibration {
        streams: PACED.streams,
        cpu_per_1000_chunks_ms,
        bare_cpu_per_1000_chunks_ms: bare_paced.cpu.as_secs_f64() * 1e3 / thousands,
        ttft_error_p50_us: us(our_errors.ttft_p50),
        ttft_error_p99_us: us(our_errors.ttft_p99),
        gap_error_p99_us: us(our_errors.gap_p99),
        bare_gap_error_p99_us: us(bare_paced.errors.gap_p99),
        burst_chunks_per_s: chunks(&BURST) / burst.window.duration.as_secs_f64(),
        bare_burst_chunks_per_s: chunks(&BURST) / bare_burst.wall.as_secs_f64(),
        streams_for_a_core: 1000.0 / cpu_per_1000_chunks_ms * 1000.0 / 50.0,
    })
}

fn chunks(case: &Case) -> f64 {
    f64::from(case.requests) * f64::from(case.tokens)
}

async fn client(case: Case) -> Result<(LoadOutcome, Errors), LoadError> {
    let server = Server::start(case, -1)?;
    let (outcome, seen) = run_client(Arc::new(schedule_of(&case)), server.address).await?;
    let served = tokio::task::spawn_blocking(move || server.join());
    let served = served.await.map_err(io::Error::other)??;
    let errors = errors(&seen, &served);
    Ok((outcome, errors))
}

struct Bare {
    cpu: Duration,
    wall: Duration,
    errors: Errors,
}

fn bare(case: Case) -> io::Result<Bare> {
    let server = Server::start(case, -1)?;
    let address = server.address;
    let reader = std::thread::Builder::new()
        .name("bare".to_owned())
        .spawn(move || {
            pin(0);
            let (cpu, wall) = (thread_cpu(), monotonic_ns());
            let seen = read_bare(&case, address)?;
            let wall = Duration::from_nanos(monotonic_ns() - wall);
            Ok::<_, io::Error>((seen, thread_cpu().saturating_sub(cpu), wall))
        })?;
    let read = reader
        .join()
        .map_err(|_| io::Error::other("the bare reader panicked"))?;
    let (seen, cpu, wall) = read?;
    Ok(Bare {
        cpu,
        wall,
        errors: errors(&seen, &server.join()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::RequestRecord;

    /// A case small enough for a test; nothing of its timing is asserted.
    const SMALL: Case = Case {
        streams: 8,
        ttft: Duration::from_millis(2),
        gap: Duration::from_millis(1),
        tokens: 5,
        requests: 40,
        ..CASE_B
    };

    #[tokio::test]
    async fn the_client_sees_every_token_that_the_server_wrote() {
        let (outcome, errors) = client(SMALL).await.unwrap();
        assert_eq!(outcome.counts().ok, 40);
        let tokens: u32 = outcome
            .records
            .iter()
            .filter_map(RequestRecord::output_tokens)
            .sum();
        let events: u32 = outcome.records.iter().map(|r| r.token_events).sum();
        assert_eq!((tokens, events), (200, 200));
        assert!(errors.written_gap_p99 > Duration::ZERO);
    }

    #[test]
    fn the_bare_reader_sees_the_same() {
        let bare = bare(Case {
            gap: Duration::ZERO,
            ..SMALL
        })
        .unwrap();
        assert!(bare.wall > Duration::ZERO);
        assert!(bare.errors.written_gap_p99 > Duration::ZERO);
    }
}
