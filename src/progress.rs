//! Events to lines on stderr: a live line on a terminal, plain lines elsewhere.

mod board;
mod columns;
mod estimate;
mod keys;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use board::Board;
use columns::{Columns, doing, outcome};
use estimate::Estimate;
use keys::HiddenKeys;

use crate::load::Progress as LoadProgress;
use crate::record::redact;
use crate::report::causes::alike;
use crate::report::number;
use crate::report::wrap::push_wrapped;
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
    columns: Columns,
    board: Board,
    cell: String,
    /// What is started and stopped: `vLLM`, `the simulator`.
    server: &'static str,
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
    /// While there is a live line.
    keys: Option<HiddenKeys>,
    /// When a launch last printed a line, if there is no live line.
    last_launch_line: Option<Instant>,
    /// Why cells failed or are not proven, as it was printed first: by what is alike, the place.
    causes: HashMap<String, usize>,
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
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self {
            verbosity,
            live: Arc::default(),
            bar,
            ticker: None,
            keys: None,
            last_launch_line: None,
            causes: HashMap::new(),
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
                    live.columns = Columns::of(*work);
                    live.board = Board::of(*work);
                }
                self.start_ticker();
            }
            Event::CellStarted { cell, .. } => {
                let mut live = self.lock();
                live.place = live.place_of_next();
                live.cell = live.columns.cell(&cell.coordinates);
                live.board.begin(&cell.coordinates);
                live.server = if cell.resolved.server.is_simulated() {
                    "the simulator"
                } else {
                    "vLLM"
                };
                live.doing.clear();
                live.cell_began = Some(Instant::now());
            }
            Event::PhaseStarted { phase, state } => {
                let mut live = self.lock();
                live.doing = doing(*phase, *state, live.server);
                live.load = None;
            }
            Event::LaunchProgress { line } => self.launch_line(line),
            Event::LoadStarted { progress, requests } => {
                self.lock().load = Some((Arc::clone(progress), *requests));
            }
            Event::CellFinished { result } => {
                {
                    let mut live = self.lock();
                    live.estimate.ended(result.elapsed);
                    live.board.end(result);
                }
                let lines = self.cell_lines(result);
                for line in &lines {
                    self.say(line);
                }
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
        self.keys = HiddenKeys::begin();
        let (live, bar) = (Arc::clone(&self.live), self.bar.clone());
        self.ticker = Some(std::thread::spawn(move || {
            while !bar.is_finished() {
                let (height, width) = size_of_stderr();
                let lines = {
                    let live = live.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut lines = vec![live_line(&live)];
                    lines.extend(live.board.lines(width, height));
                    lines
                };
                // A line that breaks stays on the screen.
                let room = width.saturating_sub(6);
                let lines = lines.iter().map(|line| line.chars().take(room).collect());
                bar.set_message(lines.collect::<Vec<String>>().join("\n"));
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
        self.keys = None;
    }

    /// `[ 3/24] cpu    512 tokens  x4  cold 94 ms  tier hit 70 ms  proven  2 s`, and a line for each
    /// cause that was not printed yet.
    fn cell_lines(&mut self, result: &CellResult) -> Vec<String> {
        let live = self.lock();
        let (cells, place) = (live.cells, live.place);
        let cell = live.columns.cell(&result.record.coordinates);
        drop(live);
        let width = cells.to_string().len();
        let ended = outcome(result);
        let mut lines = vec![format!(
            "[{place:>width$}/{cells}] {cell}  {}  {}",
            ended.words,
            brief(result.elapsed)
        )];
        for (state, why) in ended.causes {
            let first = *self
                .causes
                .entry(alike(&why, &result.record.id))
                .or_insert(place);
            lines.push(if first == place {
                format!("  {state}{why}")
            } else {
                format!("  {state}as in cell {first}")
            });
        }
        lines
    }
}

/// `2 s`, `1:07`.
fn brief(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 9.5 => format!("{s:.1} s"),
        s if s < 60.0 => format!("{s:.0} s"),
        _ => clock(time),
    }
}

/// Prints a line; on a terminal, breaks it between words.
fn say(verbosity: Verbosity, bar: &ProgressBar, line: &str) {
    let line = redact::text(line);
    match verbosity {
        Verbosity::Live => {
            let mut text = String::new();
            for line in line.lines() {
                push_wrapped(&mut text, line, columns_of_stderr());
            }
            bar.println(text.trim_end());
        }
        Verbosity::Lines => drop(Term::stderr().write_line(&line)),
        Verbosity::Quiet => {}
    }
}

fn columns_of_stderr() -> u16 {
    let (_, columns) = Term::stderr().size_checked().unwrap_or((24, 80));
    columns.max(40)
}

/// Lines and columns of the terminal.
fn size_of_stderr() -> (usize, usize) {
    let (lines, _) = Term::stderr().size_checked().unwrap_or((24, 80));
    (usize::from(lines), usize::from(columns_of_stderr()))
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn live_line(live: &Live) -> String {
    let mut line = format!(
        "[{}/{}] {}   {}",
        live.place, live.cells, live.cell, live.doing
    );
    if let Some((progress, requests)) = &live.load {
        let seen = progress.snapshot();
        let _ = write!(
            line,
            " {}/{requests}",
            seen.ok + seen.failed + seen.unfinished
        );
        if seen.failed > 0 {
            let _ = write!(line, " ({} failed)", seen.failed);
        }
        if let Some(mean_ms) = seen.mean_ttft_ms() {
            let _ = write!(line, "   TTFT {}", number::brief(mean_ms));
        }
    }
    if let Some(began) = live.cell_began {
        let _ = write!(line, "   {}", clock(began.elapsed()));
    }
    if let Some(left) = live.estimate.left() {
        let _ = write!(line, "   about {} left", clock(left));
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
        let mut live = Live {
            cells: 24,
            place: 3,
            estimate: {
                let mut estimate = Estimate::of(&[("cpu", true), ("cpu", true), ("cpu", true)]);
                estimate.ended(Duration::from_secs(55));
                estimate
            },
            columns: Columns::default(),
            board: Board::default(),
            cell: "cpu  512 tokens  x1".into(),
            server: "vLLM",
            doing: "measuring tier hit".into(),
            load: Some((Arc::default(), 12)),
            cell_began: Some(Instant::now()),
        };
        let line = live_line(&live);
        assert_eq!(
            line,
            "[3/24] cpu  512 tokens  x1   measuring tier hit 0/12   0:00   about 1:50 left"
        );
        live.load = Some((Arc::new(LoadProgress::with(3, 93_000)), 12));
        assert_eq!(
            live_line(&live),
            "[3/24] cpu  512 tokens  x1   measuring tier hit 3/12   TTFT 31 ms   0:00   about 1:50 left"
        );
    }
}
