//! Writes a run's folder: opens and locks it, writes each cell whole, continues, imports and joins
//! runs, and records where they took place.

pub mod client_floor;
pub mod import;
pub mod lock;
pub mod manifest;
pub mod merge;
pub mod open;
pub mod phase_csv;
pub mod provenance;
pub(crate) mod requests_csv;
pub mod resume;
pub mod rows;
pub mod telemetry_csv;
pub mod telemetry_parquet;
pub mod vllm_bench;
pub mod writer;
