//! `vllm serve` as a process of this machine, with an `lmcache server` beside it where the plan
//! asks for one. They are stopped in the reverse order.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::arguments;
use super::control::Endpoint;
use super::facts;
use super::group::{ProcessGroup, Stopped};
use super::leftovers;
use super::metrics_dir::{self, MetricsFolder};
use super::profile;
use super::redis;
use super::render::Rendered;
use super::{
    LMCACHE_LOG, LaunchScope, SERVER_LOG, Server, absolute, environment, free_port, in_path,
    private,
};
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::lmcache_keys;
use crate::plan::server::LmcacheMode;
use crate::plan::tier::TierKind;

/// What every server's environment has.
pub(super) const ENVIRONMENT: [(&str, &str); 5] = [
    // Needed for /reset_prefix_cache.
    ("VLLM_SERVER_DEV_MODE", "1"),
    // Without it chunk keys differ between processes and restarts.
    ("PYTHONHASHSEED", "0"),
    ("VLLM_NO_USAGE_STATS", "1"),
    ("DO_NOT_TRACK", "1"),
    ("LMCACHE_TRACK_USAGE", "false"),
];

/// A running vLLM, perhaps with its LMCache server.
#[derive(Debug)]
pub(crate) struct Vllm {
    endpoint: Endpoint,
    engine: ProcessGroup,
    lmcache: Option<Sidecar>,
    /// Removed when the engine has ended.
    _metrics: Option<MetricsFolder>,
}

/// The LMCache server of multi-process mode.
#[derive(Debug)]
struct Sidecar {
    process: ProcessGroup,
    admin_url: String,
    /// The shared memory that it makes, removed after it.
    shared_memory: PathBuf,
}

