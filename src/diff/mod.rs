//! What differs between two sides, and whether it is more than noise. Pure, but for
//! `resolve`, which reads run folders, kept tables and git.

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

pub use compare::{Allow, Diff, DiffRow, LeftOut, Options, Overall, Refusal, compare};
pub use judge::{Basis, Judged, LEVEL, Outcome, REQUESTS_LEVEL};
pub use measure::Measure;
pub use provenance::Difference;
pub use side::{CellKey, Side, Trial};

#[cfg(test)]
mod tests;
