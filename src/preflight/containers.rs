//! Docker, NVIDIA's runtime in it, and what an image sees of a GPU.

use std::path::Path;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, DeviceRequest, HostConfig, SystemInfo};
use bollard::query_parameters::{LogsOptions, WaitContainerOptions};
use futures::StreamExt as _;

use super::gpu::Gpu;
use super::line::{Level, Line};
use super::needs::Needs;
use crate::plan::docker_spec::Gpus;
use crate::server::docker::body;
use crate::server::docker::container;
use crate::server::docker::daemon::{self, Daemon, plain};
use crate::server::docker::image::{self, Image};
use crate::server::docker::labels::Labels;
use crate::server::leftovers::Mark;

/// Longest wait for a container's answer about its GPU.
const LIMIT: Duration = Duration::from_secs(60);

/// Examines Docker, its NVIDIA runtime and, where one is named, the image.
pub(super) async fn look(needs: &Needs, gpu: &Gpu, image: Option<&str>) -> Vec<Line> {
    let level = Needs::level(needs.docker);
    let daemon = match Daemon::connect().await {
        Ok(daemon) => daemon,
        Err(error) => {
            let message = if daemon::may_be_there() {
                format!("{error:#}")
            } else {
                "there is none (no /var/run/docker.sock, DOCKER_HOST is not set)".to_owned()
            };
            let fix = "install Docker Engine, or let this user use it; `launcher = \"process\"` needs none";
            return vec![Line::of("Docker", level, message, fix)];
        }
    };
    let mut lines = vec![reached(&daemon).await];
    let info = daemon.docker.info().await.unwrap_or_default();
    lines.push(nvidia(&info, gpu, needs));
    let name = image.or(needs.spec.as_ref().map(|spec| spec.image.as_str()));
    if let Some(name) = name {
        lines.extend(look_at_image(&daemon, name, gpu, needs).await);
    }
    lines
}

async fn reached(daemon: &Daemon) -> Line {
    let version = daemon.docker.version().await.unwrap_or_default();
    let message = format!(
        "Engine {} at `{}`, API {}",
        version.version.unwrap_or_default(),
        daemon.host,
        daemon.docker.client_version()
    );
    if daemon.is_local() {
        Line::good("Docker", message)
    } else {
        let fix = "run labrun on that machine: ports and mounted files are its own";
        Line::warning("Docker", format!("{message}, on another machine"), fix)
    }
}

pub(super) fn nvidia(info: &SystemInfo, gpu: &Gpu, needs: &Needs) -> Line {
    let topic = "NVIDIA in Docker";
    let runtimes = info.runtimes.as_ref();
    let has_runtime = runtimes.is_some_and(|all| all.contains_key("nvidia"));
    let folders = info.cdi_spec_dirs.clone().unwrap_or_default();
    let folders = folders
        .iter()
        .map(String::as_str)
        .chain(["/etc/cdi", "/var/run/cdi"]);
    let cdi = folders
        .map(Path::new)
        .find(|folder| has_nvidia_spec(folder));
    let cdi_state = cdi.map_or_else(
        || "no CDI specification".to_owned(),
        |folder| format!("CDI specification in {}", folder.display()),
    );
    let runtime_state = if has_runtime {
        "runtime `nvidia`"
    } else {
        "no runtime `nvidia`"
    };
    let message = format!("{runtime_state}, {cdi_state}");
    if has_runtime || cdi.is_some() {
        return Line::good(topic, message);
    }
    let fix = "install the NVIDIA Container Toolkit, then `nvidia-ctk runtime configure --runtime=docker` and restart Docker";
    if gpu.is_there() {
        Line::of(
            topic,
            Needs::level(needs.docker && needs.engine),
            message,
            fix,
        )
    } else {
        Line::warning(topic, format!("{message} (and no GPU)"), fix)
    }
}

fn has_nvidia_spec(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .into_iter()
        .any(|entry| entry.file_name().to_string_lossy().contains("nvidia"))
}

async fn look_at_image(daemon: &Daemon, name: &str, gpu: &Gpu, needs: &Needs) -> Vec<Line> {
    let image = match image::inspect(daemon, name).await {
        Ok(Some(image)) => image,
        Ok(None) => {
            let message = format!("`{name}` is not on this machine");
            return vec![Line::warning(
                "image",
                message,
                format!("run `docker pull {name}` before: the first cell would wait for it"),
            )];
        }
        Err(error) => {
            return vec![Line::of(
                "image",
                Level::Error,
                format!("{error:#}"),
                "write the image's name as Docker does",
            )];
        }
    };
    let digest = image.digest.clone().unwrap_or_else(|| image.id.clone());
    let mut lines = vec![Line::good("image", format!("`{name}` is there: {digest}"))];
    lines.extend(cuda_of(&image, gpu));
    let wants_gpu = gpu.is_there() && (needs.engine || needs.spec.is_none());
    if wants_gpu {
        let gpus = needs.spec.as_ref().map_or(&Gpus::All, |spec| &spec.gpus);
        lines.push(sees_gpu(daemon, &image, gpus).await);
    }
    lines
}

