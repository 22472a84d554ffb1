//! One container that labrun started and therefore stops and removes, on every path.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, RemoveContainerOptions, WaitContainerOptions,
};
use futures::StreamExt as _;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::daemon::{Daemon, plain, status};
use super::facts::{end_of, note_end, started};
use super::image::Image;
use super::logs::{self, LogFiles};
use super::stats;
use crate::record::schema::ContainerRecord;

/// How long the daemon may be unreachable before its containers are given up.
const AWAY_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for one answer while stopping.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for a daemon to report a state that Docker's API knows.
const WORDS_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait for the last lines of a log once its container has ended.
const LAST_LINES: Duration = Duration::from_secs(3);

/// A started container: its log and its resource use are copied to files until it ends.
#[derive(Debug)]
pub(crate) struct Container {
    daemon: Daemon,
    id: String,
    role: &'static str,
    facts: ContainerRecord,
    pid: Option<u32>,
    ports: Vec<(u16, u16)>,
    ended: watch::Receiver<Option<String>>,
    log: Option<JoinHandle<Result<()>>>,
    tasks: Vec<Task>,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a container came to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How it ended, for example "exited with code 1".
    pub how: String,
    /// What Docker reports about it.
    pub facts: ContainerRecord,
    /// What went wrong on the way: a log that could not be written, a container that stays.
    pub trouble: Vec<String>,
}

