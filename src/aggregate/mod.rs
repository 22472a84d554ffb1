//! Records to summaries: one row a cell and cache state, and each tier against the baseline.
//! Pure but for the requests, which are read as they are needed. Only requests that went well
//! enter latencies and throughput.

mod break_even;
mod comparison;
mod controls;
mod energy;
#[cfg(test)]
pub(crate) mod fixture;
mod gaps;
mod imported;
pub(crate) mod limit;
mod memory;
mod parts;
mod place;
mod pool;
mod samples;
mod slo;
mod summary;
mod tier;
mod turns;

pub(crate) use break_even::{BreakEven, BreakEvenRow, break_evens};
pub(crate) use comparison::compare_passes;
pub(crate) use comparison::{Clarity, Comparison, ComparisonRow, Contrast, Standing};
#[cfg(test)]
pub(crate) use comparison::{compare, compare_under};
pub(crate) use controls::{ControlOutcome, ControlResult};
pub(crate) use memory::Memory;
pub(crate) use parts::{Part, Parts};
pub(crate) use place::{BASELINE, Place, tier_order};
pub(crate) use pool::Pool;
pub(crate) use samples::Passes;
pub(crate) use slo::{Service, Slo, Slos};
pub use summary::summarize;
pub(crate) use summary::summarize_passes;
#[cfg(test)]
pub(crate) use summary::summarize_under;
pub(crate) use summary::{SummaryRow, SummaryTable};
pub(crate) use tier::{Gain, TierRow, tiers};
pub(crate) use turns::{TurnRow, turns};
