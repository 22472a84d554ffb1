//! Start, watch and stop a server under test.

pub mod control;
pub mod group;
pub mod leftovers;
pub mod prom;
pub mod render;
