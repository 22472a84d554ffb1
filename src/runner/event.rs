//! What happens in a run, in one order. Every consumer sees the same sequence.

use std::sync::Arc;
use std::time::Duration;

use crate::load::Progress;
use crate::matrix::Cell;
use crate::plan::state::CacheState;
use crate::record::schema::Phase;

use super::result::{CellResult, Work};

/// One thing that happened.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// The run begins.
    RunStarted {
        /// Its cells, and which of them run now.
        work: Work<'a>,
    },
    /// A cell needs no further repeat.
    CellSkipped {
        /// The cell.
        cell: &'a Cell,
    },
    /// A cell begins.
    CellStarted {
        /// The cell.
        cell: &'a Cell,
        /// Its place in the order, from 1.
        position: u32,
    },
    /// A cell enters a phase.
    PhaseStarted {
        /// The phase.
        phase: Phase,
        /// The cache state that it serves, where there is one.
        state: Option<CacheState>,
    },
    /// Something of a launch that takes long, such as an image's pull.
    LaunchProgress {
        /// How far it is.
        line: &'a str,
    },
    /// Measured or unmeasured requests begin to be sent.
    LoadStarted {
        /// Counters of the load, for whoever shows them.
        progress: Arc<Progress>,
        /// How many requests are planned.
        requests: usize,
    },
    /// A cell has ended; what it measured is still to be written.
    CellFinished {
        /// All that is known of it.
        result: &'a CellResult,
    },
    /// The run stopped before its end.
    Stopped,
    /// The run has ended.
    RunFinished {
        /// How long it took.
        elapsed: Duration,
    },
}
