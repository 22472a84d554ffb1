//! Counters of a running load, for a display.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::record::{Outcome, RequestRecord};

/// What has happened so far. Written once a request, never once a token.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
    unfinished: AtomicU64,
    output_tokens: AtomicU64,
    ttft_us: AtomicU64,
}

/// The counters at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests that were begun.
    pub sent: u64,
    /// Requests whose whole answer arrived.
    pub ok: u64,
    /// Requests that ended without a whole answer.
    pub failed: u64,
    /// Requests that were in flight when the load was ended.
    pub unfinished: u64,
    /// Output tokens of the requests that ended, by the server's count.
    pub output_tokens: u64,
    /// Times to the first token of the requests whose whole answer arrived, added up, microseconds.
    pub ttft_us: u64,
}

impl Snapshot {
    /// Mean time to the first token so far, milliseconds.
    pub fn mean_ttft_ms(&self) -> Option<f64> {
        (self.ok > 0).then(|| self.ttft_us as f64 / 1e3 / self.ok as f64)
    }
}

impl Progress {
    /// Copies the counters.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            sent: self.sent.load(Relaxed),
            ok: self.ok.load(Relaxed),
            failed: self.failed.load(Relaxed),
            unfinished: self.unfinished.load(Relaxed),
            output_tokens: self.output_tokens.load(Relaxed),
            ttft_us: self.ttft_us.load(Relaxed),
        }
    }

    /// The counters after `ok` answers whose times to the first token add up to `ttft_us`.
    #[cfg(test)]
    pub(crate) fn with(ok: u64, ttft_us: u64) -> Self {
        Self {
            sent: ok.into(),
            ok: ok.into(),
            ttft_us: ttft_us.into(),
            ..Self::default()
        }
    }

    pub(crate) fn began(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    pub(crate) fn ended(&self, record: &RequestRecord) {
        let counter = match record.outcome {
            Outcome::Ok => &self.ok,
            Outcome::Failed(_) => &self.failed,
            Outcome::Unfinished => &self.unfinished,
        };
        if let (Outcome::Ok, Some(ttft)) = (&record.outcome, record.ttft()) {
            let ttft_us = u64::try_from(ttft.as_micros()).unwrap_or(u64::MAX);
            self.ttft_us.fetch_add(ttft_us, Relaxed);
        }
        counter.fetch_add(1, Relaxed);
        self.output_tokens
            .fetch_add(record.output_tokens().unwrap_or(0).into(), Relaxed);
    }
}
