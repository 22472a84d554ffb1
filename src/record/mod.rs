//! The results folder: layout, versions, write, read.

pub mod schema;
