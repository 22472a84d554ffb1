//! Summaries of samples, each with the warnings that spoil it. Pure: no I/O, no clock.

mod bootstrap;
mod definition;
mod effect;
mod interval;
mod multiple;
mod normal;
mod quantile;
mod rank;
mod student;
mod summary;

pub use bootstrap::{Bootstrap, Statistic};
pub use definition::Definition;
pub use effect::{cliffs_delta, hodges_lehmann, shift_interval};
pub use interval::{Interval, median_interval, quantile_interval};
pub use multiple::{benjamini_hochberg, holm};
pub use quantile::{Percentile, QuantileEstimate, quantile, support};
pub use rank::{RankMethod, RankTest, mann_whitney, rank_test, smallest_p};
pub use student::{t_quantile, t_two_sided};
pub use summary::{Summary, Warning, geomean};

#[cfg(test)]
mod tests;
