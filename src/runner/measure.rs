//! One cell on a ready server: warm-up, then each cache state, reached and measured.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::event::Event;
use super::evidence::PassFacts;
use super::profile::Window;
use super::requests::{Requests, requests_of};
use super::result::{Pass, PassTelemetry};
use super::scope::RunScope;
use super::serialized;
use super::session::{Failure, Session};
use super::snapshot::Snapshot;
use super::watch::Watch;
use crate::evidence::Evidence;
use crate::load::{Endpoint, LoadOptions, LoadOutcome, Progress, RequestRecord, drive};
use crate::matrix::Cell;
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::record::schema::Phase;
use crate::telemetry::collector::Recorded;
use crate::verdict::answers::{Answers, first_failure};
use crate::verdict::basis::{Basis, Stretch, Watched};
use crate::verdict::moved::{Moved, PcieBytes};
use crate::verdict::{Facts, Stores, judge, ledger, measures};
use crate::workload::Schedule;
use canaries::{CanaryBook, Compared, take_canaries};
use reach::Reached;

pub(super) mod canaries;
mod reach;

/// How long a process may take from its last broken connection to its end: connections break a
/// little before it is gone.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// Takes a cell's results as they come: a failure loses none of them.
pub(super) struct Results<'a> {
    /// Passes that ended.
    pub passes: &'a mut Vec<Pass>,
    /// What a reader should know.
    pub warnings: &'a mut Vec<String>,
    /// What the machine did.
    pub telemetry: &'a mut Recorded,
}

/// What one cell's steps share.
struct Measuring<'a> {
    cell: &'a Cell,
    session: &'a mut Session,
    scope: &'a RunScope<'a>,
    on_event: &'a mut dyn FnMut(Event<'_>),
    endpoint: Endpoint,
    watch: Watch,
    /// Counters when the cell began.
    begun: Snapshot,
    /// Other text for the GPU's KV blocks, until it was sent.
    overwrite: Option<Arc<Schedule>>,
    /// Whether the probe's document was filled; absent before it was asked about.
    probe_filled: Option<bool>,
}

/// The requests of a pass and what was seen beside them.
struct Measured {
    /// When they began, from the run's epoch.
    started: Duration,
    load: LoadOutcome,
    /// What came back for the canaries within the load.
    in_load: Vec<RequestRecord>,
    /// How the server ended, if it did so meanwhile.
    died: Option<String>,
    after: Snapshot,
    telemetry: PassTelemetry,
    moved: Moved,
    /// Where in the telemetry its bytes were counted.
    watched: Option<Watched>,
    /// The counters once the tier has stored what the pass left, and whether it has; absent
    /// where nothing waits for it.
    settled: Option<(Snapshot, Stores)>,
}

/// Measures `cell` in each of its states.
pub(super) async fn measure(
    cell: &Cell,
    session: &mut Session,
    scope: &RunScope<'_>,
    results: &mut Results<'_>,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<(), Failure> {
    on_event(Event::PhaseStarted {
        phase: Phase::Warm,
        state: None,
    });
    let begun = session.begin_cell().await;
    begun.map_err(Failure::of(Phase::Warm))?;
    results.warnings.extend(session.warnings.iter().cloned());
    let requests = requests_of(cell, session, scope)
        .await
        .map_err(Failure::of(Phase::Warm))?;
    let server = session.control.endpoint();
    let endpoint = Endpoint::parse(&server.url).map_err(|error| Failure {
        phase: Phase::Warm,
        error: error.into(),
    })?;
    let endpoint = match &server.api_key {
        Some(key) => endpoint.with_api_key(key.secret().to_owned()),
        None => endpoint,
    };
    let watch = Watch::start(cell, session, scope).await;
    let mut measuring = Measuring {
        cell,
        session,
        scope,
        on_event,
        endpoint,
        watch,
        begun: Snapshot::default(),
        overwrite: requests.overwrite.clone(),
        probe_filled: None,
    };
    let measured = measuring.all_states(requests, results).await;
    *results.telemetry = measuring.watch.finish(scope.warned, results.warnings).await;
    measured
}

