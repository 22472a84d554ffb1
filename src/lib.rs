//! labrun: a reproducible experiment lab for vLLM + LMCache.
//!
//! Modules stand in dependency order: each may use only those above it (`tests/it/layering.rs` checks it).

mod units;

mod parallel;

mod bounded;

mod foreign;

mod secret;

mod nvtx;

mod text_file;

mod csv_table;

mod metric;

mod series;

mod evidence;

mod stats;

mod plan;

mod matrix;

mod record;

mod config;

mod workload;

mod sim;

mod nvml;

mod server;

mod load;

mod telemetry;

mod verdict;

mod runner;

mod recorder;

mod preflight;

mod aggregate;

mod report;

mod diff;

mod verify;

mod check;

mod cluster;

mod progress;

mod cli;

mod commands;

#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::process::ExitCode;

/// What the benchmarks and the end-to-end tests use. No interface: anything may change.
#[doc(hidden)]
pub mod internals {
    pub use crate::aggregate::summarize;
    pub use crate::cli::definition as command_line;
    pub use crate::load::{
        Endpoint, LoadError, LoadOptions, LoadOutcome, Outcome, Progress, drive, selftest,
    };
    pub use crate::matrix::Matrix;
    pub use crate::plan::Plan;
    pub use crate::plan::load_spec::{Arrival, Timeouts};
    pub use crate::plan::sim_spec::Fault;
    pub use crate::plan::state::CacheState;
    pub use crate::plan::tier::TierKind;
    pub use crate::plan::workload_spec::{WorkloadKind, WorkloadSpec};
    pub use crate::record::frame::{read_parquet, write_parquet};
    pub use crate::record::hashes::sealed;
    pub use crate::record::manifest;
    pub use crate::record::reader::read_run;
    pub use crate::record::schema;
    pub use crate::record::telemetry_frame::read_readings;
    pub use crate::recorder::telemetry_parquet::write_telemetry;
    pub use crate::series::{Series, Source};
    pub use crate::server::leftovers::Mark;
    pub use crate::server::redis_local::LocalRedis;
    pub use crate::telemetry::endpoints::RedisSampler;
    pub use crate::telemetry::sample::{Batch, Point, Points, SeriesKey};
    pub use crate::telemetry::thread::Sampler;
    pub use crate::units::{Concurrency, GenLen, PromptLen, RequestCount, Seed};
    pub use crate::verify::{Verification, verify};
    pub use crate::workload::{Pass, Schedule, Workload};
}

/// Runs labrun with the arguments of this process.
pub fn run() -> ExitCode {
    commands::mask_panics();
    match cli::Cli::from_arguments(std::env::args_os()) {
        Ok(cli) => commands::main(cli).into(),
        Err(error) => {
            // Without a reader of stderr nothing can be done.
            drop(error.print());
            commands::ExitStatus::of_clap(&error).into()
        }
    }
}
