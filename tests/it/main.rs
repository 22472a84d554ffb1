//! End-to-end tests: the program, run as a user runs it.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod diff;
mod exchange;
mod external;
mod fault_table;
mod faults;
mod faulty;
mod layering;
mod limits;
mod plan_errors;
mod process;
mod real_stack;
mod redis;
mod resume;
mod run_sim;
mod secrets;
mod shards;
mod stopping;
mod support;
mod workloads;
