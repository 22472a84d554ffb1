//! What a pass was judged by, as its cell stores it: whoever has the files can judge it again.

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use crate::telemetry::summary::Window;

/// The file in a cell's folder: a list, one [`Basis`] a pass, in the order of the passes.
pub(crate) const FACTS_FILE: &str = "facts.json";

/// What one pass was judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Basis {
    /// The facts.
    pub facts: Facts,
    /// Where in `telemetry.parquet` its bytes were counted; absent where nothing was watched.
    pub watched: Option<Watched>,
}

/// The stretches of telemetry that belong to a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watched {
    /// How many GPUs were to be watched.
    pub gpus: usize,
    /// The pass.
    pub pass: Stretch,
    /// From its begin until the tier had stored what it left, where that was waited for.
    pub until_stored: Option<Stretch>,
}

/// What was read around a stretch of time, and the stretch itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stretch {
    /// From the first reading asked for at its begin to the last that came at its end.
    pub window: Window,
    /// What must be covered by readings.
    pub core: Window,
}
