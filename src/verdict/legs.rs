//! The legs of a tier's way: bytes that had to move for what was counted, and bytes that did.
//!
//! Each leg that can be read is judged. A leg is sufficient where even the lowest value of what
//! moved reaches the share that the plan asks of even the highest value of what was needed; it
//! falls short where even the highest value does not reach it for the lowest need; else it is open,
//! with the reason and what would settle it.

use super::facts::{BySource, ConnectorFacts, Facts, PortBytes, serves};
use crate::plan::adapter::Adapter;
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::record::schema::VerdictStatus;
use crate::record::way::Way;
use crate::units::Bounds;

/// By how much `/proc/<pid>/io` and Redis' own counters err: whole pages and the protocol's words
/// are counted with the payload.
const ACCOUNT_ERROR: f64 = 0.02;

/// No model has less KV than this per token; a leg that moved less for its tokens moved nothing.
const MIN_BYTES_PER_TOKEN: f64 = 16.0;

/// What a leg carried, by whoever saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Carried {
    /// Bytes that were seen to move.
    Bytes(Bounds),
    /// So many bytes were seen to move, and there may have been more.
    AtLeast(f64),
    /// Tokens in the tier's own account.
    Tokens(f64),
    /// Nothing could see it.
    Unseen,
}

/// One leg of a pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Leg {
    /// Which way it is.
    pub path: Way,
    /// Tokens that went this way by the counters.
    pub tokens: f64,
    /// Bytes that these tokens take, where their size is known.
    pub needed: Option<Bounds>,
    /// Whether fewer bytes than the GPU takes are stored, by a serializer with a loss.
    pub is_smaller: bool,
    /// What it carried.
    pub carried: Carried,
    /// What saw it.
    pub method: &'static str,
}

impl Leg {
    /// Judges the leg; `share` of the needed bytes must have moved. `None` where the leg shows
    /// nothing: no token went this way, or nothing could see it.
    pub(crate) fn judge(&self, share: f64) -> Option<(VerdictStatus, String)> {
        if self.tokens < 1.0 {
            return None;
        }
        match self.carried {
            Carried::Unseen => None,
            Carried::Tokens(tokens) => Some(self.judge_tokens(tokens, share)),
            Carried::Bytes(moved) => Some(self.judge_bytes(moved, share)),
            Carried::AtLeast(bytes) => Some(self.judge_at_least(bytes, share)),
        }
    }

    fn judge_tokens(&self, tokens: f64, share: f64) -> (VerdictStatus, String) {
        let whose = match self.path {
            Way::ConnectorHits => "the connector's own counter",
            _ => "LMCache's own account",
        };
        let message = format!(
            "{whose}: {tokens:.0} tokens {} for {:.0}",
            self.path.words(),
            self.tokens
        );
        let status = if tokens >= share * self.tokens {
            VerdictStatus::Valid
        } else {
            VerdictStatus::Invalid
        };
        (status, message)
    }

    fn judge_bytes(&self, moved: Bounds, share: f64) -> (VerdictStatus, String) {
        let Some(needed) = self.needed else {
            return self.judge_without_size(moved);
        };
        let message = format!(
            "{} MiB {} for {} MiB of KV",
            mebibytes(moved),
            self.path.words(),
            mebibytes(needed)
        );
        if moved.high < share * needed.low {
            return (
                VerdictStatus::Invalid,
                format!("{message}: {}", self.shortfall()),
            );
        }
        if moved.low >= share * needed.high {
            return (VerdictStatus::Valid, message);
        }
        let settle = if needed.high - needed.low > moved.high - moved.low {
            "the size of the model's KV is not known well enough (set `kv_bytes_per_token` in \
             [server])"
        } else {
            "the readings are too coarse for so short a pass (ask for more `requests`)"
        };
        (VerdictStatus::Inconclusive, format!("{message}: {settle}"))
    }

    /// Enough bytes are enough; too few show nothing.
    fn judge_at_least(&self, bytes: f64, share: f64) -> (VerdictStatus, String) {
        let message = format!(
            "at least {} MiB {}",
            mebibytes(Bounds::exact(bytes)),
            self.path.words()
        );
        let why = "a connection was closed, and its last bytes were not seen";
        match self.needed {
            Some(needed) if bytes >= share * needed.high => {
                let message = format!("{message} for {} MiB of KV", mebibytes(needed));
                (VerdictStatus::Valid, message)
            }
            Some(needed) => {
                let message = format!("{message} for {} MiB of KV: {why}", mebibytes(needed));
                (VerdictStatus::Inconclusive, message)
            }
            None => {
                let message = format!("{message} for {:.0} tokens: {why}", self.tokens);
                (VerdictStatus::Inconclusive, message)
            }
        }
    }

