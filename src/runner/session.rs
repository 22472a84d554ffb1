//! A running server and what cells that share it need: its control client, folder and logs.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready as at_once};
use tokio_util::sync::CancellationToken;

use super::event::Event;
use super::log_marks::LogMarks;
use super::page_cache;
use super::result::LogPart;
use super::scope::RunScope;
use super::stop::Stop;
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::adapter::Adapter;
use crate::plan::server::Launcher;
use crate::plan::tier::TierKind;
use crate::record::schema::Phase;
use crate::server::command_line::SERVER_SCRIPT;
use crate::server::control::{Control, Endpoint};
use crate::server::group::Stopped;
use crate::server::kv_size::{self, Statement};
use crate::server::private::PrivateFolder;
use crate::server::ready::{self, ReadyError};
use crate::server::redis::Redis;
use crate::server::redis_local::{self, LocalRedis};
use crate::server::render::Rendered;
use crate::server::startup_error::{self, Cause, LOG_IS_AT};
use crate::server::{
    self, CONTAINER_STATS, LMCACHE_LOG, LaunchScope, SERVER_LOG, STDERR_LOG, Server, docker,
    leftovers, log, side,
};
use crate::telemetry::host::tcp::TcpPort;
use crate::verdict::log_counts::LogCounts;

mod configured;
mod watched;

/// Other text in the GPU's KV blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Overwritten {
    /// Its tokens.
    pub tokens: f64,
    /// How long that took.
    pub took: Duration,
}

/// Files that servers write to, of which each cell keeps its part.
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
pub(crate) struct Session {
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
    /// A client of the tier's Redis, where it has one.
    pub redis: Option<Redis>,
    /// Counts the bytes of the port that a connector's tier names, or why nothing does.
    port: Option<Result<TcpPort, String>>,
    /// What LMCache's log of its start shows.
    pub start_log: LogCounts,
    /// KV bytes per token by the engine's start log, where it states them.
    pub engine_kv: Option<Statement>,
    /// Tokens of KV that the engine has room for, by its start log.
    pub gpu_tokens: Option<f64>,
    /// How the GPU's KV blocks were overwritten with other text since the start; absent where they
    /// were not.
    pub overwritten: Option<Overwritten>,
    /// What a reader of every cell of this server should know.
    pub warnings: Vec<String>,
    own_redis: Option<LocalRedis>,
    /// Whether the objects of the tier's store are labrun's to remove.
    owns_store: bool,
    /// Removed with the server.
    _private: PrivateFolder,
    settings: Settings,
    folder: PathBuf,
    scratch: PathBuf,
    grace: Duration,
    logs: Vec<LogPart>,
}

/// Why a cell was not measured, and in which phase.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The phase.
    pub phase: Phase,
    /// What happened.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure of `phase`.
    pub(crate) fn of(phase: Phase) -> impl FnOnce(anyhow::Error) -> Self {
        move |error| Self { phase, error }
    }
}

impl Session {
    /// Starts the server of `cell`; it is not ready yet.
    pub(crate) async fn start(
        cell: &Cell,
        number: u32,
        scope: &RunScope<'_>,
        report: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        ensure!(
            scope.folder.is_dir(),
            "the run's folder `{}` is gone: somebody removed it",
            scope.folder.display()
        );
        let folder = scope.folder.join("servers").join(number.to_string());
        // Logs lie here as servers write them, before secrets are masked.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("making the folder `{}`", folder.display()))?;
        let scratch = scratch_folder(scope, &folder, number)?;
        let mut settings = scope.settings.clone();
        let own_redis = if redis_local::is_needed(cell, &settings) {
            let redis =
                LocalRedis::start(redis_local::program(cell.tier.kind), &folder, scope.mark)?;
            redis.url().clone_into(&mut settings.redis.url);
            Some(redis)
        } else {
            None
        };
        let private = PrivateFolder::of(scope.mark, &folder);
        let launch = LaunchScope {
            settings: &settings,
            mark: scope.mark,
            folder: &folder,
            scratch: &scratch,
            cancel: &scope.stop.polite,
        };
        let rendered = server::rendered(cell, &settings, &scratch)?;
        let server = server::launch(cell, rendered.as_ref(), launch, None, report).await?;
        let control = control_of(server.as_ref())?;
        let sides = cell.tier.connector.iter().flat_map(|it| &it.sides);
        let of_sides = sides.map(|side| side::log_name(&side.name));
        let names = LOGS.into_iter().map(str::to_owned).chain(of_sides);
        let logs = names
            .map(|name| LogPart {
                path: folder.join(&name),
                name,
                from: 0,
                to: 0,
            })
            .collect();
        Ok(Self {
            control,
            server,
            rendered,
            version: None,
            ready: None,
            redis: None,
            port: None,
            start_log: LogCounts::default(),
            engine_kv: None,
            gpu_tokens: None,
            overwritten: None,
            warnings: Vec::new(),
            own_redis,
            owns_store: false,
            _private: private,
            settings,
            folder,
            scratch,
            grace: cell.resolved.server.stop_grace,
            logs,
        })
    }

