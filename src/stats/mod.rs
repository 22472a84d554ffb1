//! Summaries of samples, each with the warnings that spoil it. Pure: no I/O, no clock.

mod bootstrap;
mod effect;
mod interval;
mod multiple;
mod normal;
mod quantile;
mod rank;
mod student;
mod summary;

pub use bootstrap::{Bootstrap, Statistic};
pub use effect::cliffs_delta;
pub use interval::{Interval, median_interval};
pub use multiple::benjamini_hochberg;
pub use quantile::{Percentile, QuantilePlace, quantile};
pub use rank::{mann_whitney, rank_test};
pub use student::{t_quantile, t_two_sided};
pub use summary::{Summary, Warning, geomean};

#[cfg(test)]
mod tests;
