//! The NVIDIA management library of this machine, for one thread at a time.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// Held by whoever calls the library.
///
/// The library is said to be safe for threads. On hosts with several H200 (driver 580.159) labrun was
/// aborted with a damaged heap within minutes, also without GPM, as a cell or a pass began, where all
/// samplers read at once; on hosts with one GPU it never was.
static CALLER: Mutex<()> = Mutex::new(());

/// Keeps other threads from the library until it is dropped, for who holds a part of it already.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    CALLER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks the library, alone.
///
/// # Errors
/// Why it cannot be used.
pub(crate) fn ask<T>(question: impl FnOnce(&'static Nvml) -> T) -> Result<T, &'static str> {
    let _alone = alone();
    Ok(question(loaded()?))
}

/// How many GPUs the library lists; 0 without it.
pub(crate) fn gpu_count() -> u32 {
    ask(|nvml| nvml.device_count().unwrap_or(0)).unwrap_or(0)
}

/// The library, or why it cannot be used. Looked for once in a process.
fn loaded() -> Result<&'static Nvml, &'static str> {
    static LIBRARY: OnceLock<Result<Nvml, String>> = OnceLock::new();
    let loaded = LIBRARY.get_or_init(|| {
        Nvml::init().map_err(|error| match error {
            NvmlError::LibloadingError(_) => {
                "libnvidia-ml.so.1 is not on this machine (no NVIDIA driver)".to_owned()
            }
            other => format!("NVML: {other}"),
        })
    });
    loaded.as_ref().map_err(String::as_str)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_thread_at_a_time_is_in_the_library() {
        let held = alone();
        let (send, answered) = mpsc::channel();
        let other = thread::spawn(move || send.send(gpu_count()));
        let early = answered.recv_timeout(Duration::from_millis(50));
        assert!(
            early.is_err(),
            "it was asked while another thread was in it"
        );
        drop(held);
        answered.recv_timeout(Duration::from_secs(60)).unwrap();
        other.join().unwrap().unwrap();
    }
}
