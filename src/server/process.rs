//! `vllm serve` as a process of this machine, with an `lmcache server` beside it where the plan
//! asks for one. They are stopped in the reverse order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, select_all};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::adapter;
use super::arguments;
use super::command_line::{self, CommandLine, SERVER_SCRIPT, TEMPORARY, quoted};
use super::connector::{self, Side, Values, Watched};
use super::control::Endpoint;
use super::facts;
use super::group::{ProcessGroup, Stopped};
use super::leftovers;
use super::metrics_dir::{self, MetricsFolder};
use super::profile;
use super::ready::ReadyError;
use super::render::Rendered;
use super::side::{self, Start};
use super::vllm_tier::{self, Region};
use super::{LMCACHE_LOG, LaunchScope, SERVER_LOG, Server, absolute, free_port, in_path, private};
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::connector::SideSpec;
use crate::plan::lmcache_keys;
use crate::plan::placeholder;
use crate::plan::server::LmcacheMode;

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
    /// Absent while it waits for what runs beside it.
    engine: Option<ProcessGroup>,
    lmcache: Option<Sidecar>,
    /// Side processes of a connector's tier, in the order of their start.
    sides: Vec<side::Running>,
    waiting: Option<Waiting>,
    watched: Option<Watched>,
    /// Its name, which is in those of its shared memory.
    engine_id: String,
    /// Removed when the engine has ended.
    _metrics: Option<MetricsFolder>,
}

/// What is started once a server has been launched: side processes, and vLLM behind them.
#[derive(Debug)]
struct Waiting {
    sides: Vec<Side>,
    engine: CommandLine,
    with: Start,
}

/// The LMCache server of multi-process mode.
#[derive(Debug)]
struct Sidecar {
    process: ProcessGroup,
    admin_url: String,
    /// The shared memory that it makes, removed after it.
    shared_memory: PathBuf,
}

/// What the command lines of a cell hold besides the plan's values.
#[derive(Debug)]
struct Places {
    /// Port of vLLM.
    port: u16,
    /// Ports of the LMCache server: messages, and administration.
    lmcache_ports: (u16, u16),
    /// Name of the LMCache server's shared memory.
    shared_memory: String,
    /// The rendered file of in-process mode.
    config_file: PathBuf,
    /// Where profilers write, without extension.
    reports: PathBuf,
    /// Where LMCache in vLLM's process leaves its metrics.
    metrics: Option<OsString>,
    /// Where a tier of vLLM's own keeps its files.
    scratch: PathBuf,
    /// The engine's name, where such a tier needs one.
    engine_id: String,
    /// Ports that a connector's tier asks for, by name.
    ports: BTreeMap<String, u16>,
}

/// The programs of a cell.
#[derive(Debug)]
struct Programs {
    lmcache: Option<CommandLine>,
    sides: Vec<Side>,
    engine: CommandLine,
}

impl Programs {
    fn new(
        cell: &Cell,
        rendered: Option<&Rendered>,
        settings: &Settings,
        places: &Places,
    ) -> Result<Self> {
        let mode = cell.resolved.server.lmcache;
        let own = rendered.filter(|_| mode == LmcacheMode::MultiProcess);
        let transfer = rendered.map(|_| match mode {
            LmcacheMode::InProcess => {
                json!({"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"})
            }
            LmcacheMode::MultiProcess => json!({
                "kv_connector": "LMCacheMPConnector",
                "kv_role": "kv_both",
                "kv_connector_extra_config": {
                    "lmcache.mp.host": "tcp://127.0.0.1",
                    "lmcache.mp.port": places.lmcache_ports.0,
                },
            }),
        });
        let mut engine = Self::engine(cell, settings, places, transfer.as_ref())?;
        if rendered.is_some() && mode == LmcacheMode::InProcess {
            engine.set("LMCACHE_CONFIG_FILE", &places.config_file);
        }
        if let Some(folder) = &places.metrics {
            engine.set(metrics_dir::VARIABLE, folder);
        }
        let lmcache = own.map(|rendered| Self::lmcache(cell, rendered, settings, places));
        let mut sides = Vec::new();
        if let Some(connector) = &cell.tier.connector {
            let values = places.values();
            engine.words.extend(
                connector::arguments(connector, &values)
                    .into_iter()
                    .map(OsString::from),
            );
            engine
                .environment
                .extend(connector::environment(&connector.env, &values));
            for side in &connector.sides {
                let own = environment(cell, settings);
                sides.push(Side::new(side, &values, own, |name| {
                    side_program(name, settings)
                })?);
            }
        }
        Ok(Self {
            lmcache: lmcache.transpose()?,
            sides,
            engine,
        })
    }

