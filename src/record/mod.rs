//! The vocabulary of results: what the files of a run hold, and how they are read. Measuring builds
//! these types, reading starts from them.

pub(crate) mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod hashes;
pub(crate) mod lab_csv;
pub mod manifest;
pub(crate) mod named;
pub(crate) mod reader;
pub(crate) mod redact;
pub mod schema;
pub(crate) mod telemetry_frame;
pub(crate) mod way;
pub(crate) mod whole;
