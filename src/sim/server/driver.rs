//! The thread that runs the engine in real time.

use std::{
    collections::HashMap,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc::UnboundedSender, oneshot, watch};

use super::log::{Log, Speaker};
use crate::{
    plan::sim_spec::{Fault, SimSpec},
    sim::{
        engine::{Engine, EngineEvent, SubmitError},
        keep::Chunks,
        lmcache_config::Connector,
        offload::Offload,
        request::SimRequest,
        stats::{EngineStats, FinishReason, PhysicalBytes, TierStats},
    },
};

/// Tokens that the request which triggers `exit-mid-load` still gets.
const TOKENS_BEFORE_EXIT: u32 = 2;

/// A token of one choice of an HTTP request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChoiceToken {
    pub(super) choice: usize,
    pub(super) token: u32,
    /// What its log-probability follows from.
    pub(super) state: u64,
    pub(super) cached_tokens: u32,
    pub(super) finish: Option<FinishReason>,
}

/// Where the tokens of a request go.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) choice: usize,
    pub(super) sender: UnboundedSender<ChoiceToken>,
}

/// A tier that vLLM serves itself.
#[derive(Clone, Debug)]
pub(super) struct OwnTier {
    pub(super) connector: Connector,
    pub(super) has_files: bool,
    pub(super) stats: TierStats,
}

/// Everything that `/metrics` shows.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) engine: EngineStats,
    /// What LMCache counts.
    pub(super) tiers: Option<TierStats>,
    /// What vLLM's own offloading counts.
    pub(super) own: Option<OwnTier>,
    pub(super) physical: PhysicalBytes,
}

/// What the HTTP handlers ask of the engine.
#[derive(Debug)]
pub(super) enum Command {
    Submit {
        request: SimRequest,
        sink: Sink,
        refused: oneshot::Sender<SubmitError>,
    },
    Abort(u64),
    ResetPrefixCache {
        external: External,
        done: oneshot::Sender<bool>,
    },
    DropPageCache(oneshot::Sender<()>),
    Snapshot(oneshot::Sender<Snapshot>),
    Stop,
}

/// Whether `reset_external` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum External {
    Keep,
    Reset,
}

/// How the engine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Serving,
    Dead,
}

#[derive(Debug)]
pub(super) struct Driver {
    engine: Engine,
    spec: SimSpec,
    log: Log,
    started: Instant,
    sinks: HashMap<u64, Sink>,
    submitted: u32,
    /// The request that takes the process down with it, and the tokens it still gets.
    fatal: Option<(u64, u32)>,
    published: Option<TierStats>,
    next_publish_us: u64,
    health: watch::Sender<Health>,
}

/// Whether the thread goes on.
enum Next {
    Continue,
    End,
}

impl Driver {
    pub(super) fn new(
        engine: Engine,
        spec: SimSpec,
        log: Log,
        health: watch::Sender<Health>,
    ) -> Self {
        let published = lmcache_stats(&engine);
        Self {
            engine,
            spec,
            log,
            started: Instant::now(),
            sinks: HashMap::new(),
            submitted: 0,
            fatal: None,
            published,
            next_publish_us: 0,
            health,
        }
    }

