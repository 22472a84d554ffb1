//! Which requests take part in a step.

use super::{Engine, LogEvent, PrefixCaching};
use crate::sim::{
    offload::{Answer, Lookup, Place},
    request::Sources,
};

/// A step that is being put together.
#[derive(Debug)]
pub(super) struct Step {
    /// The engine's time; lookups and loads push it on.
    pub(super) clock_us: u64,
    pub(super) budget: usize,
    pub(super) parts: Vec<Part>,
}

/// What one request does in a step.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: u64,
    /// Tokens to compute.
    pub(super) count: usize,
    /// Chunks to load first.
    pub(super) load: Option<Load>,
}

/// Chunks to load: `places[i]` holds chunk `first_chunk + i`.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) first_chunk: usize,
    pub(super) places: Vec<Place>,
    /// Blocks that the GPU had already.
    pub(super) local_blocks: usize,
}

/// Where a waiting request can start.
struct Start {
    local_blocks: Vec<u32>,
    sources: Sources,
    load: Option<Load>,
}

/// Whether room was made by throwing a running request out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressure {
    None,
    Preempted,
}

impl Engine {
    /// Puts a step together and launches it; false when there is nothing to do.
    pub(super) fn schedule(&mut self, now_us: u64) -> bool {
        let budget = self.spec.max_num_batched_tokens as usize;
        let mut step = Step {
            clock_us: now_us,
            budget,
            parts: Vec::new(),
        };
        if self.schedule_running(&mut step) == Pressure::None {
            self.schedule_waiting(&mut step);
        }
        self.free_us = self.free_us.max(step.clock_us);
        if step.parts.is_empty() {
            return false;
        }
        self.launch(step);
        true
    }

    fn schedule_running(&mut self, step: &mut Step) -> Pressure {
        let mut pressure = Pressure::None;
        let mut index = 0;
        while index < self.running.len() && step.budget > 0 {
            let id = self.running[index];
            index += 1;
            let count = self.sequences[&id].remaining().min(step.budget);
            if count == 0 {
                continue;
            }
            while !self.grow(id, count) {
                pressure = Pressure::Preempted;
                if self.preempt_last() == Some(id) {
                    return pressure;
                }
            }
            step.budget -= count;
            step.parts.push(Part {
                id,
                count,
                load: None,
            });
        }
        pressure
    }

