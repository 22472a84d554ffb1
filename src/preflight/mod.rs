//! Before a run: is this machine fit for it, and what can be foreseen of its plan.

mod cgroup_memory;
mod containers;
mod examine;
mod gpu;
mod host;
mod line;
pub mod lint;
mod needs;
mod services;
mod storage;

pub use examine::{examine, worst};
pub use line::{Level, Line};
pub use needs::Needs;
