//! The containers of a cell as `docker run` commands, for those who want to start them by hand.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result};
use bollard::models::{ContainerCreateBody, DeviceRequest, HostConfig};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::super::command_line::{CommandLine, SERVER_SCRIPT, quoted};
use super::super::leftovers::Mark;
use super::super::render::Rendered;
use super::super::{LaunchScope, arguments, process};
use super::body::{self, Basis, LMCACHE_NAME, LMCACHE_PORTS, SERVER_PORT};
use super::image::Image;
use super::labels::Labels;
use super::{has_lmcache_server, has_own_redis, lmcache_image, spec_of};
use crate::config::Settings;
use crate::matrix::Cell;
use crate::record::redact;

/// Name of the cell's own network in a script.
const NETWORK: &str = "labrun-cell";

/// The commands of one cell's containers, in their order.
#[derive(Debug, Default)]
pub(super) struct Script {
    commands: Vec<String>,
    /// Variables whose values no command shows.
    secrets: Vec<String>,
    /// The cell's own network, as labrun calls it.
    network: Option<String>,
}

impl Script {
    /// A script of containers that get `secrets`.
    pub(super) fn new(secrets: Vec<String>) -> Self {
        Self {
            secrets,
            ..Self::default()
        }
    }

    /// The containers are on a network of their own.
    pub(super) fn on_network(&mut self, name: &str) {
        self.network = Some(name.to_owned());
    }

    /// Adds the container `role` of `image`; files in `folder` will lie beside the script.
    pub(super) fn add(
        &mut self,
        role: &str,
        image: &str,
        body: &ContainerCreateBody,
        folder: &Path,
    ) {
        let command = self.command(role, image, body);
        let shown = folder.to_string_lossy();
        let command = if quoted(&shown) == shown {
            command.replace(shown.as_ref(), "\"$PWD\"")
        } else {
            command
        };
        self.commands.push(command);
    }

    /// Writes the script into `folder`. It can be read, whatever a path or a name holds.
    pub(super) fn write(&self, cell: &Cell, folder: &Path) -> Result<()> {
        let path = folder.join(SERVER_SCRIPT);
        std::fs::write(&path, self.text(cell))
            .with_context(|| format!("writing `{}`", path.display()))
    }

    /// The whole script.
    pub(super) fn text(&self, cell: &Cell) -> String {
        let mut text = format!(
            "#!/bin/sh\n# The containers of cell {}\n# Secrets are taken from the environment.\n\
             cd \"$(dirname \"$0\")\" || exit 1\n",
            cell.id
        );
        let mut ends = Vec::new();
        if self.commands.len() > 1 {
            ends.push("docker rm --force labrun-redis labrun-lmcache 2>/dev/null");
        }
        if self.network.is_some() {
            ends.push("docker network rm labrun-cell");
        }
        if !ends.is_empty() {
            text.push_str(&format!("trap '{}' EXIT\n", ends.join("; ")));
        }
        if self.network.is_some() {
            text.push_str(&format!("docker network create {NETWORK}\n"));
        }
        for command in &self.commands {
            text.push_str(&format!("\n{command}\n"));
        }
        redact::text(&text)
    }

    fn command(&self, role: &str, image: &str, body: &ContainerCreateBody) -> String {
        let mut words = vec!["docker".to_owned(), "run".to_owned(), "--rm".to_owned()];
        let is_last = ["vllm", "sim"].contains(&role);
        if !is_last {
            words.push("--detach".to_owned());
        }
        let mut add = |name: &str, value: &str| {
            words.push(format!("--{name}"));
            words.push(value.to_owned());
        };
        add("name", &format!("labrun-{role}"));
        if let Some(user) = &body.user {
            add("user", user);
        }
        if let Some(host) = &body.host_config {
            self.host(host, &mut add);
        }
        let endpoints = body.networking_config.as_ref();
        let endpoints = endpoints.and_then(|config| config.endpoints_config.as_ref());
        for endpoint in endpoints.into_iter().flatten() {
            for alias in endpoint.1.aliases.iter().flatten() {
                add("network-alias", alias);
            }
        }
        for line in body.env.iter().flatten() {
            if !line.starts_with("HF_TOKEN_PATH=") {
                add("env", line);
            }
        }
        if role != "redis" {
            for name in &self.secrets {
                add("env", name);
            }
        }
        let mut command = body.entrypoint.clone().unwrap_or_default();
        // Secrets that a wrapper reads from a file are given as variables here.
        if command.first().is_some_and(|word| word == "sh")
            && command.get(3).is_some_and(|word| word == "labrun")
        {
            command.drain(..4);
        }
        let mut command = command.into_iter();
        if let Some(program) = command.next() {
            add("entrypoint", &program);
        }
        words.push(image.to_owned());
        words.extend(command);
        words.extend(body.cmd.clone().unwrap_or_default());
        let words = words.into_iter().map(OsString::from).collect();
        CommandLine {
            words,
            ..CommandLine::default()
        }
        .shell()
    }

