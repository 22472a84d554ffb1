//! vLLM in a container of this machine's Docker, with the sidecars that its tier needs: a Redis, an
//! LMCache server. Everything carries labels: they identify what a killed labrun leaves behind.

pub(crate) mod body;
pub(crate) mod container;
pub(crate) mod daemon;
mod facts;
pub(crate) mod gpu_memory;
pub(crate) mod image;
pub(crate) mod labels;
mod launch;
mod logs;
mod profiled;
mod script;
mod secrets;
mod stats;
pub(crate) mod sweep;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use futures::FutureExt as _;
use futures::future::{BoxFuture, select_all};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::control::Endpoint;
use super::group::Stopped;
use super::render::Rendered;
use super::{LMCACHE_LOG, LaunchScope, Server, startup_error};
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::docker_spec::{DockerSpec, Gpus};
use crate::plan::server::LmcacheMode;
use crate::record::schema::ContainerRecord;
use container::Container;
use daemon::Daemon;
pub(super) use facts::is_server;
use gpu_memory::GpuMemory;
use image::Content;
use launch::Launch;
use script::Script;
pub(super) use script::before_a_start as script;
use secrets::Secrets;

/// Name of the standard error of the LMCache server's container in a server's folder.
pub(crate) const LMCACHE_STDERR_LOG: &str = "lmcache_server.stderr.log";
/// Name of the Redis container's log in a server's folder.
pub(crate) const REDIS_LOG: &str = "redis_server.log";
/// Role of the Redis container.
const REDIS_ROLE: &str = "redis";
/// Redis as the cell's other containers reach it.
const REDIS_URL: &str = "redis://labrun-redis:6379";
/// Lines of a sidecar's log in which the reason of its end is looked for.
const SIDECAR_LINES: usize = 200;
/// A sidecar has nothing to finish once the engine is gone.
const SIDECAR_GRACE: Duration = Duration::from_secs(5);

/// A server in containers of its own.
#[derive(Debug)]
pub(crate) struct Dockered {
    addresses: Addresses,
    parts: Parts,
}

/// Where a server's containers answer, as this machine reaches them.
#[derive(Debug)]
struct Addresses {
    endpoint: Endpoint,
    lmcache_url: Option<String>,
    redis_url: Option<String>,
}

/// What survives a restart of the server: its Redis, and the network that reaches it.
#[derive(Debug)]
pub(crate) struct Lasting {
    redis: Container,
    redis_url: String,
    network: Option<String>,
}

/// Everything that was made so far, in order. All of it is removed, whatever happens.
#[derive(Debug)]
struct Parts {
    daemon: Daemon,
    containers: Vec<Container>,
    network: Option<String>,
    secrets: Option<Secrets>,
    /// What was started, as commands.
    script: Script,
    gpu_memory: Option<GpuMemory>,
}

fn spec_of(cell: &Cell) -> Result<&DockerSpec> {
    let spec = cell.resolved.server.docker.as_ref();
    spec.context("the plan describes no container in [server]")
}

/// Whether the cell has a Redis container of its own.
fn has_own_redis(cell: &Cell) -> bool {
    let spec = cell.resolved.server.docker.as_ref();
    cell.tier.kind.speaks_resp() && spec.is_some_and(|spec| !spec.redis_image.is_empty())
}

/// Whether the cell has an LMCache server beside vLLM.
fn has_lmcache_server(cell: &Cell) -> bool {
    cell.tier.kind.uses_lmcache() && cell.resolved.server.lmcache == LmcacheMode::MultiProcess
}

/// The URL to render for the redis tier of `cell`, where it has a Redis container of its own.
pub(crate) fn redis_url(cell: &Cell) -> Option<&'static str> {
    has_own_redis(cell).then_some(REDIS_URL)
}

/// Checks what can be known before anything is started.
pub(crate) fn check(cell: &Cell, settings: &Settings) -> Result<()> {
    let spec = spec_of(cell)?;
    let url = settings.redis.url.as_str();
    let is_here = url.is_empty()
        || ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .any(|name| url.contains(name));
    ensure!(
        !cell.tier.kind.speaks_resp()
            || has_own_redis(cell)
            || spec.simulator
            || body::is_on_host(spec)
            || !is_here,
        "no container reaches `redis.url` ({}); set `redis_image` in [server] for a Redis of the \
         cell's own, a `redis.url` that containers reach, or `network = \"host\"`",
        if url.is_empty() {
            "not set".to_owned()
        } else {
            super::redis::shown(url)
        }
    );
    Ok(())
}

/// The image that LMCache is in, unless the cell's server is the simulator.
pub(crate) fn lmcache_image_of(cell: &Cell) -> Option<&str> {
    let spec = spec_of(cell).ok().filter(|spec| !spec.simulator)?;
    Some(if has_lmcache_server(cell) {
        lmcache_image(spec)
    } else {
        &spec.image
    })
}

/// Images of the containers beside the server of `cell`.
pub(crate) fn sidecar_images(cell: &Cell) -> Vec<&str> {
    let Ok(spec) = spec_of(cell) else {
        return Vec::new();
    };
    let redis = has_own_redis(cell).then_some(spec.redis_image.as_str());
    let lmcache = has_lmcache_server(cell).then(|| lmcache_image(spec));
    redis.into_iter().chain(lmcache).collect()
}

fn lmcache_image(spec: &DockerSpec) -> &str {
    if spec.lmcache_image.is_empty() {
        &spec.image
    } else {
        &spec.lmcache_image
    }
}

