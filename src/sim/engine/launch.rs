//! Running a step: load, compute, sample, store.

use super::{
    Batch, Engine, LogEvent, PrefixCaching,
    schedule::{Load, Step},
};
use crate::{
    plan::sim_spec::{Fault, SimSpec},
    sim::{
        cost::{Phase, StepLoad, step_us},
        hash::mix,
        pool::BlockPool,
        request::{Sampled, Save, Sight},
        stats::FinishReason,
        store::Chunk,
    },
};

/// The engine's own work to launch a step.
const LAUNCH_US: u64 = 300;

impl Engine {
    pub(super) fn launch(&mut self, mut step: Step) {
        let mut work = StepLoad::default();
        let mut outputs = Vec::new();
        for part in &mut step.parts {
            if let Some(load) = part.load.take() {
                step.clock_us = self.load(part.id, &load, step.clock_us);
            }
            let context = self.sequences[&part.id].computed;
            let phase = self.phase(part.id, part.count);
            work.add(part.count as u64, context as u64, phase);
            outputs.extend(self.compute(part.id, part.count));
        }
        self.stats.iteration_tokens.observe(work.tokens as f64);
        let start_us = self.gpu_free_us.max(step.clock_us);
        let computed_us = start_us + step_us(&self.spec, &work);
        let done_us = self.store(&step, computed_us);
        self.gpu_free_us = done_us;
        // A store waits for the GPU, so the engine does too.
        let blocked = done_us > computed_us;
        self.free_us = if blocked {
            done_us
        } else {
            step.clock_us + LAUNCH_US
        };
        self.in_flight.push_back(Batch { done_us, outputs });
    }

    fn phase(&self, id: u64, count: usize) -> Phase {
        let sequence = &self.sequences[&id];
        let generated = sequence.computed >= sequence.request.prompt.len();
        if generated && count == 1 {
            Phase::Decode
        } else {
            Phase::Prefill
        }
    }

    /// Fills a sequence's blocks from the tiers; returns when that is done.
    fn load(&mut self, id: u64, load: &Load, now_us: u64) -> u64 {
        let block_size = self.block_size();
        let (Some(offload), Some(sequence)) = (self.offload.as_mut(), self.sequences.get_mut(&id))
        else {
            return now_us;
        };
        let full = sequence.computed / block_size;
        let blocks = &sequence.blocks[load.local_blocks..full];
        let mut done_us = now_us;
        let mut retrieved = None;
        if self.spec.has(Fault::FalseHit) {
            // Nothing is copied: the blocks keep whatever was in them.
            for &block in blocks {
                self.pool
                    .set_content(block, stale(&self.pool, block, self.spec.seed));
            }
        } else {
            let chunks = &sequence.chunks[load.first_chunk..];
            let loaded = offload.load(now_us, chunks, &load.places);
            let chunk_blocks = offload.config().chunk_tokens as usize / block_size;
            let skipped = load.local_blocks - load.first_chunk * chunk_blocks;
            let contents = &loaded.contents[skipped..];
            for (index, &block) in blocks.iter().enumerate().take(contents.len()) {
                let content = arriving(&self.spec, &self.pool, contents, index, block);
                self.pool.set_content(block, content);
            }
            done_us = loaded.done_us;
            retrieved = Some(LogEvent::Retrieved {
                name: sequence.request.name.clone(),
                tokens: loaded.tokens,
                size_bytes: loaded.size_bytes,
                cost_us: done_us - now_us,
            });
        }
        for (index, &block) in blocks.iter().enumerate() {
            sequence.context.read_block(self.pool.content(block));
            if self.prefix_caching == PrefixCaching::Enabled {
                self.pool
                    .publish(block, sequence.block_hashes[load.local_blocks + index]);
            }
        }
        let tail = full * block_size..sequence.computed;
        sequence.context.compute(&sequence.tokens[tail]);
        if let Some(event) = retrieved {
            self.log(done_us, event);
        }
        done_us
    }

