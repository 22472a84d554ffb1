//! The matrix at a glance: a row a tier, a column a load. Only where the terminal is wide enough.

use std::collections::HashMap;

use super::columns::{further, median_ms, varies};
use crate::aggregate::tier_order;
use crate::matrix::Coordinates;
use crate::matrix::controls::is_control;
use crate::record::schema::{CellOutcome, VerdictStatus};
use crate::report::number::brief;
use crate::runner::result::{CellResult, Work};
use crate::units::grouped;

/// A terminal with fewer columns has no board: its lines are enough.
const MIN_WIDTH: usize = 140;
/// Lines that stay free for what happened.
const MIN_FREE_LINES: usize = 10;

/// What became of the cells at one place, its repeats taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Square {
    planned: usize,
    ended: usize,
    is_running: bool,
    /// The last TTFT of the last cache state, or what went wrong.
    text: String,
}

impl Square {
    fn text(&self) -> String {
        let repeats = match self.planned {
            0 | 1 => String::new(),
            planned => format!(" {}/{planned}", self.ended),
        };
        match (self.planned, self.is_running, self.ended) {
            (0, false, _) => String::new(),
            (_, true, _) => format!("running{repeats}"),
            (_, false, 0) => "·".to_owned(),
            (_, false, _) => format!("{}{repeats}", self.text),
        }
    }
}

/// The cells of a run by row and column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Board {
    /// Whether rows name the workload.
    has_labels: bool,
    /// Whether columns name the generated tokens.
    has_gen_lens: bool,
    rows: Vec<String>,
    columns: Vec<String>,
    squares: HashMap<(usize, usize), Square>,
}

impl Board {
    /// The cells of `work`, without controls.
    pub(super) fn of(work: Work<'_>) -> Self {
        let cells = work.todo.iter().filter_map(|&at| work.matrix.cells.get(at));
        Self::over(cells.map(|cell| cell.coordinates))
    }

    fn over(all: impl Iterator<Item = Coordinates>) -> Self {
        let mut all: Vec<Coordinates> = all.filter(|at| !is_control(&at.label)).collect();
        all.sort_by(|a, b| tier_order(&a.tier).cmp(&tier_order(&b.tier)));
        let mut board = Self {
            has_labels: varies(&all, |at| at.label.clone()),
            has_gen_lens: varies(&all, |at| at.gen_len),
            ..Self::default()
        };
        for at in &all {
            let (row, column) = (board.row(at), board.column(at));
            let place = (
                place_of(&mut board.rows, row),
                place_of(&mut board.columns, column),
            );
            board.squares.entry(place).or_default().planned += 1;
        }
        board
    }

    fn row(&self, at: &Coordinates) -> String {
        let mut text = if self.has_labels {
            format!("{} {}", at.label, at.tier)
        } else {
            at.tier.clone()
        };
        for value in further(at) {
            text.push_str(&format!(" {value}"));
        }
        text
    }

    fn column(&self, at: &Coordinates) -> String {
        let gen_len = if self.has_gen_lens {
            format!(" gen {}", at.gen_len)
        } else {
            String::new()
        };
        format!("{}{gen_len} x{}", grouped(at.prompt_len), at.concurrency)
    }

    fn square(&mut self, at: &Coordinates) -> Option<&mut Square> {
        let place = |names: &[String], name: String| names.iter().position(|it| *it == name);
        let at = (
            place(&self.rows, self.row(at))?,
            place(&self.columns, self.column(at))?,
        );
        self.squares.get_mut(&at)
    }

    /// A cell begins.
    pub(super) fn begin(&mut self, at: &Coordinates) {
        if let Some(square) = self.square(at) {
            square.is_running = true;
        }
    }

    /// A cell ended.
    pub(super) fn end(&mut self, result: &CellResult) {
        let proven = |status| status == VerdictStatus::Valid;
        let text = match &result.record.outcome {
            CellOutcome::Failed { .. } => "FAILED".to_owned(),
            CellOutcome::Aborted { .. } => "stopped".to_owned(),
            CellOutcome::Completed => match result.passes.last() {
                Some(_) if !result.passes.iter().all(|it| proven(it.verdict.status)) => {
                    "NOT PROVEN".to_owned()
                }
                Some(last) => median_ms(last).map_or("-".to_owned(), brief),
                None => "-".to_owned(),
            },
        };
        if let Some(square) = self.square(&result.record.coordinates) {
            square.is_running = false;
            square.ended += 1;
            square.text = text;
        }
    }

