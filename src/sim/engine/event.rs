//! Events of the engine.

use crate::sim::stats::FinishReason;

/// An event and its time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Emission {
    /// Time, us.
    pub at_us: u64,
    pub event: EngineEvent,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EngineEvent {
    /// A request got a token.
    Token(TokenEvent),
    /// A line for the log.
    Log(LogEvent),
}

/// A token on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenEvent {
    /// The request's [`crate::sim::SimRequest::id`].
    pub request: u64,
    pub token: u32,
    /// What its log-probability follows from.
    pub state: u64,
    /// Prompt tokens that were not computed (as far as the counters know).
    pub cached_tokens: u32,
    /// Set on the last token.
    pub finish: Option<FinishReason>,
}

/// What LMCache logs, without its wording.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LogEvent {
    /// A tier lookup.
    Lookup {
        name: String,
        total: u64,
        computed: u64,
        hit: u64,
        need: u64,
    },
    /// A lookup that took too long, counted as a miss.
    LookupTimeout,
    /// KV was loaded.
    Retrieved {
        name: String,
        tokens: u64,
        size_bytes: u64,
        cost_us: u64,
    },
    /// KV was stored.
    Stored {
        name: String,
        tokens: u64,
        size_bytes: u64,
        copy_us: u64,
        put_us: u64,
    },
    /// Host memory was short: only so many chunks were stored.
    StoreTruncated { chunks: usize },
    /// LMCache did not start, so nothing is stored.
    Unhealthy,
}

/// A request that the engine cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubmitError {
    /// It could never be scheduled.
    #[error(
        "a prompt of {prompt} tokens does not fit the GPU cache of {capacity} tokens; shorten it \
         or raise `gpu_kv_tokens`"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the GPU cache.
        capacity: usize,
    },
    /// There is nothing to attend to.
    #[error("the prompt is empty; give at least one token")]
    Empty,
}
