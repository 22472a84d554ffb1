//! The plan: what is measured.

pub mod sim_spec;