    /// The lines of the board on a terminal of this size; none where they do not fit, or there is one
    /// place only.
    pub(super) fn lines(&self, width: usize, height: usize) -> Vec<String> {
        if width < MIN_WIDTH || self.squares.len() < 2 {
            return Vec::new();
        }
        let mut table = vec![vec![String::new()]];
        table[0].extend(self.columns.iter().cloned());
        for (at, name) in self.rows.iter().enumerate() {
            let mut line = vec![name.clone()];
            line.extend((0..self.columns.len()).map(|column| {
                let square = self.squares.get(&(at, column));
                square.map(Square::text).unwrap_or_default()
            }));
            table.push(line);
        }
        let wide = |column: usize| {
            let cells = table.iter().map(|line| line[column].chars().count());
            // Room for what comes: the board must not jump.
            cells
                .max()
                .unwrap_or(0)
                .max(if column == 0 { 0 } else { 10 })
        };
        let widths: Vec<usize> = (0..=self.columns.len()).map(wide).collect();
        let needed: usize = widths.iter().map(|width| width + 2).sum();
        if needed > width || table.len() + MIN_FREE_LINES > height {
            return Vec::new();
        }
        let line = |cells: &Vec<String>| {
            let mut text = format!("  {:<width$}", cells[0], width = widths[0]);
            for (cell, width) in cells.iter().zip(&widths).skip(1) {
                text.push_str(&format!("  {cell:>width$}"));
            }
            text.trim_end().to_owned()
        };
        table.iter().map(line).collect()
    }
}

fn place_of(names: &mut Vec<String>, name: String) -> usize {
    names.iter().position(|it| *it == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::matrix::controls::NO_REUSE;
    use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

    fn at(label: &str, tier: &str, prompt_len: u32, repeat: u32) -> Coordinates {
        Coordinates {
            label: label.to_owned(),
            tier: tier.to_owned(),
            prompt_len: PromptLen::new(prompt_len).unwrap(),
            gen_len: GenLen::new(8).unwrap(),
            concurrency: Concurrency::new(1).unwrap(),
            repeat: Repeat::new(repeat).unwrap(),
            extra: BTreeMap::new(),
        }
    }

    fn board() -> Board {
        let mut all = vec![at(NO_REUSE, "cpu", 512, 1)];
        for tier in ["baseline", "cpu"] {
            for repeat in [1, 2] {
                all.push(at("rag", tier, 512, repeat));
            }
        }
        all.push(at("rag", "cpu", 16_384, 1));
        Board::over(all.into_iter())
    }

    #[test]
    fn each_place_shows_how_far_it_is() {
        let mut board = board();
        board.begin(&at("rag", "cpu", 512, 1));
        board.begin(&at(NO_REUSE, "cpu", 512, 1));
        let ended = board.square(&at("rag", "baseline", 512, 1)).unwrap();
        (ended.ended, ended.text) = (1, "95 ms".to_owned());
        assert_eq!(
            board.lines(140, 40),
            [
                "                 512 x1   16,384 x1",
                "  baseline    95 ms 1/2",
                "  cpu       running 0/2           ·",
            ]
        );
    }

    #[test]
    fn there_is_none_where_it_does_not_fit_or_says_nothing() {
        assert_eq!(board().lines(139, 40), [""; 0], "narrow");
        assert_eq!(board().lines(200, 12), [""; 0], "low");
        let wide = (1..40).map(|at_len| at("rag", "cpu", 512 * at_len, 1));
        assert_eq!(
            Board::over(wide).lines(200, 40),
            [""; 0],
            "too many columns"
        );
        let labels = Board::over([at("rag", "cpu", 512, 1), at("chat", "cpu", 512, 1)].into_iter());
        assert!(
            labels.lines(200, 40)[1].starts_with("  rag cpu"),
            "labels vary"
        );
        let one = Board::over([at("rag", "cpu", 512, 1)].into_iter());
        assert_eq!(one.lines(200, 40), [""; 0], "a single place");
    }
}
