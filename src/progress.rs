//! Events to lines on stderr: a live line on a terminal, plain lines elsewhere.

mod estimate;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use estimate::Estimate;

use crate::load::Progress as LoadProgress;
use crate::record::redact;
use crate::record::schema::{CellOutcome, VerdictStatus};
use crate::runner::event::Event;
use crate::runner::result::CellResult;

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// A live line while a cell runs, and a line for each that ended.
    Live,
    /// A line for each cell that ended.
    Lines,
    /// No lines at all.
    Quiet,
}

impl Verbosity {
    /// `Live` on a terminal, `Lines` elsewhere.
    pub(crate) fn of_stderr(quiet: bool) -> Self {
        match (quiet, Term::stderr().is_term()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Live,
            (false, false) => Self::Lines,
        }
    }
}

/// What the live line shows.
#[derive(Debug, Default)]
struct Live {
    cells: usize,
    /// The cell's place among all of the run, from 1.
    place: usize,
    estimate: Estimate,
    cell: String,
    doing: String,
    load: Option<(Arc<LoadProgress>, usize)>,
    cell_began: Option<Instant>,
}

impl Live {
    /// Cells that ran in an earlier attempt come first.
    fn place_of_next(&self) -> usize {
        let earlier = self.cells.saturating_sub(self.estimate.cells());
        earlier + self.estimate.count_ended() + 1
    }
}

/// Shows on stderr how far a run is.
#[derive(Debug)]
pub(crate) struct Progress {
    verbosity: Verbosity,
    live: Arc<Mutex<Live>>,
    bar: ProgressBar,
    ticker: Option<JoinHandle<()>>,
    /// When a launch last printed a line, if there is no live line.
    last_launch_line: Option<Instant>,
}

/// Shortest time between two lines of a launch without a live line.
const LAUNCH_LINES: Duration = Duration::from_secs(10);

/// Time between two redraws of the live line.
const TICK: Duration = Duration::from_millis(100);

impl Progress {
    /// A display for a run that begins now.
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        let bar = ProgressBar::new_spinner();
        if verbosity != Verbosity::Live {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self {
            verbosity,
            live: Arc::default(),
            bar,
            ticker: None,
            last_launch_line: None,
        }
    }

    /// Shows what `event` changes.
    pub(crate) fn on_event(&mut self, event: &Event<'_>) {
        match event {
            Event::RunStarted { work } => {
                {
                    let mut live = self.lock();
                    live.cells = work.matrix.cells.len();
                    live.estimate = Estimate::new(*work);
                }
                self.start_ticker();
            }
            Event::CellStarted { cell, .. } => {
                let mut live = self.lock();
                live.place = live.place_of_next();
                live.cell = cell.coordinates.slug();
                live.doing.clear();
                live.cell_began = Some(Instant::now());
            }
            Event::PhaseStarted { phase, state } => {
                let mut live = self.lock();
                live.doing = match state {
                    Some(state) => format!("{}: {}", state.title(), phase.name()),
                    None => phase.name().to_owned(),
                };
                live.load = None;
            }
            Event::LaunchProgress { line } => self.launch_line(line),
            Event::LoadStarted { progress, requests } => {
                self.lock().load = Some((Arc::clone(progress), *requests));
            }
            Event::CellFinished { result } => {
                self.lock().estimate.ended(result.elapsed);
                let line = self.cell_line(result);
                self.say(&line);
            }
            Event::CellSkipped { .. } => self.lock().estimate.skipped(),
            Event::Stopped => {}
            Event::RunFinished { .. } => self.finish(),
        }
    }

    /// Shows a slow step of a launch: in the live line, or now and then in a line of its own.
    fn launch_line(&mut self, line: &str) {
        self.lock().doing = redact::text(line);
        let is_due = self
            .last_launch_line
            .is_none_or(|at| at.elapsed() >= LAUNCH_LINES);
        if self.verbosity == Verbosity::Lines && is_due {
            self.last_launch_line = Some(Instant::now());
            self.say(line);
        }
    }

    /// Prints a line of its own, above the live one.
    pub(crate) fn say(&self, line: &str) {
        say(self.verbosity, &self.bar, line);
    }

