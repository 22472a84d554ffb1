//! Start, watch and stop a server under test.
//!
//! [`launch`] returns as soon as there is something to stop; waiting until it answers is
//! [`ready::wait`]. So a slow start, a failed one and a cancelled one are stopped alike.

mod adapter;
pub(crate) mod adapter_library;
pub(crate) mod alive;
mod answer;
pub(crate) mod api_key;
mod arguments;
pub(crate) mod command_line;
pub(crate) mod config_readback;
pub(crate) mod connector;
pub(crate) mod control;
pub(crate) mod docker;
mod environment;
pub(crate) mod external;
pub(crate) mod facts;
pub(crate) mod group;
pub(crate) mod key_check;
pub(crate) mod kv_size;
pub(crate) mod leftovers;
pub(crate) mod log;
pub(crate) mod metrics_dir;
pub(crate) mod owner;
pub(crate) mod private;
pub(crate) mod proc_stat;
pub(crate) mod process;
pub(crate) mod process_tree;
pub(crate) mod profile;
pub(crate) mod prom;
pub(crate) mod ready;
pub(crate) mod redis;
pub(crate) mod redis_local;
pub(crate) mod render;
pub(crate) mod side;
pub(crate) mod simulated;
pub(crate) mod startup_error;
pub(crate) mod vllm_arguments;
pub(crate) mod vllm_tier;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::lmcache_keys::Version;
use crate::plan::server::Launcher;
use crate::record::schema::ContainerRecord;
use connector::Watched;
use control::Endpoint;
use docker::Lasting;
use group::Stopped;
use leftovers::Mark;
use ready::ReadyError;
use render::{Rendered, Scope};

/// A server under test that has been started and therefore must be stopped.
pub(crate) trait Server: Send {
    /// Where requests go, and the model to put in them.
    fn endpoint(&self) -> &Endpoint;

    /// The admin address of the LMCache server beside it, in multi-process mode; absent without one.
    fn lmcache_url(&self) -> Option<&str> {
        None
    }

    /// The processes that serve, by what they are; empty for an external one.
    fn processes(&self) -> Vec<(&'static str, u32)> {
        Vec::new()
    }

    /// What is known of its containers now; empty where it has none.
    fn containers(&self) -> Vec<ContainerRecord> {
        Vec::new()
    }

    /// The Redis that was started for it alone, as this machine reaches it.
    fn redis_url(&self) -> Option<&str> {
        None
    }

    /// Takes out what lives on when the server is started again, before it is stopped: the Redis that
    /// was started for it alone. The caller passes it to [`launch`].
    fn take_lasting(&mut self) -> Option<Lasting> {
        None
    }

    /// Where labrun looks while a connector's tier is measured; absent for other tiers.
    fn watched(&self) -> Option<&Watched> {
        None
    }

    /// Starts what has to wait for another part of it, as vLLM does for side processes.
    fn start_rest(&mut self) -> BoxFuture<'_, Result<(), ReadyError>> {
        std::future::ready(Ok(())).boxed()
    }

    /// Resolves when any part of it ends by itself; pending forever for an external one.
    fn exited(&mut self) -> BoxFuture<'_, String>;

    /// Stops it: polite, then forced after `grace` or when `at_once` is cancelled. Resolves once nothing of it is left.
    fn stop(
        self: Box<Self>,
        grace: Duration,
        at_once: CancellationToken,
    ) -> BoxFuture<'static, Stopped>;
}

/// What a launch may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaunchScope<'a> {
    /// Where things are on this machine.
    pub settings: &'a Settings,
    /// The mark that started processes carry.
    pub mark: &'a Mark,
    /// The folder of this server: rendered files and logs.
    pub folder: &'a Path,
    /// Where a disk tier of this server keeps its chunks.
    pub scratch: &'a Path,
    /// Cancelled when the run has to stop: nothing long is begun any more.
    pub cancel: &'a CancellationToken,
}

/// Name of the server's log in its folder.
pub(crate) const SERVER_LOG: &str = "server.log";
/// Name of a container's standard error in its folder; a process writes both into its log.
pub(crate) const STDERR_LOG: &str = "server.stderr.log";
/// What containers used of the machine, a JSON object a second and container.
pub(crate) const CONTAINER_STATS: &str = "container_stats.jsonl";
/// Name of the LMCache server's log in its folder.
pub(crate) const LMCACHE_LOG: &str = "lmcache_server.log";

