//! Records to summaries: one row a cell and cache state, and each tier against the baseline.
//! Pure: reads no file. Only requests that went well enter latencies and throughput.

mod comparison;
#[cfg(test)]
pub(crate) mod fixture;
mod place;
mod samples;
mod summary;
mod values;

pub use comparison::{Clarity, Comparison, ComparisonRow, Contrast, Pool, Standing, compare};
pub use place::{BASELINE, Place, tier_order};
pub use summary::{FailedCell, SummaryRow, SummaryTable, summarize};
pub use values::{PassValues, request_values};
