//! Takes cells through their phases, in order, cancellably.

pub mod verdict;
