//! Telemetry of one cell: started when its server is ready, summed up pass by pass.

use std::collections::BTreeMap;
use std::time::Duration;

use super::result::PassTelemetry;
use super::scope::{RunScope, Warned};
use super::session::Session;
use crate::load::LoadOutcome;
use crate::matrix::Cell;
use crate::plan::docker_spec;
use crate::plan::server::{Launcher, ServerSpec};
use crate::telemetry::collector::{Recorded, Served, Target, Telemetry, TierRedis};
use crate::telemetry::nvml::choice::Gpus;
use crate::telemetry::summary::{Summary, Window};
use crate::verdict::basis::Stretch;
use crate::verdict::bottleneck;

/// The edge at which a pass began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    /// When the samplers were asked to read.
    asked: Duration,
    /// When they had read.
    read: Duration,
    cpu: Duration,
}

/// The samplers of one cell.
#[derive(Debug)]
pub(crate) struct Watch {
    telemetry: Option<Telemetry>,
}

impl Watch {
    /// Starts the samplers that `cell` needs. Their start may block and has a thread for that.
    pub(crate) async fn start(cell: &Cell, session: &Session, scope: &RunScope<'_>) -> Self {
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
    pub(crate) async fn begin(&mut self, session: &Session) -> Option<Edge> {
        let telemetry = self.telemetry.as_mut()?;
        telemetry.follow(served(session));
        let (asked, read) = telemetry.begin_pass().await;
        Some(Edge {
            asked,
            read,
            cpu: telemetry.cpu(),
        })
    }

    /// Every series from the begin of a pass until now, once the tier has stored what it left: it
    /// stores behind the answers.
    pub(crate) async fn until_now(&self, began: Option<Edge>) -> Option<(Stretch, Vec<Summary>)> {
        let (Some(telemetry), Some(began)) = (&self.telemetry, began) else {
            return None;
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
        let stretch = Stretch { window, core };
        Some((stretch, telemetry.summaries(window, core)))
    }

    /// How many GPUs are watched, or would be if they answered.
    pub(crate) fn gpus(&self) -> usize {
        self.telemetry.as_ref().map_or(0, Telemetry::gpus)
    }

    /// The disk of the disk tier, by its kernel name.
    pub(crate) fn tier_disk(&self) -> Option<&str> {
        self.telemetry.as_ref().and_then(Telemetry::tier_disk)
    }

    /// Sums up the pass that began at `began` and has just ended.
    pub(crate) async fn end(&self, began: Option<Edge>, load: &LoadOutcome) -> PassTelemetry {
        let (Some(telemetry), Some(began)) = (&self.telemetry, began) else {
            return PassTelemetry::default();
        };
        // What the samplers used beside the load: the readings of the edge come when it is over.
        let used = telemetry.cpu().saturating_sub(began.cpu);
        let edge = telemetry.edge();
        // The readings of the edge come a moment after it, and all up to them is the pass's.
        let to = telemetry.end_pass(edge).await;
        let window = Window {
            from: began.asked,
            to,
        };
        let core = Window {
            from: began.read,
            to: edge,
        };
        let summaries = telemetry.summaries(window, core);
        let client = load.audit.client_bound.as_deref();
        let bottleneck = bottleneck::of_pass(&summaries, client, telemetry.tier_disk());
        PassTelemetry {
            cpu_share_percent: Some(
                used.as_secs_f64() / core.seconds().max(f64::MIN_POSITIVE) * 100.0,
            ),
            bottleneck: Some(bottleneck),
            summaries,
            window: core,
            stretch: Stretch { window, core },
        }
    }

    /// Ends the samplers. Its warnings go to `warnings`, each once in a run.
    pub(crate) async fn finish(self, warned: &Warned, warnings: &mut Vec<String>) -> Recorded {
        let Some(telemetry) = self.telemetry else {
            return Recorded::default();
        };
        let stopped = tokio::task::spawn_blocking(|| telemetry.stop()).await;
        let recorded = stopped.unwrap_or_default();
        let new = recorded.warnings.iter().filter(|text| warned.first(text));
        warnings.extend(new.cloned());
        recorded
    }
}

fn served(session: &Session) -> Served {
    Served {
        leaders: session.server.processes(),
        engine: Some(session.control.endpoint().clone()),
        lmcache: session.server.lmcache_url().map(str::to_owned),
    }
}

fn target(cell: &Cell, session: &Session, scope: &RunScope<'_>) -> Target {
    let simulated = session
        .version
        .as_deref()
        .is_some_and(|version| version.contains("labrun-sim"));
    let server = &cell.resolved.server;
    let gpus = if simulated {
        Gpus::None
    } else {
        gpus(server, &scope.settings.env, &session.control.endpoint().url)
    };
    // Of a device of the plan's own nothing states which disk it is.
    let is_on_device = cell.tier.adapter.device().is_some();
    let watched = session.server.watched();
    let watches_redis = watched.is_some_and(|watched| watched.redis.is_some());
    let has_redis = cell.tier.kind.speaks_resp() || watches_redis;
    Target {
        gpus,
        disk_tier: (cell.tier.uses_disk() && !is_on_device)
            .then(|| session.tier_folder().to_owned()),
        served: served(session),
        redis: (has_redis && !simulated).then(|| TierRedis {
            url: session.redis_url().to_owned(),
            container: redis_container(session),
        }),
        recorder: None,
    }
}

/// The first process of the Redis container of the cell's own, where there is one.
fn redis_container(session: &Session) -> Option<u32> {
    let processes = session.server.processes();
    let is_redis = |(role, _): &(&str, u32)| *role == "redis";
    processes.into_iter().find(is_redis).map(|(_, pid)| pid)
}

/// The GPUs that `server`, which answers at `url`, may use. `env` is the machine's environment of
/// servers, under the plan's.
fn gpus(server: &ServerSpec, env: &BTreeMap<String, String>, url: &str) -> Gpus {
    const NAME: &str = "CUDA_VISIBLE_DEVICES";
    let host = url.split("://").nth(1).unwrap_or(url);
    let is_here = ["127.", "localhost", "[::1]"]
        .iter()
        .any(|local| host.starts_with(local));
    let visible = server.env.get(NAME).or(env.get(NAME)).cloned();
    match server.launcher {
        // The GPUs of another machine are not this one's.
        Launcher::External if !is_here => Gpus::None,
        Launcher::External => Gpus::Used,
        // A container gets nothing of labrun's own environment.
        Launcher::Docker => Gpus::Serving {
            container: Some(
                server
                    .docker
                    .as_ref()
                    .map_or_else(docker_spec::Gpus::default, |docker| docker.gpus.clone()),
            ),
            visible,
        },
        Launcher::Process | Launcher::Sim => Gpus::Serving {
            container: None,
            visible: visible.or_else(|| std::env::var(NAME).ok()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn gpus_of(server: &str, url: &str) -> Gpus {
        let text = format!(
            "name = \"p\"\nmodel = \"m\"\n[matrix]\ntier = [\"baseline\"]\nprompt_len = [8]\n\
             gen_len = [1]\nconcurrency = [1]\nlabel = [\"x\"]\n[run]\nrequests = 1\n\
             [workload.x]\nkind = \"unique\"\n[server]\n{server}"
        );
        let plan = Plan::parse(&text, "plan.toml").unwrap();
        let env = BTreeMap::from([("CUDA_VISIBLE_DEVICES".to_owned(), "5".to_owned())]);
        gpus(&plan.variants[0].resolved.server, &env, url)
    }

    #[test]
    fn the_gpus_of_the_server_under_test_are_watched() {
        let here = "http://127.0.0.1:8000";
        let docker = "launcher = \"docker\"\nimage = \"i\"\ngpus = [\"0\", \"2\"]\n";
        let serving = |container, visible: &str| Gpus::Serving {
            container,
            visible: Some(visible.to_owned()),
        };
        let ids = docker_spec::Gpus::Ids(vec!["0".to_owned(), "2".to_owned()]);
        assert_eq!(gpus_of(docker, here), serving(Some(ids), "5"));
        let process = "launcher = \"process\"\n[server.env]\nCUDA_VISIBLE_DEVICES = \"1\"\n";
        assert_eq!(
            gpus_of(process, here),
            serving(None, "1"),
            "the plan's wins"
        );
        assert_eq!(gpus_of("launcher = \"process\"", here), serving(None, "5"));
        let external =
            |url: &str| gpus_of(&format!("launcher = \"external\"\nurl = \"{url}\""), url);
        assert_eq!(external(here), Gpus::Used);
        assert_eq!(external("http://10.0.0.7:8000"), Gpus::None);
    }
}
