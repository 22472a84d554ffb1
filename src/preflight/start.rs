//! What would stop every server of a plan from starting, looked at in about a second.

use std::collections::BTreeMap;
use std::time::Duration;

use super::line::{Level, Line};
use super::needs::Needs;
use super::{gpu, host, services};
use crate::config::Settings;
use crate::matrix::Matrix;
use crate::plan::docker_spec::{DockerSpec, Gpus, Pull};
use crate::server::docker::daemon::{self, Daemon};
use crate::server::docker::image;

/// Longest wait for a registry: a slow one is no problem.
const REGISTRY_LIMIT: Duration = Duration::from_secs(3);

/// A sentence for each problem.
pub(crate) async fn problems(matrix: &Matrix, settings: &Settings, needs: &Needs) -> Vec<String> {
    let mut problems: Vec<String> = host::for_start(needs)
        .into_iter()
        .chain(redis(settings, needs).await)
        .filter(|line| line.level == Level::Error)
        .map(|line| sentence(&line))
        .collect();
    if needs.docker {
        problems.extend(docker(matrix, needs).await);
    }
    problems
}

/// The machine's Redis, where the plan uses it.
async fn redis(settings: &Settings, needs: &Needs) -> Option<Line> {
    if !needs.redis {
        return None;
    }
    Some(services::redis(settings, needs).await)
}

fn sentence(line: &Line) -> String {
    format!("{}: {} ({})", line.topic, line.message, line.fix)
}

/// Docker, its GPUs and the images.
async fn docker(matrix: &Matrix, needs: &Needs) -> Vec<String> {
    let daemon = match Daemon::connect().await {
        Ok(daemon) => daemon,
        Err(error) if daemon::may_be_there() => return vec![format!("{error:#}")],
        Err(_) => {
            return vec![
                "Docker: there is none (no /var/run/docker.sock, DOCKER_HOST is not set); install Docker \
                 Engine, or use `launcher = \"process\"`"
                    .to_owned(),
            ];
        }
    };
    let mut problems = Vec::new();
    if let Err(error) = daemon.check_is_local() {
        problems.push(format!("{error:#}"));
    }
    let wants_gpus = |spec: &DockerSpec| spec.gpus != Gpus::None && !spec.simulator;
    if needs.spec.as_ref().is_some_and(wants_gpus) {
        let info = daemon.docker.info().await.unwrap_or_default();
        let line = super::containers::nvidia(&info, &gpu::Gpu::look(), needs);
        if line.level != Level::Good {
            problems.push(sentence(&line));
        }
    }
    for (name, pull) in images(matrix) {
        problems.extend(image(&daemon, &name, pull).await);
    }
    problems
}

/// Every image of the plan.
fn images(matrix: &Matrix) -> BTreeMap<String, Pull> {
    let mut images = BTreeMap::new();
    for cell in &matrix.cells {
        let Some(spec) = &cell.resolved.server.docker else {
            continue;
        };
        images.insert(spec.image.clone(), spec.pull);
        let others = crate::server::docker::sidecar_images(&cell);
        images.extend(others.into_iter().map(|name| (name.to_owned(), spec.pull)));
    }
    images
}

/// Why `name` cannot be started from.
async fn image(daemon: &Daemon, name: &str, pull: Pull) -> Option<String> {
    match (image::inspect(daemon, name).await, pull) {
        (Err(error), _) => Some(format!("{error:#}; write the image's name as Docker does")),
        (Ok(Some(_)), Pull::Never | Pull::Missing) => None,
        (Ok(None), Pull::Never) => Some(format!(
            "the image `{name}` is not on this machine, and `pull = \"never\"`; pull or build it"
        )),
        (Ok(here), _) => {
            let asked = image::ask_registry(daemon, name);
            match tokio::time::timeout(REGISTRY_LIMIT, asked).await {
                // A registry that does not answer in time may do so later.
                Ok(Ok(())) | Err(_) => None,
                Ok(Err(_)) if here.is_some() => None,
                Ok(Err(error)) => Some(format!(
                    "the image `{name}` is not on this machine and cannot be pulled: {error:#}; check \
                     `image` in [server], or pull it before"
                )),
            }
        }
    }
}