/// The CUDA of the image against the driver's.
fn cuda_of(image: &Image, gpu: &Gpu) -> Option<Line> {
    let topic = "CUDA";
    let wanted = image
        .env
        .iter()
        .find_map(|line| line.strip_prefix("CUDA_VERSION="))?;
    let wanted = version(wanted)?;
    let (major, minor) = wanted;
    let message = format!("the image has CUDA {major}.{minor}");
    let Some(driver) = gpu.cuda() else {
        return Some(Line::warning(
            topic,
            format!("{message}; the driver's is not known"),
            "install NVIDIA's driver",
        ));
    };
    let known = format!("{message}, the driver runs up to {}.{}", driver.0, driver.1);
    Some(if wanted <= driver {
        Line::good(topic, known)
    } else if wanted.0 == driver.0 {
        // Minor versions of one major are compatible (CUDA Compatibility, NVIDIA).
        Line::warning(
            topic,
            known,
            "update the driver: kernels that are compiled when they are used may fail",
        )
    } else {
        Line::of(
            topic,
            Level::Error,
            known,
            "update the driver, or take an image for an older CUDA",
        )
    })
}

fn version(text: &str) -> Option<(i32, i32)> {
    let mut parts = text.trim().split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether a container of the image sees a GPU, when it asks for `gpus` as the plan does.
async fn sees_gpu(daemon: &Daemon, image: &Image, gpus: &Gpus) -> Line {
    let topic = "GPU in a container";
    let asked = tokio::time::timeout(LIMIT, ask_for_gpus(daemon, image, gpus)).await;
    let fix = "install the NVIDIA Container Toolkit, and see `nvidia-container-cli info`";
    match asked {
        Ok(Ok(output)) if output.contains("GPU 0") => {
            let count = output
                .lines()
                .filter(|line| line.starts_with("GPU "))
                .count();
            Line::good(topic, format!("it sees {count}"))
        }
        Ok(Ok(output)) => Line::of(
            topic,
            Level::Error,
            format!("it sees none: {}", output.trim()),
            fix,
        ),
        Ok(Err(error)) => Line::of(topic, Level::Error, format!("{error:#}"), fix),
        Err(_) => Line::of(topic, Level::Error, "no answer within a minute", fix),
    }
}

/// What a container must ask for, so that `nvidia-smi` is in it: a plan without GPUs is tried with all.
fn gpu_requests(gpus: &Gpus) -> Vec<DeviceRequest> {
    let mut requests = body::device_requests(gpus)
        .or_else(|| body::device_requests(&Gpus::All))
        .unwrap_or_default();
    for request in &mut requests {
        for set in request.capabilities.iter_mut().flatten() {
            set.push("utility".to_owned());
        }
    }
    requests
}

async fn ask_for_gpus(daemon: &Daemon, image: &Image, gpus: &Gpus) -> anyhow::Result<String> {
    let mark = Mark::of_this_process("doctor");
    let body = ContainerCreateBody {
        image: Some(image.id.clone()),
        entrypoint: Some(vec!["nvidia-smi".to_owned()]),
        cmd: Some(vec!["-L".to_owned()]),
        labels: Some(Labels::new(&mark, "doctor").of("doctor")),
        host_config: Some(HostConfig {
            device_requests: Some(gpu_requests(gpus)),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let docker = &daemon.docker;
    let id = docker.create_container(None, body).await.map_err(plain)?.id;
    let asked = async {
        docker.start_container(&id, None).await.map_err(plain)?;
        let ended = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        let _code = docker.wait_container(&id, Some(ended)).next().await;
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            ..LogsOptions::default()
        };
        let parts: Vec<LogOutput> = docker
            .logs(&id, Some(options))
            .filter_map(async |part| part.ok())
            .collect()
            .await;
        Ok(parts.iter().map(ToString::to_string).collect())
    };
    let output = asked.await;
    container::remove(daemon, &id).await?;
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_asks_for_the_gpus_of_the_plan() {
        let cdi = Gpus::Ids(vec!["nvidia.com/gpu=1".to_owned()]);
        let cdi = gpu_requests(&cdi).remove(0);
        assert_eq!(
            (cdi.driver.as_deref(), cdi.capabilities),
            (Some("cdi"), None)
        );
        for gpus in [Gpus::None, Gpus::All] {
            let all = gpu_requests(&gpus).remove(0);
            let wanted = vec![vec!["gpu".to_owned(), "utility".to_owned()]];
            assert_eq!((all.count, all.capabilities), (Some(-1), Some(wanted)));
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(version("12.8.1"), Some((12, 8)));
        assert!(version("12.10") > version("12.9.1"));
        assert_eq!(version("none"), None);
    }
}
