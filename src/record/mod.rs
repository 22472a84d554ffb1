//! The vocabulary of results: what the files of a run hold, and how they are read. Measuring builds
//! these types, reading starts from them.

pub mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod hashes;
pub mod lab_csv;
pub mod manifest;
pub mod reader;
pub mod redact;
pub mod schema;
pub mod telemetry_frame;
pub mod whole;