    fn host(&self, host: &HostConfig, add: &mut impl FnMut(&str, &str)) {
        if let Some(network) = &host.network_mode {
            let is_own = self.network.as_ref() == Some(network);
            add("network", if is_own { NETWORK } else { network });
        }
        if let Some(ipc) = &host.ipc_mode {
            // By its id, which another start does not have.
            let is_sidecar = self.network.is_some() && ipc.starts_with("container:");
            add(
                "ipc",
                if is_sidecar {
                    "container:labrun-lmcache"
                } else {
                    ipc
                },
            );
        }
        if let Some(bytes) = host.shm_size {
            add("shm-size", &bytes.to_string());
        }
        for limit in host.ulimits.iter().flatten() {
            let (soft, hard) = (limit.soft.unwrap_or(-1), limit.hard.unwrap_or(-1));
            let name = limit.name.as_deref().unwrap_or_default();
            add("ulimit", &format!("{name}={soft}:{hard}"));
        }
        for request in host.device_requests.iter().flatten() {
            devices(request, add);
        }
        if let Some(cpus) = &host.cpuset_cpus {
            add("cpuset-cpus", cpus);
        }
        if let Some(bytes) = host.memory {
            add("memory", &bytes.to_string());
        }
        let is_secret = |bind: &&String| bind.contains("/hf_token:") || bind.contains("/secrets:");
        for bind in host.binds.iter().flatten().filter(|bind| !is_secret(bind)) {
            add("volume", bind);
        }
        for (path, options) in host.tmpfs.iter().flatten() {
            add("tmpfs", &format!("{path}:{options}"));
        }
        for (inside, bindings) in host.port_bindings.iter().flatten() {
            let port = inside.trim_end_matches("/tcp");
            for binding in bindings.iter().flatten() {
                let outside = binding.host_port.as_deref().unwrap_or_default();
                let address = binding.host_ip.as_deref().unwrap_or("127.0.0.1");
                add("publish", &format!("{address}:{outside}:{port}"));
            }
        }
    }
}

fn devices(request: &DeviceRequest, add: &mut impl FnMut(&str, &str)) {
    match (&request.device_ids, request.count) {
        (Some(ids), _) if request.driver.as_deref() == Some("cdi") => {
            for id in ids {
                add("device", id);
            }
        }
        (Some(ids), _) => add("gpus", &format!("\"device={}\"", ids.join(","))),
        (None, Some(-1)) => add("gpus", "all"),
        (None, Some(count)) => add("gpus", &count.to_string()),
        (None, None) => {}
    }
}

/// A script that starts what a launch would.
///
/// # Errors
/// A mount that is not there.
pub(crate) fn before_a_start(
    cell: &Cell,
    rendered: Option<&Rendered>,
    settings: &Settings,
) -> Result<String> {
    let spec = spec_of(cell)?;
    let mark = Mark::of_this_process("plan");
    let (folder, cancel) = (Path::new("<run>"), CancellationToken::new());
    let scope = LaunchScope {
        settings,
        mark: &mark,
        folder,
        scratch: &folder.join("scratch"),
        cancel: &cancel,
    };
    let has_token = std::env::var_os("HF_TOKEN").is_some_and(|token| !token.is_empty());
    let token = has_token.then(|| "HF_TOKEN".to_owned());
    let mut script = Script::new(token.into_iter().chain(spec.secrets.clone()).collect());
    let with_network = !body::is_on_host(spec) && (has_own_redis(cell) || has_lmcache_server(cell));
    if with_network {
        script.on_network(NETWORK);
    }
    let labels = Labels::new(&mark, &cell.id);
    let basis = Basis {
        cell,
        spec,
        scope,
        labels: &labels,
        secrets: None,
        network: with_network.then_some(NETWORK),
    };
    let shown = super::super::absolute(folder)?;
    let image = |name: &str| Image {
        name: name.to_owned(),
        id: name.to_owned(),
        ..Image::default()
    };
    if has_own_redis(cell) {
        let body = basis.redis(&image(&spec.redis_image));
        script.add("redis", &spec.redis_image, &body, &shown);
    }
    let mut transfer =
        rendered.map(|_| json!({"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}));
    if let Some(rendered) = rendered.filter(|_| has_lmcache_server(cell)) {
        let mut own = process::shared_memory_argument(cell, settings, "labrun");
        own.extend(rendered.arguments()?);
        own.extend(arguments::of(&cell.resolved.server.lmcache_args));
        let name = lmcache_image(spec);
        let body = basis.lmcache(&image(name), own, LMCACHE_PORTS)?;
        script.add("lmcache", name, &body, &shown);
        let host = if body::is_on_host(spec) {
            "127.0.0.1"
        } else {
            LMCACHE_NAME
        };
        transfer = Some(super::launch::mp_transfer(host, LMCACHE_PORTS.0));
    }
    let yaml = rendered.filter(|_| !has_lmcache_server(cell));
    let mut body = basis.server(&image(&spec.image), yaml, transfer.as_ref(), SERVER_PORT)?;
    if spec.ipc.is_empty() && has_lmcache_server(cell) {
        // What they share of the CPU's memory lies in one /dev/shm.
        let host = body.host_config.get_or_insert_default();
        host.ipc_mode = Some("container:labrun-lmcache".to_owned());
        host.shm_size = None;
    }
    let role = if spec.simulator { "sim" } else { "vllm" };
    script.add(role, &spec.image, &body, &shown);
    Ok(script.text(cell))
}
