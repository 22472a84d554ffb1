//! One plan on a Slurm cluster, a shard a task of an array: submitted, watched, submitted again.

mod accounts;
mod fate;
mod slurm;
mod submission;
mod watch;

pub use slurm::Job;
pub use submission::{Folder, Submission};
pub use watch::watch;
