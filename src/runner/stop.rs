//! Two-step stopping: the first signal drains and stops, the second stops at once.

use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The two steps. Only ever goes forward.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Cancelled by the first signal: nothing new is begun, requests in flight may end.
    pub polite: CancellationToken,
    /// Cancelled by the second: requests in flight are given up.
    pub at_once: CancellationToken,
    /// Why labrun itself asked for it; empty where a person did.
    why: Arc<OnceLock<String>>,
}

impl Stop {
    /// Whether the run was told to stop.
    pub fn requested(&self) -> bool {
        self.polite.is_cancelled()
    }

    /// The first step, for a reason that labrun found itself.
    pub fn request(&self, why: String) {
        if !self.requested() {
            // Only the first reason counts.
            let _second = self.why.set(why);
        }
        self.polite.cancel();
    }

    /// Why labrun itself stopped the run, if it did.
    pub fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// A stop for a part of what this one stops.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            polite: self.polite.child_token(),
            at_once: self.at_once.child_token(),
            why: Arc::default(),
        }
    }

    /// One step further.
    pub fn escalate(&self) {
        if self.polite.is_cancelled() {
            self.at_once.cancel();
        }
        self.polite.cancel();
    }

    /// Escalates on SIGINT and SIGTERM from now on, and says so, until the handle is aborted.
    pub fn on_signals(&self, say: impl Fn(&str) + Send + 'static) -> Result<JoinHandle<()>> {
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let stop = self.clone();
        Ok(tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                say(if stop.requested() {
                    "stopping at once"
                } else {
                    "stopping: requests in flight may end; once more stops at once"
                });
                stop.escalate();
            }
        }))
    }
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