    /// Prints lines from elsewhere, for example a signal handler, above the live one.
    pub(crate) fn speaker(&self) -> impl Fn(&str) + Send + use<> {
        let (verbosity, bar) = (self.verbosity, self.bar.clone());
        move |line| say(verbosity, &bar, line)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_ticker(&mut self) {
        if self.verbosity != Verbosity::Live {
            return;
        }
        let (live, bar) = (Arc::clone(&self.live), self.bar.clone());
        self.ticker = Some(std::thread::spawn(move || {
            while !bar.is_finished() {
                let line = {
                    let live = live.lock().unwrap_or_else(PoisonError::into_inner);
                    live_line(&live)
                };
                bar.set_message(line);
                bar.tick();
                std::thread::sleep(TICK);
            }
        }));
    }

    fn finish(&mut self) {
        self.bar.finish_and_clear();
        if let Some(ticker) = self.ticker.take() {
            // The thread only draws: its panic does not harm the run.
            let _panicked = ticker.join();
        }
    }

    /// `[ 3/24] rag-cpu-p512-g16-c4-r1  1.2 s  cold: 8 ok, valid; tier hit: 8 ok, valid  (0:07 left)`.
    fn cell_line(&self, result: &CellResult) -> String {
        let live = self.lock();
        let (cells, place, left) = (live.cells, live.place, live.estimate.left());
        drop(live);
        let width = cells.to_string().len();
        let mut line = format!(
            "[{:>width$}/{cells}] {}  {:.1} s  ",
            place,
            result.record.coordinates.slug(),
            result.elapsed.as_secs_f64(),
        );
        line.push_str(&outcome_text(result));
        if let Some(left) = left {
            let _ = write!(line, "  ({} left)", clock(left));
        }
        line
    }
}

fn say(verbosity: Verbosity, bar: &ProgressBar, line: &str) {
    let line = redact::text(line);
    match verbosity {
        Verbosity::Live => bar.println(line),
        Verbosity::Lines => drop(Term::stderr().write_line(&line)),
        Verbosity::Quiet => {}
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn outcome_text(result: &CellResult) -> String {
    let mut parts: Vec<String> = result
        .passes
        .iter()
        .map(|pass| {
            let verdict = match pass.verdict.status {
                VerdictStatus::Valid => "valid".to_owned(),
                VerdictStatus::Inconclusive => {
                    format!("inconclusive: {}", first(&pass.verdict.reasons))
                }
                VerdictStatus::Invalid => format!("INVALID: {}", first(&pass.verdict.reasons)),
            };
            format!("{}: {}, {verdict}", pass.state.title(), pass.counts_line())
        })
        .collect();
    parts.extend(match &result.record.outcome {
        CellOutcome::Aborted { .. } => Some("interrupted, discarded".to_owned()),
        outcome => outcome.failure(),
    });
    parts.join("; ")
}

fn first(reasons: &[String]) -> &str {
    reasons.first().map_or("", String::as_str)
}

fn live_line(live: &Live) -> String {
    let mut line = format!(
        "[{}/{}] {}  {}",
        live.place, live.cells, live.cell, live.doing
    );
    if let Some((progress, requests)) = &live.load {
        let seen = progress.snapshot();
        let _ = write!(
            line,
            "  {}/{requests}",
            seen.ok + seen.failed + seen.unfinished
        );
        if seen.failed > 0 {
            let _ = write!(line, " ({} failed)", seen.failed);
        }
    }
    if let Some(began) = live.cell_began {
        let _ = write!(line, "  {}", clock(began.elapsed()));
    }
    if let Some(left) = live.estimate.left() {
        let _ = write!(line, "  about {} left", clock(left));
    }
    line
}

/// Formats `1:02:03` or `2:03`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_clocks() {
        assert_eq!(clock(Duration::from_secs(7)), "0:07");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }

    #[test]
    fn the_live_line_shows_phase_requests_and_time() {
        let live = Live {
            cells: 24,
            place: 3,
            estimate: {
                let mut estimate = Estimate::of(&[("cpu", true), ("cpu", true), ("cpu", true)]);
                estimate.ended(Duration::from_secs(55));
                estimate
            },
            cell: "rag-cpu".into(),
            doing: "tier hit: load".into(),
            load: Some((Arc::default(), 12)),
            cell_began: Some(Instant::now()),
        };
        let line = live_line(&live);
        assert_eq!(
            line,
            "[3/24] rag-cpu  tier hit: load  0/12  0:00  about 1:50 left"
        );
    }
}
