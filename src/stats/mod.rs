//! Summaries of samples, each with the warnings that spoil it. Pure: no I/O, no clock.

mod interval;
mod quantile;
mod rank;
mod summary;

pub use interval::{MedianInterval, median_interval};
pub use quantile::{Percentile, quantile};
pub use rank::{RankTest, rank_test};
pub use summary::{Summary, Warning, geomean};
