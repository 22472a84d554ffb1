//! What is known of the connections to a port, from what is open and what was reported of the others.

use std::collections::BTreeMap;
use std::ops::AddAssign;

/// Identifies a connection for as long as the machine runs.
pub(super) type Cookie = [u8; 8];

/// Bytes of connections, without headers; the kernel counts a connection's begin and its end as one each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    /// From the port.
    pub(super) received: u64,
    /// Sent, and acknowledged by the other end.
    pub(super) sent: u64,
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// What was counted up to an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortTotals {
    /// The port.
    pub port: u16,
    pub(super) bytes: Bytes,
    /// Whether there was any connection so far.
    pub is_seen: bool,
    /// How often a connection's last bytes may have been lost.
    losses: u64,
}

/// How much was counted between two instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortGrowth {
    /// Bytes from the port.
    pub received_bytes: u64,
    /// Bytes to it.
    pub sent_bytes: u64,
    /// Whether there may have been more.
    pub is_at_least: bool,
}

impl PortTotals {
    /// Whole MiB to the port: a number that grows while something is stored there. What keeps a connection
    /// alive is too little to change it.
    pub(crate) fn sent_mib(&self) -> u64 {
        self.bytes.sent >> 20
    }

    /// What was counted since `before`.
    pub(crate) fn since(&self, before: &Self) -> PortGrowth {
        let grew = |now: u64, then: u64| now.saturating_sub(then);
        PortGrowth {
            received_bytes: grew(self.bytes.received, before.bytes.received),
            sent_bytes: grew(self.bytes.sent, before.bytes.sent),
            is_at_least: self.losses != before.losses,
        }
    }
}

/// What is known of the connections.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Those that were open when last asked for.
    open: BTreeMap<Cookie, Bytes>,
    /// Those that are gone and not reported yet, with what they had carried before.
    missing: BTreeMap<Cookie, Bytes>,
    /// Those whose report did not come in time.
    unreported: BTreeMap<Cookie, Bytes>,
    /// Bytes of all that were reported.
    closed: Bytes,
    is_seen: bool,
    losses: u64,
}

impl Counted {
    /// Takes those that are `open` now; returns how many of the others are not reported yet.
    pub(super) fn see_open(&mut self, open: BTreeMap<Cookie, Bytes>) -> usize {
        self.is_seen |= !open.is_empty();
        self.missing.append(&mut self.open);
        for cookie in open.keys() {
            self.missing.remove(cookie);
            self.unreported.remove(cookie);
        }
        self.open = open;
        self.missing.len()
    }

    /// Reports were lost, of nobody knows which connections.
    pub(super) fn lose(&mut self) {
        self.losses += 1;
    }

    /// Waits no longer for reports.
    pub(super) fn give_up(&mut self) {
        self.losses += self.missing.len() as u64;
        self.unreported.append(&mut self.missing);
    }

    /// Takes the report of one that was closed; `bytes` are what it carried in all, where the report has
    /// them.
    pub(super) fn see_closed(&mut self, cookie: Cookie, bytes: Option<Bytes>) {
        if let Some(known) = self.unreported.remove(&cookie) {
            // It was given up: what it carried behind `known` is not of now.
            self.closed += known;
            return;
        }
        let known = self.open.remove(&cookie).or(self.missing.remove(&cookie));
        self.closed += bytes.or(known).unwrap_or_default();
        // A connect that was refused is no connection: of others the kernel counts the begin as sent.
        self.is_seen |= bytes.is_some_and(|bytes| bytes != Bytes::default());
        self.losses += u64::from(bytes.is_none());
    }

    /// What was counted of `port` so far.
    pub(super) fn totals(&self, port: u16) -> PortTotals {
        let mut bytes = self.closed;
        for table in [&self.open, &self.missing, &self.unreported] {
            for carried in table.values() {
                bytes += *carried;
            }
        }
        PortTotals {
            port,
            bytes,
            is_seen: self.is_seen,
            losses: self.losses,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_progress_and_heartbeats_are_none() {
        let sent_mib = |bytes: u64| {
            let mut counted = Counted::default();
            counted.see_open(open(&[(1, bytes)]));
            counted.totals(7).sent_mib()
        };
        assert_eq!([sent_mib(50_000), sent_mib(50_010)], [0, 0]);
        assert_eq!(sent_mib(1 << 20), 10);
    }

    fn carried(bytes: u64) -> Bytes {
        Bytes {
            received: bytes,
            sent: 10 * bytes,
        }
    }

    fn open(all: &[(u8, u64)]) -> BTreeMap<Cookie, Bytes> {
        let of = |(cookie, bytes): &(u8, u64)| ([*cookie; 8], carried(*bytes));
        all.iter().map(of).collect()
    }

    #[test]
    fn a_connection_that_is_gone_without_a_report_makes_a_lower_bound() {
        let mut counted = Counted::default();
        assert_eq!(counted.see_open(open(&[(1, 100), (2, 5)])), 0);
        let before = counted.totals(7);
        // The report comes while it is waited for.
        assert_eq!(counted.see_open(open(&[(2, 6)])), 1);
        assert_eq!(counted.totals(7).since(&before).received_bytes, 1);
        counted.see_closed([1; 8], Some(carried(150)));
        assert_eq!(counted.see_open(open(&[(2, 6)])), 0);
        counted.give_up();
        let reported = counted.totals(7);
        let growth = reported.since(&before);
        assert_eq!((growth.received_bytes, growth.sent_bytes), (51, 510));
        assert!(!growth.is_at_least);
        // It does not come.
        assert_eq!(counted.see_open(open(&[])), 1);
        counted.give_up();
        assert_eq!(counted.see_open(open(&[])), 0, "it is waited for once");
        let growth = counted.totals(7).since(&reported);
        assert_eq!((growth.received_bytes, growth.is_at_least), (0, true));
        // It comes late: what was counted of it counts once, and the rest is of nobody knows when.
        let lost = counted.totals(7);
        counted.see_closed([2; 8], Some(carried(9)));
        let growth = counted.totals(7).since(&lost);
        assert_eq!((growth.received_bytes, growth.is_at_least), (0, false));
        // A report without counters.
        counted.see_open(open(&[(3, 4)]));
        counted.see_closed([3; 8], None);
        let growth = counted.totals(7).since(&lost);
        assert_eq!((growth.received_bytes, growth.is_at_least), (4, true));
    }
}
