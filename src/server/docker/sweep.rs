//! Finds and removes what labrun left in Docker, by its labels and by nothing else.

use std::collections::HashMap;
use std::fmt;

use anyhow::{Context as _, Result};
use bollard::query_parameters::{
    ListContainersOptions, ListNetworksOptions, ListVolumesOptions, RemoveVolumeOptions,
};

use super::super::leftovers::Mark;
use super::super::owner::is_gone;
use super::container;
use super::daemon::{Daemon, plain, status};
use super::labels::{OWNER, ROLE, RUN};

/// What it is, in the order of removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Container,
    Network,
    Volume,
}

/// Something that labrun made in Docker and did not remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    kind: Kind,
    id: String,
    name: String,
    run: String,
    role: String,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, run, role, ..
        } = self;
        match self.kind {
            Kind::Container => write!(f, "container `{name}` ({role}) of run `{run}`"),
            Kind::Network => write!(f, "network `{name}` of run `{run}`"),
            Kind::Volume => write!(f, "volume `{name}` of run `{run}`"),
        }
    }
}

/// What labruns that are gone left behind.
pub(crate) async fn find_orphans(daemon: &Daemon) -> Result<Vec<Left>> {
    find(daemon, is_gone).await
}

/// Removes what earlier cells of this labrun left because their removal failed, but for what `keep`
/// names by id or name.
pub(crate) async fn remove_own(daemon: &Daemon, mark: &Mark, keep: &[String]) -> Result<()> {
    let mut own = find(daemon, |owner| owner == mark.owner).await?;
    own.retain(|left| !keep.contains(&left.id) && !keep.contains(&left.name));
    remove(daemon, &own).await
}

/// Removes them all. Tries each, then returns the first failure.
pub(crate) async fn remove(daemon: &Daemon, all: &[Left]) -> Result<()> {
    let mut failed = None;
    for left in all {
        let removed = match left.kind {
            Kind::Container => container::remove(daemon, &left.id).await,
            Kind::Network => remove_network(daemon, &left.id).await,
            Kind::Volume => {
                let forced = RemoveVolumeOptions { force: true };
                let removed = daemon.docker.remove_volume(&left.id, Some(forced)).await;
                removed.map_err(plain)
            }
        };
        if let Err(error) = removed {
            failed.get_or_insert(error.context(format!("removing the {left}")));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Removes a network; one that is gone is what is wanted.
pub(crate) async fn remove_network(daemon: &Daemon, id: &str) -> Result<()> {
    match daemon.docker.remove_network(id).await {
        Err(error) if status(&error) != Some(404) => Err(plain(error)),
        _ => Ok(()),
    }
}

async fn find(daemon: &Daemon, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Left>> {
    let filters = Some(HashMap::from([(
        "label".to_owned(),
        vec![OWNER.to_owned()],
    )]));
    let mut all = Vec::new();
    let mut add =
        |kind, id: Option<String>, name: Option<String>, labels: HashMap<String, String>| {
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            if let Some(id) = id
                && is_wanted(&label(OWNER))
            {
                let name = name.unwrap_or_else(|| id.clone());
                let name = name.trim_start_matches('/').to_owned();
                let (run, role) = (label(RUN), label(ROLE));
                all.push(Left {
                    kind,
                    id,
                    name,
                    run,
                    role,
                });
            }
        };
    let options = ListContainersOptions {
        all: true,
        filters: filters.clone(),
        ..ListContainersOptions::default()
    };
    let containers = daemon.docker.list_containers(Some(options)).await;
    for container in containers
        .map_err(plain)
        .context("listing Docker's containers")?
    {
        let name = container.names.and_then(|names| names.into_iter().next());
        add(
            Kind::Container,
            container.id,
            name,
            container.labels.unwrap_or_default(),
        );
    }
    let options = ListNetworksOptions {
        filters: filters.clone(),
    };
    let networks = daemon.docker.list_networks(Some(options)).await;
    for network in networks
        .map_err(plain)
        .context("listing Docker's networks")?
    {
        add(
            Kind::Network,
            network.id,
            network.name,
            network.labels.unwrap_or_default(),
        );
    }
    let volumes = daemon
        .docker
        .list_volumes(Some(ListVolumesOptions { filters }))
        .await;
    let volumes = volumes.map_err(plain).context("listing Docker's volumes")?;
    for volume in volumes.volumes.unwrap_or_default() {
        add(Kind::Volume, Some(volume.name), None, volume.labels);
    }
    all.sort_by_key(|left| left.kind);
    Ok(all)
}
