//! Waits until a server answers with a real token, racing its exit and a limit.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Server;
use super::api_key::WantsKey;
use super::control::{Control, NoHealth};

/// Why a server did not become ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadyError {
    /// It ended by itself.
    #[error("{0} before it was ready")]
    Exited(String),
    /// It took too long.
    #[error("it was not ready after {limit_s} s{hint}; last: {last}")]
    TimedOut {
        /// Longest wait for the server to be ready, seconds.
        limit_s: u64,
        /// What to do, in brackets; empty where waiting longer would not help.
        hint: &'static str,
        /// Error of the last try.
        last: String,
    },
    /// It answers, but waiting longer will not make it ready.
    #[error("{0}")]
    Refused(String),
    /// It answers, and serves something else.
    #[error("it answers, but {0}")]
    WrongModel(String),
    /// The run was interrupted.
    #[error("the run was interrupted while the server started")]
    Cancelled,
}

/// What could not be started, or asked.
impl From<anyhow::Error> for ReadyError {
    fn from(error: anyhow::Error) -> Self {
        Self::Refused(format!("{error:#}"))
    }
}

/// First and longest pause between two tries. The simulator is up in milliseconds, vLLM in minutes.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Waits for health, for the model and for one token. Returns how long it took.
///
/// A server that `runs_already` has a route, or will never have it.
pub(crate) async fn wait(
    server: &mut dyn Server,
    control: &Control,
    (limit, runs_already): (Duration, bool),
    cancel: &CancellationToken,
) -> Result<Duration, ReadyError> {
    let started = Instant::now();
    tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(ReadyError::Cancelled),
        rest = server.start_rest() => rest?,
    }
    let limits = Limits {
        started: Instant::now(),
        limit,
        runs_already,
    };
    let lmcache = server.lmcache_url().map(str::to_owned);
    let tries = async {
        if let Some(url) = &lmcache {
            limits
                .until("its LMCache server", || control.lmcache_health(url))
                .await?;
        }
        limits.until("/health", || control.health()).await?;
        let models = limits.until("/v1/models", || control.models()).await?;
        if let Some(other) = control.not_among(&models) {
            return Err(ReadyError::WrongModel(other));
        }
        limits
            .until("/v1/completions", || control.one_token())
            .await
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ReadyError::Cancelled),
        how = server.exited() => Err(ReadyError::Exited(how)),
        ready = tries => ready.map(|()| started.elapsed()),
    }
}

/// What bounds the tries.
struct Limits {
    started: Instant,
    limit: Duration,
    runs_already: bool,
}

impl Limits {
    /// Tries `attempt` at `route` until it succeeds, or can never succeed, or the time is over.
    async fn until<T, F>(
        &self,
        route: &str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, ReadyError>
    where
        F: Future<Output = Result<T>>,
    {
        let (mut pause, longest) = PAUSES;
        loop {
            let left = self.limit.saturating_sub(self.started.elapsed());
            let last = match tokio::time::timeout(left, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if self.is_final(&error) => {
                    return Err(ReadyError::Refused(format!("{error:#}")));
                }
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => format!("{route} did not answer"),
            };
            if self.started.elapsed() + pause >= self.limit {
                // Waiting does not help where it refuses a route.
                let hint = if last.contains(" answered 4") {
                    ""
                } else {
                    " (raise `ready_timeout_s` in [server])"
                };
                return Err(ReadyError::TimedOut {
                    limit_s: self.limit.as_secs(),
                    hint,
                    last,
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Whether another try would fail in the same way.
    fn is_final(&self, error: &anyhow::Error) -> bool {
        error.is::<WantsKey>() || self.runs_already && error.is::<NoHealth>()
    }
}
