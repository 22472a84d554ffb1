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

pub(crate) use bootstrap::{Bootstrap, Statistic};
pub(crate) use effect::cliffs_delta;
pub(crate) use interval::{Interval, median_interval};
pub(crate) use multiple::benjamini_hochberg;
pub(crate) use quantile::{Percentile, QuantilePlace, quantile};
pub(crate) use rank::{mann_whitney, rank_test};
pub(crate) use student::{t_quantile, t_two_sided};
pub(crate) use summary::{Summary, Warning, geomean};

#[cfg(test)]
mod tests;
