//! How many connections this process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a load opens beside its streams: timers, event queues, the samplers' own.
const BESIDE_STREAMS: u64 = 24;

/// A load that would run out of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{streams} streams at once need {needed} open files, and this process may open {limit}: raise \
     its hard limit (`ulimit -Hn {needed}`) or lower the concurrency"
)]
pub struct TooFewFiles {
    /// Connections that the load holds at a time.
    pub streams: u32,
    /// Open files that they need, with those that are open already.
    pub needed: u64,
    /// The limit, after it was raised as far as it goes.
    pub limit: u64,
}

/// Raises this process's limit of open files as far as the system allows, and checks that it is
/// enough for `streams` connections. An open loop has none of a known number: 0.
pub(crate) fn check(streams: u32) -> Result<(), TooFewFiles> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If it is refused the old limit stays, and is the one that counts.
    let _refused = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    enough(streams, open as u64, limit)
}

fn enough(streams: u32, open: u64, limit: u64) -> Result<(), TooFewFiles> {
    let needed = open + BESIDE_STREAMS + u64::from(streams);
    if streams == 0 || needed <= limit {
        return Ok(());
    }
    Err(TooFewFiles {
        streams,
        needed,
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_would_run_out_of_files_is_refused_with_the_number_it_needs() {
        assert_eq!(enough(200, 10, 256), Ok(()));
        assert_eq!(enough(0, 250, 256), Ok(()), "an open loop");
        let refused = enough(500, 10, 256).unwrap_err().to_string();
        assert!(refused.contains("need 534 open files"), "{refused}");
        assert!(refused.contains("may open 256"), "{refused}");
        assert_eq!(check(1), Ok(()));
    }
}
