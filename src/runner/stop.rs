//! Two-step stopping: the first signal stops politely, the second, or a few seconds, at once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The two steps. Only ever goes forward.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// Cancelled by the first signal: nothing new is begun, requests in flight may end.
    pub polite: CancellationToken,
    /// Cancelled by the second: requests in flight are given up.
    pub at_once: CancellationToken,
    /// Why labrun itself asked for it; empty where a person did.
    why: Arc<OnceLock<String>>,
}

impl Stop {
    /// Whether the run is to stop.
    pub(crate) fn requested(&self) -> bool {
        self.polite.is_cancelled()
    }

    /// The first step, for a reason that labrun found itself.
    pub(crate) fn request(&self, why: String) {
        if !self.requested() {
            // Only the first reason counts.
            let _second = self.why.set(why);
        }
        self.polite.cancel();
    }

    /// Why labrun itself stopped the run, if it did.
    pub(crate) fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// A stop for a part of what this one stops.
    #[must_use]
    pub(crate) fn child(&self) -> Self {
        Self {
            polite: self.polite.child_token(),
            at_once: self.at_once.child_token(),
            why: Arc::default(),
        }
    }

    /// One step further.
    pub(crate) fn escalate(&self) {
        if self.polite.is_cancelled() {
            self.at_once.cancel();
        }
        self.polite.cancel();
    }

    /// Escalates on SIGINT, SIGTERM and SIGHUP from now on, and [`PATIENCE`] after the first of them,
    /// and reports each step to `report`, until the handle is aborted. A SIGHUP that was ignored when
    /// labrun was started (`nohup`) stays so.
    pub(crate) fn on_signals(
        &self,
        report: impl Fn(&str) + Send + 'static,
    ) -> Result<JoinHandle<()>> {
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut hangup = if ignores_hangup() {
            None
        } else {
            Some(signal(SignalKind::hangup()).context("listening for SIGHUP")?)
        };
        let stop = self.clone();
        Ok(tokio::spawn(async move {
            let mut deadline = None;
            loop {
                let hung_up = async {
                    match hangup.as_mut() {
                        Some(hangup) => hangup.recv().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hung_up => {}
                    () = until(deadline) => {
                        deadline = None;
                        report("what has not ended is killed");
                        stop.escalate();
                        continue;
                    }
                }
                report(if stop.requested() {
                    "stopping at once"
                } else {
                    "stopping: requests in flight have a moment to end; once more stops at once"
                });
                deadline = deadline.or_else(|| Some(Instant::now() + PATIENCE));
                stop.escalate();
            }
        }))
    }
}

/// How long after the first signal nothing is waited for any more: `docker stop` kills after 10 s,
/// Slurm after 30.
const PATIENCE: Duration = Duration::from_secs(6);

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Whether this process ignores SIGHUP, which it inherits from who started it.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored(&status) & 1 << (rustix::process::Signal::HUP.as_raw() - 1) != 0
}

/// The signals that a process ignores, by its `/proc/PID/status`.
fn ignored(status: &str) -> u64 {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_is_polite_and_the_second_is_not() {
        let stop = Stop::default();
        assert!(!stop.requested());
        stop.escalate();
        assert!(stop.requested() && !stop.at_once.is_cancelled());
        stop.escalate();
        assert!(stop.at_once.is_cancelled());
    }

    #[test]
    fn the_signals_that_are_ignored_are_read_from_proc() {
        let status = "Name:\tx\nSigIgn:\t0000000000000001\nSigCgt:\t0\n";
        assert_eq!(ignored(status), 1);
        assert_eq!(ignored("Name:\tx\n"), 0);
    }

    #[cfg(feature = "paused-clock")]
    #[tokio::test(start_paused = true)]
    async fn a_while_after_the_first_signal_nothing_is_waited_for() {
        let stop = Stop::default();
        let signals = stop.on_signals(|_| {}).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
            .unwrap();
        stop.polite.cancelled().await;
        assert!(!stop.at_once.is_cancelled());
        stop.at_once.cancelled().await;
        signals.abort();
    }

    #[test]
    fn the_first_reason_is_told_and_none_after_a_signal() {
        let stop = Stop::default();
        stop.request("a".to_owned());
        stop.request("b".to_owned());
        assert_eq!(stop.why(), Some("a"));
        let stop = Stop::default();
        stop.escalate();
        stop.request("late".to_owned());
        assert_eq!(stop.why(), None);
    }
}
