//! A request, and its state inside the engine.

use super::{
    hash::{chain, mix, mix_tokens},
    lmcache_config::{OffloadConfig, Saves, Tail},
    offload::{ChunkKey, Lookup},
    stats::FinishReason,
    tokenizer::Vocabulary,
};

/// When generation ends before `max_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndToken {
    /// The end token is generated like any other.
    Ignore,
    /// The end token ends the text.
    Stop,
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampling {
    /// The same context always gives the same token.
    Greedy,
    /// The seed is part of the choice.
    Seeded(u64),
}

/// Whether the tiers may keep this request's KV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Save {
    /// Chunks are stored as configured.
    Store,
    /// Not at all (`lmcache.skip_save`).
    Skip,
}

/// One prompt to complete.
#[derive(Clone, Debug)]
pub(super) struct SimRequest {
    /// Chosen by the caller, never used before.
    pub id: u64,
    /// The name in the log.
    pub name: String,
    /// Prompt token ids, at least one.
    pub prompt: Vec<u32>,
    /// Tokens to generate, at least one.
    pub max_tokens: u32,
    /// Tokens before the end token counts.
    pub min_tokens: u32,
    /// What the end token does.
    pub end_token: EndToken,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Part of the GPU prefix cache's keys; the tiers do not know it.
    pub cache_salt: u64,
    /// Part of the tiers' keys (`lmcache.tag.*`).
    pub tier_namespace: u64,
    /// Whether the tiers keep its KV.
    pub save: Save,
}

impl SimRequest {
    /// A greedy request with nothing special about it.
    #[cfg(test)]
    pub(crate) fn plain(id: u64, prompt: Vec<u32>, max_tokens: u32) -> Self {
        Self {
            id,
            name: format!("cmpl-{id}"),
            prompt,
            max_tokens,
            min_tokens: 0,
            end_token: EndToken::Ignore,
            sampling: Sampling::Greedy,
            cache_salt: 0,
            tier_namespace: 0,
            save: Save::Store,
        }
    }
}

/// Times of one request, us of the engine's clock.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "the unit is part of the names")]
pub(crate) struct Times {
    pub(crate) arrived_us: u64,
    pub(crate) queued_us: u64,
    pub(crate) scheduled_us: Option<u64>,
    pub(crate) first_token_us: Option<u64>,
    pub(crate) last_token_us: u64,
}

/// Where the prompt's KV came from, tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sources {
    pub(crate) local: u64,
    pub(crate) external: u64,
    /// Of these, from behind host memory.
    pub(crate) behind: u64,
}

/// A request inside the engine.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) request: SimRequest,
    pub(crate) times: Times,
    pub(crate) sources: Sources,
    /// Prompt and everything generated so far, delivered or not.
    pub(crate) tokens: Vec<u32>,
    /// Tokens whose KV is in the GPU, or will be once the steps in flight are done.
    pub(crate) computed: usize,
    pub(crate) blocks: Vec<u32>,
    pub(crate) block_hashes: Vec<u64>,
    pub(crate) chunks: Vec<ChunkKey>,
    /// Chunks that the tiers have or were offered.
    pub(crate) saved_chunks: usize,
    pub(crate) lookup: Option<Lookup>,
    pub(crate) context: Context,
    pub(crate) ended: Option<FinishReason>,
    pub(crate) delivered: u32,
    pub(crate) preemptions: u64,
}

/// Stand-in for all KV that a sequence attends to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Context {
    /// Contents of the full blocks, in order.
    attended: u64,
    /// Tokens after the last full block.
    tail: u64,
}

impl Context {
    /// Takes in a full block that is already in memory.
    pub(crate) fn read_block(&mut self, content: u64) {
        self.attended = mix(self.attended, content);
        self.tail = 0;
    }

    /// Computes the KV of more tokens of an unfinished block.
    pub(crate) fn compute(&mut self, tokens: &[u32]) {
        self.tail = mix_tokens(self.tail, tokens);
    }

    /// Finishes the block: its KV depends on everything attended before it.
    pub(crate) fn finish_block(&mut self) -> u64 {
        let content = mix(self.attended, self.tail);
        self.read_block(content);
        content
    }

    /// The next token, from the KV attended and the position.
    pub(crate) fn next(self, position: usize, sampling: Sampling, words: u32) -> NextToken {
        let mut state = mix(mix(self.attended, self.tail), position as u64);
        if let Sampling::Seeded(seed) = sampling {
            state = mix(state, seed);
        }
        let word = (state % u64::from(words)) as u32;
        // One token in 256 would be the end of the text.
        let ends = (state >> 40).is_multiple_of(256);
        NextToken { word, ends, state }
    }
}

/// The token that the model chooses, and whether it ends the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextToken {
    pub(crate) word: u32,
    pub(crate) ends: bool,
    /// What its log-probability follows from.
    pub(crate) state: u64,
}

/// A token that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampled {
    pub(crate) token: u32,
    /// What its log-probability follows from.
    pub(crate) state: u64,
}

/// What the model's answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// All KV that is attended to.
    Context,
    /// The last token alone.
    LastToken,
}

impl Sequence {
    pub(crate) fn new(
        request: SimRequest,
        block_size: usize,
        offload: Option<&OffloadConfig>,
        times: Times,
    ) -> Self {
        let tokens = request.prompt.clone();
        let block_hashes = chain(request.cache_salt, &tokens, block_size);
        let mut sequence = Self {
            request,
            times,
            sources: Sources::default(),
            tokens,
            computed: 0,
            blocks: Vec::new(),
            block_hashes,
            chunks: Vec::new(),
            saved_chunks: 0,
            lookup: None,
            context: Context::default(),
            ended: None,
            delivered: 0,
            preemptions: 0,
        };
        if let Some(config) = offload {
            sequence.chunks = sequence.prompt_chunks(config);
        }
        sequence
    }