    /// Gives a sequence the blocks for `count` more tokens; false when the pool has too few.
    fn grow(&mut self, id: u64, count: usize) -> bool {
        let block_size = self.block_size();
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return true;
        };
        let needed = (sequence.computed + count).div_ceil(block_size);
        let missing = needed.saturating_sub(sequence.blocks.len());
        if missing > self.pool.free() {
            return false;
        }
        sequence
            .blocks
            .extend((0..missing).filter_map(|_| self.pool.allocate()));
        true
    }

    /// Throws the youngest running request out, to be computed again later.
    fn preempt_last(&mut self) -> Option<u64> {
        let youngest = |id: &u64| self.sequences[id].ended.is_none();
        let index = self.running.iter().rposition(youngest)?;
        let id = self.running.remove(index);
        let sequence = self.sequences.get_mut(&id)?;
        let blocks = std::mem::take(&mut sequence.blocks);
        sequence.computed = 0;
        sequence.context = crate::sim::request::Context::default();
        sequence.lookup = None;
        sequence.preemptions += 1;
        self.stats.preemptions += 1;
        self.release(&blocks);
        self.waiting.push_front(id);
        Some(id)
    }

    fn schedule_waiting(&mut self, step: &mut Step) {
        while step.budget > 0
            && self.running.len() < self.spec.max_num_seqs as usize
            && self.pool.free() > 0
            && let Some(&id) = self.waiting.front()
        {
            let start = self.find_start(id, step);
            let computed = (start.sources.local + start.sources.external) as usize;
            let count = (self.sequences[&id].tokens.len() - computed).min(step.budget);
            let needed = (computed + count).div_ceil(self.block_size());
            let taken_from_free = self.pool.count_free(&start.local_blocks);
            let fresh = needed - start.local_blocks.len();
            if fresh + taken_from_free > self.pool.free() {
                return; // wait until running requests give blocks back
            }
            self.waiting.pop_front();
            self.running.push(id);
            self.admit(id, start, fresh, step, count);
        }
    }

    fn admit(&mut self, id: u64, start: Start, fresh: usize, step: &mut Step, count: usize) {
        for &block in &start.local_blocks {
            self.pool.acquire(block);
        }
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        for &block in &start.local_blocks {
            sequence.context.read_block(self.pool.content(block));
        }
        sequence.blocks = start.local_blocks;
        sequence
            .blocks
            .extend((0..fresh).filter_map(|_| self.pool.allocate()));
        sequence.computed = (start.sources.local + start.sources.external) as usize;
        if sequence.times.scheduled_us.is_none() {
            sequence.times.scheduled_us = Some(step.clock_us);
            sequence.sources = start.sources;
            let prompt = sequence.request.prompt.len() as u64;
            if self.prefix_caching == PrefixCaching::Enabled {
                self.stats.prefix_queries += prompt;
                self.stats.prefix_hits += start.sources.local;
            }
            if let Some(offload) = &mut self.offload {
                self.stats.external_queries += prompt - start.sources.local;
                self.stats.external_hits += start.sources.external;
                offload.stats.prompt_tokens += prompt;
                offload.stats.vllm_hit_tokens += start.sources.local;
            }
        }
        step.budget -= count;
        step.parts.push(Part {
            id,
            count,
            load: start.load,
        });
    }

    /// Asks the GPU prefix cache and then the tiers. The last token is always computed.
    fn find_start(&mut self, id: u64, step: &mut Step) -> Start {
        let sequence = &self.sequences[&id];
        let length = sequence.tokens.len();
        let local_blocks = match self.prefix_caching {
            PrefixCaching::Enabled => {
                let most = (length - 1) / self.block_size();
                self.pool.find_prefix(&sequence.block_hashes[..most])
            }
            PrefixCaching::Disabled => Vec::new(),
        };
        let local = (local_blocks.len() * self.block_size()) as u64;
        let mut sources = Sources {
            local,
            ..Sources::default()
        };
        let mut load = None;
        if let Some(lookup) = self.look_up(id, local, step) {
            let hit = lookup.tokens.min(length as u64 - 1);
            let need = hit.saturating_sub(local);
            let (min_tokens, chunk_tokens) = self.offload.as_ref().map_or((0, 1), |offload| {
                let config = offload.config();
                (config.min_retrieve_tokens, config.chunk_tokens as usize)
            });
            if need > 0 && need >= min_tokens {
                let first_chunk = local as usize / chunk_tokens;
                let places = lookup.places[first_chunk..].to_vec();
                sources.external = need;
                let chunks = self.sequences[&id].chunks[first_chunk..].iter();
                let chunks = chunks.zip(&places);
                let behind = chunks.filter(|(_, place)| **place != Place::Cpu);
                let behind: u64 = behind.map(|(chunk, _)| u64::from(chunk.tokens)).sum();
                sources.behind = behind.min(need);
                load = Some(Load {
                    first_chunk,
                    places,
                    local_blocks: local_blocks.len(),
                });
            }
        }
        Start {
            local_blocks,
            sources,
            load,
        }
    }

    /// Looks a request up in the tiers, once; a later try only checks what is still there.
    fn look_up(&mut self, id: u64, local: u64, step: &mut Step) -> Option<Lookup> {
        let offload = self.offload.as_mut()?;
        let sequence = self.sequences.get_mut(&id)?;
        if let Some(earlier) = &sequence.lookup {
            return Some(offload.recheck(&sequence.chunks, earlier));
        }
        let lookup = offload.lookup(step.clock_us, &sequence.chunks);
        sequence.saved_chunks = lookup.places.len();
        sequence.lookup = Some(lookup.clone());
        step.clock_us = lookup.done_us;
        let total = sequence.tokens.len() as u64;
        let need = lookup.tokens.min(total - 1).saturating_sub(local);
        let name = sequence.request.name.clone();
        if lookup.answer == Answer::TimedOut {
            self.log(step.clock_us, LogEvent::LookupTimeout);
        }
        let hit = lookup.tokens;
        self.log(
            step.clock_us,
            LogEvent::Lookup {
                name,
                total,
                computed: local,
                hit,
                need,
            },
        );
        Some(lookup)
    }
}
