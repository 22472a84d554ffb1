//! The results folder: layout, versions, write, read.

pub(crate) mod csv;
pub mod frame;
pub mod lab_csv;
pub mod reader;
pub mod schema;
