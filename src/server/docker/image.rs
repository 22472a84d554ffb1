//! Images: present, pulled, or an error with a remedy.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::CreateImageOptions;
use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::daemon::{Daemon, plain, status};
use crate::plan::docker_spec::Pull;

/// Shortest time between two lines of a pull's progress.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for a registry to resolve a name; a pull has no such limit.
const REGISTRY_LIMIT: Duration = Duration::from_secs(10);

/// An image on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    /// As the plan names it.
    pub name: String,
    /// Its content's id on this machine.
    pub id: String,
    /// `repository@sha256:...`, the registry's name of it; absent for images made here.
    pub digest: Option<String>,
    /// All such names, of every repository that it was pulled from or pushed to.
    pub digests: Vec<String>,
    /// `NAME=value` of its environment.
    pub env: Vec<String>,
    /// Its user; empty: root.
    pub user: String,
}

/// Ensures that `name` is on this machine, by the pull policy. `say` gets lines of a pull's progress.
pub(crate) async fn ensure(
    daemon: &Daemon,
    name: &str,
    pull: Pull,
    cancel: &CancellationToken,
    say: &mut dyn FnMut(&str),
) -> Result<Image> {
    let present = inspect(daemon, name).await?;
    match (present, pull) {
        (Some(image), Pull::Never | Pull::Missing) => Ok(image),
        (None, Pull::Never) => bail!(
            "the image `{name}` is not on this machine, and `pull = \"never\"`; pull or build it"
        ),
        (_, Pull::Missing | Pull::Always) => {
            tokio::select! {
                biased;
                () = cancel.cancelled() => bail!("interrupted while `{name}` was pulled"),
                pulled = fetch(daemon, name, say) => pulled?,
            }
            inspect(daemon, name)
                .await?
                .with_context(|| format!("`{name}` was pulled and is not there"))
        }
    }
}

/// Looks up an image; `None` where it is not on this machine.
pub(crate) async fn inspect(daemon: &Daemon, name: &str) -> Result<Option<Image>> {
    match daemon.docker.inspect_image(name).await {
        Ok(inspected) => Ok(Some(image_of(name, inspected))),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(plain(error).context(format!("asking Docker for the image `{name}`"))),
    }
}

/// The content behind a name, as far as it is known without a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// This one, which is on this machine: its id.
    Here(String),
    /// One that is still to be pulled: the registry's digest of it, `sha256:...`.
    AtRegistry(String),
}

/// What a container of `name` would run if it were started now. `None` where neither this machine
/// nor a registry has an answer.
pub(crate) async fn resolve(daemon: &Daemon, name: &str, pull: Pull) -> Result<Option<Content>> {
    let present = inspect(daemon, name).await?;
    let here = |image: Image| Content::Here(image.id);
    let would_pull = match pull {
        Pull::Never => false,
        Pull::Missing => present.is_none(),
        Pull::Always => true,
    };
    if !would_pull {
        return Ok(present.map(here));
    }
    Ok(match (registry_digest(daemon, name).await, present) {
        (Some(digest), Some(image)) if image.has_digest(&digest) => Some(here(image)),
        (Some(digest), _) => Some(Content::AtRegistry(digest)),
        (None, present) => present.map(here),
    })
}

/// The digest that `name` has in its registry; `None` where that does not answer.
async fn registry_digest(daemon: &Daemon, name: &str) -> Option<String> {
    if let Some(digest) = digest_of(name) {
        return Some(digest.to_owned());
    }
    let name = with_tag(name);
    let asked = daemon.docker.inspect_registry_image(&name, None);
    let answer = tokio::time::timeout(REGISTRY_LIMIT, asked).await.ok()?;
    answer.ok()?.descriptor.digest
}

/// Asks the registry of `name` for it.
///
/// # Errors
/// Where it has no such image, or cannot be reached.
pub(crate) async fn ask_registry(daemon: &Daemon, name: &str) -> Result<()> {
    let name = with_tag(name);
    let asked = daemon.docker.inspect_registry_image(&name, None);
    asked.await.map(drop).map_err(plain)
}

/// The digest in a name of the form `repository@sha256:...`.
pub(crate) fn digest_of(name: &str) -> Option<&str> {
    Some(name.split_once('@')?.1)
}

impl Image {
    fn has_digest(&self, digest: &str) -> bool {
        let mut own = self.digests.iter().filter_map(|name| digest_of(name));
        own.any(|own| own == digest)
    }
}

