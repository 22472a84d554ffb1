//! Writes a run's folder: opens and locks it, keeps each cell whole, continues and joins runs.

pub mod convert;
pub mod import;
pub mod lock;
pub mod open;
pub mod phase_csv;
pub mod resume;
pub mod telemetry_csv;
pub mod telemetry_parquet;
pub mod vllm_bench;
pub mod writer;
