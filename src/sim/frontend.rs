//! The API server in front of the engine: one event loop that all requests share.

use std::collections::BTreeMap;

/// Processor sharing: with `n` requests in hand each one progresses at `1/n` of full speed.
///
/// Eight requests that come at once therefore reach the engine together, after eight times the
/// work of one.
#[derive(Debug, Default)]
pub(crate) struct Frontend {
    /// Service that a request present all the time would have received, ns.
    served_ns: u64,
    /// When `served_ns` was brought up to date, us.
    at_us: u64,
    /// By the value of `served_ns` at which a request is done.
    active: BTreeMap<(u64, u64), u64>,
    count: u64,
}

impl Frontend {
    /// Adds a request that needs `work_us` alone.
    pub(crate) fn add(&mut self, id: u64, work_us: u64, now_us: u64) {
        self.progress(now_us);
        self.count += 1;
        self.active
            .insert((self.served_ns + work_us * 1_000, self.count), id);
    }

    /// When the next request is done, if any is in hand.
    pub(crate) fn next_done_us(&self) -> Option<u64> {
        let ((done_ns, _), _) = self.active.first_key_value()?;
        let left_ns = done_ns.saturating_sub(self.served_ns) * self.active.len() as u64;
        Some(self.at_us + left_ns.div_ceil(1_000))
    }

    /// Takes the next request that is done by `now_us`.
    pub(crate) fn pop_done(&mut self, now_us: u64) -> Option<u64> {
        if self.next_done_us()? > now_us {
            return None;
        }
        self.progress(now_us);
        self.active.pop_first().map(|(_, id)| id)
    }

    fn progress(&mut self, now_us: u64) {
        let elapsed_us = now_us.saturating_sub(self.at_us);
        if let Some(served_ns) = (elapsed_us * 1_000).checked_div(self.active.len() as u64) {
            self.served_ns += served_ns;
        }
        self.at_us = self.at_us.max(now_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done_times(arrivals: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut frontend = Frontend::default();
        let mut done = Vec::new();
        let mut arrivals = arrivals.iter().enumerate().peekable();
        loop {
            let next_us = arrivals.peek().map(|(_, (at_us, _))| *at_us);
            let done_us = frontend.next_done_us();
            if let Some(at_us) = done_us.filter(|at| next_us.is_none_or(|next| *at <= next)) {
                done.push((frontend.pop_done(at_us).unwrap(), at_us));
            } else if let Some((id, (at_us, work_us))) = arrivals.next() {
                frontend.add(id as u64, *work_us, *at_us);
            } else {
                return done;
            }
        }
    }

    #[test]
    fn requests_share_the_event_loop() {
        assert_eq!(done_times(&[(0, 100)]), [(0, 100)]);
        assert_eq!(
            done_times(&[(0, 100), (500, 100)]),
            [(0, 100), (1, 600)],
            "not at once"
        );
        assert_eq!(
            done_times(&[(0, 100), (0, 100)]),
            [(0, 200), (1, 200)],
            "at once"
        );
        assert_eq!(
            done_times(&[(0, 100), (50, 10)]),
            [(1, 70), (0, 110)],
            "a short one in between"
        );
    }
}