    fn engine(
        cell: &Cell,
        settings: &Settings,
        places: &Places,
        transfer: Option<&Value>,
    ) -> Result<CommandLine> {
        let mut words = vec![program("vllm", settings)?, "serve".into()];
        let model = model_path(cell, settings)?;
        let address = ("127.0.0.1", places.port);
        let region = Region {
            scratch: &places.scratch,
            engine_id: &places.engine_id,
        };
        words.extend(vllm_arguments(cell, &model, address, transfer, region));
        let mut environment = environment(cell, settings);
        if let Some(profile) = &cell.resolved.server.profile {
            let more = profile::vllm_arguments(profile, &places.reports);
            words.extend(more.into_iter().map(OsString::from));
            words = profile::wrap(profile, words, &places.reports);
            let own = profile::environment(profile).iter();
            environment.extend(own.map(|(name, value)| ((*name).to_owned(), (*value).into())));
        }
        Ok(CommandLine { words, environment })
    }

    fn lmcache(
        cell: &Cell,
        rendered: &Rendered,
        settings: &Settings,
        places: &Places,
    ) -> Result<CommandLine> {
        let (port, http_port) = places.lmcache_ports;
        let listens = [
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--http-host",
            "127.0.0.1",
            "--http-port",
            &http_port.to_string(),
        ]
        .map(str::to_owned);
        let arguments = listens
            .into_iter()
            .chain(shared_memory_argument(
                cell,
                settings,
                &places.shared_memory,
            ))
            .chain(rendered.arguments()?)
            .chain(arguments::of(&cell.resolved.server.lmcache_args));
        let mut words = vec![program("lmcache", settings)?];
        words.extend(arguments.map(OsString::from));
        let mut environment = environment(cell, settings);
        let login = adapter::login(cell.tier.kind, &settings.redis.url).into_iter();
        environment.extend(login.map(|(name, value)| (name.to_owned(), value.into())));
        Ok(CommandLine { words, environment })
    }

    /// A script that starts them, with `scratch` as the scratch folder.
    fn script(&self, cell: &Cell, scratch: &Path) -> String {
        let folder = cell.tier.connector.iter();
        let folder = folder.map(|_| format!("mkdir -p {}", quoted(&scratch.to_string_lossy())));
        let lmcache = self
            .lmcache
            .iter()
            .map(|line| format!("{} &", line.shell()));
        let sides = self.sides.iter().map(side::shell);
        let before: Vec<String> = folder.chain(lmcache).chain(sides).collect();
        let about = format!("The server of cell {}", cell.id);
        command_line::script(&about, &before, &self.engine.shell())
    }
}

/// A program that the plan names for a side process: of `process.bin_dir` where it is there.
fn side_program(name: &str, settings: &Settings) -> Result<OsString> {
    let own = settings.process.bin_dir.join(name);
    if !name.contains('/') && !settings.process.bin_dir.as_os_str().is_empty() && own.is_file() {
        return Ok(absolute(&own)?.into_os_string());
    }
    Ok(name.into())
}

/// The program `name`, wherever it is started from.
fn program(name: &str, settings: &Settings) -> Result<OsString> {
    let folder = &settings.process.bin_dir;
    if folder.as_os_str().is_empty() {
        return Ok(name.into());
    }
    Ok(absolute(&folder.join(name))?.into_os_string())
}

/// The environment of every program of `cell`.
fn environment(cell: &Cell, settings: &Settings) -> Vec<(String, OsString)> {
    let fixed = ENVIRONMENT.iter().map(|(name, value)| (*name, *value));
    let machine = settings
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let plan = cell.resolved.server.env.iter();
    let plan = plan.map(|(name, value)| (name.as_str(), value.as_str()));
    let all = fixed.chain(machine).chain(plan);
    all.map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

/// Starts the processes of `cell`.
pub(crate) fn launch(
    cell: &Cell,
    rendered: Option<&Rendered>,
    scope: LaunchScope<'_>,
) -> Result<Vllm> {
    let wants_metrics = metrics_dir::is_wanted(cell, scope.settings);
    // Without room for it the server runs all the same: some series are missing then.
    let metrics = wants_metrics
        .then(|| MetricsFolder::make(scope.mark, scope.folder).ok())
        .flatten();
    let mut places = Places::of_a_start(cell, rendered, scope)?;
    places.metrics = metrics.as_ref().map(|folder| folder.path().into());
    let programs = Programs::new(cell, rendered, scope.settings, &places)?;
    let lmcache = programs
        .lmcache
        .as_ref()
        .map(|line| start_lmcache(line, &places, scope))
        .transpose()?;
    if cell.resolved.server.profile.is_some()
        && let Some(folder) = places.reports.parent()
    {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("making the folder `{}`", folder.display()))?;
    }
    let with = Start {
        settings: scope.settings.clone(),
        mark: scope.mark.clone(),
        folder: scope.folder.to_owned(),
    };
    let mut vllm = Vllm {
        endpoint: Endpoint {
            url: format!("http://127.0.0.1:{}", places.port),
            model: cell.resolved.model.clone(),
            api_key: None,
        },
        engine: None,
        lmcache,
        sides: Vec::new(),
        waiting: None,
        watched: cell
            .tier
            .connector
            .as_ref()
            .map(|connector| Watched::new(connector, &places.values())),
        engine_id: places.engine_id.clone(),
        _metrics: metrics,
    };
    if programs.sides.is_empty() {
        vllm.start_engine(&programs.engine, &with)?;
    } else {
        vllm.waiting = Some(Waiting {
            sides: programs.sides,
            engine: programs.engine,
            with,
        });
    }
    places.name_as_kept(rendered);
    write_script(
        &Programs::new(cell, rendered, scope.settings, &places)?,
        cell,
        scope,
    )?;
    Ok(vllm)
}

