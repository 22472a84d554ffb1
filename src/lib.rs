//! labrun: a reproducible experiment lab for vLLM + LMCache.
//!
//! Modules stand in dependency order: each may use only those above it (a test keeps it so).

pub mod units;

pub mod bounded;

pub mod foreign;

pub mod secret;

pub mod nvtx;

pub mod metric;

pub mod stats;

pub mod plan;

pub mod matrix;

pub mod record;

pub mod config;

pub mod workload;

pub mod sim;

pub mod server;

pub mod load;

pub mod telemetry;

pub mod verdict;

pub mod runner;

pub mod recorder;

pub mod preflight;

pub mod aggregate;

pub mod report;

pub mod diff;

pub mod cluster;

pub mod progress;

pub mod cli;

pub mod commands;

#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::process::ExitCode;

use clap::Parser as _;

/// Runs labrun with the arguments of this process.
pub fn run() -> ExitCode {
    commands::mask_panics();
    let cli = cli::Cli::parse();
    commands::main(cli).into()
}