    fn judge_without_size(&self, moved: Bounds) -> (VerdictStatus, String) {
        if moved.high < MIN_BYTES_PER_TOKEN * self.tokens {
            let message = format!(
                "{} MiB {} for {:.0} tokens: {}",
                mebibytes(moved),
                self.path.words(),
                self.tokens,
                self.shortfall()
            );
            return (VerdictStatus::Invalid, message);
        }
        let why = if self.is_smaller {
            "the tier stores KV smaller than it is, and labrun sees no size of what it stored"
        } else {
            "no source states the KV bytes per token (set `kv_bytes_per_token` in [server])"
        };
        let message = format!(
            "{} MiB {} for {:.0} tokens, and how many that should be is unknown: {why}",
            mebibytes(moved),
            self.path.words(),
            self.tokens
        );
        (VerdictStatus::Inconclusive, message)
    }

    /// What it means that too little moved.
    fn shortfall(&self) -> &'static str {
        match self.path {
            Way::DiskRead => "RAM answered for the disk",
            way if way.is_load() => "the hits were not loaded",
            _ => "what was counted as stored was not",
        }
    }
}

/// `2048`, or `1900 to 2048` where the ends differ by more than 1 %, and not only behind the point.
fn mebibytes(bytes: Bounds) -> String {
    let mib = bytes.times(1.0 / f64::from(1 << 20));
    let rounds_to_one = mib.low.round() as u64 == mib.high.round() as u64;
    if rounds_to_one || mib.high - mib.low <= 0.01 * mib.high {
        format!("{:.0}", mib.middle())
    } else {
        format!("{:.0} to {:.0}", mib.low, mib.high)
    }
}

/// The legs of `facts`: loads in a pass that the tier is to serve, stores in a cold one.
pub(crate) fn of_pass(facts: &Facts) -> Vec<Leg> {
    match facts.state {
        _ if facts.tier == TierKind::Baseline => Vec::new(),
        CacheState::Cold => stores(facts),
        CacheState::Gpu => Vec::new(),
        CacheState::Tier | CacheState::Restart => loads(facts),
    }
}

/// Whether the legs of a pass are to be judged: the tier was to serve, or to store in time.
pub(crate) fn are_judged(facts: &Facts) -> bool {
    match facts.state {
        CacheState::Cold => facts.stores == super::facts::Stores::Finished,
        CacheState::Gpu => false,
        CacheState::Tier | CacheState::Restart => serves(facts),
    }
}

fn leg(facts: &Facts, path: Way, tokens: f64, carried: Carried, method: &'static str) -> Leg {
    let size = if path.is_storage() {
        facts.storage_size()
    } else {
        facts.kv.stored
    };
    Leg {
        path,
        tokens,
        needed: size.map(|bytes| bytes.times(tokens)),
        is_smaller: path.is_storage() && facts.stores_with_loss(),
        carried,
        method: if facts.simulated { "simulated" } else { method },
    }
}

/// Bytes counted with whatever the protocol or the page size adds: the payload is a little less.
fn accounted(bytes: Option<f64>, facts: &Facts) -> Carried {
    let error = if facts.simulated { 0.0 } else { ACCOUNT_ERROR };
    bytes.map_or(Carried::Unseen, |high| {
        Carried::Bytes(Bounds {
            low: high * (1.0 - error),
            high,
        })
    })
}

/// The same over a TCP port, where there may have been more.
fn over_port(bytes: Option<PortBytes>, facts: &Facts) -> Carried {
    match accounted(bytes.map(|it| it.bytes), facts) {
        Carried::Bytes(moved) if bytes.is_some_and(|it| it.is_at_least) => {
            Carried::AtLeast(moved.low)
        }
        carried => carried,
    }
}

/// The leg over PCIe; `None` where nobody saw it.
fn over_pcie(facts: &Facts, path: Way, tokens: f64, bytes: Option<Bounds>) -> Option<Leg> {
    let method = facts.pcie_method.unwrap_or_default().name();
    Some(leg(facts, path, tokens, Carried::Bytes(bytes?), method))
}

