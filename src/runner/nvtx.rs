//! Run, cells and phases as profiler ranges, drawn from the events of a run.

use super::event::Event;
use crate::nvtx::{self, Kind, Range};
use crate::record::schema::Phase;

/// The ranges that are open.
#[derive(Debug, Default)]
pub(crate) struct RunRanges {
    // In this order they end.
    phase: Option<Range>,
    cell: Option<Range>,
    run: Option<Range>,
    position: u64,
}

impl RunRanges {
    /// Begins and ends what `event` does.
    pub(crate) fn see(&mut self, event: &Event<'_>) {
        match event {
            Event::RunStarted { work } => {
                self.run = Some(nvtx::start(Kind::Run, work.todo.len() as u64));
            }
            Event::CellStarted { position, .. } => {
                self.end_cell();
                self.position = u64::from(*position);
                self.cell = Some(nvtx::start(Kind::Cell, self.position));
            }
            Event::PhaseStarted { phase, .. } => {
                drop(self.phase.take());
                self.phase = Some(nvtx::start(kind_of(*phase), self.position));
            }
            Event::CellFinished { .. } => self.end_cell(),
            Event::Stopped | Event::RunFinished { .. } => {
                self.end_cell();
                drop(self.run.take());
            }
            Event::CellSkipped { .. }
            | Event::LaunchProgress { .. }
            | Event::LoadStarted { .. } => {}
        }
    }

    fn end_cell(&mut self) {
        drop(self.phase.take());
        drop(self.cell.take());
    }
}

fn kind_of(phase: Phase) -> Kind {
    match phase {
        Phase::Launch => Kind::Launch,
        Phase::Ready => Kind::Ready,
        Phase::Warm => Kind::Warm,
        Phase::Load => Kind::Load,
        Phase::Verify => Kind::Verify,
        Phase::Stop => Kind::Stop,
    }
}
