//! The engine: continuous batching over a paged GPU cache, in virtual time.
//!
//! It has no clock and does no I/O: the caller passes the time and receives the events
//! since. Times are microseconds of the caller's clock.
//!
//! Like vLLM with asynchronous scheduling, the engine keeps two steps in flight: it schedules the
//! next one while the GPU runs the current one, and delivers the output of a step only after the
//! next one was launched. Tier lookups and loads block the engine, so they delay every request.

mod account;
mod event;
mod launch;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque, btree_map::OccupiedEntry};

pub(super) use self::event::{Emission, EngineEvent, LogEvent, SubmitError, TokenEvent};
use super::{
    frontend::Frontend,
    lmcache_config::OffloadConfig,
    offload::Offload,
    pool::BlockPool,
    request::{Sampled, Sequence, SimRequest, Times},
    stats::{EngineStats, FinishReason, PhysicalBytes},
    tokenizer::Vocabulary,
};
use crate::{
    plan::sim_spec::{Fault, SimSpec},
    sim::cost::round_us,
};

/// Steps that may be in flight.
const PIPELINE_DEPTH: usize = 2;

/// Whether the GPU keeps finished prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrefixCaching {
    /// `--enable-prefix-caching`, the default.
    Enabled,
    /// `--no-enable-prefix-caching`.
    Disabled,
}

/// How the engine is set up.
#[derive(Clone, Debug)]
pub(crate) struct EngineConfig {
    /// The machine and the model.
    pub spec: SimSpec,
    /// The GPU prefix cache.
    pub prefix_caching: PrefixCaching,
    /// The tiers; none for a plain server.
    pub(crate) offload: Option<OffloadConfig>,
}

#[derive(Debug)]
enum Pending {
    Arrive(u64),
    Deliver(TokenEvent),
}

#[derive(Debug)]
struct Batch {
    done_us: u64,
    outputs: Vec<(u64, Sampled, Option<FinishReason>)>,
}

/// What the engine's thread is doing until `free_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    Working,
    /// Waiting for the oldest step in flight; arrivals are not seen meanwhile.
    AwaitingStep,
}

/// The simulated vLLM engine.
#[derive(Debug)]
pub(super) struct Engine {
    spec: SimSpec,
    vocabulary: Vocabulary,
    prefix_caching: PrefixCaching,
    pool: BlockPool,
    offload: Option<Offload>,
    pending: BTreeMap<(u64, u64), Pending>,
    pending_count: u64,
    sequences: HashMap<u64, Sequence>,
    waiting: VecDeque<u64>,
    running: Vec<u64>,
    in_flight: VecDeque<Batch>,
    activity: Activity,
    free_us: u64,
    gpu_free_us: u64,
    frontend: Frontend,
    wake_us: Option<u64>,
    arrived: u32,
    stats: EngineStats,
    out: Vec<Emission>,
}

impl Engine {
    /// An engine with empty caches.
    pub(super) fn new(config: EngineConfig) -> Self {
        let EngineConfig {
            spec,
            prefix_caching,
            offload,
        } = config;
        let blocks = spec.gpu_kv_tokens / u64::from(spec.block_size);
        Self {
            vocabulary: Vocabulary::new(spec.vocab_size),
            prefix_caching,
            pool: BlockPool::new(blocks as usize, spec.seed),
            offload: offload.map(|config| Offload::new(config, &spec)),
            pending: BTreeMap::new(),
            pending_count: 0,
            sequences: HashMap::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            in_flight: VecDeque::new(),
            activity: Activity::Working,
            free_us: 0,
            gpu_free_us: 0,
            frontend: Frontend::default(),
            wake_us: None,
            arrived: 0,
            stats: EngineStats::new(),
            out: Vec::new(),
            spec,
        }
    }

    /// The tiers, to put into them what outlived an earlier process.
    pub(crate) fn offload_mut(&mut self) -> Option<&mut Offload> {
        self.offload.as_mut()
    }

    /// Takes a request that reaches the server at `now_us`.
    pub(super) fn submit(
        &mut self,
        mut request: SimRequest,
        now_us: u64,
    ) -> Result<(), SubmitError> {
        let capacity = self.pool.len() * self.block_size();
        let prompt = request.prompt.len();
        if prompt == 0 {
            return Err(SubmitError::Empty);
        }
        if prompt >= capacity {
            return Err(SubmitError::TooLong { prompt, capacity });
        }
        request.max_tokens = request.max_tokens.clamp(1, (capacity - prompt) as u32);
        let work = self.spec.frontend_us_per_request
            + self.spec.frontend_us_per_token * request.prompt.len() as f64;
        let id = request.id;
        let times = Times {
            arrived_us: now_us,
            queued_us: now_us,
            ..Times::default()
        };
        let offload = self.offload.as_ref().map(Offload::config);
        let sequence = Sequence::new(request, self.block_size(), offload, times);
        self.sequences.insert(id, sequence);
        self.frontend.add(id, round_us(work), now_us);
        Ok(())
    }

    /// When something will happen next, if anything.
    pub(super) fn next_event_us(&self) -> Option<u64> {
        let pending_us = self.pending.first_key_value().map(|((at_us, _), _)| *at_us);
        [pending_us, self.frontend.next_done_us(), self.wake_us]
            .into_iter()
            .flatten()
            .min()
    }