impl Vllm {
    fn start_engine(&mut self, line: &CommandLine, with: &Start) -> Result<()> {
        let log = with.folder.join(SERVER_LOG);
        let command = line.command(&with.settings);
        self.engine = Some(ProcessGroup::start("vLLM", command, &log, &with.mark)?);
        Ok(())
    }

    /// Starts `side`, and waits until it is ready.
    async fn start_side(&mut self, side: &Side, with: &Start) -> Result<(), ReadyError> {
        let log = with.folder.join(side::log_name(&side.name));
        let from = side::length(&log);
        self.sides.push(side::Running::start(side, with)?);
        tokio::select! {
            biased;
            how = self.exited() => Err(ReadyError::Exited(how)),
            ready = side::until_ready(side, &log, from) => ready.map_err(ReadyError::Refused),
        }
    }
}

fn write_script(programs: &Programs, cell: &Cell, scope: LaunchScope<'_>) -> Result<()> {
    let path = scope.folder.join(SERVER_SCRIPT);
    std::fs::write(&path, programs.script(cell, scope.scratch))
        .with_context(|| format!("writing `{}`", path.display()))
}

impl Places {
    /// On ports that are free now.
    fn of_a_start(
        cell: &Cell,
        rendered: Option<&Rendered>,
        scope: LaunchScope<'_>,
    ) -> Result<Self> {
        let lmcache_ports = match rendered {
            Some(_) if needs_lmcache_server(cell) => (free_port()?, free_port()?),
            _ => (0, 0),
        };
        let port = free_port()?;
        Ok(Self {
            port,
            lmcache_ports,
            shared_memory: leftovers::shared_memory_name(scope.mark, lmcache_ports.0),
            config_file: match rendered {
                Some(rendered) => absolute(&private::path(rendered, &scope))?,
                None => PathBuf::new(),
            },
            reports: absolute(&profile::reports(scope.folder))?,
            metrics: None,
            scratch: scope.scratch.to_owned(),
            engine_id: leftovers::shared_memory_name(scope.mark, port),
            ports: match &cell.tier.connector {
                Some(connector) => connector::free_ports(connector)?,
                None => BTreeMap::new(),
            },
        })
    }

    /// Where nothing has been started.
    fn before_a_start() -> Self {
        Self {
            port: 8000,
            lmcache_ports: (5555, 8080),
            shared_memory: "labrun".to_owned(),
            config_file: PathBuf::new(),
            reports: PathBuf::from("<run>/profiles/server-<n>"),
            metrics: None,
            scratch: PathBuf::from("<run>/scratch"),
            engine_id: "labrun".to_owned(),
            ports: BTreeMap::new(),
        }
    }

    /// What is filled into the texts of a connector's tier.
    fn values(&self) -> Values {
        Values {
            folder: self.scratch.clone(),
            vllm_port: self.port,
            ports: self.ports.clone(),
        }
    }

    /// Names files as they lie beside the script, and folders that are gone by new ones.
    fn name_as_kept(&mut self, rendered: Option<&Rendered>) {
        if let Some(rendered) = rendered {
            self.config_file = PathBuf::from(rendered.file_name);
        }
        if self.metrics.is_some() {
            self.metrics = Some(TEMPORARY.into());
        }
    }
}

