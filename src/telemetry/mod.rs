//! What the machine does while a load runs.
//!
//! Every sampler has its own thread and cannot delay another sampler or the load. All points have
//! times on the run's monotonic clock, which requests and phases use too.

pub(crate) mod budget;
pub(crate) mod collector;
pub(crate) mod endpoints;
pub(crate) mod host;
pub(crate) mod nvml;
pub(crate) mod proc_io;
pub(crate) mod quiet;
pub(crate) mod sample;
pub(crate) mod summary;
pub(crate) mod thread;

/// Locked by tests that count bytes of disks: none counts the bytes of another.
#[cfg(test)]
static DISK_TESTS: std::sync::Mutex<()> = std::sync::Mutex::new(());
