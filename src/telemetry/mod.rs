//! What the machine does while a load runs.
//!
//! Every sampler has its own thread and cannot delay another sampler or the load. All points have
//! times on the run's monotonic clock, which requests and phases use too.

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

/// Locked by tests that count bytes of disks: none counts the bytes of another.
#[cfg(test)]
static DISK_TESTS: std::sync::Mutex<()> = std::sync::Mutex::new(());
