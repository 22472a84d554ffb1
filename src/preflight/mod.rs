//! Before a run: is this machine fit for it, and what can be foreseen of its plan.

mod cgroup_memory;
mod containers;
mod examine;
mod gpu;
mod host;
mod line;
pub(crate) mod lint;
mod needs;
mod services;
pub(crate) mod start;
mod storage;

pub(crate) use examine::{examine, worst};
pub(crate) use line::{Level, Line};
pub(crate) use needs::Needs;
