//! The built-in simulator as a server, in a process of its own.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::control::Endpoint;
use super::group::{ProcessGroup, Stopped};
use super::render::Rendered;
use super::vllm_tier::{self, Region};
use super::{LaunchScope, SERVER_LOG, Server, environment, free_port, leftovers, private};
use crate::matrix::Cell;

/// Name of the file that describes the simulated machine.
pub(super) const SPEC_FILE: &str = "sim.json";

/// The program that runs. Not by its path: a rebuild during a long run puts another file
/// there. The kernel's link leads to the file that was started, even after its removal.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// A running `labrun sim`.
#[derive(Debug)]
pub(crate) struct Simulated {
    endpoint: Endpoint,
    process: ProcessGroup,
}

/// Checks that the simulator has what the tier of `cell` asks for.
pub(super) fn check(cell: &Cell) -> Result<()> {
    ensure!(
        cell.tier.settings.get("lazy_offload") != Some(&true.into()),
        "tier `{}`: the simulator has no model of `lazy_offload`; leave it out, or run on a GPU",
        cell.tier.name
    );
    Ok(())
}

/// Starts `labrun sim` for `cell`.
pub(crate) fn launch(
    cell: &Cell,
    rendered: Option<&Rendered>,
    scope: LaunchScope<'_>,
) -> Result<Simulated> {
    let port = free_port()?;
    write_spec(cell, scope.folder)?;
    let mut command = Command::new(OWN_PROGRAM);
    let config = rendered.map(|rendered| private::path(rendered, &scope));
    environment::for_helper(&mut command);
    let spec = scope.folder.join(SPEC_FILE);
    command
        .arg0("labrun")
        .args(arguments(
            cell,
            ("127.0.0.1", port),
            &spec,
            config.as_deref(),
            Region {
                scratch: scope.scratch,
                engine_id: &leftovers::shared_memory_name(scope.mark, port),
            },
        ))
        .arg("--exit-with-parent")
        .stdin(Stdio::piped());
    let log = scope.folder.join(SERVER_LOG);
    let process = ProcessGroup::start("the simulator", command, &log, scope.mark)?;
    let url = format!("http://127.0.0.1:{port}");
    Ok(Simulated {
        endpoint: Endpoint {
            url,
            model: cell.resolved.model.clone(),
            api_key: None,
        },
        process,
    })
}

/// Writes what the simulator of `cell` pretends to be into `folder`.
pub(super) fn write_spec(cell: &Cell, folder: &Path) -> Result<()> {
    let spec = folder.join(SPEC_FILE);
    std::fs::write(&spec, serde_json::to_vec_pretty(&cell.resolved.server.sim)?)
        .with_context(|| format!("writing `{}`", spec.display()))
}

/// Arguments of `labrun` that serve `cell`, listening at `address`.
pub(super) fn arguments(
    cell: &Cell,
    address: (&str, u16),
    spec: &Path,
    config: Option<&Path>,
    region: Region<'_>,
) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["sim".into()];
    // One word: a value that begins with dashes is not read as an option.
    let mut add = |name: &str, value: &OsStr| {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(value);
        all.push(word);
    };
    add("--host", address.0.as_ref());
    add("--port", address.1.to_string().as_ref());
    add("--model", cell.resolved.model.as_ref());
    add("--spec", spec.as_ref());
    if let Some(config) = config {
        add("--lmcache-config", config.as_ref());
    }
    all.extend(
        vllm_tier::arguments(&cell.tier, region)
            .into_iter()
            .map(OsString::from),
    );
    if !cell.resolved.server.gpu_prefix_cache() {
        all.push("--no-enable-prefix-caching".into());
    }
    all
}

impl Server for Simulated {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
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
