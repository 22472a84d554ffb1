//! Waits until a server answers with a real token, racing its exit and a limit.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Server;
use super::control::Control;

/// Why a server did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// It ended by itself.
    #[error("{0} before it was ready")]
    Exited(String),
    /// It took too long.
    #[error("it was not ready after {limit_s} s{hint}; last: {last}")]
    TimedOut {
        /// The limit, seconds.
        limit_s: u64,
        /// What to do, in brackets; empty where waiting longer would not help.
        hint: &'static str,
        /// What the last try met.
        last: String,
    },
    /// It answers, and serves something else.
    #[error("it answers, but {0}")]
    WrongModel(String),
    /// The run was interrupted.
    #[error("the run was interrupted while the server started")]
    Cancelled,
}

/// First and longest pause between two tries. The simulator is up in milliseconds, vLLM in minutes.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Waits for health, for the model and for one token. Returns how long it took.
pub async fn wait(
    server: &mut dyn Server,
    control: &Control,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<Duration, ReadyError> {
    let started = Instant::now();
    let lmcache = server.lmcache_url().map(str::to_owned);
    let tries = async {
        if let Some(url) = &lmcache {
            until(limit, started, || control.lmcache_health(url)).await?;
        }
        until(limit, started, || control.health()).await?;
        let models = until(limit, started, || control.models()).await?;
        if let Some(other) = control.not_among(&models) {
            return Err(ReadyError::WrongModel(other));
        }
        until(limit, started, || control.one_token()).await
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ReadyError::Cancelled),
        how = server.exited() => Err(ReadyError::Exited(how)),
        ready = tries => ready.map(|()| started.elapsed()),
    }
}

async fn until<T, F>(
    limit: Duration,
    started: Instant,
    mut attempt: impl FnMut() -> F,
) -> Result<T, ReadyError>
where
    F: Future<Output = Result<T>>,
{
    let (mut pause, longest) = PAUSES;
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let last = match tokio::time::timeout(left, attempt()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer".to_owned(),
        };
        if started.elapsed() + pause >= limit {
            // A route that it refuses does not come by waiting.
            let hint = if last.contains(" answered 4") {
                ""
            } else {
                " (raise `ready_timeout_s` in [server])"
            };
            return Err(ReadyError::TimedOut {
                limit_s: limit.as_secs(),
                hint,
                last,
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
