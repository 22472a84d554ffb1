//! Starts the containers of one cell, each healthy before the next.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bollard::models::{ContainerCreateBody, NetworkConnectRequest, NetworkCreateRequest};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::control::{Control, Endpoint};
use super::super::redis::Redis;
use super::super::render::Rendered;
use super::super::{
    CONTAINER_STATS, LMCACHE_LOG, LaunchScope, SERVER_LOG, STDERR_LOG, absolute, arguments,
    free_port, leftovers, private, process, simulated,
};
use super::body::{self, Basis, LMCACHE_NAME, LMCACHE_PORTS, REDIS_PORT, SERVER_PORT};
use super::container::Container;
use super::daemon::plain;
use super::image;
use super::labels::Labels;
use super::logs::LogFiles;
use super::profiled;
use super::script::Script;
use super::secrets::{self, Secrets};
use super::{
    Addresses, LMCACHE_STDERR_LOG, Parts, REDIS_LOG, REDIS_ROLE, has_lmcache_server, has_own_redis,
    lmcache_image,
};
use crate::matrix::Cell;
use crate::plan::docker_spec::DockerSpec;

/// Pause between two questions to a sidecar that is starting.
const PAUSE: Duration = Duration::from_millis(20);

/// A launch under way.
pub(super) struct Launch<'a> {
    pub(super) cell: &'a Cell,
    pub(super) spec: &'a DockerSpec,
    pub(super) rendered: Option<&'a Rendered>,
    pub(super) scope: LaunchScope<'a>,
    /// Address of the Redis that survived the previous server.
    pub(super) redis_url: Option<String>,
}

