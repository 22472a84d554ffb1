//! A Redis of labrun's own, on this machine, for as long as a server lives.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::group::{ProcessGroup, Stopped};
use super::leftovers::Mark;
use super::redis::Redis;
use super::{environment, free_port, in_path};
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::adapter::Adapter;
use crate::plan::server::Launcher;
use crate::plan::tier::TierKind;

/// Name of its log in a server's folder.
pub(crate) const REDIS_LOG: &str = "redis.log";
/// Longest time from its start to its first answer.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Short: it has nothing to save, and ends at once.
const GRACE: Duration = Duration::from_secs(5);

/// A running `redis-server` that keeps nothing on disk.
#[derive(Debug)]
pub struct LocalRedis {
    process: ProcessGroup,
    url: String,
}

/// Whether `cell` is served by a Redis that labrun starts for it: it has that tier, labrun starts
/// the server too, and the settings name no Redis.
pub(crate) fn is_needed(cell: &Cell, settings: &Settings) -> bool {
    cell.tier.kind.speaks_resp()
        && cell.resolved.server.launcher == Launcher::Process
        && settings.redis.url.is_empty()
}

/// Checks that it can be started where it is needed.
pub(crate) fn check(cell: &Cell, settings: &Settings) -> Result<()> {
    let program = program(cell.tier.kind);
    if is_needed(cell, settings) && in_path(program).is_none() {
        bail!(
            "`{program}` is not in PATH, and `redis.url` names no Redis; install it, or set \
             `redis.url` (LABRUN_REDIS__URL=redis://HOST:PORT)"
        );
    }
    Ok(())
}

/// The program of a tier of `kind`.
pub(crate) fn program(kind: TierKind) -> &'static str {
    match kind {
        TierKind::Adapter(Adapter::Valkey) => "valkey-server",
        _ => "redis-server",
    }
}

impl LocalRedis {
    /// Starts a `program` on a free port of 127.0.0.1, its log in `folder`.
    pub fn start(program: &str, folder: &Path, mark: &Mark) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(program);
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdin(Stdio::null())
            .current_dir(folder);
        environment::for_helper(&mut command);
        let process = ProcessGroup::start("Redis", command, &folder.join(REDIS_LOG), mark)?;
        Ok(Self {
            process,
            url: format!("redis://127.0.0.1:{port}"),
        })
    }

    /// Its address, `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Process id of the Redis server.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Resolves when it ends by itself.
    pub async fn exited(&mut self) -> String {
        self.process.exited().await
    }

    /// Waits until Redis answers.
    pub async fn wait_ready(&mut self) -> Result<Redis> {
        let began = Instant::now();
        loop {
            let refused = match Redis::connect(&self.url).await {
                Ok(redis) => match redis.ping().await {
                    Ok(()) => return Ok(redis),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if began.elapsed() > READY_LIMIT {
                return Err(refused.context("the Redis that labrun started does not answer"));
            }
            tokio::select! {
                how = self.process.exited() => bail!("{how} before it answered"),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    /// Stops the server, by force when `at_once` is cancelled.
    pub async fn stop(self, at_once: CancellationToken) -> Stopped {
        self.process.stop(GRACE, at_once).await
    }
}
