//! labrun: a reproducible experiment lab for vLLM + LMCache.

pub mod plan;
pub mod sim;
