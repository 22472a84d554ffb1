//! What differs between two sides, and whether it is more than noise. Pure, but for
//! `resolve`, which reads run folders, stored tables and git.

pub(crate) mod compact;
mod compare;
mod export;
mod judge;
mod measure;
mod noise;
mod page;
pub(crate) mod provenance;
pub(crate) mod resolve;
pub(crate) mod rule;
mod show;
mod side;
mod summary;

pub(crate) use compare::{Allow, Diff, DiffRow, LeftOut, Options, Overall, Shown, compare};
pub(crate) use judge::{LEVEL, Outcome};
pub(crate) use measure::Measure;
pub(crate) use side::{CellKey, Side, Trial};

#[cfg(test)]
mod tests;
