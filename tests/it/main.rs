//! End-to-end tests: the program, run as a user runs it.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod cases;
mod check;
mod cluster;
mod connector;
mod diff;
mod docker;
mod docker_real_stack;
mod doctor;
mod exchange;
mod external;
mod fault_doc;
mod fault_table;
mod faults;
mod faulty;
mod hub;
mod layering;
mod limits;
mod load_faults;
mod manifest;
mod nsys;
mod nvml;
#[cfg(feature = "nvtx")]
mod nvtx;
mod own_plan;
mod plan_errors;
mod plans;
mod planted;
mod process;
mod profile;
mod real_stack;
mod redis;
mod reference;
mod report;
mod resume;
mod run_sim;
mod secrets;
mod shards;
mod show;
mod stopping;
mod support;
mod telemetry;
mod tls;
mod verify;
mod verify_damage;
mod verify_recount;
mod whole;
mod wording;
mod workloads;