    /// Everything that has happened up to `now_us`; tokens come in order.
    pub(super) fn advance(&mut self, now_us: u64) -> Vec<Emission> {
        while let Some(at_us) = self.next_event_us().filter(|at_us| *at_us <= now_us) {
            if let Some(id) = self.frontend.pop_done(at_us) {
                let latency_us = round_us(self.spec.request_latency_us);
                self.push(at_us + latency_us, Pending::Arrive(id));
                continue;
            }
            let due = self
                .pending
                .first_entry()
                .filter(|entry| entry.key().0 == at_us);
            match due.map(OccupiedEntry::remove) {
                Some(Pending::Arrive(id)) => self.arrive(id, at_us),
                Some(Pending::Deliver(token)) => {
                    self.out.push(Emission {
                        at_us,
                        event: EngineEvent::Token(token),
                    });
                }
                None => self.turn(at_us),
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Drops a request whose client went away.
    pub(super) fn abort(&mut self, id: u64) {
        let Some(sequence) = self.sequences.remove(&id) else {
            return;
        };
        self.waiting.retain(|other| *other != id);
        self.running.retain(|other| *other != id);
        self.release(&sequence.blocks);
    }

    /// Forgets the GPU prefix cache; false while requests hold blocks. The tiers keep theirs.
    pub(super) fn reset_prefix_cache(&mut self) -> bool {
        if self.spec.has(Fault::ResetIgnored) {
            return true;
        }
        !self.spec.has(Fault::ResetRefused) && self.pool.reset().is_ok()
    }

    /// Clears the tiers of a connector that can do it: vLLM's own. LMCache in the engine process
    /// reports success and clears nothing.
    pub(super) fn reset_external(&mut self) {
        if let Some(offload) = &mut self.offload {
            offload.reset();
        }
    }

    /// Empties the page cache behind the disk tier, as an operator would between two passes.
    pub(super) fn drop_page_cache(&mut self) {
        if let Some(offload) = &mut self.offload {
            offload.drop_page_cache();
        }
    }

    /// Bytes moved up to `now_us`.
    pub(super) fn physical_bytes(&mut self, now_us: u64) -> PhysicalBytes {
        self.offload
            .as_mut()
            .map_or_else(PhysicalBytes::default, |offload| {
                offload.settle(now_us);
                offload.physical
            })
    }

    /// Unfinished requests.
    #[cfg(test)]
    fn unfinished(&self) -> usize {
        self.sequences.len()
    }

    pub(crate) fn stats(&mut self) -> &EngineStats {
        self.stats.running = self.running.len();
        self.stats.waiting = self.waiting.len();
        self.stats.kv_usage = 1.0 - self.pool.free() as f64 / self.pool.len() as f64;
        &self.stats
    }

    pub(crate) fn offload(&self) -> Option<&Offload> {
        self.offload.as_ref()
    }

    fn block_size(&self) -> usize {
        self.spec.block_size as usize
    }

    fn push(&mut self, at_us: u64, pending: Pending) {
        self.pending_count += 1;
        self.pending.insert((at_us, self.pending_count), pending);
    }

    fn log(&mut self, at_us: u64, event: LogEvent) {
        self.out.push(Emission {
            at_us,
            event: EngineEvent::Log(event),
        });
    }

    fn release(&mut self, blocks: &[u32]) {
        // The end of a prefix is the first to be evicted.
        for &block in blocks.iter().rev() {
            self.pool.release(block);
        }
    }

    fn arrive(&mut self, id: u64, now_us: u64) {
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        }; // aborted on the way
        sequence.times.queued_us = now_us;
        self.arrived += 1;
        self.waiting.push_back(id);
        if self.wake_us.is_none() && !self.is_stalled() {
            self.wake_us = Some(self.free_us.max(now_us));
        }
    }

    fn is_stalled(&self) -> bool {
        self.spec.has(Fault::Stall) && self.arrived > self.spec.fault_after_requests
    }

    /// One turn of the engine's loop: deliver, schedule, or wait for the oldest step.
    fn turn(&mut self, now_us: u64) {
        self.wake_us = None;
        if self.is_stalled() {
            return;
        }
        if self.activity == Activity::AwaitingStep {
            self.activity = Activity::Working;
            if let Some(batch) = self.in_flight.pop_front() {
                self.deliver(&batch, now_us);
            }
        }
        let scheduled = self.in_flight.len() < PIPELINE_DEPTH && self.schedule(now_us);
        let Some(oldest) = self.in_flight.front() else {
            return; // idle until something arrives
        };
        let full = self.in_flight.len() == PIPELINE_DEPTH;
        // A step that ended in a store is done when its launch returns.
        if !scheduled || full || oldest.done_us <= self.free_us {
            self.activity = Activity::AwaitingStep;
            self.free_us = self.free_us.max(oldest.done_us);
        }
        self.wake_us = Some(self.free_us.max(now_us));
    }

    fn deliver(&mut self, batch: &Batch, at_us: u64) {
        for &(id, sampled, finish) in &batch.outputs {
            let Some(sequence) = self.sequences.get_mut(&id) else {
                continue;
            };
            sequence.delivered += 1;
            let cached = sequence.sources.local + sequence.sources.external;
            let event = TokenEvent {
                request: id,
                token: sampled.token,
                state: sampled.state,
                cached_tokens: cached as u32,
                finish,
            };
            self.count_token(id, at_us);
            self.push(at_us, Pending::Deliver(event));
            if let Some(reason) = finish {
                self.finish(id, reason, at_us);
            }
        }
    }
}
