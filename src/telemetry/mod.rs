//! What the machine did beside the load.
//!
//! Every sampler has a thread of its own, so that none holds up another or the load. All points
//! lie on one monotonic clock, the run's, on which requests and phases lie too.

pub mod budget;
pub mod collector;
pub mod endpoints;
pub mod host;
pub mod nvml;
pub mod proc_io;
pub mod quiet;
pub mod sample;
pub mod summary;
pub mod thread;

/// Taken by tests that count bytes of disks, so that none counts another's.
#[cfg(test)]
static DISK_TESTS: std::sync::Mutex<()> = std::sync::Mutex::new(());
