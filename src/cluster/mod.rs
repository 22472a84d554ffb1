//! One plan on a Slurm cluster, a shard a task of an array: submitted, watched, submitted again.

mod accounts;
mod fate;
mod slurm;
mod submission;
mod watch;

pub(crate) use slurm::Job;
pub(crate) use submission::{Folder, Submission};
pub(crate) use watch::watch;