    fn prompt_chunks(&self, config: &OffloadConfig) -> Vec<ChunkKey> {
        let size = config.chunk_tokens as usize;
        let start = mix(self.request.tier_namespace, 0x7469_6572);
        let keys = chain(start, &self.request.prompt, size);
        let last = keys.last().copied().unwrap_or(start);
        let mut chunks: Vec<ChunkKey> = keys
            .into_iter()
            .map(|key| ChunkKey {
                key,
                tokens: size as u32,
            })
            .collect();
        let rest = &self.request.prompt[chunks.len() * size..];
        if config.tail == Tail::Save && !rest.is_empty() {
            let key = mix_tokens(mix(last, rest.len() as u64), rest);
            chunks.push(ChunkKey {
                key,
                tokens: rest.len() as u32,
            });
        }
        chunks
    }

    /// Appends a generated token and the keys that it completes.
    pub(crate) fn push(&mut self, token: u32, block_size: usize, offload: Option<&OffloadConfig>) {
        self.tokens.push(token);
        if self.tokens.len().is_multiple_of(block_size) {
            let before = self
                .block_hashes
                .last()
                .copied()
                .unwrap_or(self.request.cache_salt);
            let block = &self.tokens[self.tokens.len() - block_size..];
            self.block_hashes
                .push(mix_tokens(mix(before, block_size as u64), block));
        }
        if let Some(config) = offload.filter(|config| config.saves == Saves::PromptAndOutput) {
            let size = config.chunk_tokens as usize;
            let full = self
                .chunks
                .iter()
                .all(|chunk| chunk.tokens as usize == size);
            if full && self.tokens.len() == (self.chunks.len() + 1) * size {
                let start = mix(self.request.tier_namespace, 0x7469_6572);
                let before = self.chunks.last().map_or(start, |chunk| chunk.key);
                let chunk = &self.tokens[self.tokens.len() - size..];
                let key = mix_tokens(mix(before, size as u64), chunk);
                self.chunks.push(ChunkKey {
                    key,
                    tokens: size as u32,
                });
            }
        }
    }

    /// Chooses the next token and notes whether it is the last.
    pub(crate) fn sample(&mut self, vocabulary: Vocabulary, sight: Sight) -> Sampled {
        let generated = (self.tokens.len() - self.request.prompt.len()) as u32 + 1;
        let context = match sight {
            Sight::Context => self.context,
            Sight::LastToken => Context {
                attended: 0,
                tail: self.tokens.last().copied().map_or(0, u64::from),
            },
        };
        let sampling = self.request.sampling;
        let next = context.next(self.tokens.len(), sampling, vocabulary.words());
        let state = next.state;
        let stops = next.ends
            && self.request.end_token == EndToken::Stop
            && generated > self.request.min_tokens;
        if stops {
            self.ended = Some(FinishReason::Stop);
            let token = vocabulary.eos();
            return Sampled { token, state };
        }
        if generated >= self.request.max_tokens {
            self.ended = Some(FinishReason::Length);
        }
        Sampled {
            token: next.word,
            state,
        }
    }

    /// Tokens still to be computed before the next one can be sampled.
    pub(crate) fn remaining(&self) -> usize {
        if self.ended.is_some() {
            0
        } else {
            self.tokens.len() - self.computed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_read_back_is_as_good_as_a_block_computed() {
        let tokens: Vec<u32> = (0..16).collect();
        let mut computed = Context::default();
        computed.compute(&tokens);
        let content = computed.finish_block();
        let mut read = Context::default();
        read.read_block(content);
        assert_eq!(read, computed);
        read = Context::default();
        read.read_block(content + 1);
        assert_ne!(read, computed, "stale memory must show");
    }

    #[test]
    fn generated_blocks_get_the_keys_that_a_prompt_would_get() {
        let prompt: Vec<u32> = (0..40).collect();
        let request = SimRequest::plain(1, prompt[..20].to_vec(), 20);
        let mut grown = Sequence::new(request, 16, None, Times::default());
        for &token in &prompt[20..] {
            grown.push(token, 16, None);
        }
        assert_eq!(grown.block_hashes, chain(0, &prompt, 16));
    }

    #[test]
    fn min_tokens_holds_the_end_token_back() {
        let mut request = SimRequest::plain(1, vec![1], 4_000);
        request.end_token = EndToken::Stop;
        let run = |request: &SimRequest| {
            let mut sequence = Sequence::new(request.clone(), 16, None, Times::default());
            while sequence.ended.is_none() {
                let position = sequence.tokens.len();
                let last = sequence.tokens[position - 1];
                sequence.context.compute(&[last]);
                let vocabulary = Vocabulary::new(128_256);
                let sampled = sequence.sample(vocabulary, Sight::Context);
                sequence.push(sampled.token, 16, None);
            }
            (sequence.tokens.len() - 1, sequence.ended)
        };
        let (short, reason) = run(&request);
        assert_eq!(reason, Some(FinishReason::Stop));
        request.min_tokens = short as u32 + 1;
        assert!(run(&request).0 > short);
        request.end_token = EndToken::Ignore;
        assert_eq!(run(&request), (4_000, Some(FinishReason::Length)));
    }
}