    /// Computes `count` tokens; returns the next token when the sequence is up to date.
    fn compute(&mut self, id: u64, count: usize) -> Option<(u64, Sampled, Option<FinishReason>)> {
        let block_size = self.block_size();
        let sight = if self.spec.has(Fault::BlindModel) {
            Sight::LastToken
        } else {
            Sight::Context
        };
        let sequence = self.sequences.get_mut(&id)?;
        let end = sequence.computed + count;
        while sequence.computed < end {
            let block_end = (sequence.computed / block_size + 1) * block_size;
            let until = block_end.min(end);
            sequence
                .context
                .compute(&sequence.tokens[sequence.computed..until]);
            sequence.computed = until;
            if until == block_end {
                let index = until / block_size - 1;
                let block = sequence.blocks[index];
                self.pool
                    .set_content(block, sequence.context.finish_block());
                if self.prefix_caching == PrefixCaching::Enabled {
                    self.pool.publish(block, sequence.block_hashes[index]);
                }
            }
        }
        if sequence.computed < sequence.tokens.len() {
            return None; // more of the prompt in a later step
        }
        let sampled = sequence.sample(self.vocabulary, sight);
        let config = self
            .offload
            .as_ref()
            .map(crate::sim::offload::Offload::config);
        sequence.push(sampled.token, block_size, config);
        Some((id, sampled, sequence.ended))
    }

    /// Stores the chunks that the step completed; returns when the engine is free again.
    fn store(&mut self, step: &Step, mut now_us: u64) -> u64 {
        if self.offload.is_none() {
            return now_us;
        }
        for part in &step.parts {
            let offered = self.new_chunks(part.id);
            if offered.is_empty() {
                continue;
            }
            if self.spec.has(Fault::Degraded) {
                self.log(now_us, LogEvent::Unhealthy);
                continue;
            }
            let count = offered.len();
            let Some(offload) = self.offload.as_mut() else {
                continue;
            };
            let stored = offload.store(now_us, offered);
            let name = self.sequences[&part.id].request.name.clone();
            now_us += stored.copy_us + stored.put_us;
            if stored.chunks < count {
                self.log(
                    now_us,
                    LogEvent::StoreTruncated {
                        chunks: stored.chunks,
                    },
                );
            }
            let (tokens, size_bytes) = (stored.tokens, stored.size_bytes);
            let (copy_us, put_us) = (stored.copy_us, stored.put_us);
            let event = LogEvent::Stored {
                name,
                tokens,
                size_bytes,
                copy_us,
                put_us,
            };
            self.log(now_us, event);
        }
        now_us
    }

    /// Takes the chunks of a sequence that are complete and were not offered before.
    fn new_chunks(&mut self, id: u64) -> Vec<(u64, Chunk)> {
        let block_size = self.block_size();
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return Vec::new();
        };
        let saved = &sequence.chunks[..sequence.saved_chunks];
        let mut start: usize = saved.iter().map(|chunk| chunk.tokens as usize).sum();
        let mut offered = Vec::new();
        for chunk in &sequence.chunks[sequence.saved_chunks..] {
            let end = start + chunk.tokens as usize;
            if end > sequence.computed {
                break;
            }
            let blocks = &sequence.blocks[start / block_size..end / block_size];
            let contents = blocks
                .iter()
                .map(|&block| self.pool.content(block))
                .collect();
            let size_bytes = u64::from(chunk.tokens) * self.spec.kv_bytes_per_token;
            offered.push((
                chunk.key,
                Chunk {
                    tokens: chunk.tokens,
                    size_bytes,
                    contents,
                },
            ));
            start = end;
        }
        sequence.saved_chunks += offered.len();
        if sequence.request.save == Save::Skip {
            Vec::new()
        } else {
            offered
        }
    }
}

/// What is in `block` after a load that left it out.
fn stale(pool: &BlockPool, block: u32, seed: u64) -> u64 {
    mix(mix(pool.content(block), seed), u64::from(block))
}

/// What is in `block`, the `index`-th of those that were to get `contents`, after the load.
fn arriving(spec: &SimSpec, pool: &BlockPool, contents: &[u64], index: usize, block: u32) -> u64 {
    let due = contents[index];
    if spec.has(Fault::StaleBlocks) && !pool.has_content(due) {
        stale(pool, block, spec.seed)
    } else if spec.has(Fault::WrongPlace) {
        contents.get(index ^ 1).copied().unwrap_or(due)
    } else {
        due
    }
}
