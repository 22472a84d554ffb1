//! When the phases of a cell were, on the run's clock.

use std::time::Duration;

use super::event::Event;
use super::result::PhaseStretch;
use crate::telemetry::summary::Window;

/// The phases of a cell so far.
#[derive(Debug, Default)]
pub(crate) struct Phases(Vec<PhaseStretch>);

impl Phases {
    /// Takes note of an `event` that happened `at` this time: a phase ends where the next begins.
    pub(crate) fn see(&mut self, event: &Event<'_>, at: Duration) {
        if let Event::PhaseStarted { phase, state } = event {
            self.end(at);
            self.0.push(PhaseStretch {
                phase: *phase,
                state: *state,
                window: Window { from: at, to: at },
            });
        }
    }

    /// All of them, the last one ended `at` this time.
    pub(crate) fn finish(mut self, at: Duration) -> Vec<PhaseStretch> {
        self.end(at);
        self.0
    }

    fn end(&mut self, at: Duration) {
        if let Some(last) = self.0.last_mut() {
            last.window.to = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::schema::Phase;

    #[test]
    fn a_phase_ends_where_the_next_begins() {
        let mut phases = Phases::default();
        for (second, phase) in [(1, Phase::Warm), (4, Phase::Load)] {
            let event = Event::PhaseStarted { phase, state: None };
            phases.see(&event, Duration::from_secs(second));
            phases.see(&Event::Stopped, Duration::from_secs(second + 1));
        }
        let found = phases.finish(Duration::from_secs(9)).into_iter();
        let found: Vec<_> = found
            .map(|one| {
                (
                    one.phase,
                    one.window.from.as_secs(),
                    one.window.to.as_secs(),
                )
            })
            .collect();
        assert_eq!(found, [(Phase::Warm, 1, 4), (Phase::Load, 4, 9)]);
    }
}