impl Container {
    /// Creates and starts `body`, and begins to copy its log and its use of the machine. What was
    /// created is removed again where it cannot be started.
    pub(crate) async fn start(
        daemon: &Daemon,
        role: &'static str,
        name: &str,
        image: &Image,
        body: ContainerCreateBody,
        files: LogFiles,
    ) -> Result<Self> {
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            ..CreateContainerOptions::default()
        };
        let wants = body.host_config.as_ref();
        let wants_gpus = wants.is_some_and(|host| host.device_requests.is_some());
        let created = daemon.docker.create_container(Some(options), body).await;
        let trouble = |what: &str| format!("{what} the container of {role} from `{}`", image.name);
        let id = created
            .map_err(plain)
            .with_context(|| trouble("creating"))?
            .id;
        let started = Self::start_created(daemon, role, &id, image, files).await;
        let checked = started.and_then(|(container, inspected)| {
            ensure!(
                !wants_gpus || has_devices(&inspected),
                "the daemon took no notice of `gpus` in [server], as Podman's Docker API does; use Docker"
            );
            Ok(container)
        });
        match checked {
            Ok(container) => Ok(container),
            Err(error) => {
                let _best_effort = remove(daemon, &id).await;
                Err(error.context(trouble("starting")))
            }
        }
    }

    async fn start_created(
        daemon: &Daemon,
        role: &'static str,
        id: &str,
        image: &Image,
        files: LogFiles,
    ) -> Result<(Self, ContainerInspectResponse)> {
        let (log, samples) = (logs::Copier::open(&files)?, stats::Samples::open(&files)?);
        let docker = &daemon.docker;
        docker.start_container(id, None).await.map_err(plain)?;
        let inspected = inspect(docker, id).await.map_err(plain)?;
        let (sender, ended) = watch::channel(None);
        let own = id.to_owned();
        let (log_sender, log_complete) = oneshot::channel();
        let following = log.follow(docker.clone(), own.clone());
        let log = tokio::spawn(async move {
            let copied = following.await;
            // Nobody listens any more when the container's owner is gone.
            let _nobody = log_sender.send(());
            copied
        });
        let tasks = vec![
            Task(tokio::spawn(watch_end(
                daemon.clone(),
                own.clone(),
                role,
                log_complete,
                sender,
            ))),
            Task(tokio::spawn(samples.take(docker.clone(), own, role))),
        ];
        let pid = inspected.state.as_ref().and_then(|state| state.pid);
        let container = Self {
            daemon: daemon.clone(),
            id: id.to_owned(),
            role,
            pid: pid
                .and_then(|pid| u32::try_from(pid).ok())
                .filter(|pid| *pid > 0),
            ports: published(&inspected),
            facts: started(role, image, &inspected),
            ended,
            log: Some(log),
            tasks,
        };
        Ok((container, inspected))
    }

    /// Docker's id of the container.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What it is for: `vllm`, `sim`, `lmcache` or `redis`.
    pub(crate) fn role(&self) -> &'static str {
        self.role
    }

    /// What is known of it now.
    pub(crate) fn facts(&self) -> &ContainerRecord {
        &self.facts
    }

    /// Its first process, as this machine numbers it.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The port of 127.0.0.1 that `port` of the container is published on. Absent where the
    /// container ended at once.
    pub(crate) fn host_port(&self, port: u16) -> Option<u16> {
        let published = self.ports.iter().find(|(inside, _)| *inside == port);
        published.map(|(_, outside)| *outside)
    }

    /// Resolves when it ends by itself, is removed by someone else, or its daemon is gone for good.
    pub(crate) async fn exited(&self) -> String {
        let mut ended = self.ended.clone();
        let how = ended.wait_for(Option::is_some).await;
        let how = how.ok().and_then(|how| how.clone());
        match how {
            Some(how) => how,
            // The watcher ends only with the container's owner.
            None => std::future::pending().await,
        }
    }

    /// Stops and removes it: polite, then by force after `grace` or when `at_once` is cancelled.
    pub(crate) async fn stop(mut self, grace: Duration, at_once: &CancellationToken) -> Ended {
        let mut trouble = Vec::new();
        let mut how = self.ended.borrow().clone();
        if how.is_none() {
            how = Some(self.end(grace, at_once, &mut trouble).await);
        }
        if let Some(mut log) = self.log.take() {
            match timeout(LAST_LINES, &mut log).await {
                Ok(Ok(Err(error))) => trouble.push(format!("{error:#}")),
                Ok(_) => {}
                Err(_) => log.abort(),
            }
        }
        self.tasks.clear();
        let inspected = inspect(&self.daemon.docker, &self.id);
        if let Ok(Ok(inspected)) = timeout(STEP_LIMIT, inspected).await {
            note_end(&mut self.facts, &inspected);
        }
        if let Err(error) = remove(&self.daemon, &self.id).await {
            trouble.push(format!(
                "the container {} of {} could not be removed: {error:#}; `labrun clean` removes it",
                short(&self.id),
                self.role
            ));
        }
        Ended {
            how: how.unwrap_or_default(),
            facts: self.facts.clone(),
            trouble,
        }
    }

    async fn end(
        &self,
        grace: Duration,
        at_once: &CancellationToken,
        trouble: &mut Vec<String>,
    ) -> String {
        let began = Instant::now();
        if let Err(error) = self.signal("SIGTERM").await {
            trouble.push(format!("stopping {}: {error:#}", self.role));
        }
        tokio::select! {
            how = self.exited() => return how,
            () = tokio::time::sleep(grace) => {}
            () = at_once.cancelled() => {}
        }
        let killed = self.signal("SIGKILL").await;
        match (killed, timeout(STEP_LIMIT, self.exited()).await) {
            (_, Ok(_)) => format!("killed after {:.1} s", began.elapsed().as_secs_f64()),
            (Err(error), Err(_)) => format!("could not be killed: {error:#}"),
            (Ok(()), Err(_)) => "killed, and does not end".to_owned(),
        }
    }

    async fn signal(&self, signal: &str) -> Result<()> {
        let options = KillContainerOptions {
            signal: signal.to_owned(),
        };
        let asked = self.daemon.docker.kill_container(&self.id, Some(options));
        match timeout(STEP_LIMIT, asked).await {
            Ok(Ok(())) => Ok(()),
            // It is not running, or not there: what is wanted.
            Ok(Err(error)) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Ok(Err(error)) => Err(plain(error)),
            Err(_) => anyhow::bail!("Docker does not answer"),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(log) = self.log.take() {
            log.abort();
        }
    }
}

