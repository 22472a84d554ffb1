//! The load client: sends a [`Schedule`](crate::workload::Schedule) to a server and records when each
//! part of each answer arrives.
//!
//! ```text
//! let cold = Pass::State(CacheState::Cold);
//! let schedule = Arc::new(workload.build(cold)?);             // every body is built before the clock
//! let endpoint = Endpoint::parse("http://127.0.0.1:8000")?;
//! let options = LoadOptions::from(&cell.resolved.load);       // timeouts, time limit, drain
//! let cancel = CancellationToken::new();                      // the first Ctrl-C cancels it
//! let progress = Arc::new(Progress::default());               // for a display: `progress.snapshot()`
//! let outcome = drive(schedule, &endpoint, &options, &cancel, &progress).await?;
//! outcome.records;    // Vec<RequestRecord>: every request that was begun, in planned order
//! outcome.counts();   // sent = ok + failed + unfinished
//! outcome.window;     // epoch (Instant), duration, what ended it
//! outcome.audit;      // lateness, lag, CPU, coalesced frames; `client_bound` with advice
//! ```
//!
//! Rules of measurement:
//! - Each socket read has one instant, taken before any of its bytes is parsed: the kernel's stamp of
//!   the bytes, else the clock right after the read. The send instant is taken just before the first
//!   byte is written. Connection set-up, lateness and TTFT are separate.
//! - Tokens are counted by the server's `usage` (or by ids), never by events. Tokens that arrive
//!   in one frame share its instant: gaps are between frames that carried tokens.
//! - Every request that was begun is recorded: ok, failed under the name of its failure, or
//!   unfinished. Nothing is retried, with one exception: where the server has closed an idle
//!   connection before a byte was written, one new connection is made (`reconnected` in the record).
//! - The path of a token allocates only its entry in the record and does no file I/O.

mod alarm;
mod audit;
mod coding;
mod drive;
mod endpoint;
mod error;
mod event;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod http1;
mod https;
mod link;
pub(crate) mod open_files;
mod pacer;
mod progress;
mod reading;
mod record;
mod request;
pub mod selftest;
mod socket;
mod sse;
mod take;
#[cfg(test)]
#[cfg(feature = "paused-clock")]
mod tests;
mod usage;
mod warnings;
mod wire;

pub use drive::{LoadError, LoadOptions, LoadOutcome, drive};
pub use endpoint::Endpoint;
pub use progress::Progress;
pub use record::Outcome;
pub(crate) use record::{Answer, RequestRecord, Score};
#[cfg(test)]
pub(crate) use {
    audit::Audit,
    drive::{EndedBy, Window},
    error::{ErrorKind, Failure},
    usage::Usage,
};
