//! The ledger of a pass: bytes that had to move for what was counted, against bytes that did.

use super::facts::Facts;
use super::legs::{self, Carried, Leg};
use super::moved::RedisNetwork;
use crate::record::schema::LedgerRow;
use crate::record::way::Way;
use crate::units::Bounds;

/// The rows of `facts`: a row a leg.
pub(crate) fn rows(facts: &Facts) -> Vec<LedgerRow> {
    let row = |leg: Leg| LedgerRow {
        path: leg.path.to_string(),
        tokens: leg.tokens,
        expected_bytes: leg.needed.map(Bounds::middle),
        moved_bytes: match leg.carried {
            Carried::Bytes(bytes) => Some(bytes.middle()),
            Carried::AtLeast(bytes) => Some(bytes),
            Carried::Tokens(tokens) => facts.kv.stored.map(|bytes| bytes.times(tokens).middle()),
            Carried::Unseen => None,
        },
        method: leg.method.to_owned(),
    };
    legs::of_pass(facts).into_iter().map(row).collect()
}

/// The rows of `facts`, and beside Redis' own counters what its interface carried.
pub(crate) fn rows_beside(facts: &Facts, network: Option<&RedisNetwork>) -> Vec<LedgerRow> {
    let mut all = rows(facts);
    let over_network = over_network(&all, network);
    all.extend(over_network);
    all
}

/// What the network interface on the way to Redis carried, beside Redis' own counters in
/// `rows`; headers and everything else on that interface are in it.
fn over_network(rows: &[LedgerRow], seen: Option<&RedisNetwork>) -> Option<LedgerRow> {
    let seen = seen?;
    rows.iter().find_map(|row| {
        let (path, moved_bytes) = match Way::named(&row.path)? {
            Way::RedisRead => (Way::NetworkRx, seen.rx_bytes),
            Way::RedisWrite => (Way::NetworkTx, seen.tx_bytes),
            _ => return None,
        };
        Some(LedgerRow {
            path: path.to_string(),
            moved_bytes: Some(moved_bytes),
            method: "interface".to_owned(),
            ..row.clone()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_a_second_witness_of_redis() {
        let row = |path: &str| LedgerRow {
            path: path.to_owned(),
            tokens: 256.0,
            expected_bytes: Some(1000.0),
            moved_bytes: Some(1001.0),
            method: "redis-info".to_owned(),
        };
        let seen = RedisNetwork {
            interface: "eth0".into(),
            rx_bytes: 1050.0,
            tx_bytes: 33.0,
        };
        let rows = [row("pcie-rx"), row("redis-read")];
        let found = over_network(&rows, Some(&seen)).unwrap();
        assert_eq!(
            (found.path.as_str(), found.method.as_str()),
            ("network-rx", "interface")
        );
        assert_eq!((found.tokens, found.expected_bytes), (256.0, Some(1000.0)));
        assert_eq!(found.moved_bytes, Some(1050.0));
        let found = over_network(&[row("redis-write")], Some(&seen)).unwrap();
        assert_eq!(
            (found.path.as_str(), found.moved_bytes),
            ("network-tx", Some(33.0))
        );
        assert_eq!(over_network(&[row("disk-read")], Some(&seen)), None);
        assert_eq!(over_network(&rows, None), None);
    }
}