/// The content that the cell's server would run from now; absent where it is unknown: it is still to
/// be pulled and the registry does not answer, or Docker does not.
pub(crate) fn content(cell: &Cell, runtime: &Handle) -> Option<Content> {
    let spec = spec_of(cell).ok()?;
    let asked = async {
        let daemon = Daemon::connect().await.ok()?;
        let content = image::resolve(&daemon, &spec.image, spec.pull).await;
        content.ok().flatten()
    };
    // The caller may be one of the runtime's own threads.
    tokio::task::block_in_place(|| runtime.block_on(asked))
}

/// Starts the containers of `cell`, sidecars first, each healthy before the next; `lasting` is there
/// already. Where one cannot be started, all are removed again.
pub(crate) async fn launch(
    cell: &Cell,
    rendered: Option<&Rendered>,
    scope: LaunchScope<'_>,
    lasting: Option<Lasting>,
    say: &mut dyn FnMut(&str),
) -> Result<Dockered> {
    let spec = spec_of(cell)?;
    let daemon = Daemon::connect().await?;
    daemon.check_is_local()?;
    let keep: Vec<String> = lasting.iter().flat_map(Lasting::names).collect();
    sweep::remove_own(&daemon, scope.mark, &keep).await?;
    let (containers, network, redis_url) = match lasting {
        Some(lasting) => (
            vec![lasting.redis],
            lasting.network,
            Some(lasting.redis_url),
        ),
        None => Default::default(),
    };
    let mut parts = Parts {
        daemon,
        containers,
        network,
        secrets: None,
        script: Script::default(),
        gpu_memory: (spec.gpus != Gpus::None).then(GpuMemory::now).flatten(),
    };
    let launch = Launch {
        cell,
        spec,
        rendered,
        scope,
        redis_url,
    };
    match launch.all(&mut parts, say).await {
        Ok(addresses) => Ok(Dockered { addresses, parts }),
        Err(error) => Err(Box::pin(parts.last_words(scope.folder, error)).await),
    }
}

impl Lasting {
    /// The id of its container, and the name of its network.
    fn names(&self) -> impl Iterator<Item = String> {
        let id = self.redis.id().to_owned();
        [id].into_iter().chain(self.network.clone())
    }
}

impl Parts {
    /// Stops and removes all, the engine first. The last lines of each container are in the logs by then.
    async fn stop(mut self, grace: Duration, at_once: &CancellationToken) -> Stopped {
        let mut stopped = Stopped::default();
        let mut grace = grace;
        while let Some(container) = self.containers.pop() {
            let ended = container.stop(grace, at_once).await;
            grace = grace.min(SIDECAR_GRACE);
            if stopped.how.is_empty() {
                stopped.how = ended.how;
            }
            stopped.containers.push(ended.facts);
            stopped.warnings.extend(ended.trouble);
        }
        if let Some(network) = self.network.take()
            && let Err(error) = sweep::remove_network(&self.daemon, &network).await
        {
            stopped.warnings.push(format!(
                "the network `{network}` could not be removed: {error:#}; `labrun clean` removes it"
            ));
        }
        if let Some(before) = self.gpu_memory.take() {
            stopped
                .warnings
                .extend(before.wait_until_free(at_once).await);
        }
        stopped
    }

    /// Removes all after a launch that failed with `error`. Returns that with the reason in a sidecar's
    /// log, or its last lines.
    async fn last_words(self, folder: &Path, error: Error) -> Error {
        let at_once = CancellationToken::new();
        at_once.cancel();
        Box::pin(self.stop(Duration::ZERO, &at_once)).await;
        let lines: Vec<String> = [LMCACHE_STDERR_LOG, LMCACHE_LOG, REDIS_LOG]
            .iter()
            .flat_map(|name| super::log::tail(&folder.join(name), SIDECAR_LINES))
            .collect();
        if let Some(cause) = startup_error::cause(&lines.join("\n")) {
            return anyhow!("{error:#}: {cause}");
        }
        match lines.as_slice() {
            [] => error,
            lines => error.context(lines[lines.len().saturating_sub(5)..].join("\n")),
        }
    }
}

impl Server for Dockered {
    fn endpoint(&self) -> &Endpoint {
        &self.addresses.endpoint
    }

    fn lmcache_url(&self) -> Option<&str> {
        self.addresses.lmcache_url.as_deref()
    }

    fn processes(&self) -> Vec<(&'static str, u32)> {
        let all = self.parts.containers.iter();
        all.filter_map(|container| Some((container.role(), container.pid()?)))
            .collect()
    }

    fn containers(&self) -> Vec<ContainerRecord> {
        self.parts
            .containers
            .iter()
            .map(|container| container.facts().clone())
            .collect()
    }

    fn redis_url(&self) -> Option<&str> {
        self.addresses.redis_url.as_deref()
    }

    fn take_lasting(&mut self) -> Option<Lasting> {
        let redis_url = self.addresses.redis_url.take()?;
        let parts = &mut self.parts;
        let at = parts
            .containers
            .iter()
            .position(|container| container.role() == REDIS_ROLE)?;
        Some(Lasting {
            redis: parts.containers.remove(at),
            redis_url,
            network: parts.network.take(),
        })
    }

    fn exited(&mut self) -> BoxFuture<'_, String> {
        let all = self.parts.containers.iter();
        let ends = all.map(|container| container.exited().boxed());
        select_all(ends).map(|(how, ..)| how).boxed()
    }

    fn stop(
        self: Box<Self>,
        grace: Duration,
        at_once: CancellationToken,
    ) -> BoxFuture<'static, Stopped> {
        async move { Box::pin(self.parts.stop(grace, &at_once)).await }.boxed()
    }
}