    /// Serves commands until it is stopped, every sender is gone, or the engine dies. Returns what the
    /// tier holds by then that can outlive it.
    pub(super) fn run(mut self, commands: &Receiver<Command>) -> Chunks {
        loop {
            let next = match self.wait_us() {
                Some(0) => commands.try_recv().map_err(|error| match error {
                    std::sync::mpsc::TryRecvError::Empty => RecvTimeoutError::Timeout,
                    std::sync::mpsc::TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
                Some(us) => commands.recv_timeout(Duration::from_micros(us)),
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let next = match next {
                Ok(command) => self.handle(command),
                Err(RecvTimeoutError::Timeout) => Next::Continue,
                Err(RecvTimeoutError::Disconnected) => Next::End,
            };
            if matches!(next, Next::End) || matches!(self.dispatch(), Next::End) {
                let offload = self.engine.offload();
                return offload.map(Offload::lasting_chunks).unwrap_or_default();
            }
        }
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn wait_us(&self) -> Option<u64> {
        let publish_us = self.publishes_late().then_some(self.next_publish_us);
        let next_us = self
            .engine
            .next_event_us()
            .into_iter()
            .chain(publish_us)
            .min();
        next_us.map(|at_us| at_us.saturating_sub(self.now_us()))
    }

    fn handle(&mut self, command: Command) -> Next {
        let now_us = self.now_us();
        match command {
            Command::Submit {
                request,
                sink,
                refused,
            } => {
                let id = request.id;
                match self.engine.submit(request, now_us) {
                    Ok(()) => {
                        self.sinks.insert(id, sink);
                        self.count_request(id);
                    }
                    // The sink is dropped, so the handler looks for the reason.
                    Err(error) => drop(refused.send(error)),
                }
            }
            Command::Abort(id) => {
                self.sinks.remove(&id);
                self.engine.abort(id);
            }
            Command::ResetPrefixCache { external, done } => {
                if external == External::Reset {
                    self.engine.reset_external();
                }
                let success = self.engine.reset_prefix_cache();
                self.log.vllm(
                    Speaker::EngineCore,
                    "INFO",
                    "block_pool.py:438",
                    if success {
                        "Successfully reset prefix cache"
                    } else {
                        "Failed to reset prefix cache because some blocks are not freed yet"
                    },
                );
                let _ = done.send(success);
            }
            Command::DropPageCache(done) => {
                self.engine.drop_page_cache();
                let _ = done.send(());
            }
            Command::Snapshot(reply) => {
                let _ = reply.send(self.snapshot(now_us));
            }
            Command::Stop => return Next::End,
        }
        Next::Continue
    }

    fn count_request(&mut self, id: u64) {
        self.submitted += 1;
        let due = self.submitted > self.spec.fault_after_requests;
        if self.spec.has(Fault::ExitMidLoad) && due && self.fatal.is_none() {
            self.fatal = Some((id, TOKENS_BEFORE_EXIT));
        }
    }

    fn dispatch(&mut self) -> Next {
        let now_us = self.now_us();
        if self.publishes_late() && now_us >= self.next_publish_us {
            self.publish(now_us);
        }
        for emission in self.engine.advance(now_us) {
            match emission.event {
                EngineEvent::Log(event) => self.log.engine(&event),
                EngineEvent::Token(event) => {
                    let Some(sink) = self.sinks.get(&event.request) else {
                        continue;
                    };
                    let _ = sink.sender.send(ChoiceToken {
                        choice: sink.choice,
                        token: event.token,
                        state: event.state,
                        cached_tokens: event.cached_tokens,
                        finish: event.finish,
                    });
                    if event.finish.is_some() {
                        self.sinks.remove(&event.request);
                    }
                    if let Some((id, left)) = &mut self.fatal
                        && *id == event.request
                    {
                        *left = left.saturating_sub(1);
                        if *left == 0 || event.finish.is_some() {
                            self.die();
                            return Next::End;
                        }
                    }
                }
            }
        }
        Next::Continue
    }

    /// The engine process is gone: every stream breaks.
    fn die(&mut self) {
        let speaker = Speaker::EngineCore;
        let source = "core.py:1120";
        self.log.vllm(
            speaker,
            "ERROR",
            source,
            "EngineCore encountered a fatal error.",
        );
        self.log
            .line(speaker, "RuntimeError: simulated fault: exit-mid-load");
        self.sinks.clear();
        self.health.send_replace(Health::Dead);
    }

    /// Whether the LMCache counters are published now and then, not when they are asked for.
    fn publishes_late(&self) -> bool {
        self.spec.lmcache_metrics_interval_ms > 0 && self.published.is_some()
    }

    fn publish(&mut self, now_us: u64) {
        self.published = lmcache_stats(&self.engine);
        self.next_publish_us = now_us + self.spec.lmcache_metrics_interval_ms * 1_000;
    }

    fn snapshot(&mut self, now_us: u64) -> Snapshot {
        let physical = self.engine.physical_bytes(now_us);
        if !self.publishes_late() {
            self.publish(now_us);
        }
        let own = self.engine.offload();
        let own = own.filter(|offload| offload.is_vllms_own());
        let own = own.map(|offload| OwnTier {
            connector: offload.config().connector,
            has_files: offload.config().disk.is_some(),
            stats: offload.stats.clone(),
        });
        Snapshot {
            own,
            engine: self.engine.stats().clone(),
            tiers: self.published.clone(),
            physical,
        }
    }
}

/// What LMCache counts, where it serves the tier.
fn lmcache_stats(engine: &Engine) -> Option<TierStats> {
    let offload = engine.offload()?;
    (!offload.is_vllms_own()).then(|| offload.stats.clone())
}

/// The handlers' end of the driver.
#[derive(Clone, Debug)]
pub(super) struct DriverHandle {
    pub(super) commands: Sender<Command>,
}

impl DriverHandle {
    /// Sends a command; false when the engine is gone.
    pub(super) fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }

    /// Sends a command and waits for its answer; none when the engine is gone.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        if !self.send(command(reply)) {
            return None;
        }
        answer.await.ok()
    }
}
