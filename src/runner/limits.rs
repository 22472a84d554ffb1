//! The limit of a cell's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::stop::Stop;

/// Stops one cell when its time is over, as a second signal would, and not the run.
#[derive(Debug)]
pub(super) struct CellLimit {
    /// The cell's own stop: what stops the run stops it too.
    pub stop: Stop,
    over: Arc<AtomicBool>,
    timer: Option<JoinHandle<()>>,
}

impl CellLimit {
    /// Starts the clock.
    pub(super) fn start(run: &Stop, limit: Option<Duration>) -> Self {
        let (stop, over) = (run.child(), Arc::new(AtomicBool::new(false)));
        let timer = limit.map(|limit| {
            let (stop, over) = (stop.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                tokio::time::sleep(limit).await;
                over.store(true, Ordering::Release);
                stop.escalate();
                stop.escalate();
            })
        });
        Self { stop, over, timer }
    }

    /// Whether the time was over before the cell had ended. Ends the clock.
    pub(super) fn is_over(&self) -> bool {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
        self.over.load(Ordering::Acquire)
    }
}

impl Drop for CellLimit {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

#[cfg(test)]
#[cfg(feature = "paused-clock")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cell_whose_time_is_over_is_stopped_and_the_run_is_not() {
        let run = Stop::default();
        let cell = CellLimit::start(&run, Some(Duration::from_secs(5)));
        cell.stop.at_once.cancelled().await;
        assert!(cell.is_over() && cell.stop.requested());
        assert!(!run.requested());
        let cell = CellLimit::start(&run, None);
        run.escalate();
        assert!(cell.stop.requested() && !cell.is_over());
    }
}
