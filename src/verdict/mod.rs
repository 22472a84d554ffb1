//! Whether the evidence shows that the declared tier served. Pure: facts in, verdict out.
//!
//! Counters alone prove nothing: an engine was seen to count hits, and to answer fast, while no
//! cached byte was loaded. So `valid` needs three witnesses that agree: the engine's counters, bytes
//! (or the tier's own account) that moved, and text that equals the text computed without the tier.

pub mod account;
pub mod answers;
pub mod basis;
pub mod bottleneck;
pub mod causes;
mod facts;
pub mod failures;
mod findings;
mod judge;
pub mod ledger;
pub mod legs;
mod limits;
pub mod log_counts;
pub mod measures;
pub mod moved;
pub mod text;
mod witnesses;

pub use causes::Causes;
pub use facts::{
    BySource, ClaimedBy, Facts, LinkLimit, LoadClaim, PageCache, Probe, Stores, TierAccount,
};
pub use judge::judge;
pub use text::Canaries;
pub use witnesses::Counted;

#[cfg(test)]
mod tests;
