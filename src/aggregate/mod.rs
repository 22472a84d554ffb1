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
mod parallel;
mod place;
mod pool;
mod samples;
mod slo;
mod summary;
mod tier;

pub use break_even::{BreakEven, BreakEvenRow, break_evens};
pub(crate) use comparison::compare_passes;
pub use comparison::{Clarity, Comparison, ComparisonRow, Contrast, Standing};
#[cfg(test)]
pub(crate) use comparison::{compare, compare_under};
pub use controls::{ControlOutcome, ControlResult};
pub(crate) use parallel::side_by_side;
pub use place::{BASELINE, Place, tier_order};
pub use pool::Pool;
pub(crate) use samples::Passes;
pub use slo::{Service, Slo, Slos};
pub(crate) use summary::summarize_passes;
#[cfg(test)]
pub(crate) use summary::summarize_under;
pub use summary::{SummaryRow, SummaryTable, summarize};
pub use tier::{Gain, TierRow, tiers};
