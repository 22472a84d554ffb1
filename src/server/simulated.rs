//! The built-in simulator as a server, in a process of its own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::control::Endpoint;
use super::group::{ProcessGroup, Stopped};
use super::render::Rendered;
use super::{LaunchScope, SERVER_LOG, Server, free_port};
use crate::matrix::Cell;
use crate::plan::tier::TierKind;

/// The running simulator.
#[derive(Debug)]
pub struct Simulated {
    endpoint: Endpoint,
    process: ProcessGroup,
}

/// Starts `labrun sim` for `cell`.
pub fn launch(
    cell: &Cell,
    rendered: Option<&Rendered>,
    scope: LaunchScope<'_>,
) -> Result<Simulated> {
    let port = free_port()?;
    let spec = scope.folder.join("sim.json");
    std::fs::write(&spec, serde_json::to_vec_pretty(&cell.resolved.server.sim)?)
        .with_context(|| format!("writing `{}`", spec.display()))?;
    let program = std::env::current_exe().context("finding labrun's own program")?;
    let mut command = Command::new(program);
    command
        .arg("sim")
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--model", &cell.resolved.model])
        .arg("--spec")
        .arg(&spec)
        .arg("--exit-with-parent")
        .stdin(Stdio::piped());
    if let Some(rendered) = rendered {
        command
            .arg("--lmcache-config")
            .arg(scope.folder.join(rendered.file_name));
    }
    if cell.tier.kind == TierKind::Native {
        command.args(["--kv-offloading-size", &cell.tier.ram_gib().to_string()]);
    }
    if !cell.resolved.server.gpu_prefix_cache() {
        command.arg("--no-enable-prefix-caching");
    }
    let log = scope.folder.join(SERVER_LOG);
    let process = ProcessGroup::start("the simulator", command, &log, scope.mark)?;
    let url = format!("http://127.0.0.1:{port}");
    Ok(Simulated {
        endpoint: Endpoint {
            url,
            model: cell.resolved.model.clone(),
        },
        process,
    })
}

impl Server for Simulated {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn lmcache_url(&self) -> Option<&str> {
        None
    }

    fn processes(&self) -> Vec<(&'static str, u32)> {
        self.process
            .id()
            .map(|id| ("sim", id))
            .into_iter()
            .collect()
    }

    fn exited(&mut self) -> BoxFuture<'_, String> {
        self.process.exited().boxed()
    }

    fn stop(
        self: Box<Self>,
        grace: Duration,
        at_once: CancellationToken,
    ) -> BoxFuture<'static, Stopped> {
        self.process.stop(grace, at_once).boxed()
    }
}