/// The LMCache configuration of a cell's tier, if LMCache serves it. All of it is known to LMCache: to
/// the version that will run, where that is known before its start.
///
/// # Errors
/// A template that cannot be rendered, or that names what LMCache does not have.
pub(crate) fn rendered(
    cell: &Cell,
    settings: &Settings,
    scratch: &Path,
) -> Result<Option<Rendered>> {
    let templates = Some(settings.paths.templates.as_path());
    let scope = Scope {
        templates: templates.filter(|folder| !folder.as_os_str().is_empty()),
        scratch_dir: scratch,
        redis_url: docker::redis_url(cell).unwrap_or_else(|| redis_url(settings)),
        model: &cell.resolved.model,
    };
    let server = &cell.resolved.server;
    let rendered = render::render(&cell.tier, server.lmcache, scope)?;
    if let Some(rendered) = &rendered {
        let version = facts::lmcache_version(cell, settings);
        check_known(cell, rendered, version)?;
    }
    Ok(rendered)
}

/// Checks that LMCache knows every key of `rendered` and every argument in the plan.
pub(crate) fn check_known(
    cell: &Cell,
    rendered: &Rendered,
    version: Option<Version>,
) -> Result<()> {
    let server = &cell.resolved.server;
    let more = arguments::of(&server.lmcache_args);
    key_check::check(rendered, server.lmcache, &more, version)
}

/// The Redis in the settings, else a placeholder for the address of labrun's own.
fn redis_url(settings: &Settings) -> &str {
    match settings.redis.url.as_str() {
        "" => "redis://127.0.0.1:6379",
        url => url,
    }
}

/// Starts the server that `cell` asks for, with the configuration that [`rendered`] made of its
/// tier, around what survived of the previous server; `say` gets progress lines of slow steps. A new
/// launcher is a variant, a file and an arm here.
pub(crate) async fn launch(
    cell: &Cell,
    rendered: Option<&Rendered>,
    scope: LaunchScope<'_>,
    lasting: Option<Lasting>,
    say: &mut dyn FnMut(&str),
) -> Result<Box<dyn Server>> {
    if let Some(rendered) = rendered {
        private::write(rendered, &scope)?;
    }
    if cell.tier.uses_disk() || cell.tier.connector.is_some() {
        std::fs::create_dir_all(scope.scratch)
            .with_context(|| format!("making the folder `{}`", scope.scratch.display()))?;
        adapter::prepare(&cell.tier, scope.scratch)?;
    }
    Ok(match cell.resolved.server.launcher {
        Launcher::Sim => Box::new(simulated::launch(cell, rendered, scope)?),
        Launcher::Process => Box::new(process::launch(cell, rendered, scope)?),
        Launcher::Docker => {
            let launched = docker::launch(cell, rendered, scope, lasting, say);
            Box::new(Box::pin(launched).await?)
        }
        Launcher::External => Box::new(external::attach(cell)?),
    })
}

/// What a launch of `cell` would start, as a person would type it.
///
/// # Errors
/// A model whose folder has no absolute path.
pub(crate) fn script(
    cell: &Cell,
    rendered: Option<&Rendered>,
    settings: &Settings,
) -> Result<String> {
    Ok(match cell.resolved.server.launcher {
        Launcher::Sim => format!(
            "labrun sim --model {}\n",
            command_line::quoted(&cell.resolved.model)
        ),
        Launcher::Process => process::script(cell, rendered, settings)?,
        Launcher::Docker => docker::script(cell, rendered, settings)?,
        Launcher::External => format!("# runs already: {}\n", cell.resolved.server.url),
    })
}

/// Checks that what `cell` starts is there, before anything is written.
pub(crate) fn check_programs(cell: &Cell, settings: &Settings) -> Result<()> {
    match cell.resolved.server.launcher {
        Launcher::Sim => simulated::check(cell),
        Launcher::Docker => docker::check(cell, settings),
        Launcher::External => external::attach(cell).map(drop),
        Launcher::Process => {
            redis_local::check(cell, settings)?;
            process::check_programs(cell, settings)
        }
    }
}

/// The `vllm` that the launcher `process` starts, where it is there.
pub(crate) fn vllm_program(settings: &Settings) -> Option<PathBuf> {
    let folder = &settings.process.bin_dir;
    if folder.as_os_str().is_empty() {
        return in_path("vllm");
    }
    let program = folder.join("vllm");
    program.is_file().then_some(program)
}

/// The program called `name` in PATH.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// A port of 127.0.0.1 that is free now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener
        .local_addr()
        .context("looking for a free port")?
        .port())
}

/// A path that stays right when the server has another working folder.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("resolving `{}`", path.display()))
}
