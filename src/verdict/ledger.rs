//! The ledger of a pass: bytes that had to move for what was counted, against bytes that did.

use super::facts::Facts;
use super::moved::RedisNetwork;
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;

/// One way of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which way: `disk-read`, `redis-write`, `pcie-rx`, `lmcache-ram`, ...
    pub path: &'static str,
    /// Tokens that the counters say went this way.
    pub tokens: f64,
    /// Tokens x KV bytes a token, where these are known.
    pub expected_bytes: Option<f64>,
    /// Bytes that were seen to move, where anything could see them.
    pub moved_bytes: Option<f64>,
    /// What saw them.
    pub method: &'static str,
}

/// The rows of `facts`: loads in a pass that the tier is to serve, stores in a cold one.
pub fn rows(facts: &Facts) -> Vec<Row> {
    match facts.state {
        _ if facts.tier == TierKind::Baseline => Vec::new(),
        CacheState::Cold => stores(facts),
        CacheState::Gpu => Vec::new(),
        CacheState::Tier | CacheState::Restart => loads(facts),
    }
}

/// The rows of `facts`, and beside what Redis tells of itself what its interface carried.
pub fn rows_beside(facts: &Facts, network: Option<&RedisNetwork>) -> Vec<Row> {
    let mut all = rows(facts);
    let over_network = over_network(&all, network);
    all.extend(over_network);
    all
}

/// What the network interface on the way to Redis carried, beside what Redis tells of itself in
/// `rows`; headers and everything else on that interface are in it.
fn over_network(rows: &[Row], seen: Option<&RedisNetwork>) -> Option<Row> {
    let seen = seen?;
    rows.iter().find_map(|row| {
        let (path, moved_bytes) = match row.path {
            "redis-read" => ("network-rx", seen.rx_bytes),
            "redis-write" => ("network-tx", seen.tx_bytes),
            _ => return None,
        };
        Some(Row {
            path,
            moved_bytes: Some(moved_bytes),
            method: "interface",
            ..row.clone()
        })
    })
}

fn row(
    facts: &Facts,
    path: &'static str,
    tokens: f64,
    moved_bytes: Option<f64>,
    method: &'static str,
) -> Row {
    Row {
        path,
        tokens,
        expected_bytes: facts.kv_bytes_per_token.map(|bytes| tokens * bytes),
        moved_bytes,
        method: if facts.simulated { "simulated" } else { method },
    }
}

fn loads(facts: &Facts) -> Vec<Row> {
    let Some(sources) = facts.by_source else {
        return Vec::new();
    };
    let tokens = sources.external_tokens;
    let mut rows = Vec::new();
    match facts.tier {
        TierKind::Disk => {
            rows.push(row(
                facts,
                "disk-read",
                tokens,
                facts.disk_read_bytes,
                "proc-io",
            ));
        }
        TierKind::Redis => {
            let moved = facts.redis_read_bytes;
            rows.push(row(facts, "redis-read", tokens, moved, "redis-info"));
        }
        _ => {}
    }
    if facts.pcie_rx_bytes.is_some() {
        let method = facts.pcie_method.unwrap_or("gpm");
        rows.push(row(facts, "pcie-rx", tokens, facts.pcie_rx_bytes, method));
    }
    if let Some(account) = facts.account {
        let bytes = |tokens: f64| facts.kv_bytes_per_token.map(|bytes| tokens * bytes);
        let (ram, second) = match facts.tier {
            TierKind::Disk | TierKind::Redis => (0.0, tokens),
            TierKind::CpuDisk => (account.ram_tokens, tokens - account.ram_tokens),
            _ => (tokens, 0.0),
        };
        for (path, tokens, served) in [
            ("lmcache-ram", ram, account.ram_tokens),
            ("lmcache-second-layer", second, account.second_tokens),
        ] {
            if tokens > 0.0 || served > 0.0 {
                rows.push(row(
                    facts,
                    path,
                    tokens.max(0.0),
                    bytes(served),
                    "lmcache-account",
                ));
            }
        }
    }
    rows
}

fn stores(facts: &Facts) -> Vec<Row> {
    let Some(tokens) = facts.stored_tokens else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    match facts.tier {
        TierKind::Disk | TierKind::CpuDisk => {
            let moved = facts.disk_write_bytes;
            rows.push(row(facts, "disk-write", tokens, moved, "proc-io"));
        }
        TierKind::Redis => {
            let moved = facts.redis_write_bytes;
            rows.push(row(facts, "redis-write", tokens, moved, "redis-info"));
        }
        _ => {}
    }
    if facts.pcie_tx_bytes.is_some() {
        let method = facts.pcie_method.unwrap_or("gpm");
        rows.push(row(facts, "pcie-tx", tokens, facts.pcie_tx_bytes, method));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_a_second_witness_of_redis() {
        let row = |path| Row {
            path,
            tokens: 256.0,
            expected_bytes: Some(1000.0),
            moved_bytes: Some(1001.0),
            method: "redis-info",
        };
        let seen = RedisNetwork {
            interface: "eth0".into(),
            rx_bytes: 1050.0,
            tx_bytes: 33.0,
        };
        let rows = [row("pcie-rx"), row("redis-read")];
        let found = over_network(&rows, Some(&seen)).unwrap();
        assert_eq!((found.path, found.method), ("network-rx", "interface"));
        assert_eq!((found.tokens, found.expected_bytes), (256.0, Some(1000.0)));
        assert_eq!(found.moved_bytes, Some(1050.0));
        let found = over_network(&[row("redis-write")], Some(&seen)).unwrap();
        assert_eq!((found.path, found.moved_bytes), ("network-tx", Some(33.0)));
        assert_eq!(over_network(&[row("disk-read")], Some(&seen)), None);
        assert_eq!(over_network(&rows, None), None);
    }
}
