//! Summaries of samples, each with the warnings that spoil it. Pure: no I/O, no clock.

mod bootstrap;
mod definition;
mod interval;
mod normal;
mod quantile;
mod rank;
mod summary;

pub use bootstrap::{Bootstrap, Statistic};
pub use definition::Definition;
pub use interval::{Interval, median_interval, quantile_interval};
pub use quantile::{Percentile, QuantileEstimate, quantile, support};
pub use rank::{RankTest, rank_test};
pub use summary::{Summary, Warning, geomean};