fn loads(facts: &Facts) -> Vec<Leg> {
    let Some(sources) = facts.by_source else {
        return Vec::new();
    };
    let tokens = sources.external_tokens;
    let mut legs = Vec::new();
    match facts.tier {
        TierKind::Redis => {
            let carried = accounted(facts.redis_read_bytes, facts);
            legs.push(leg(facts, Way::RedisRead, tokens, carried, "redis-info"));
        }
        TierKind::Adapter(Adapter::Valkey) => {
            let carried = accounted(facts.redis_read_bytes, facts);
            legs.push(leg(facts, Way::ValkeyRead, tokens, carried, "valkey-info"));
        }
        tier if tier.reads_disk_alone() => {
            let carried = accounted(facts.disk_read_bytes, facts);
            legs.push(leg(facts, Way::DiskRead, tokens, carried, "proc-io"));
        }
        _ => {}
    }
    if let Some(connector) = &facts.connector {
        legs.extend(connector_loads(facts, connector, tokens));
    }
    legs.extend(over_pcie(facts, Way::PcieRx, tokens, facts.pcie_rx_bytes));
    if let Some(bytes) = facts.engine.load_bytes
        && facts.tier.is_vllms_own()
    {
        let carried = Carried::Bytes(Bounds::exact(bytes));
        legs.push(leg(facts, Way::EngineLoad, tokens, carried, "vllm-account"));
    }
    if let Some(loaded) = facts.engine.loaded_tokens {
        let carried = Carried::Tokens(loaded);
        legs.push(leg(
            facts,
            Way::LmcacheLoad,
            tokens,
            carried,
            "lmcache-account",
        ));
    }
    if let Some(account) = facts.account {
        let (ram, second) = match facts.tier {
            tier if tier.is_second_layer_alone() => (0.0, tokens),
            TierKind::CpuDisk => (account.ram_tokens, tokens - account.ram_tokens),
            _ => (tokens, 0.0),
        };
        for (path, tokens, served) in [
            (Way::LmcacheRam, ram, account.ram_tokens),
            (Way::LmcacheSecondLayer, second, account.second_tokens),
        ] {
            if tokens > 0.0 || served > 0.0 {
                let carried = Carried::Tokens(served);
                legs.push(leg(
                    facts,
                    path,
                    tokens.max(0.0),
                    carried,
                    "lmcache-account",
                ));
            }
        }
    }
    legs
}

/// What the plan names to watch of a connector's tier, but for PCIe, which is read for every tier.
fn connector_loads(facts: &Facts, connector: &ConnectorFacts, tokens: f64) -> Vec<Leg> {
    let mut legs = Vec::new();
    if connector.disk {
        let carried = accounted(facts.disk_read_bytes, facts);
        legs.push(leg(facts, Way::DiskRead, tokens, carried, "proc-io"));
    }
    if connector.redis {
        let carried = accounted(facts.redis_read_bytes, facts);
        legs.push(leg(facts, Way::RedisRead, tokens, carried, "redis-info"));
    }
    if let Some(port) = &connector.port {
        let carried = over_port(port.received, facts);
        legs.push(leg(facts, Way::PortRead, tokens, carried, "tcp-info"));
    }
    let counters = [
        (Way::ConnectorLoad, &connector.loaded_bytes),
        (Way::ConnectorHits, &connector.hit_tokens),
    ];
    for (way, counter) in counters {
        if let Some(counter) = counter {
            let carried = match (way, counter.grew) {
                (_, None) => Carried::Unseen,
                (Way::ConnectorHits, Some(found)) => Carried::Tokens(found),
                (_, Some(bytes)) => Carried::Bytes(Bounds::exact(bytes)),
            };
            legs.push(leg(facts, way, tokens, carried, "connector-counter"));
        }
    }
    legs
}