fn start_lmcache(line: &CommandLine, places: &Places, scope: LaunchScope<'_>) -> Result<Sidecar> {
    let log = scope.folder.join(LMCACHE_LOG);
    let command = line.command(scope.settings);
    let process = ProcessGroup::start("the LMCache server", command, &log, scope.mark)?;
    Ok(Sidecar {
        process,
        admin_url: format!("http://127.0.0.1:{}", places.lmcache_ports.1),
        shared_memory: Path::new("/dev/shm").join(&places.shared_memory),
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

/// A script that starts what a launch would, on ports of its own.
pub(crate) fn script(
    cell: &Cell,
    rendered: Option<&Rendered>,
    settings: &Settings,
) -> Result<String> {
    let mut places = Places::before_a_start();
    if metrics_dir::is_wanted(cell, settings) {
        places.metrics = Some(OsString::new());
    }
    if let Some(connector) = &cell.tier.connector {
        places.ports = connector::shown_ports(connector);
    }
    places.name_as_kept(rendered);
    let programs = Programs::new(cell, rendered, settings, &places)?;
    Ok(programs.script(cell, &places.scratch))
}

/// Checks that the programs of `cell` can be found, and can do what it asks.
pub(crate) fn check_programs(cell: &Cell, settings: &Settings) -> Result<()> {
    find_program("vllm", &settings.process.bin_dir)?;
    if cell.tier.kind.is_vllms_own()
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
    cell.tier
        .connector
        .iter()
        .flat_map(|connector| &connector.sides)
        .try_for_each(|side| find_side_program(side, settings))
}

/// Checks that the program of `side` can be found.
fn find_side_program(side: &SideSpec, settings: &Settings) -> Result<()> {
    let name = side.command.first().map_or("", String::as_str);
    let program = PathBuf::from(side_program(name, settings)?);
    let is_there = program.is_file() || !name.contains('/') && in_path(name).is_some();
    ensure!(
        is_there || !placeholder::of_text(name).is_empty(),
        "the program `{name}` of the side process `{}` is neither in `process.bin_dir` nor in PATH; \
         install it, or correct its `command`",
        side.name
    );
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

/// The local folder of the model where there is one, else its name.
pub(super) fn model_path(cell: &Cell, settings: &Settings) -> Result<OsString> {
    let models = &settings.paths.models;
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
    region: Region<'_>,
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
    for argument in vllm_tier::arguments(&cell.tier, region) {
        add(&argument);
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
        let vllm = self.engine.as_ref().and_then(ProcessGroup::id);
        let vllm = vllm.map(|id| ("vllm", id));
        let sides = self.sides.iter().filter_map(side::Running::id);
        let lmcache = self
            .lmcache
            .as_ref()
            .and_then(|l| l.process.id())
            .map(|id| ("lmcache", id));
        let sides = sides.map(|id| ("side", id));
        vllm.into_iter().chain(lmcache).chain(sides).collect()
    }

    fn watched(&self) -> Option<&Watched> {
        self.watched.as_ref()
    }

    fn start_rest(&mut self) -> BoxFuture<'_, Result<(), ReadyError>> {
        async {
            let Some(waiting) = self.waiting.take() else {
                return Ok(());
            };
            for side in &waiting.sides {
                self.start_side(side, &waiting.with).await?;
            }
            Ok(self.start_engine(&waiting.engine, &waiting.with)?)
        }
        .boxed()
    }

    fn exited(&mut self) -> BoxFuture<'_, String> {
        let engine = self.engine.iter_mut().map(|it| it.exited().boxed());
        let lmcache = self.lmcache.iter_mut();
        let lmcache = lmcache.map(|it| it.process.exited().boxed());
        let sides = self.sides.iter_mut().map(|it| it.exited().boxed());
        let all: Vec<BoxFuture<'_, String>> = sides.chain(lmcache).chain(engine).collect();
        if all.is_empty() {
            return pending().boxed();
        }
        select_all(all).map(|(how, ..)| how).boxed()
    }

    fn stop(
        self: Box<Self>,
        grace: Duration,
        at_once: CancellationToken,
    ) -> BoxFuture<'static, Stopped> {
        async move {
            let stopped = match self.engine {
                Some(engine) => engine.stop(grace, at_once.clone()).await,
                None => Stopped::new("was not started"),
            };
            for left in vllm_tier::shared_memory(&self.engine_id) {
                let _gone = std::fs::remove_file(left);
            }
            if let Some(lmcache) = self.lmcache {
                lmcache.process.stop(grace, at_once.clone()).await;
                // A killed LMCache server leaves its pool in memory; a polite one has removed it.
                let _gone = std::fs::remove_file(lmcache.shared_memory);
            }
            for side in self.sides.into_iter().rev() {
                side.stop(grace, at_once.clone()).await;
            }
            stopped
        }
        .boxed()
    }
}