/// What the daemon knows of a container. Right after the end Podman reports `stopped`, a state that
/// Docker's API does not know.
async fn inspect(docker: &Docker, id: &str) -> Result<ContainerInspectResponse, Error> {
    let began = Instant::now();
    loop {
        match docker.inspect_container(id, None).await {
            Err(Error::JsonDataError { .. }) if began.elapsed() < WORDS_LIMIT => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            found => return found,
        }
    }
}

/// The beginning of an id, as Docker shows it.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Removes a container by force, with the volumes that it made. One that is gone is what is wanted;
/// a daemon that is away is waited for a little.
pub(crate) async fn remove(daemon: &Daemon, id: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let options = RemoveContainerOptions {
            v: true,
            force: true,
            link: false,
        };
        let asked = daemon.docker.remove_container(id, Some(options));
        let error = match timeout(STEP_LIMIT, asked).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if status(&error) == Some(404) => return Ok(()),
            // Another removal runs.
            Ok(Err(error)) if status(&error) == Some(409) => plain(error),
            Ok(Err(error)) if status(&error).is_some() => return Err(plain(error)),
            Ok(Err(error)) => plain(error),
            Err(_) => anyhow::anyhow!("Docker does not answer"),
        };
        if began.elapsed() > AWAY_LIMIT {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sends how the container ended to `sender`. A connection that breaks is made again: a daemon
/// may be restarted under containers that live on.
async fn watch_end(
    daemon: Daemon,
    id: String,
    role: &'static str,
    log_complete: oneshot::Receiver<()>,
    sender: watch::Sender<Option<String>>,
) {
    let mut away = None;
    let how = loop {
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        let began = Instant::now();
        let answer = daemon
            .docker
            .wait_container(&id, Some(options))
            .next()
            .await;
        let broken = match answer {
            Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => {
                break end_message(&daemon, &id, role).await;
            }
            Some(Err(error)) if status(&error) == Some(404) => {
                break format!("the container of {role} was removed by someone else");
            }
            Some(Err(error)) => format!("{:#}", plain(error)),
            None => "the connection ended".to_owned(),
        };
        if began.elapsed() > AWAY_LIMIT {
            // The daemon answered until now.
            away = None;
        }
        let since = *away.get_or_insert_with(Instant::now);
        if since.elapsed() > AWAY_LIMIT {
            break format!(
                "Docker at `{}` has not answered for {} s ({broken}): the state of the container of \
                 {role} is unknown",
                daemon.host,
                AWAY_LIMIT.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    // The receiver looks for the cause in the log: wait until its last lines are written.
    let _late = timeout(LAST_LINES, log_complete).await;
    // Nobody listens any more when its owner is gone.
    let _nobody = sender.send(Some(how));
}

/// How it ended, for a message.
async fn end_message(daemon: &Daemon, id: &str, role: &str) -> String {
    let inspected = inspect(&daemon.docker, id).await.ok();
    let state = inspected
        .and_then(|container| container.state)
        .unwrap_or_default();
    format!("the container of {role} {}", end_of(&state))
}

/// Whether a container was given devices of the machine.
fn has_devices(inspected: &ContainerInspectResponse) -> bool {
    let host = inspected.host_config.as_ref();
    host.is_some_and(|host| {
        let requests = host.device_requests.as_ref();
        let devices = host.devices.as_ref();
        requests.is_some_and(|all| !all.is_empty()) || devices.is_some_and(|all| !all.is_empty())
    })
}

/// Published ports: the container's and this machine's.
fn published(inspected: &ContainerInspectResponse) -> Vec<(u16, u16)> {
    let ports = inspected
        .network_settings
        .as_ref()
        .and_then(|settings| settings.ports.clone())
        .unwrap_or_default();
    let mut all = Vec::new();
    for (inside, bindings) in ports {
        let inside = inside.split('/').next().and_then(|port| port.parse().ok());
        let outside = bindings.into_iter().flatten();
        let outside = outside.filter_map(|binding| binding.host_port?.parse().ok());
        all.extend(inside.zip(outside.into_iter().next()));
    }
    all
}
