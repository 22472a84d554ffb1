//! TOML text to a valid plan, or to all its problems.

pub mod state;
