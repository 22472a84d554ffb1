//! The results folder: layout, versions, write, read.

pub mod convert;
pub(crate) mod csv;
pub mod frame;
pub mod import;
pub mod lab_csv;
pub mod lock;
pub mod open;
pub mod phase_csv;
pub mod reader;
pub mod redact;
pub mod resume;
pub mod schema;
pub mod telemetry_csv;
pub mod telemetry_frame;
pub mod vllm_bench;
pub mod writer;
