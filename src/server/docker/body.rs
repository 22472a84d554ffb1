//! What each container of a cell is created with. Pure: nothing here asks the daemon.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bollard::models::{
    ContainerCreateBody, DeviceRequest, EndpointSettings, HostConfig, HostConfigLogConfig,
    NetworkingConfig, PortBinding, ResourcesUlimits,
};
use serde_json::Value;

use super::super::leftovers;
use super::super::metrics_dir;
use super::super::process::{self, ENVIRONMENT};
use super::super::render::Rendered;
use super::super::vllm_tier::Region;
use super::super::{LaunchScope, absolute, private, simulated};
use super::image::Image;
use super::labels::Labels;
use super::profiled::Line;
use super::secrets::{INSIDE, Secrets};
use crate::matrix::Cell;
use crate::plan::docker_spec::{DockerSpec, Gpus};
use crate::plan::tier::TierKind;
use crate::secret;

/// Port of the server inside its container.
pub(super) const SERVER_PORT: u16 = 8000;
/// Ports of the LMCache server inside its container: messages, and administration.
pub(super) const LMCACHE_PORTS: (u16, u16) = (5555, 8080);
/// Port of Redis inside its container.
pub(super) const REDIS_PORT: u16 = 6379;
/// Names on the cell's own network.
pub(super) const LMCACHE_NAME: &str = "labrun-lmcache";
/// Name of Redis on the cell's own network.
pub(super) const REDIS_NAME: &str = "labrun-redis";
/// Where the Hugging Face cache is inside.
const HF_HOME: &str = "/run/labrun/huggingface";
/// Where LMCache in vLLM's own process leaves its metrics inside.
const METRICS: &str = "/run/labrun/metrics";

/// Everything that the bodies of a cell's containers depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Basis<'a> {
    pub cell: &'a Cell,
    /// What its container gets.
    pub spec: &'a DockerSpec,
    /// Where it is launched.
    pub scope: LaunchScope<'a>,
    /// The labels of all that is made for it.
    pub labels: &'a Labels,
    /// Its secrets, where it has any.
    pub secrets: Option<&'a Secrets>,
    /// The network of its own, where containers must reach each other.
    pub network: Option<&'a str>,
}

/// Whether the container shares the machine's network. Then no port is published.
pub(super) fn is_on_host(spec: &DockerSpec) -> bool {
    spec.network == "host"
}

