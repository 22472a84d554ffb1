//! Start, watch and stop a server under test.

pub mod render;
