//! The load client: sends a [`Schedule`](crate::workload::Schedule) to a server and records what
//! came when.
//!
//! ```text
//! let schedule = Arc::new(workload.build(CacheState::Cold)?);         // all bodies, before the clock
//! let endpoint = Endpoint::parse("http://127.0.0.1:8000")?;
//! let options  = LoadOptions::from(&plan.load);                       // timeouts, time limit, drain
//! let cancel   = CancellationToken::new();                            // first Ctrl-C
//! let progress = Arc::new(Progress::default());                       // read `progress.snapshot()`
//! let outcome  = drive(schedule, &endpoint, &options, &cancel, &progress).await?;
//! outcome.records   // Vec<RequestRecord>, planned order: every request that was begun
//! outcome.counts()   // sent = ok + failed + unfinished
//! outcome.window    // epoch (Instant), duration, what ended it
//! outcome.audit     // lateness, lag, CPU, coalesced frames; `client_bound` with advice
//! ```
//!
//! What it holds itself to:
//! - One instant per socket read, from before any byte is looked at: the kernel's stamp of the
//!   bytes, else the clock right after the read. The send stamp just before the first byte is
//!   written; connection set-up, lateness and TTFT apart.
//! - Tokens are counted by the server's `usage` (or by ids), never by events. Tokens that arrive
//!   in one frame share its instant: gaps are between frames that carried tokens.
//! - Every request that was begun is recorded: ok, failed under the name of its failure, or
//!   unfinished. Nothing is retried, but a kept connection that the server had closed before a
//!   byte was written is made anew, once, and the record says so.
//! - The path of a token allocates nothing but its place in the record, and does no file I/O.

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
pub mod open_files;
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
mod tests;
mod usage;
mod warnings;
mod wire;

pub use drive::{LoadError, LoadOptions, LoadOutcome, drive};
pub use endpoint::Endpoint;
pub use progress::Progress;
pub use record::{Answer, Outcome, RequestRecord};