impl Basis<'_> {
    /// The server under test: vLLM, or the simulator.
    pub(super) fn server(
        &self,
        image: &Image,
        rendered: Option<&Rendered>,
        transfer: Option<&Value>,
        port: u16,
    ) -> Result<ContainerCreateBody> {
        let mut binds = self.binds()?;
        let mut environment = self.environment();
        let host = if is_on_host(self.spec) {
            "127.0.0.1"
        } else {
            "0.0.0.0"
        };
        let role = if self.spec.simulator { "sim" } else { "vllm" };
        let mut config = None;
        if let Some(rendered) = rendered {
            let inside = format!("{INSIDE}/{}", rendered.file_name);
            let file = absolute(&private::path(rendered, &self.scope))?;
            binds.push(format!("{}:{inside}:ro", file.display()));
            config = Some(inside);
        }
        let arguments = if self.spec.simulator {
            let spec = absolute(&self.scope.folder.join(simulated::SPEC_FILE))?;
            let inside = format!("{INSIDE}/{}", simulated::SPEC_FILE);
            binds.push(format!("{}:{inside}:ro", spec.display()));
            let mut arguments = simulated::arguments(
                self.cell,
                (host, port),
                Path::new(&inside),
                config.as_deref().map(Path::new),
                self.region(&leftovers::shared_memory_name(self.scope.mark, port)),
            );
            if super::has_own_redis(self.cell) {
                // The tier of a real server survives a restart too.
                arguments.push("--keep-redis".into());
            }
            arguments
        } else {
            if let Some(config) = config {
                environment.insert("LMCACHE_CONFIG_FILE".to_owned(), config);
            }
            let model = process::model_path(self.cell, self.scope.settings)?;
            self.vllm_arguments(&model, (host, port), transfer)
        };
        let arguments = arguments
            .into_iter()
            .map(|argument| argument.to_string_lossy().into_owned());
        let mut line = Line {
            command: self.spec.command.clone(),
            arguments: arguments.collect(),
            binds: &mut binds,
            environment: &mut environment,
        };
        if let Some(profile) = &self.cell.resolved.server.profile {
            line = line.under(profile, self.scope.folder)?;
        }
        let Line {
            command, arguments, ..
        } = line;
        let mut body = self.body(image, role, &command, arguments);
        body.env = Some(lines(&environment, image));
        let host_config = body.host_config.get_or_insert_default();
        host_config.binds = Some(binds);
        if self.cell.tier.kind == TierKind::NativeFs && self.has_own_memory() {
            // Its pool in RAM is a file there.
            host_config.shm_size = Some(self.pool_bytes());
        }
        // In memory, empty at each start, and writable for whichever user the server runs as.
        let in_memory = || HashMap::from([(METRICS.to_owned(), "mode=1777".to_owned())]);
        host_config.tmpfs = self.has_metrics().then(in_memory);
        if !is_on_host(self.spec) {
            let outside = self
                .spec
                .port
                .map_or(String::new(), |port| port.to_string());
            publish(&mut body, port, &outside);
        }
        Ok(body)
    }

    fn vllm_arguments(
        &self,
        model: &OsString,
        address: (&str, u16),
        transfer: Option<&Value>,
    ) -> Vec<OsString> {
        let engine_id = leftovers::shared_memory_name(self.scope.mark, address.1);
        let region = self.region(&engine_id);
        process::vllm_arguments(self.cell, model, address, transfer, region)
    }

    fn region<'a>(&'a self, engine_id: &'a str) -> Region<'a> {
        Region {
            scratch: self.scope.scratch,
            engine_id,
        }
    }

    /// The LMCache server of multi-process mode.
    pub(super) fn lmcache(
        &self,
        image: &Image,
        arguments: Vec<String>,
        ports: (u16, u16),
    ) -> Result<ContainerCreateBody> {
        let host = if is_on_host(self.spec) {
            "127.0.0.1"
        } else {
            "0.0.0.0"
        };
        let (port, http_port) = (ports.0.to_string(), ports.1.to_string());
        let own = [
            "--host",
            host,
            "--port",
            &port,
            "--http-host",
            host,
            "--http-port",
            &http_port,
        ];
        let mut all: Vec<String> = own.map(str::to_owned).into();
        all.extend(arguments);
        let mut body = self.body(image, "lmcache", &self.spec.lmcache_command, all);
        body.env = Some(lines(&self.environment(), image));
        let binds = self.binds()?;
        let host_config = body.host_config.get_or_insert_default();
        host_config.binds = Some(binds);
        if self.spec.ipc.is_empty() {
            // The engine hands memory to it, and joins this.
            host_config.ipc_mode = Some("shareable".to_owned());
        }
        if self.has_own_memory() {
            // A limit, not an allocation: the pool may lie there.
            host_config.shm_size = Some(self.pool_bytes());
        }
        if !is_on_host(self.spec) {
            self.join(&mut body, LMCACHE_NAME);
            publish(&mut body, ports.1, "");
        }
        Ok(body)
    }

    /// A Redis that keeps nothing on disk.
    pub(super) fn redis(&self, image: &Image) -> ContainerCreateBody {
        let command = ["redis-server".to_owned()];
        let arguments = [
            "--save",
            "",
            "--appendonly",
            "no",
            "--bind",
            "0.0.0.0",
            "--protected-mode",
            "no",
        ];
        let mut body = self.body(
            image,
            "redis",
            &command,
            arguments.map(str::to_owned).into(),
        );
        let host_config = body.host_config.get_or_insert_default();
        host_config.device_requests = None;
        host_config.ipc_mode = None;
        host_config.shm_size = None;
        host_config.cpuset_cpus = None;
        host_config.memory = None;
        body.user = None;
        body.entrypoint = Some(command.into());
        self.join(&mut body, REDIS_NAME);
        publish(&mut body, REDIS_PORT, "");
        body
    }

    fn body(
        &self,
        image: &Image,
        role: &str,
        command: &[String],
        arguments: Vec<String>,
    ) -> ContainerCreateBody {
        let spec = self.spec;
        let named = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let size = |bytes: Option<u64>| bytes.and_then(|bytes| i64::try_from(bytes).ok());
        let command = self
            .secrets
            .map_or_else(|| command.to_vec(), |secrets| secrets.wrapped(command));
        let ulimits = spec.ulimits.iter().map(|(name, limit)| ResourcesUlimits {
            name: Some(name.clone()),
            soft: Some(limit.soft),
            hard: Some(limit.hard),
        });
        let network = self
            .network
            .map(str::to_owned)
            .or_else(|| named(&spec.network));
        ContainerCreateBody {
            image: Some(image.id.clone()),
            entrypoint: Some(command),
            cmd: Some(arguments),
            user: named(&spec.user),
            labels: Some(self.labels.of(role)),
            host_config: Some(HostConfig {
                network_mode: network,
                ipc_mode: named(&spec.ipc),
                shm_size: size(spec.shm_size_bytes),
                ulimits: Some(ulimits.collect()),
                device_requests: device_requests(&spec.gpus),
                cpuset_cpus: named(&spec.cpuset),
                memory: size(spec.memory_bytes),
                // Whatever the daemon's own driver is, its log can be followed.
                log_config: Some(HostConfigLogConfig {
                    typ: Some("json-file".to_owned()),
                    config: None,
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// Makes `body` reachable under `name` on the cell's own network.
    fn join(&self, body: &mut ContainerCreateBody, name: &str) {
        let Some(network) = self.network else { return };
        let endpoint = EndpointSettings {
            aliases: Some(vec![name.to_owned()]),
            ..EndpointSettings::default()
        };
        body.networking_config = Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.to_owned(), endpoint)])),
        });
    }

    /// What both the engine and an LMCache server see of the host.
    fn binds(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        if self.cell.tier.kind.uses_disk() {
            // At the same path, since the rendered configuration names it.
            let scratch = self.scope.scratch.display();
            all.push(format!("{scratch}:{scratch}"));
        }
        if !self.spec.simulator {
            let model = process::model_path(self.cell, self.scope.settings)?;
            let model = Path::new(&model);
            if model.is_absolute() {
                all.push(format!("{0}:{0}:ro", model.display()));
            }
            if let Some(cache) = self.hf_cache() {
                all.push(format!("{}:{HF_HOME}", cache.display()));
            }
        }
        for mount in &self.spec.mounts {
            let mode = if mount.read_only { "ro" } else { "rw" };
            let source = at_home(&mount.source)?;
            anyhow::ensure!(
                source.exists(),
                "`{}` in `mounts` is not there; Docker would make an empty folder of it",
                source.display()
            );
            all.push(format!("{}:{}:{mode}", source.display(), mount.target));
        }
        all.extend(self.secrets.map(Secrets::binds).unwrap_or_default());
        Ok(all)
    }

    /// The Hugging Face cache of the machine, where there is one.
    fn hf_cache(&self) -> Option<PathBuf> {
        let named = &self.scope.settings.docker.hf_cache;
        let set = Some(named.clone()).filter(|path| !path.as_os_str().is_empty());
        let folder = set
            .or_else(|| std::env::var_os("HF_HOME").map(PathBuf::from))
            .or_else(|| Some(std::env::home_dir()?.join(".cache/huggingface")))?;
        std::path::absolute(folder)
            .ok()
            .filter(|folder| folder.is_dir())
    }

    /// Whether the size of the container's /dev/shm is labrun's to say.
    fn has_own_memory(&self) -> bool {
        self.spec.shm_size_bytes.is_none() && self.spec.ipc != "host"
    }

    /// What /dev/shm holds with the tier's pool in it.
    fn pool_bytes(&self) -> i64 {
        let pool = self.cell.tier.ram_gib() * f64::from(1 << 30);
        pool as i64 + (1 << 30)
    }

    fn has_metrics(&self) -> bool {
        !self.spec.simulator && metrics_dir::is_wanted(self.cell, self.scope.settings)
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        if self.has_metrics() {
            all.insert(metrics_dir::VARIABLE.to_owned(), METRICS.to_owned());
        }
        if !self.spec.simulator && self.hf_cache().is_some() {
            all.insert("HF_HOME".to_owned(), HF_HOME.to_owned());
        }
        all.extend(ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let machine = self.scope.settings.env.iter();
        all.extend(
            machine
                .filter(|(name, _)| !secret::name::is_secret(name))
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        all.extend(self.cell.resolved.server.env.clone());
        if let Some(line) = self.secrets.and_then(Secrets::environment)
            && let Some((name, value)) = line.split_once('=')
        {
            all.insert(name.to_owned(), value.to_owned());
        }
        all
    }
}

/// The environment as Docker takes it. A name alone takes the image's value out: a stray LMCACHE_*
/// would silently override the rendered file.
fn lines(environment: &BTreeMap<String, String>, image: &Image) -> Vec<String> {
    let stray = image
        .env
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name);
    let stray =
        stray.filter(|name| name.starts_with("LMCACHE_") && !environment.contains_key(*name));
    let mut all: Vec<String> = stray.map(str::to_owned).collect();
    all.extend(
        environment
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    all
}

/// `path` with the home folder for a leading `~`.
fn at_home(path: &Path) -> Result<PathBuf> {
    match path.strip_prefix("~") {
        Ok(rest) => {
            let home = std::env::home_dir().context("finding the home folder")?;
            Ok(home.join(rest))
        }
        Err(_) => Ok(path.to_owned()),
    }
}

/// Publishes `port` on 127.0.0.1; on a free port where `outside` is empty.
fn publish(body: &mut ContainerCreateBody, port: u16, outside: &str) {
    let inside = format!("{port}/tcp");
    let binding = PortBinding {
        host_ip: Some("127.0.0.1".to_owned()),
        host_port: Some(outside.to_owned()),
    };
    body.exposed_ports = Some(vec![inside.clone()]);
    let host_config = body.host_config.get_or_insert_default();
    host_config.port_bindings = Some(HashMap::from([(inside, Some(vec![binding]))]));
}

/// The GPUs, as Docker is asked for them.
pub(crate) fn device_requests(gpus: &Gpus) -> Option<Vec<DeviceRequest>> {
    let (count, device_ids) = match gpus {
        Gpus::None => return None,
        Gpus::All => (Some(-1), None),
        Gpus::Count(count) => (Some(i64::from(*count)), None),
        Gpus::Ids(ids) => (None, Some(ids.clone())),
    };
    // A name with `=` is CDI's (`nvidia.com/gpu=0`).
    let is_cdi = device_ids.iter().flatten().any(|id| id.contains('='));
    Some(vec![DeviceRequest {
        driver: is_cdi.then(|| "cdi".to_owned()),
        count,
        device_ids,
        capabilities: (!is_cdi).then(|| vec![vec!["gpu".to_owned()]]),
        options: None,
    }])
}

#[cfg(test)]
mod tests;