    /// Waits until it answers with a real token.
    pub(crate) async fn wait_ready(
        &mut self,
        cell: &Cell,
        scope: &RunScope<'_>,
    ) -> Result<(), ReadyError> {
        let mut limit = cell.resolved.server.ready_timeout;
        let runs_already = cell.resolved.server.launcher == Launcher::External;
        if runs_already {
            limit = limit.min(EXTERNAL_LIMIT);
        }
        let polite = &scope.stop.polite;
        let limits = (limit, runs_already);
        let waited = ready::wait(self.server.as_mut(), &self.control, limits, polite).await?;
        self.version = match self.control.version().await {
            Ok(version) => version,
            Err(error) => {
                self.warnings
                    .push(format!("the server does not report its version: {error:#}"));
                None
            }
        };
        self.ready = (!self.server.processes().is_empty()).then_some(waited);
        self.read_kv_size(cell);
        Ok(self.connect_watched(cell).await?)
    }

    /// Reads KV bytes per token from the engine's start log, and warns where it contradicts the
    /// model's configuration or the plan.
    fn read_kv_size(&mut self, cell: &Cell) {
        let log = LogMarks::take(self.logs()).text_since(&LogMarks::default());
        self.engine_kv = kv_size::logs::engine(&log);
        self.gpu_tokens = kv_size::logs::engine_tokens(&log);
        let size = kv_size::of_cell(cell, &self.settings).with(self.engine_kv);
        self.warnings.extend(size.disagreements());
    }

    /// The failure of a server that did not become ready: why, by its logs, and where the log will be
    /// once the cell is stored.
    fn not_ready(&self, error: &ReadyError, cell: &Cell, scope: &RunScope<'_>) -> Failure {
        let mut text = error.to_string();
        let mut log = self.written_logs().next();
        let of_side = |(name, _): &(&str, &str)| text.contains(&format!("side process `{name}`"));
        if let Some((_, of_side)) = self.side_logs().find(of_side) {
            log = Some(of_side);
        }
        let found = match error {
            ReadyError::Exited(how) => self.cause(how, startup_error::cause),
            // An engine that failed may leave a front process that waits for it for ever.
            ReadyError::TimedOut { .. } => self.cause("", startup_error::raised),
            _ => None,
        };
        match (found, error) {
            (Some((name, cause)), _) => {
                text.push_str(&format!(": {cause}"));
                log = Some(name);
            }
            (None, ReadyError::Exited(how)) => {
                text.push_str(&startup_error::of_signal(how).unwrap_or_default());
            }
            (None, _) => {}
        }
        if let Some(name) = log {
            let kept = scope.folder.join("cells").join(&cell.id).join(name);
            text.push_str(&format!("{LOG_IS_AT}{}", kept.display()));
        }
        Failure::of(Phase::Ready)(anyhow!(text))
    }

    /// Why the server ended, and the log that states it. The logs of the part that ended come first.
    fn cause(&self, how: &str, of_log: impl Fn(&str) -> Option<Cause>) -> Option<(&str, Cause)> {
        let side = self
            .side_logs()
            .find(|(name, _)| how.contains(&format!("side process `{name}`")));
        let lmcache_ended = how.to_lowercase().contains("lmcache");
        let is_of_it = |log: &&str| match side {
            Some((_, of_side)) => *log == of_side,
            None => log.starts_with("lmcache") == lmcache_ended,
        };
        let (first, others): (Vec<&str>, Vec<&str>) = self.written_logs().partition(is_of_it);
        first.into_iter().chain(others).find_map(|name| {
            let log = LogMarks::take([self.folder.join(name)]);
            let cause = of_log(&log.text_since(&LogMarks::default()))?;
            Some((name, cause))
        })
    }

    /// The logs that have anything in them.
    fn written_logs(&self) -> impl Iterator<Item = &str> {
        let is_written = |log: &&LogPart| {
            let found = std::fs::metadata(&log.path);
            found.is_ok_and(|found| found.len() > 0)
        };
        let written = self.text_logs().filter(is_written);
        written.map(|log| log.name.as_str())
    }

