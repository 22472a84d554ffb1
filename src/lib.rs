//! labrun: a reproducible experiment lab for vLLM + LMCache.
//!
//! Modules stand in dependency order: each may use only those above it (a test keeps it so).

pub mod units;

pub mod plan;

pub mod matrix;

pub mod workload;

pub mod load;

pub mod record;
