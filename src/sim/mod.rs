//! The simulator: a vLLM server with LMCache that needs no GPU.
//!
//! [`Engine`] models scheduling, caches and tiers in virtual time; the HTTP server around it
//! drives it in real time and speaks vLLM's API.

#[cfg(test)]
mod calibration;
mod cost;
mod engine;
mod frontend;
mod hash;
mod keep;
mod lmcache_config;
mod offload;
mod options;
mod own_tiers;
mod pool;
mod request;
mod server;
mod stats;
mod store;
mod tokenizer;

pub(crate) use engine::PrefixCaching;
pub(crate) use options::{ParentWatch, RedisKeeps, SimOptions};
pub(crate) use server::{SimExit, VERSION, VERSION_SUFFIX, serve, termination};