fn image_of(name: &str, inspected: ImageInspect) -> Image {
    let config = inspected.config.unwrap_or_default();
    let digests = inspected.repo_digests.unwrap_or_default();
    // One content may have several names; the one that was asked for is the one to show.
    let repository = format!("{}@", repository(name));
    let own = digests.iter().find(|digest| *digest == name);
    let own = own.or_else(|| {
        digests
            .iter()
            .find(|digest| digest.starts_with(&repository))
    });
    Image {
        name: name.to_owned(),
        id: inspected.id.unwrap_or_default(),
        digest: own.or(digests.first()).cloned(),
        digests,
        env: config.env.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
    }
}

/// The name without tag and digest. A colon before the last slash belongs to a registry's port.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    name[slash..]
        .find(':')
        .map_or(name, |at| &name[..slash + at])
}

/// `name` with the tag that Docker would take; without one the whole repository would be pulled.
fn with_tag(name: &str) -> String {
    if name.contains('@') || repository(name).len() < name.len() {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

async fn fetch(daemon: &Daemon, name: &str, say: &mut dyn FnMut(&str)) -> Result<()> {
    let options = CreateImageOptions {
        from_image: Some(with_tag(name)),
        ..CreateImageOptions::default()
    };
    let mut layers = Layers::default();
    let mut shown_at = Instant::now();
    let mut answers = daemon.docker.create_image(Some(options), None, None);
    let trouble = || format!("pulling the image `{name}`");
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(plain).with_context(trouble)?;
        if let Some(message) = answer
            .error_detail
            .as_ref()
            .and_then(|error| error.message.as_ref())
        {
            return Err(anyhow!(message.clone()).context(trouble()));
        }
        layers.note(&answer);
        if shown_at.elapsed() >= LINE_EVERY {
            shown_at = Instant::now();
            say(&format!("pulling {name}: {}", layers.line()));
        }
    }
    say(&format!("pulled {name}: {}", layers.line()));
    Ok(())
}

/// How far each layer of a pull is.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, Layer>);

#[derive(Debug, Default)]
struct Layer {
    fetched_bytes: i64,
    total_bytes: i64,
    done: bool,
}

impl Layers {
    fn note(&mut self, answer: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&answer.id, &answer.status) else {
            return;
        };
        let done = matches!(status.as_str(), "Pull complete" | "Already exists");
        let is_layer = done
            || [
                "Pulling fs layer",
                "Waiting",
                "Downloading",
                "Verifying Checksum",
                "Download complete",
                "Extracting",
            ]
            .contains(&status.as_str());
        if !is_layer {
            return;
        }
        let layer = self.0.entry(id.clone()).or_default();
        layer.done = done;
        if status == "Downloading"
            && let Some(progress) = &answer.progress_detail
        {
            layer.fetched_bytes = progress.current.unwrap_or(0);
            layer.total_bytes = progress.total.unwrap_or(0);
        } else if status == "Download complete" || done {
            layer.fetched_bytes = layer.total_bytes;
        }
    }

    fn line(&self) -> String {
        let done = self.0.values().filter(|layer| layer.done).count();
        let mb = |bytes: i64| bytes as f64 / 1e6;
        let fetched: i64 = self.0.values().map(|layer| layer.fetched_bytes).sum();
        let total: i64 = self.0.values().map(|layer| layer.total_bytes).sum();
        format!(
            "{done} of {} layers, {:.0} of {:.0} MB",
            self.0.len(),
            mb(fetched),
            mb(total)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    #[test]
    fn a_name_without_a_tag_means_latest() {
        assert_eq!(with_tag("redis"), "redis:latest");
        assert_eq!(with_tag("localhost:5000/a/b"), "localhost:5000/a/b:latest");
        for whole in ["redis:7", "localhost:5000/a/b:1", "a/b@sha256:00"] {
            assert_eq!(with_tag(whole), whole);
        }
        assert_eq!(repository("localhost:5000/a/b:1"), "localhost:5000/a/b");
    }

    #[test]
    fn layers_add_up() {
        let answer = |id: &str, status: &str, progress: Option<(i64, i64)>| CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail: progress.map(|(current, total)| ProgressDetail {
                current: Some(current),
                total: Some(total),
            }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        layers.note(&answer("latest", "Pulling from labrun-test/sim", None));
        layers.note(&answer("a", "Already exists", None));
        layers.note(&answer("b", "Downloading", Some((1_000_000, 4_000_000))));
        assert_eq!(layers.line(), "1 of 2 layers, 1 of 4 MB");
        layers.note(&answer("b", "Pull complete", None));
        assert_eq!(layers.line(), "2 of 2 layers, 4 of 4 MB");
    }
}