fn stores(facts: &Facts) -> Vec<Leg> {
    if facts.tier.is_vllms_own() {
        let second = facts.engine.second_write_bytes;
        let behind = (facts.tier == TierKind::NativeFs).then_some((Way::DiskWrite, second));
        return stores_by_bytes(facts, facts.engine.store_bytes, behind);
    }
    if let Some(connector) = &facts.connector {
        let stored = connector.stored_bytes.as_ref().and_then(|it| it.grew);
        let ways = [
            (connector.disk, Way::DiskWrite),
            (connector.redis, Way::RedisWrite),
            (connector.port.is_some(), Way::PortWrite),
        ];
        let ways = ways.into_iter().filter(|(is_watched, _)| *is_watched);
        return stores_by_bytes(facts, stored, ways.map(|(_, way)| (way, None)));
    }
    let Some(tokens) = facts.stored_tokens else {
        return Vec::new();
    };
    let mut legs = Vec::new();
    match facts.tier {
        TierKind::Disk | TierKind::CpuDisk => {
            let carried = accounted(facts.disk_write_bytes, facts);
            legs.push(leg(facts, Way::DiskWrite, tokens, carried, "proc-io"));
        }
        TierKind::Redis => {
            let carried = accounted(facts.redis_write_bytes, facts);
            legs.push(leg(facts, Way::RedisWrite, tokens, carried, "redis-info"));
        }
        TierKind::Adapter(Adapter::Valkey) => {
            let carried = accounted(facts.redis_write_bytes, facts);
            legs.push(leg(facts, Way::ValkeyWrite, tokens, carried, "valkey-info"));
        }
        _ => {}
    }
    legs.extend(over_pcie(facts, Way::PcieTx, tokens, facts.pcie_tx_bytes));
    legs
}

/// The stores of a tier that counts the bytes that it has `taken` from the GPU, and not tokens. vLLM's own
/// offloading counts from 0.32 on those that it wrote to files too: `behind` has each way behind
/// the GPU with its own count.
fn stores_by_bytes(
    facts: &Facts,
    taken: Option<f64>,
    behind: impl IntoIterator<Item = (Way, Option<f64>)>,
) -> Vec<Leg> {
    let Some(taken) = taken else {
        return Vec::new();
    };
    let size = facts.kv.stored.map(Bounds::middle);
    let prompt = || facts.by_source.map(BySource::total);
    let Some(tokens) = size.map(|size| taken / size).or_else(prompt) else {
        return Vec::new();
    };
    let needing = |bytes: f64, leg: Leg| Leg {
        needed: Some(Bounds::exact(bytes)),
        ..leg
    };
    let mut legs = Vec::new();
    for (way, written) in behind {
        let (carried, method) = match way {
            Way::DiskWrite => (accounted(facts.disk_write_bytes, facts), "proc-io"),
            Way::PortWrite => (over_port(sent_to_port(facts), facts), "tcp-info"),
            _ => (accounted(facts.redis_write_bytes, facts), "redis-info"),
        };
        let behind = leg(facts, way, tokens, carried, method);
        legs.push(needing(written.unwrap_or(taken), behind));
    }
    let pcie = over_pcie(facts, Way::PcieTx, tokens, facts.pcie_tx_bytes);
    legs.extend(pcie.map(|leg| needing(taken, leg)));
    legs
}

