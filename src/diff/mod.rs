//! What differs between two sides, and whether it is more than noise. Pure, but for
//! `resolve`, which reads run folders, stored tables and git.

pub mod compact;
mod compare;
mod export;
mod judge;
mod measure;
mod noise;
mod page;
pub mod provenance;
pub mod resolve;
pub mod rule;
mod show;
mod side;

pub use compare::{Allow, Diff, DiffRow, LeftOut, Options, Overall, compare};
pub use judge::{LEVEL, Outcome};
pub use measure::Measure;
pub use side::{CellKey, Side, Trial};

#[cfg(test)]
mod tests;
