//! A running server and what cells that share it need: its control client, folder and logs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::RunScope;
use super::event::{Event, Phase};
use super::stop::Stop;
use crate::matrix::Cell;
use crate::plan::server::Launcher;
use crate::server::control::Control;
use crate::server::group::Stopped;
use crate::server::ready::{self, ReadyError};
use crate::server::render::Rendered;
use crate::server::{
    self, CONTAINER_STATS, LMCACHE_LOG, LaunchScope, SERVER_LOG, STDERR_LOG, Server, docker,
    leftovers, log,
};

/// Files that a server writes to, of which each cell keeps its part.
const LOGS: [&str; 6] = [
    SERVER_LOG,
    STDERR_LOG,
    LMCACHE_LOG,
    docker::LMCACHE_STDERR_LOG,
    docker::REDIS_LOG,
    CONTAINER_STATS,
];

/// Lines of a log that a failure quotes.
const TAIL_LINES: usize = 20;

/// An external server runs already: it answers soon, or its address is wrong.
const EXTERNAL_LIMIT: Duration = Duration::from_secs(10);

/// A server that has been started and must be stopped.
pub struct Session {
    /// The server.
    pub server: Box<dyn Server>,
    /// A client of its control routes.
    pub control: Control,
    /// The rendered LMCache configuration.
    pub rendered: Option<Rendered>,
    /// What `/version` answered, once it was ready.
    pub version: Option<String>,
    /// From its start to its first real token; absent for external ones.
    pub ready: Option<Duration>,
    folder: PathBuf,
    scratch: PathBuf,
    grace: Duration,
    logs: Vec<LogPart>,
}

/// The part of a log that was written since the last cell took its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// The log's file name.
    pub name: &'static str,
    /// The log itself.
    pub path: PathBuf,
    /// First byte of the part.
    pub from: u64,
    /// One past its last byte.
    pub to: u64,
}

/// What kept a cell from being measured, and in which phase.
#[derive(Debug)]
pub struct Failure {
    /// The phase.
    pub phase: Phase,
    /// What happened.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure of `phase`.
    pub fn of(phase: Phase) -> impl FnOnce(anyhow::Error) -> Self {
        move |error| Self { phase, error }
    }
}

impl Session {
    /// Starts the server of `cell`; it is not ready yet.
    pub async fn start(
        cell: &Cell,
        number: u32,
        scope: &RunScope<'_>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let folder = scope.folder.join("servers").join(number.to_string());
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("making the folder `{}`", folder.display()))?;
        let scratch = scratch_folder(scope, &folder, number)?;
        let launch = LaunchScope {
            settings: scope.settings,
            mark: scope.mark,
            folder: &folder,
            scratch: &scratch,
            cancel: &scope.stop.polite,
        };
        let rendered = server::rendered(cell, scope.settings, &scratch)?;
        let server = server::launch(cell, rendered.as_ref(), launch, say).await?;
        let control = Control::new(server.endpoint().clone())?;
        let logs = LOGS
            .map(|name| LogPart {
                name,
                path: folder.join(name),
                from: 0,
                to: 0,
            })
            .into();
        Ok(Self {
            control,
            server,
            rendered,
            version: None,
            ready: None,
            folder,
            scratch,
            grace: cell.resolved.server.stop_grace,
            logs,
        })
    }

    /// Waits until it answers with a real token.
    pub async fn wait_ready(
        &mut self,
        cell: &Cell,
        scope: &RunScope<'_>,
    ) -> Result<(), ReadyError> {
        let mut limit = cell.resolved.server.ready_timeout;
        if cell.resolved.server.launcher == Launcher::External {
            limit = limit.min(EXTERNAL_LIMIT);
        }
        let polite = &scope.stop.polite;
        let waited = ready::wait(self.server.as_mut(), &self.control, limit, polite).await?;
        self.version = self.control.version().await;
        self.ready = (!self.server.processes().is_empty()).then_some(waited);
        Ok(())
    }

    /// The last lines of its logs, oldest first; of the LMCache server's too where there is one.
    pub fn log_tail(&self) -> Vec<String> {
        let mut lines = log::tail(&self.folder.join(SERVER_LOG), TAIL_LINES);
        for name in LOGS
            .iter()
            .filter(|name| **name != SERVER_LOG && **name != CONTAINER_STATS)
        {
            let more = log::tail(&self.folder.join(name), TAIL_LINES);
            if !more.is_empty() {
                lines.push(format!("--- {name}"));
                lines.extend(more);
            }
        }
        lines
    }

    /// The parts of its logs since the last call.
    pub fn take_log_parts(&mut self) -> Vec<LogPart> {
        take_log_parts(&mut self.logs)
    }

    /// Bytes that its disk tier holds in files.
    pub fn scratch_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.scratch)
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.metadata().ok())
            .map(|found| found.len())
            .sum()
    }

    /// Stops it and removes what its disk tier kept. The logs stay until their last parts were copied.
    pub async fn stop(self, stop: &Stop) -> (Stopped, EndedSession) {
        let stopped = self.server.stop(self.grace, stop.at_once.clone()).await;
        // A tier's chunks are worth nothing without the index that was in the server's memory.
        let _absent = std::fs::remove_dir_all(&self.scratch);
        (
            stopped,
            EndedSession {
                folder: self.folder,
                logs: self.logs,
            },
        )
    }
}

/// What is left of a session: its logs, until their last parts were copied.
#[derive(Debug)]
pub struct EndedSession {
    folder: PathBuf,
    logs: Vec<LogPart>,
}

impl EndedSession {
    /// The parts of its logs since the last call.
    pub fn take_log_parts(&mut self) -> Vec<LogPart> {
        take_log_parts(&mut self.logs)
    }

    /// The folder that can be removed once the log parts were copied.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn take_log_parts(logs: &mut [LogPart]) -> Vec<LogPart> {
    let mut parts = Vec::new();
    for log in logs {
        let Ok(length) = std::fs::metadata(&log.path).map(|found| found.len()) else {
            continue;
        };
        log.to = length;
        parts.push(log.clone());
        log.from = length;
    }
    parts
}

/// Where this server's disk tier keeps its chunks: on the device that the settings name.
fn scratch_folder(scope: &RunScope<'_>, folder: &Path, number: u32) -> Result<PathBuf> {
    let named = &scope.settings.paths.scratch;
    let scratch = if named.as_os_str().is_empty() {
        folder.join("scratch")
    } else {
        named.join(leftovers::scratch_name(scope.mark, number))
    };
    std::path::absolute(&scratch)
        .with_context(|| format!("resolving the scratch folder `{}`", scratch.display()))
}

/// Makes the slot hold a ready server for `cell`: the one it holds already, or a new one.
pub async fn ensure(
    slot: &mut Option<Session>,
    cell: &Cell,
    number: u32,
    scope: &RunScope<'_>,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<(), Failure> {
    if slot.is_some() {
        return Ok(());
    }
    let phase = Phase::Launch;
    on_event(Event::PhaseStarted { phase, state: None });
    let mut say = |line: &str| on_event(Event::LaunchProgress { line });
    let session = Session::start(cell, number, scope, &mut say).await;
    let session = session.map_err(Failure::of(phase))?;
    let session = slot.insert(session);
    let phase = Phase::Ready;
    on_event(Event::PhaseStarted { phase, state: None });
    let ready = session.wait_ready(cell, scope).await;
    ready.map_err(|error| Failure {
        phase,
        error: error.into(),
    })
}