impl Launch<'_> {
    /// Starts all of them, into `parts`.
    pub(super) async fn all(
        &self,
        parts: &mut Parts,
        say: &mut dyn FnMut(&str),
    ) -> Result<Addresses> {
        let server_image = self.image(parts, &self.spec.image, say).await?;
        let user = if self.spec.user.is_empty() {
            &server_image.user
        } else {
            &self.spec.user
        };
        let values = secrets::values(self.cell, self.spec, self.scope)?;
        if let Some(rendered) = self.rendered {
            secrets::hand_over(&private::path(rendered, &self.scope), user);
        }
        let number = self.number();
        parts.secrets = Secrets::write(&values, user, self.scope.mark, &number)?;
        parts.script = Script::new(values.keys().cloned().collect());
        let labels = Labels::new(self.scope.mark, &self.cell.id);
        if parts.network.is_none()
            && !body::is_on_host(self.spec)
            && (has_own_redis(self.cell) || has_lmcache_server(self.cell))
        {
            parts.network = Some(self.network(parts, &labels).await?);
        }
        if let Some(network) = &parts.network {
            parts.script.on_network(network);
        }
        let redis_url = match &self.redis_url {
            Some(url) => Some(url.clone()),
            None if has_own_redis(self.cell) => Some(self.redis(parts, &labels, say).await?),
            None => None,
        };
        let (lmcache_url, transfer) = match self.rendered {
            None => (None, None),
            Some(rendered) if has_lmcache_server(self.cell) => {
                let (url, transfer) = self.lmcache(parts, &labels, rendered, say).await?;
                (Some(url), Some(transfer))
            }
            Some(_) => (
                None,
                Some(json!({"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"})),
            ),
        };
        let port = self
            .server(parts, &labels, &server_image, transfer.as_ref())
            .await?;
        let url = format!("http://127.0.0.1:{}", self.port_of(parts, port));
        let endpoint = Endpoint {
            url,
            model: self.cell.resolved.model.clone(),
            api_key: None,
        };
        Ok(Addresses {
            endpoint,
            lmcache_url,
            redis_url,
        })
    }

    /// Starts the server under test. Returns its port inside.
    async fn server(
        &self,
        parts: &mut Parts,
        labels: &Labels,
        image: &image::Image,
        transfer: Option<&Value>,
    ) -> Result<u16> {
        let port = if body::is_on_host(self.spec) {
            free_port()?
        } else {
            SERVER_PORT
        };
        if self.spec.simulator {
            simulated::write_spec(self.cell, self.scope.folder)?;
        }
        if self.cell.resolved.server.profile.is_some() {
            profiled::make_folder(self.scope.folder)?;
        }
        let yaml = self.rendered.filter(|_| !has_lmcache_server(self.cell));
        let mut body = self
            .basis(parts, labels)
            .server(image, yaml, transfer, port)?;
        if self.spec.ipc.is_empty()
            && let Some(lmcache) = parts.containers.iter().find(|c| c.role() == "lmcache")
        {
            // What they share of the CPU's memory lies in one /dev/shm.
            let host_config = body.host_config.get_or_insert_default();
            host_config.ipc_mode = Some(format!("container:{}", lmcache.id()));
            host_config.shm_size = None;
        }
        let role = if self.spec.simulator { "sim" } else { "vllm" };
        let started = self
            .start(parts, role, image, body, (SERVER_LOG, STDERR_LOG))
            .await?;
        let also = Some(&self.spec.network)
            .filter(|name| !name.is_empty() && !body::is_on_host(self.spec));
        if let (Some(_), Some(also)) = (&parts.network, also) {
            connect(parts, &started, also).await?;
        }
        Ok(port)
    }

    /// The port of this machine on which the last container answers. One that has ended already has
    /// none; its watcher reports the end.
    fn port_of(&self, parts: &Parts, inside: u16) -> u16 {
        if body::is_on_host(self.spec) {
            return inside;
        }
        let last = parts.containers.last();
        last.and_then(|container| container.host_port(inside))
            .unwrap_or(1)
    }

    fn basis<'a>(&'a self, parts: &'a Parts, labels: &'a Labels) -> Basis<'a> {
        Basis {
            cell: self.cell,
            spec: self.spec,
            scope: self.scope,
            labels,
            secrets: parts.secrets.as_ref(),
            network: parts.network.as_deref(),
        }
    }

    async fn image(
        &self,
        parts: &Parts,
        name: &str,
        say: &mut dyn FnMut(&str),
    ) -> Result<image::Image> {
        image::ensure(&parts.daemon, name, self.spec.pull, self.scope.cancel, say).await
    }

    /// Number of this server within the run.
    fn number(&self) -> String {
        let name = self.scope.folder.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn name(&self, role: &str) -> String {
        format!("labrun-{}-{}-{role}", self.scope.mark.owner, self.number())
    }

    async fn network(&self, parts: &Parts, labels: &Labels) -> Result<String> {
        let name = self.name("network");
        let request = NetworkCreateRequest {
            name: name.clone(),
            labels: Some(labels.of("network")),
            ..NetworkCreateRequest::default()
        };
        let made = parts.daemon.docker.create_network(request).await;
        made.map_err(plain)
            .context("making the network of the cell's containers")?;
        Ok(name)
    }

    async fn start(
        &self,
        parts: &mut Parts,
        role: &'static str,
        image: &image::Image,
        body: ContainerCreateBody,
        (stdout, stderr): (&str, &str),
    ) -> Result<String> {
        let folder = self.scope.folder;
        let files = LogFiles {
            stdout: folder.join(stdout),
            stderr: folder.join(stderr),
            stats: folder.join(CONTAINER_STATS),
        };
        let name = self.name(role);
        let shown = absolute(folder)?;
        parts.script.add(role, &image.name, &body, &shown);
        parts.script.write(self.cell, folder)?;
        let started = Container::start(&parts.daemon, role, &name, image, body, files).await?;
        let id = started.id().to_owned();
        parts.containers.push(started);
        Ok(id)
    }

    async fn redis(
        &self,
        parts: &mut Parts,
        labels: &Labels,
        say: &mut dyn FnMut(&str),
    ) -> Result<String> {
        let image = self.image(parts, &self.spec.redis_image, say).await?;
        let body = self.basis(parts, labels).redis(&image);
        self.start(parts, REDIS_ROLE, &image, body, (REDIS_LOG, REDIS_LOG))
            .await?;
        let url = format!("redis://127.0.0.1:{}", self.port_of(parts, REDIS_PORT));
        let ask = || async { Redis::connect(&url).await?.ping().await };
        self.wait_until(parts, "Redis", ask).await?;
        Ok(url)
    }

    async fn lmcache(
        &self,
        parts: &mut Parts,
        labels: &Labels,
        rendered: &Rendered,
        say: &mut dyn FnMut(&str),
    ) -> Result<(String, Value)> {
        let image = self.image(parts, lmcache_image(self.spec), say).await?;
        let is_on_host = body::is_on_host(self.spec);
        let ports = if is_on_host {
            (free_port()?, free_port()?)
        } else {
            LMCACHE_PORTS
        };
        let shared = leftovers::shared_memory_name(self.scope.mark, ports.0);
        let settings = self.scope.settings;
        let mut arguments = process::shared_memory_argument(self.cell, settings, &shared);
        arguments.extend(rendered.arguments()?);
        arguments.extend(arguments::of(&self.cell.resolved.server.lmcache_args));
        let body = self
            .basis(parts, labels)
            .lmcache(&image, arguments, ports)?;
        self.start(
            parts,
            "lmcache",
            &image,
            body,
            (LMCACHE_LOG, LMCACHE_STDERR_LOG),
        )
        .await?;
        let url = format!("http://127.0.0.1:{}", self.port_of(parts, ports.1));
        let control = Control::new(Endpoint {
            url: url.clone(),
            model: String::new(),
            api_key: None,
        })?;
        self.wait_until(parts, "the LMCache server", || control.lmcache_health(&url))
            .await?;
        let host = if is_on_host {
            "127.0.0.1"
        } else {
            LMCACHE_NAME
        };
        Ok((url, mp_transfer(host, ports.0)))
    }

    /// Waits until the last container answers `ask`, racing its end.
    async fn wait_until<F: Future<Output = Result<()>>>(
        &self,
        parts: &Parts,
        what: &str,
        mut ask: impl FnMut() -> F,
    ) -> Result<()> {
        let limit = self.cell.resolved.server.ready_timeout;
        let began = Instant::now();
        let Some(container) = parts.containers.last() else {
            return Ok(());
        };
        loop {
            let answer = tokio::select! {
                biased;
                () = self.scope.cancel.cancelled() => bail!("interrupted while {what} started"),
                how = container.exited() => bail!("{how} before it was ready"),
                answer = ask() => answer,
            };
            match answer {
                Ok(()) => return Ok(()),
                Err(error) if began.elapsed() >= limit => {
                    return Err(error.context(format!(
                        "{what} was not ready after {} s (raise `ready_timeout_s` in [server])",
                        limit.as_secs()
                    )));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// How vLLM reaches the LMCache server at `host`.
pub(super) fn mp_transfer(host: &str, port: u16) -> Value {
    json!({
        "kv_connector": "LMCacheMPConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {
            "lmcache.mp.host": format!("tcp://{host}"),
            "lmcache.mp.port": port,
        },
    })
}

/// Puts a container into a network of the user's besides.
async fn connect(parts: &Parts, id: &str, network: &str) -> Result<()> {
    let request = NetworkConnectRequest {
        container: id.to_owned(),
        ..NetworkConnectRequest::default()
    };
    let connected = parts.daemon.docker.connect_network(network, request).await;
    connected
        .map_err(plain)
        .with_context(|| format!("connecting the container to the network `{network}`"))
}
