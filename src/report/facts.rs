//! What a run folder says besides its cells.

use serde_json::Value;

/// The plan and the manifest of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFacts {
    /// The plan's name where the manifest says it, else the folder's.
    pub name: String,
    /// The plan's text.
    pub plan: Option<String>,
    /// The manifest; null where there is none.
    pub manifest: Value,
}
