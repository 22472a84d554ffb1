//! Telemetry of one cell: started when its server is ready, summed up pass by pass.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::RunScope;
use super::bottleneck::{self, Bottleneck};
use super::session::Session;
use crate::load::LoadOutcome;
use crate::matrix::Cell;
use crate::plan::server::Launcher;
use crate::plan::tier::TierKind;
use crate::telemetry::hub::{Gpus, Recorded, Served, Target, Telemetry};
use crate::telemetry::summary::{Summary, Window, total};

/// Least share of a pass that readings must cover for their sum to be relied on.
pub const LEAST_COVER: f64 = 0.95;

/// Warnings that a run makes once, however many of its cells have cause to.
#[derive(Debug, Default)]
pub struct Said(Mutex<BTreeSet<String>>);

impl Said {
    /// Whether `text` is said for the first time.
    fn first(&self, text: &str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert(text.to_owned())
    }
}

/// Bytes over the PCIe links of the server's GPUs during one pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PcieBytes {
    /// Into the GPUs.
    pub rx_bytes: f64,
    /// Out of the GPUs.
    pub tx_bytes: f64,
    /// How they were told: `gpm` or `nvml-counters`.
    pub method: &'static str,
}

/// What telemetry says of one pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassTelemetry {
    /// Every series over the pass.
    pub summaries: Vec<Summary>,
    /// CPU time of the samplers, percent of one core; absent where nothing was watched.
    pub cpu_share_percent: Option<f64>,
    /// What held the pass back; absent where nothing was watched.
    pub bottleneck: Option<Bottleneck>,
}

impl PassTelemetry {
    /// Bytes over PCIe, where they are known for the whole pass.
    pub fn pcie(&self) -> Option<PcieBytes> {
        pcie_of(&self.summaries)
    }
}

fn pcie_of(summaries: &[Summary]) -> Option<PcieBytes> {
    let methods = [
        ("gpm", "pcie_rx_gpm_payload", "pcie_tx_gpm_payload"),
        (
            "nvml-counters",
            "pcie_rx_counters_payload",
            "pcie_tx_counters_payload",
        ),
    ];
    methods.into_iter().find_map(|(method, rx, tx)| {
        Some(PcieBytes {
            rx_bytes: total(summaries, "gpu", rx, LEAST_COVER)?,
            tx_bytes: total(summaries, "gpu", tx, LEAST_COVER)?,
            method,
        })
    })
}

/// The edge at which a pass began.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// When the samplers were asked to read.
    asked: Duration,
    /// When they had read.
    read: Duration,
    cpu: Duration,
}

/// The samplers of one cell.
#[derive(Debug)]
pub struct Watch {
    telemetry: Option<Telemetry>,
}

impl Watch {
    /// Starts the samplers that `cell` needs. Their start may block and has a thread for that.
    pub async fn start(cell: &Cell, session: &Session, scope: &RunScope<'_>) -> Self {
        let settings = scope.settings.telemetry.clone();
        if !settings.enabled {
            return Self { telemetry: None };
        }
        let target = target(cell, session, scope);
        let epoch = scope.epoch.into_std();
        let start = move || Telemetry::start(&settings, epoch, &target);
        let started = tokio::task::spawn_blocking(start).await;
        Self {
            telemetry: started.ok(),
        }
    }

    /// The edge of a pass that begins when this returns: the samplers have read, so that none of
    /// them asks the server for anything just as the first requests come. A server that was started
    /// again is followed.
    pub async fn begin(&mut self, session: &Session) -> Option<Edge> {
        let telemetry = self.telemetry.as_mut()?;
        telemetry.follow(served(session));
        let asked = telemetry.edge();
        Some(Edge {
            asked,
            read: telemetry.settle(asked).await,
            cpu: telemetry.cpu(),
        })
    }

    /// The bytes of a pass, with what was stored out of the GPU between its end and now: a tier
    /// stores behind the answers.
    pub async fn with_stores(
        &self,
        began: Option<Edge>,
        pcie: Option<PcieBytes>,
    ) -> Option<PcieBytes> {
        let (Some(telemetry), Some(began)) = (&self.telemetry, began) else {
            return pcie;
        };
        let edge = telemetry.edge();
        let window = Window {
            from: began.asked,
            to: telemetry.settle_all(edge).await,
        };
        let core = Window {
            from: began.read,
            to: edge,
        };
        let until_now = pcie_of(&telemetry.summaries(window, core))?;
        Some(PcieBytes {
            tx_bytes: until_now.tx_bytes,
            ..pcie?
        })
    }

