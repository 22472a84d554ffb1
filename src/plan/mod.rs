//! TOML text to a valid plan, or to all its problems.

pub mod load_spec;
pub mod problem;
pub mod reader;
pub mod state;
pub mod workload_spec;