/// Bytes to the TCP port of a connector's store.
fn sent_to_port(facts: &Facts) -> Option<PortBytes> {
    facts.connector.as_ref()?.port.as_ref()?.sent
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leg(path: Way, needed: Option<Bounds>, carried: Carried) -> Leg {
        Leg {
            path,
            tokens: 1024.0,
            needed,
            is_smaller: false,
            carried,
            method: "gpm",
        }
    }

    const MIB: f64 = 1_048_576.0;

    #[track_caller]
    fn status(needed: Option<Bounds>, moved: Bounds) -> VerdictStatus {
        leg(Way::PcieRx, needed, Carried::Bytes(moved))
            .judge(0.9)
            .unwrap()
            .0
    }

    #[test]
    fn thresholds_use_the_uncertainty_of_both_sides() {
        let needed = Some(Bounds::exact(100.0 * MIB));
        let exact = |mib: f64| Bounds::exact(mib * MIB);
        assert_eq!(status(needed, exact(100.0)), VerdictStatus::Valid);
        assert_eq!(status(needed, exact(90.0)), VerdictStatus::Valid);
        assert_eq!(status(needed, exact(89.0)), VerdictStatus::Invalid);
        assert_eq!(
            status(needed, exact(89.0).widened(0.05)),
            VerdictStatus::Inconclusive
        );
        assert_eq!(
            status(needed, exact(91.0).widened(0.05)),
            VerdictStatus::Inconclusive
        );
        assert_eq!(
            status(None, Bounds::exact(16_384.0)),
            VerdictStatus::Inconclusive
        );
        assert_eq!(
            status(None, Bounds::exact(16_383.0)),
            VerdictStatus::Invalid
        );
        let sliding = Some(Bounds {
            low: 20.0 * MIB,
            high: 100.0 * MIB,
        });
        assert_eq!(status(sliding, exact(50.0)), VerdictStatus::Inconclusive);
        assert_eq!(status(sliding, exact(95.0)), VerdictStatus::Valid);
        assert_eq!(status(sliding, exact(10.0)), VerdictStatus::Invalid);
    }

    #[test]
    fn nothing_for_many_tokens_is_invalid_without_any_size() {
        assert_eq!(status(None, Bounds::exact(0.0)), VerdictStatus::Invalid);
        assert_eq!(
            status(None, Bounds::exact(3.0 * MIB)),
            VerdictStatus::Inconclusive
        );
        let silent = leg(Way::PcieRx, None, Carried::Unseen);
        assert_eq!(silent.judge(0.9), None);
        let unused = Leg {
            tokens: 0.0,
            ..leg(Way::PcieRx, None, Carried::Bytes(Bounds::exact(0.0)))
        };
        assert_eq!(unused.judge(0.9), None);
    }

    #[test]
    fn a_reason_names_both_numbers_and_what_settles_it() {
        let reason = |needed, moved| {
            leg(Way::DiskRead, needed, Carried::Bytes(moved))
                .judge(0.9)
                .unwrap()
                .1
        };
        assert_eq!(
            reason(Some(Bounds::exact(100.0 * MIB)), Bounds::exact(3.0 * MIB)),
            "3 MiB read from disk for 100 MiB of KV: RAM answered for the disk"
        );
        let open = reason(
            Some(Bounds {
                low: 1.0 * MIB,
                high: 100.0 * MIB,
            }),
            Bounds::exact(50.0 * MIB),
        );
        assert!(open.contains("kv_bytes_per_token"), "{open}");
        let coarse = reason(
            Some(Bounds::exact(100.0 * MIB)),
            Bounds::within(90.0 * MIB, 20.0 * MIB),
        );
        assert!(coarse.contains("more `requests`"), "{coarse}");
        let both = reason(
            Some(Bounds::within(100.0 * MIB, 8.0 * MIB)),
            Bounds::within(92.0 * MIB, 8.0 * MIB),
        );
        assert!(both.contains("more `requests`"), "{both}");
        let size = reason(
            Some(Bounds::within(100.0 * MIB, 30.0 * MIB)),
            Bounds::within(92.0 * MIB, 8.0 * MIB),
        );
        assert!(size.contains("kv_bytes_per_token"), "{size}");
    }

    #[test]
    fn a_single_token_is_a_leg() {
        let one = Leg {
            tokens: 1.0,
            ..leg(Way::PcieRx, None, Carried::Bytes(Bounds::exact(0.0)))
        };
        assert_eq!(one.judge(0.9).unwrap().0, VerdictStatus::Invalid);
    }

    #[test]
    fn a_size_is_one_number_where_its_ends_hardly_differ() {
        for (low, high, expected) in [
            (100.0, 100.0, "100"),
            (99.6, 100.4, "100"),
            (100.4, 100.7, "101"),
            (99.0, 100.0, "100"),
            (0.6, 1.4, "1"),
            (50.0, 100.0, "50 to 100"),
        ] {
            let bytes = Bounds {
                low: low * MIB,
                high: high * MIB,
            };
            assert_eq!(mebibytes(bytes), expected, "{low} {high}");
        }
    }

    proptest! {
        /// Wider uncertainty never turns one certain answer into the other, and a true value inside
        /// the bounds is never contradicted.
        #[test]
        fn a_certain_answer_is_true_of_every_value_within_the_bounds(
            needed in 1.0..1e9_f64, needed_error in 0.0..0.5_f64,
            moved in 0.0..2e9_f64, moved_error in 0.0..0.5_f64,
            at in (0.0..1.0_f64, 0.0..1.0_f64),
        ) {
            let needed = Bounds::exact(needed).widened(needed_error);
            let moved = Bounds::exact(moved).widened(moved_error);
            let pick = |bounds: Bounds, at: f64| bounds.low + at * (bounds.high - bounds.low);
            let suffices = pick(moved, at.0) >= 0.9 * pick(needed, at.1);
            match status(Some(needed), moved) {
                VerdictStatus::Valid => prop_assert!(suffices),
                VerdictStatus::Invalid => prop_assert!(!suffices),
                VerdictStatus::Inconclusive => {}
            }
        }
    }
}
