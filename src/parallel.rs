//! The same work on many cells, on a few threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// More threads than this would keep too many cells in memory.
const MAX_THREADS: usize = 4;

/// The results of `work` on each of `0..count`, in that order.
pub(crate) fn side_by_side<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS)
        .min(count.max(1));
    let next = AtomicUsize::new(0);
    let hand = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return done;
            }
            done.push((at, work(at)));
        }
    };
    let mut all: Vec<_> = thread::scope(|scope| {
        let hands: Vec<_> = (0..threads).map(|_| scope.spawn(hand)).collect();
        let join = |hand: thread::ScopedJoinHandle<'_, _>| {
            hand.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        hands.into_iter().flat_map(join).collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_done_once_and_in_order() {
        let seen = AtomicUsize::new(0);
        let made = side_by_side(50, |at| {
            seen.fetch_add(1, Ordering::Relaxed);
            thread::sleep(std::time::Duration::from_micros((at as u64 * 7) % 13));
            at * 2
        });
        assert_eq!(made, (0..50).map(|at| at * 2).collect::<Vec<_>>());
        assert_eq!(seen.into_inner(), 50);
        assert!(side_by_side(0, |at| at).is_empty());
    }
}
