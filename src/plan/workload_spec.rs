//! Placeholder of the workload table until its module lands.
use super::reader::{TableReader, positive, string};
use serde::{Deserialize, Serialize};

/// A workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSpec {
    /// kind
    pub kind: String,
    /// fresh tokens
    pub question_len: u32,
}
impl WorkloadSpec {
    /// read
    pub fn read(table: &TableReader<'_>) -> Option<Self> {
        let kind = table.require("kind", string)?;
        let question_len = table.read("question_len", positive).map_or(32, |f| f.value);
        table.finish();
        Some(Self { kind: kind.value, question_len })
    }
    /// fresh
    pub fn question_len(&self) -> Option<u32> {
        Some(self.question_len)
    }
}
