//! Plan to ordered, fully resolved cells.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

/// Where a cell lies in the matrix: readable, stable, what results are matched by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Coordinates {
    /// The workload's label.
    pub label: String,
    /// The tier's name.
    pub tier: String,
    /// Prompt length, tokens.
    pub prompt_len: PromptLen,
    /// Generated tokens a request.
    pub gen_len: GenLen,
    /// Requests in flight.
    pub concurrency: Concurrency,
    /// Repetition, from 1.
    pub repeat: Repeat,
    /// Values of the further axes, by dotted plan key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, String>,
}
