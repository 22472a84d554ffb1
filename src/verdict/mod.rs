//! Whether the evidence shows that the declared tier served. Pure: facts in, verdict out.
//!
//! Counters alone prove nothing: an engine was seen to count hits, and to answer fast, while no
//! cached byte was loaded. So `valid` needs three witnesses that agree: the engine's counters, bytes
//! (or the tier's own account) that moved, and text that equals the text computed without the tier.

pub(crate) mod account;
pub(crate) mod answers;
pub(crate) mod basis;
pub(crate) mod bottleneck;
pub(crate) mod causes;
mod facts;
pub(crate) mod failures;
mod findings;
mod judge;
pub(crate) mod ledger;
pub(crate) mod legs;
mod limits;
pub(crate) mod log_counts;
pub(crate) mod measures;
pub(crate) mod moved;
pub(crate) mod text;
mod witnesses;

pub(crate) use causes::Causes;
pub(crate) use facts::{
    BySource, ClaimedBy, ConnectorFacts, CounterGrowth, Facts, LinkLimit, LoadClaim, PageCache,
    PortBytes, PortFacts, Probe, Stores, TierAccount,
};
pub(crate) use judge::judge;
pub(crate) use text::Canaries;
pub(crate) use witnesses::Counted;

#[cfg(test)]
mod tests;