/// Starts the processes of `cell`.
pub(crate) fn launch(
    cell: &Cell,
    rendered: Option<&Rendered>,
    scope: LaunchScope<'_>,
) -> Result<Vllm> {
    let server = &cell.resolved.server;
    let mut transfer = None;
    let mut lmcache = None;
    let mut config_file = None;
    match (rendered, server.lmcache) {
        (Some(rendered), LmcacheMode::InProcess) => {
            transfer = Some(json!({"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}));
            config_file = Some(absolute(&private::path(rendered, &scope))?);
        }
        (Some(rendered), LmcacheMode::MultiProcess) => {
            let port = free_port()?;
            lmcache = Some(start_lmcache(cell, rendered, port, scope)?);
            transfer = Some(json!({
                "kv_connector": "LMCacheMPConnector",
                "kv_role": "kv_both",
                "kv_connector_extra_config": {
                    "lmcache.mp.host": "tcp://127.0.0.1",
                    "lmcache.mp.port": port,
                },
            }));
        }
        (None, _) => {}
    }
    let port = free_port()?;
    let program = scope.settings.process.bin_dir.join("vllm");
    let mut line = vec![program.into_os_string(), "serve".into()];
    line.extend(vllm_arguments(
        cell,
        &model_path(cell, scope)?,
        ("127.0.0.1", port),
        transfer.as_ref(),
    ));
    let mut command = profiled(line, cell, scope)?;
    if let Some(file) = config_file {
        command.env("LMCACHE_CONFIG_FILE", file);
    }
    let wants_metrics = metrics_dir::is_wanted(cell, scope.settings);
    // Without room for it the server runs all the same: some series are missing then.
    let metrics = wants_metrics
        .then(|| MetricsFolder::make(scope.mark, scope.folder).ok())
        .flatten();
    if let Some(folder) = &metrics {
        command.env(metrics_dir::VARIABLE, folder.path());
    }
    let log = scope.folder.join(SERVER_LOG);
    let engine = ProcessGroup::start("vLLM", command, &log, scope.mark)?;
    let url = format!("http://127.0.0.1:{port}");
    let endpoint = Endpoint {
        url,
        model: cell.resolved.model.clone(),
        api_key: None,
    };
    Ok(Vllm {
        endpoint,
        engine,
        lmcache,
        _metrics: metrics,
    })
}

fn start_lmcache(
    cell: &Cell,
    rendered: &Rendered,
    port: u16,
    scope: LaunchScope<'_>,
) -> Result<Sidecar> {
    let http_port = free_port()?;
    let name = leftovers::shared_memory_name(scope.mark, port);
    let program = scope.settings.process.bin_dir.join("lmcache");
    let mut command = command(program.as_os_str(), cell, scope);
    command
        .args(["server", "--host", "127.0.0.1", "--port", &port.to_string()])
        .args([
            "--http-host",
            "127.0.0.1",
            "--http-port",
            &http_port.to_string(),
        ])
        .args(shared_memory_argument(cell, scope.settings, &name))
        .args(rendered.arguments()?)
        .args(arguments::of(&cell.resolved.server.lmcache_args));
    if cell.tier.kind == TierKind::Redis {
        command.envs(redis::adapter_login(&scope.settings.redis.url));
    }
    let log = scope.folder.join(LMCACHE_LOG);
    let process = ProcessGroup::start("the LMCache server", command, &log, scope.mark)?;
    Ok(Sidecar {
        process,
        admin_url: format!("http://127.0.0.1:{http_port}"),
        shared_memory: Path::new("/dev/shm").join(name),
    })
}

/// The argument that names the shared memory of an LMCache server, where its version has that.
pub(super) fn shared_memory_argument(cell: &Cell, settings: &Settings, name: &str) -> Vec<String> {
    let has = |version| lmcache_keys::has(LmcacheMode::MultiProcess, "shm-name", version);
    match facts::lmcache_version(cell, settings).and_then(has) {
        Some(false) => Vec::new(),
        Some(true) | None => vec!["--shm-name".to_owned(), name.to_owned()],
    }
}

/// The command lines that a launch would run, without ports.
pub(crate) fn describe(cell: &Cell, settings: &Settings) -> String {
    let vllm = settings.process.bin_dir.join("vllm");
    let mut text = format!("{} serve {}", vllm.display(), cell.resolved.model);
    let profile = cell.resolved.server.profile.as_ref();
    if let Some(profile) = profile {
        let reports = Path::new("<run>/profiles/server-<n>");
        let wrapped = profile::wrap(profile, vec![text.into()], reports);
        let words: Vec<_> = wrapped.iter().map(|word| word.to_string_lossy()).collect();
        text = words.join(" ");
        for argument in profile::vllm_arguments(profile, reports) {
            text.push(' ');
            text.push_str(&argument);
        }
    }
    for argument in arguments::of(&cell.resolved.server.args) {
        text.push(' ');
        text.push_str(&argument);
    }
    if needs_lmcache_server(cell) {
        let lmcache = settings.process.bin_dir.join("lmcache");
        let own = arguments::of(&cell.resolved.server.lmcache_args).join(" ");
        text = format!("{} server {own}\n  {text}", lmcache.display());
    }
    text
}

/// Checks that the programs of `cell` can be found, and can do what it asks.
pub(crate) fn check_programs(cell: &Cell, settings: &Settings) -> Result<()> {
    find_program("vllm", &settings.process.bin_dir)?;
    if cell.tier.kind == TierKind::Native
        && let Some(version) = facts::packages(&settings.process.bin_dir).get("vllm")
    {
        ensure!(
            !version.ends_with("+cpu"),
            "the tier `{}` needs a GPU: vLLM's own offloading copies with CUDA or XPU, and this \
             vLLM is {version}, a build for CPUs; remove the tier",
            cell.tier.name
        );
    }
    if cell
        .resolved
        .server
        .profile
        .as_ref()
        .is_some_and(|profile| profile.nsys)
    {
        find_nsys()?;
    }
    if needs_lmcache_server(cell) {
        find_program("lmcache", &settings.process.bin_dir)?;
    }
    Ok(())
}

fn needs_lmcache_server(cell: &Cell) -> bool {
    cell.tier.kind.uses_lmcache() && cell.resolved.server.lmcache == LmcacheMode::MultiProcess
}

fn find_nsys() -> Result<()> {
    ensure!(
        in_path(profile::NSYS).is_some(),
        "`{}` is not in PATH, and [profile] puts the server under it; install Nsight Systems, or \
         add `nsys = false`",
        profile::NSYS
    );
    Ok(())
}

fn find_program(name: &str, bin_dir: &Path) -> Result<()> {
    let is_there = if bin_dir.as_os_str().is_empty() {
        in_path(name).is_some()
    } else {
        bin_dir.join(name).is_file()
    };
    let place = if bin_dir.as_os_str().is_empty() {
        "PATH".to_owned()
    } else {
        format!("`{}`", bin_dir.display())
    };
    ensure!(
        is_there,
        "`{name}` is not in {place}; set `process.bin_dir` to its folder \
         (LABRUN_PROCESS__BIN_DIR=...)"
    );
    Ok(())
}

/// The command of `line`, under the profilers that the plan asks for.
fn profiled(mut line: Vec<OsString>, cell: &Cell, scope: LaunchScope<'_>) -> Result<Command> {
    let profile = cell.resolved.server.profile.as_ref();
    if let Some(profile) = profile {
        let reports = absolute(&profile::reports(scope.folder))?;
        if let Some(folder) = reports.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("making the folder `{}`", folder.display()))?;
        }
        let more = profile::vllm_arguments(profile, &reports);
        line.extend(more.into_iter().map(OsString::from));
        line = profile::wrap(profile, line, &reports);
    }
    let mut line = line.into_iter();
    let mut command = command(&line.next().unwrap_or_default(), cell, scope);
    command
        .args(line)
        .envs(profile.into_iter().flat_map(profile::environment).copied());
    Ok(command)
}

/// A command of the serving stack.
fn command(program: &OsStr, cell: &Cell, scope: LaunchScope<'_>) -> Command {
    let mut command = Command::new(program);
    environment::for_server(&mut command, scope.settings);
    command
        .envs(ENVIRONMENT)
        .envs(&scope.settings.env)
        .envs(&cell.resolved.server.env)
        .stdin(Stdio::null());
    command
}

/// The local folder of the model where there is one, else its name.
pub(super) fn model_path(cell: &Cell, scope: LaunchScope<'_>) -> Result<OsString> {
    let models = &scope.settings.paths.models;
    let local = models.join(&cell.resolved.model);
    if !models.as_os_str().is_empty() && local.is_dir() {
        return Ok(absolute(&local)?.into_os_string());
    }
    Ok(OsString::from(&cell.resolved.model))
}

/// Arguments of `vllm serve`, listening at `address`.
pub(super) fn vllm_arguments(
    cell: &Cell,
    model: &OsString,
    address: (&str, u16),
    transfer: Option<&Value>,
) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec![model.clone()];
    let mut add = |text: &str| all.push(text.into());
    add("--served-model-name");
    add(&cell.resolved.model);
    add("--host");
    add(address.0);
    add("--port");
    add(&address.1.to_string());
    add("--enable-prompt-tokens-details");
    for argument in arguments::of(&cell.resolved.server.args) {
        add(&argument);
    }
    if let Some(transfer) = transfer {
        add("--kv-transfer-config");
        add(&transfer.to_string());
    }
    if cell.tier.kind == TierKind::Native {
        add("--kv-offloading-size");
        add(&cell.tier.ram_gib().to_string());
        add("--kv-offloading-backend");
        add("native");
    }
    all
}