    /// Its logs, without what is no text for people.
    fn text_logs(&self) -> impl Iterator<Item = &LogPart> {
        self.logs.iter().filter(|log| log.name != CONTAINER_STATS)
    }

    /// The side processes by name, each with its log.
    fn side_logs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.logs
            .iter()
            .filter_map(|log| Some((side::of_log(&log.name)?, log.name.as_str())))
    }

    /// The Redis of its tier: labrun's own, a container's, or the one that the settings name.
    pub(crate) fn redis_url(&self) -> &str {
        let watched = self.server.watched().and_then(|it| it.redis.as_deref());
        let own = watched.or(self.server.redis_url());
        own.unwrap_or(&self.settings.redis.url)
    }

    /// Connects to the tier's Redis, and refuses one that holds what is not labrun's.
    async fn connect_redis(&mut self, cell: &Cell) -> Result<()> {
        let launcher = cell.resolved.server.launcher;
        if !cell.tier.kind.speaks_resp() || cell.resolved.server.is_simulated() {
            return Ok(());
        }
        if let Some(own) = &mut self.own_redis {
            let redis = own.wait_ready().await?;
            redis.check_kind(cell.tier.kind).await?;
            self.redis = Some(redis);
            return Ok(());
        }
        let url = self.redis_url();
        if url.is_empty() {
            return Ok(());
        }
        let redis = Redis::connect(url).await?;
        redis.check_kind(cell.tier.kind).await?;
        let keys = redis.keys().await?;
        ensure!(
            keys == 0 || launcher == Launcher::External,
            "Redis at {} holds {keys} keys; labrun empties the database between cells, so that it \
             needs one of its own: empty this one (FLUSHDB), or name another in `redis.url`",
            redis.shown()
        );
        self.redis = Some(redis);
        Ok(())
    }

    /// Empties what the cell before left in Redis: its working set would count against this one's.
    pub(crate) async fn begin_cell(&self) -> Result<()> {
        match &self.redis {
            // A connector's own index of it may be in memory, and would name what is gone.
            Some(_) if self.server.watched().is_some() => Ok(()),
            Some(redis) if !self.server.processes().is_empty() => redis.flush().await,
            _ => self.empty_store().await,
        }
    }

    /// Claims the objects of the tier's store, where LMCache lists them, and refuses one that holds what is
    /// not labrun's.
    async fn claim_store(&mut self, cell: &Cell) -> Result<()> {
        let lists = cell.tier.kind == TierKind::Adapter(Adapter::S3);
        if let Some(url) = self.server.lmcache_url()
            && lists
            && cell.resolved.server.launcher != Launcher::External
        {
            let objects = self.control.lmcache_objects(url).await?.len();
            ensure!(
                objects == 0,
                "the bucket of the tier `{}` holds {objects} objects of LMCache or more; labrun removes them \
                 between cells, so that it needs a bucket of its own: empty this one, or name another in \
                 `s3_endpoint`",
                cell.tier.name
            );
            self.owns_store = true;
        }
        Ok(())
    }

    /// Removes what it left in a store that labrun has claimed.
    async fn empty_store(&self) -> Result<()> {
        match self.server.lmcache_url() {
            Some(url) if self.owns_store => self.control.remove_lmcache_objects(url).await,
            _ => Ok(()),
        }
    }

    /// Stops the server and starts it again, with the same configuration; the tier's files and its
    /// Redis stay.
    pub(crate) async fn restart(
        &mut self,
        cell: &Cell,
        scope: &RunScope<'_>,
    ) -> Result<(), Failure> {
        let lasting = self.server.take_lasting();
        let gone = Box::new(Stopping(self.server.endpoint().clone()));
        let old = std::mem::replace(&mut self.server, gone);
        old.stop(self.grace, scope.stop.at_once.clone()).await;
        let launch = LaunchScope {
            settings: &self.settings,
            mark: scope.mark,
            folder: &self.folder,
            scratch: &self.scratch,
            cancel: &scope.stop.polite,
        };
        let mut nobody = |_: &str| {};
        let rendered = self.rendered.as_ref();
        let relaunched = server::launch(cell, rendered, launch, lasting, &mut nobody).await;
        self.server = relaunched.map_err(Failure::of(Phase::Launch))?;
        let control = control_of(self.server.as_ref());
        self.control = control.map_err(Failure::of(Phase::Launch))?;
        let first_start = self.ready;
        let ready = self.wait_ready(cell, scope).await;
        ready.map_err(|error| self.not_ready(&error, cell, scope))?;
        self.ready = first_start;
        // Another process has other memory.
        self.overwritten = None;
        Ok(())
    }

    /// Its logs.
    pub(crate) fn logs(&self) -> impl Iterator<Item = PathBuf> {
        self.text_logs().map(|log| log.path.clone())
    }

    /// Where its disk tier keeps files.
    pub(crate) fn tier_folder(&self) -> &Path {
        let watched = self.server.watched().and_then(|it| it.disk.as_deref());
        watched.unwrap_or(&self.scratch)
    }

    /// The last lines of its logs, oldest first; of the LMCache server's too where there is one.
    pub(crate) fn log_tail(&self) -> Vec<String> {
        let mut lines = log::tail(&self.folder.join(SERVER_LOG), TAIL_LINES);
        for part in self.text_logs().filter(|log| log.name != SERVER_LOG) {
            let more = log::tail(&part.path, TAIL_LINES);
            if !more.is_empty() {
                lines.push(format!("--- {}", part.name));
                lines.extend(more);
            }
        }
        lines
    }

    /// A script that starts it by hand; absent where labrun did not start it, or simulates it.
    pub(crate) fn script(&self) -> Option<String> {
        std::fs::read_to_string(self.folder.join(SERVER_SCRIPT)).ok()
    }

    /// The parts of its logs since the last call.
    pub(crate) fn take_log_parts(&mut self) -> Vec<LogPart> {
        take_log_parts(&mut self.logs)
    }

    /// A number that changes while its disk tier writes: the lengths of its files, and the bytes of their
    /// blocks. A file that has the whole tier's length from the start is filled without growing.
    pub(crate) fn files_progress(&self) -> u64 {
        let files = page_cache::files_below(self.tier_folder()).unwrap_or_default();
        let all = files.iter().filter_map(|file| file.metadata().ok());
        all.map(|found| found.len() + 512 * found.blocks()).sum()
    }

    /// Stops it and removes its disk tier's files. The logs stay until their last parts were copied.
    pub(crate) async fn stop(self, stop: &Stop) -> (Stopped, EndedSession) {
        let is_ours = !self.server.processes().is_empty();
        // As with Redis below: the next run would refuse what is left.
        let _unreachable = self.empty_store().await;
        let stopped = self.server.stop(self.grace, stop.at_once.clone()).await;
        match (self.own_redis, self.redis) {
            (Some(own), _) => {
                own.stop(stop.at_once.clone()).await;
            }
            (None, Some(redis)) if is_ours => {
                // What is left would be refused as somebody else's by the next run.
                let _unreachable = redis.flush().await;
            }
            _ => {}
        }
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
pub(crate) struct EndedSession {
    folder: PathBuf,
    logs: Vec<LogPart>,
}

impl EndedSession {
    /// The parts of its logs since the last call.
    pub(crate) fn take_log_parts(&mut self) -> Vec<LogPart> {
        take_log_parts(&mut self.logs)
    }

    /// The folder that can be removed once the log parts were copied.
    pub(crate) fn folder(&self) -> &Path {
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

/// A client of the control routes of `server`.
fn control_of(server: &dyn Server) -> Result<Control> {
    let counters = server.watched().map(|watched| watched.counters.names());
    let control = Control::new(server.endpoint().clone())?;
    Ok(control.reading_also(counters.unwrap_or_default()))
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
pub(crate) async fn ensure(
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
    let mut report = |line: &str| on_event(Event::LaunchProgress { line });
    let session = Session::start(cell, number, scope, &mut report).await;
    let session = session.map_err(Failure::of(phase))?;
    let session = slot.insert(session);
    let connected = session.connect_redis(cell).await;
    connected.map_err(Failure::of(phase))?;
    let phase = Phase::Ready;
    on_event(Event::PhaseStarted { phase, state: None });
    let ready = session.wait_ready(cell, scope).await;
    ready.map_err(|error| session.not_ready(&error, cell, scope))?;
    let checked = session.check_configuration(cell).await;
    checked.map_err(Failure::of(phase))?;
    let claimed = session.claim_store(cell).await;
    claimed.map_err(Failure::of(phase))
}

/// In the place of a server between its stop and its next start.
struct Stopping(Endpoint);

impl Server for Stopping {
    fn endpoint(&self) -> &Endpoint {
        &self.0
    }

    fn exited(&mut self) -> BoxFuture<'_, String> {
        pending().boxed()
    }

    fn stop(self: Box<Self>, _: Duration, _: CancellationToken) -> BoxFuture<'static, Stopped> {
        at_once(Stopped::new("was stopped for a restart")).boxed()
    }
}
