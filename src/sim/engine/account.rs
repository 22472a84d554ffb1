//! What the engine counts when tokens come out.

use super::Engine;
use crate::sim::stats::FinishReason;

impl Engine {
    pub(super) fn count_token(&mut self, id: u64, at_us: u64) {
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        let (times, stats) = (&mut sequence.times, &mut self.stats);
        stats.generation_tokens += 1;
        if times.first_token_us.is_some() {
            stats.itl.observe_us(at_us - times.last_token_us);
        } else {
            times.first_token_us = Some(at_us);
            let prompt = sequence.request.prompt.len() as u64;
            let sources = sequence.sources;
            stats.prompt_tokens += prompt;
            stats.local_cache_hit += sources.local;
            stats.external_transfer += sources.external;
            stats.external_behind += sources.behind;
            stats.local_compute += prompt - sources.local - sources.external;
            stats.ttft.observe_us(at_us - times.arrived_us);
        }
        times.last_token_us = at_us;
    }

    pub(super) fn finish(&mut self, id: u64, reason: FinishReason, at_us: u64) {
        let Some(sequence) = self.sequences.remove(&id) else {
            return;
        };
        self.running.retain(|other| *other != id);
        self.release(&sequence.blocks);
        let stats = &mut self.stats;
        match reason {
            FinishReason::Stop => stats.finished_stop += 1,
            FinishReason::Length => stats.finished_length += 1,
        }
        let times = sequence.times;
        let scheduled_us = times.scheduled_us.unwrap_or(at_us);
        let first_us = times.first_token_us.unwrap_or(at_us);
        let prompt = sequence.request.prompt.len() as u64;
        let sources = sequence.sources;
        let gaps = sequence.delivered.saturating_sub(1).max(1);
        let max_tokens = f64::from(sequence.request.max_tokens);
        stats.request_prompt_tokens.observe(prompt as f64);
        stats
            .request_generation_tokens
            .observe(f64::from(sequence.delivered));
        stats
            .max_generation_tokens
            .observe(f64::from(sequence.delivered));
        stats.params_n.observe(1.0);
        stats.params_max_tokens.observe(max_tokens);
        stats.e2e.observe_us(at_us - times.arrived_us);
        stats
            .queue
            .observe_us(scheduled_us.saturating_sub(times.queued_us));
        stats.inference.observe_us(at_us - scheduled_us);
        stats.prefill.observe_us(first_us - scheduled_us);
        stats.decode.observe_us(at_us - first_us);
        stats.tpot.observe_us((at_us - first_us) / u64::from(gaps));
        stats
            .request_preemptions
            .observe(sequence.preemptions as f64);
        stats
            .prefill_computed
            .observe((prompt - sources.local - sources.external) as f64);
    }
}
