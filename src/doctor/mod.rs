//! Looks at this machine as a run would meet it: what is good, what is not, and what to do.

mod containers;
mod gpu;
mod machine;
mod services;
mod storage;

pub use machine::meminfo;

use serde::Serialize;

use crate::config::Settings;
use crate::matrix::Matrix;
use crate::plan::docker_spec::DockerSpec;
use crate::plan::server::Launcher;
use crate::plan::tier::TierKind;

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Some plans will fail, or measure less than they could.
    Warning,
    /// What was asked for cannot work.
    Bad,
}

impl Level {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What.
    pub topic: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was seen.
    pub says: String,
    /// What to do about it; empty where it is good.
    pub mend: String,
}

impl Line {
    fn good(topic: &'static str, says: impl Into<String>) -> Self {
        Self {
            topic,
            level: Level::Good,
            says: says.into(),
            mend: String::new(),
        }
    }

    fn of(
        topic: &'static str,
        level: Level,
        says: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            topic,
            level,
            says: says.into(),
            mend: mend.into(),
        }
    }

    fn warning(topic: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::of(topic, Level::Warning, says, mend)
    }
}

/// What a plan asks of the machine; without a plan, nothing must be there.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Whether servers run in Docker.
    docker: bool,
    /// What containers get, where they run in Docker.
    spec: Option<DockerSpec>,
    /// Whether a GPU is used: a real engine that this machine starts.
    engine: bool,
    /// The largest pool in RAM of its tiers, GiB.
    ram_gib: f64,
    /// The largest pool on disk of its tiers, GiB; 0 without a disk tier.
    disk_gib: f64,
    /// Whether a tier keeps chunks in Redis of the machine's.
    redis: bool,
}

impl Needs {
    /// What `matrix` asks.
    pub fn of(matrix: &Matrix) -> Self {
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
            let uses_ram = tier.kind.uses_lmcache() || tier.kind == TierKind::Native;
            if uses_ram {
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
            needs.redis |= tier.kind == TierKind::Redis && !own;
        }
        needs
    }

    /// Bad where the plan needs it, else a warning.
    fn level(is_needed: bool) -> Level {
        if is_needed {
            Level::Bad
        } else {
            Level::Warning
        }
    }
}

/// Looks at everything. `image` is tried with a GPU where it is named.
pub async fn examine(settings: &Settings, needs: &Needs, image: Option<&str>) -> Vec<Line> {
    let gpu = gpu::Gpu::look();
    let mut lines = containers::look(needs, &gpu, image).await;
    lines.extend(gpu.lines(needs));
    lines.extend(storage::look(settings, needs));
    lines.extend(machine::look(needs));
    lines.extend(services::look(settings, needs).await);
    lines
}

/// The worst of all.
pub fn worst(lines: &[Line]) -> Level {
    lines
        .iter()
        .map(|line| line.level)
        .max()
        .unwrap_or(Level::Good)
}

/// Bytes as GiB, for people.
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
