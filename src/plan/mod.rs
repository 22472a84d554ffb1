//! TOML text to a valid plan, or to all its problems.

pub mod problem;
pub mod reader;
pub mod state;
