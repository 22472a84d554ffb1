//! Writes a run's folder: opens and locks it, writes each cell whole, continues, imports and joins
//! runs, and records where they took place.

pub(crate) mod client_floor;
pub(crate) mod import;
pub(crate) mod lock;
pub(crate) mod manifest;
pub(crate) mod merge;
pub(crate) mod open;
pub(crate) mod phase_csv;
pub(crate) mod provenance;
pub(crate) mod requests_csv;
pub(crate) mod resume;
pub(crate) mod rows;
pub(crate) mod telemetry_csv;
pub(crate) mod telemetry_parquet;
pub(crate) mod vllm_bench;
pub(crate) mod writer;