impl Server for Vllm {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn lmcache_url(&self) -> Option<&str> {
        self.lmcache
            .as_ref()
            .map(|lmcache| lmcache.admin_url.as_str())
    }

    fn processes(&self) -> Vec<(&'static str, u32)> {
        let vllm = self.engine.id().map(|id| ("vllm", id));
        let lmcache = self
            .lmcache
            .as_ref()
            .and_then(|l| l.process.id())
            .map(|id| ("lmcache", id));
        vllm.into_iter().chain(lmcache).collect()
    }

    fn exited(&mut self) -> BoxFuture<'_, String> {
        async {
            match &mut self.lmcache {
                None => self.engine.exited().await,
                Some(lmcache) => tokio::select! {
                    how = self.engine.exited() => how,
                    how = lmcache.process.exited() => how,
                },
            }
        }
        .boxed()
    }

    fn stop(
        self: Box<Self>,
        grace: Duration,
        at_once: CancellationToken,
    ) -> BoxFuture<'static, Stopped> {
        async move {
            let stopped = self.engine.stop(grace, at_once.clone()).await;
            if let Some(lmcache) = self.lmcache {
                lmcache.process.stop(grace, at_once).await;
                // A killed LMCache server leaves its pool in memory; a polite one has removed it.
                let _gone = std::fs::remove_file(lmcache.shared_memory);
            }
            stopped
        }
        .boxed()
    }
}