impl Measuring<'_> {
    async fn all_states(
        &mut self,
        requests: Requests,
        results: &mut Results<'_>,
    ) -> Result<(), Failure> {
        self.begun = self.unless_stopped(Snapshot::take(self.session)).await;
        if let Some(warmup) = requests.warmup {
            self.unmeasured(&warmup, "warm-up", results).await?;
        }
        let mut canaries = requests.canaries;
        if let Some(fill) = requests.fill {
            self.unmeasured(&fill, "fill", results).await?;
            self.probe(CacheState::Cold, requests.probe.as_ref())
                .await?;
            self.ask(CacheState::Cold, canaries.as_mut(), Vec::new(), results)
                .await?;
        }
        for (state, schedule) in requests.passes {
            let stop = self.scope.stop.polite.clone();
            let (rewarm, probe) = (requests.after_restart.as_ref(), requests.probe.as_ref());
            let reached = tokio::select! {
                biased;
                // The cell is given up as a whole; what it measured is not stored.
                () = stop.cancelled() => return Ok(()),
                reached = self.reach(state, rewarm, probe, results) => reached?,
            };
            let pass = self.pass(reached, &schedule, canaries.as_mut(), results);
            let (pass, ended) = pass.await?;
            results.passes.push(pass);
            ended?;
        }
        Ok(())
    }

    /// Measures one pass in a state that was reached. The pass is returned also when the server
    /// ended meanwhile.
    async fn pass(
        &mut self,
        reached: Reached,
        schedule: &Arc<Schedule>,
        canaries: Option<&mut CanaryBook>,
        results: &mut Results<'_>,
    ) -> Result<(Pass, Result<(), Failure>), Failure> {
        let state = reached.state;
        let before = self.unless_stopped(Snapshot::take(self.session)).await;
        (self.on_event)(Event::PhaseStarted {
            phase: Phase::Load,
            state: Some(state),
        });
        let Measured {
            started,
            load,
            in_load,
            died,
            after,
            telemetry,
            moved,
            watched,
            settled,
        } = self.measured(state, schedule, &before, results).await?;
        let waited = settled.as_ref();
        let stores = waited.map_or(reached.stores, |(_, stores)| *stores);
        let mut ended = died.map_or(Ok(()), |how| ended_early(&how));
        let canaries = canaries.filter(|_| ended.is_ok() && !self.scope.stop.requested());
        let asked = self.ask(state, canaries, in_load.clone(), results).await;
        let asked = asked.unwrap_or_else(|failure| {
            ended = Err(failure);
            Compared::default()
        });
        let pass = PassFacts {
            cell: self.cell,
            settings: self.scope.settings,
            state,
            schedule,
            load: &load,
            begun: &self.begun,
            in_load: &in_load,
            before: &before,
            after: &after,
            pcie: moved.pcie,
            running_max: measures::running_max(&telemetry.summaries),
            settled: waited.map_or(&after, |(settled, _)| settled),
            probe: reached.probe,
            page_cache: reached.page_cache,
            stores,
            start_log: &self.session.start_log,
            canaries: asked.quiet,
            canaries_in_load: asked.in_load,
            engine_kv: self.session.engine_kv,
            host_link: moved.host_link.clone(),
            tier_link: moved.tier_link.clone(),
            serialized: serialized::bytes_per_token(self.cell, self.session.tier_folder()),
        };
        let facts = pass.facts();
        let verdict = judge(&facts);
        results.warnings.extend(lost_readings(&facts, &telemetry));
        let evidence = self.evidence(&pass, &facts, &telemetry);
        Ok((
            Pass {
                state,
                started,
                schedule: Arc::clone(schedule),
                load,
                verdict,
                ledger: ledger::rows_beside(&facts, moved.network.as_ref()),
                basis: Some(Basis { facts, watched }),
                evidence,
                telemetry,
            },
            ended,
        ))
    }

    /// The numbers beside the verdict of `pass`.
    fn evidence(
        &self,
        pass: &PassFacts<'_>,
        facts: &Facts,
        telemetry: &PassTelemetry,
    ) -> BTreeMap<Evidence, f64> {
        let parts = [
            pass.measures(facts),
            self.overwriting(),
            measures::of_samples(&telemetry.summaries),
        ];
        parts.into_iter().flatten().collect()
    }

    /// What overwrote the GPU's KV blocks since the server's start.
    fn overwriting(&self) -> BTreeMap<Evidence, f64> {
        let overwritten = self.session.overwritten;
        measures::known([
            (Evidence::GpuKvTokens, self.session.gpu_tokens),
            (Evidence::OverwrittenTokens, overwritten.map(|it| it.tokens)),
            (
                Evidence::OverwriteS,
                overwritten.map(|it| it.took.as_secs_f64()),
            ),
        ])
    }

    /// The requests of a pass, watched, and under the plan's profilers.
    async fn measured(
        &mut self,
        state: CacheState,
        schedule: &Arc<Schedule>,
        before: &Snapshot,
        results: &mut Results<'_>,
    ) -> Result<Measured, Failure> {
        let profiled = Window::open(self.cell, &self.session.control, results.warnings).await;
        let edge = self.watch.begin(self.session).await;
        let started = self.scope.epoch.elapsed();
        let (mut load, died) = self
            .drive(schedule)
            .await
            .map_err(Failure::of(Phase::Load))?;
        let in_load = take_canaries(schedule, &mut load);
        (self.on_event)(Event::PhaseStarted {
            phase: Phase::Verify,
            state: Some(state),
        });
        let answers = Answers {
            schedule,
            load: &load,
            canaries: &in_load,
        };
        let read = async {
            let after = Snapshot::take_after(self.session, before, &answers);
            tokio::join!(after, self.watch.end(edge, &load))
        };
        let (after, telemetry) = self.unless_stopped(read).await;
        let state_name = state.name();
        for message in load
            .warnings()
            .into_iter()
            .chain(self.session.control.troubles())
        {
            let warning = format!("{state_name}: {message}");
            if !results.warnings.contains(&warning) {
                results.warnings.push(warning);
            }
        }
        let gpus = self.watch.gpus();
        let mut moved = Moved::of(&telemetry.summaries, gpus, self.watch.tier_disk());
        let mut until_stored = None;
        let mut settled = None;
        if died.is_none() {
            let kind = self.cell.tier.kind;
            let waits = kind.uses_lmcache() || kind.uses_disk() || kind == TierKind::Connector;
            let stores = waits || after.counts_stores();
            let leaves = state == CacheState::Cold && stores;
            if leaves && !self.scope.stop.requested() {
                let stores = self.wait_until_stored(results).await;
                settled = Some((Snapshot::take(self.session).await, stores));
                let (stretch, summaries) = self.watch.until_now(edge).await.unzip();
                moved.add_stores(summaries.as_deref(), gpus);
                until_stored = stretch;
            }
            // Only now: a report takes long to write, and neither that time nor its bytes are the
            // pass's.
            let stop = &self.scope.stop.polite;
            let control = &self.session.control;
            profiled.close(control, stop, results.warnings).await;
        }
        let watched = watched(telemetry.stretch, until_stored, gpus);
        Ok(Measured {
            started,
            load,
            in_load,
            died,
            after,
            telemetry,
            moved,
            watched,
            settled,
        })
    }

    /// What `work` comes to; nothing once the run is stopped, for then nothing of the cell is
    /// stored, and a server that hangs would be waited for.
    async fn unless_stopped<T: Default>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.scope.stop.polite.cancelled() => T::default(),
            done = work => done,
        }
    }

    /// Requests that are sent for what they leave behind.
    async fn unmeasured(
        &mut self,
        schedule: &Arc<Schedule>,
        what: &str,
        results: &mut Results<'_>,
    ) -> Result<(), Failure> {
        let phase = Phase::Warm;
        let (load, died) = self.drive(schedule).await.map_err(Failure::of(phase))?;
        if let Some(how) = died {
            return Err(Failure {
                phase,
                error: anyhow!("{how} during the {what}"),
            });
        }
        let counts = load.counts();
        if let Some(first) = first_failure(&load) {
            let message = format!(
                "{} of {} {what} requests failed: {first}",
                counts.failed, counts.sent
            );
            if counts.ok == 0 {
                return Err(Failure {
                    phase,
                    error: anyhow!(message),
                });
            }
            results.warnings.push(message);
        }
        Ok(())
    }

    /// Sends `schedule`; also returns how the server ended if it did so meanwhile.
    async fn drive(&mut self, schedule: &Arc<Schedule>) -> Result<(LoadOutcome, Option<String>)> {
        let progress = Arc::new(Progress::default());
        (self.on_event)(Event::LoadStarted {
            progress: Arc::clone(&progress),
            requests: schedule.requests.len(),
        });
        let mut options = LoadOptions::from(&self.cell.resolved.load);
        options.kill = self.scope.stop.at_once.child_token();
        // Nothing of a cell that is given up is stored, so no answer is worth waiting for.
        options.cancel_drain = Duration::ZERO;
        let kill = options.kill.clone();
        let polite = &self.scope.stop.polite;
        let load = drive(
            Arc::clone(schedule),
            &self.endpoint,
            &options,
            polite,
            &progress,
        );
        tokio::pin!(load);
        let (outcome, died) = tokio::select! {
            outcome = &mut load => (outcome?, None),
            how = self.session.server.exited() => {
                // Its answers will never come.
                kill.cancel();
                (load.await?, Some(how))
            }
        };
        match died {
            None if outcome.counts().failed > 0 => {
                let died = tokio::time::timeout(EXIT_GRACE, self.session.server.exited()).await;
                Ok((outcome, died.ok()))
            }
            died => Ok((outcome, died)),
        }
    }
}

/// Where the bytes of a pass were counted; `None` where nothing was watched.
fn watched(pass: Stretch, until_stored: Option<Stretch>, gpus: usize) -> Option<Watched> {
    (pass != Stretch::default()).then_some(Watched {
        gpus,
        pass,
        until_stored,
    })
}

/// Which readings the pass lost that its verdict needed.
fn lost_readings(facts: &Facts, telemetry: &PassTelemetry) -> Option<String> {
    let lost = PcieBytes::lost(&telemetry.summaries).filter(|_| facts.lacks_pcie())?;
    Some(format!("{}: {lost}", facts.state.name()))
}

/// The server ended while requests ran.
fn ended_early(how: &str) -> Result<(), Failure> {
    Err(Failure {
        phase: Phase::Load,
        error: anyhow!("{how} while requests ran"),
    })
}
