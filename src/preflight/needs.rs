//! What a plan asks of the machine.

use std::collections::BTreeSet;

use super::line::Level;
use super::lint::fetches_gated;
use crate::config::Settings;
use crate::matrix::Matrix;
use crate::plan::docker_spec::DockerSpec;
use crate::plan::server::Launcher;
use crate::server::adapter_library;

/// What a plan asks of the machine; without a plan, nothing must be there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// Whether servers run in Docker.
    pub(super) docker: bool,
    /// What containers get, where they run in Docker.
    pub(super) spec: Option<DockerSpec>,
    /// Whether a GPU is used: a real engine that this machine starts.
    pub(super) engine: bool,
    /// The largest pool in RAM of its tiers, GiB.
    pub(super) ram_gib: f64,
    /// The largest pool on disk of its tiers, GiB; 0 without a disk tier.
    pub(super) disk_gib: f64,
    /// Whether a tier stores chunks in the machine's Redis.
    pub(super) redis: bool,
    /// Libraries that adapters of its tiers need and that are not there, each with how to get it.
    pub(super) libraries: BTreeSet<String>,
    /// A gated model that a server will fetch.
    pub(super) gated_model: Option<String>,
}

impl Needs {
    /// The needs of all cells of `matrix`.
    pub(crate) fn of(matrix: &Matrix, settings: &Settings) -> Self {
        let mut needs = Self::default();
        for cell in &matrix.cells {
            let (server, tier) = (&cell.resolved.server, &cell.tier);
            needs.docker |= server.launcher == Launcher::Docker;
            if needs.spec.is_none() {
                needs.spec.clone_from(&server.docker);
            }
            if server.is_simulated() {
                continue;
            }
            needs.engine |= server.launcher != Launcher::External;
            let missing = adapter_library::missing(&cell, settings);
            needs.libraries.extend(missing);
            if tier.kind.uses_ram() {
                needs.ram_gib = needs.ram_gib.max(tier.ram_gib());
            }
            if tier.kind.uses_disk() {
                let size = tier.settings.get("max_local_disk_size");
                let size = size.and_then(serde_json::Value::as_f64).unwrap_or(0.0);
                needs.disk_gib = needs.disk_gib.max(size);
            }
            let own = server
                .docker
                .as_ref()
                .is_some_and(|docker| !docker.redis_image.is_empty());
            needs.redis |= tier.kind.speaks_resp() && !own;
            if needs.gated_model.is_none() && fetches_gated(&cell, settings) {
                needs.gated_model = Some(cell.resolved.model.clone());
            }
        }
        needs
    }

    /// An error where the plan needs it, else a warning.
    pub(super) fn level(is_needed: bool) -> Level {
        if is_needed {
            Level::Error
        } else {
            Level::Warning
        }
    }
}