    /// Sums up the pass that began at `began` and has just ended.
    pub async fn end(&self, began: Option<Edge>, load: &LoadOutcome) -> PassTelemetry {
        let (Some(telemetry), Some(began)) = (&self.telemetry, began) else {
            return PassTelemetry::default();
        };
        let edge = telemetry.edge();
        // The readings of the edge come a moment after it, and all up to them is the pass's.
        let to = telemetry.settle_all(edge).await;
        let window = Window {
            from: began.asked,
            to,
        };
        let core = Window {
            from: began.read,
            to: edge,
        };
        let summaries = telemetry.summaries(window, core);
        let used = telemetry.cpu().saturating_sub(began.cpu);
        let client = load.audit.client_bound.as_deref();
        let bottleneck = bottleneck::of_pass(&summaries, client, telemetry.tier_disk());
        PassTelemetry {
            cpu_share_percent: Some(
                used.as_secs_f64() / window.seconds().max(f64::MIN_POSITIVE) * 100.0,
            ),
            bottleneck: Some(bottleneck),
            summaries,
        }
    }

    /// Ends the samplers. Its warnings go to `warnings`, each once in a run.
    pub async fn finish(self, said: &Said, warnings: &mut Vec<String>) -> Recorded {
        let Some(telemetry) = self.telemetry else {
            return Recorded::default();
        };
        let stopped = tokio::task::spawn_blocking(|| telemetry.stop()).await;
        let recorded = stopped.unwrap_or_default();
        let new = recorded.warnings.iter().filter(|text| said.first(text));
        warnings.extend(new.cloned());
        recorded
    }
}

fn served(session: &Session) -> Served {
    let processes = session.server.processes();
    Served {
        leaders: processes.into_iter().map(|(_, pid)| pid).collect(),
        engine: Some(session.control.endpoint().clone()),
        lmcache: session.server.lmcache_url().map(str::to_owned),
    }
}

fn target(cell: &Cell, session: &Session, scope: &RunScope<'_>) -> Target {
    let server = &cell.resolved.server;
    let is_here = |url: &str| {
        let host = url.split("://").nth(1).unwrap_or(url);
        host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")
    };
    let simulated = session
        .version
        .as_deref()
        .is_some_and(|version| version.contains("labrun-sim"));
    let gpus = match server.launcher {
        _ if simulated => Gpus::None,
        // The GPUs of another machine are not this one's.
        Launcher::External if !is_here(&session.control.endpoint().url) => Gpus::None,
        Launcher::External => Gpus::All,
        _ => Gpus::Serving {
            visible: visible_devices(cell, scope),
        },
    };
    let kind = cell.tier.kind;
    Target {
        gpus,
        disk_tier: kind.uses_disk().then(|| session.scratch().to_owned()),
        served: served(session),
        redis: (kind == TierKind::Redis && !simulated).then(|| session.redis_url().to_owned()),
        recorder: None,
    }
}

/// What the server's `CUDA_VISIBLE_DEVICES` is.
fn visible_devices(cell: &Cell, scope: &RunScope<'_>) -> Option<String> {
    const NAME: &str = "CUDA_VISIBLE_DEVICES";
    let planned = cell.resolved.server.env.get(NAME);
    planned
        .or(scope.settings.env.get(NAME))
        .cloned()
        .or_else(|| std::env::var(NAME).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::sample::{SeriesKey, Unit};

    fn rate(metric: &'static str, device: &str, total: f64, covered: f64) -> Summary {
        Summary {
            key: SeriesKey {
                source: "gpu",
                device: device.into(),
                metric,
            },
            unit: Unit::BytesPerSecond,
            samples: 10,
            late: 0,
            mean: Some(1.0),
            max: Some(1.0),
            near_max: 1.0,
            total: Some(total),
            covered,
        }
    }

    #[test]
    fn pcie_bytes_are_summed_over_gpus_and_known_only_for_a_whole_pass() {
        let telemetry = |summaries| PassTelemetry {
            summaries,
            ..PassTelemetry::default()
        };
        let whole = telemetry(vec![
            rate("pcie_rx_gpm_payload", "0", 100.0, 0.99),
            rate("pcie_rx_gpm_payload", "1", 20.0, 1.0),
            rate("pcie_tx_gpm_payload", "0", 5.0, 1.0),
        ]);
        let found = whole.pcie().unwrap();
        assert_eq!((found.rx_bytes, found.tx_bytes), (120.0, 5.0));
        assert_eq!(found.method, "gpm");
        let torn = telemetry(vec![
            rate("pcie_rx_gpm_payload", "0", 100.0, 0.5),
            rate("pcie_tx_gpm_payload", "0", 5.0, 1.0),
        ]);
        assert_eq!(torn.pcie(), None);
        let sampled = telemetry(vec![
            rate("pcie_rx_throughput", "0", 1.0, 1.0),
            rate("pcie_tx_throughput", "0", 1.0, 1.0),
        ]);
        assert_eq!(
            sampled.pcie(),
            None,
            "a sampled throughput is never relied on"
        );
    }

    #[test]
    fn a_warning_is_said_once_in_a_run() {
        let said = Said::default();
        assert!(said.first("no GPU") && !said.first("no GPU") && said.first("other"));
    }
}
