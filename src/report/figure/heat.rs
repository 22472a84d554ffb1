//! A heat map: how many times as good a tier is, by prompt length and concurrency.

use anyhow::Result;
use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;
use plotters::style::text_anchor::{HPos, VPos};

use crate::report::figure::canvas::{Canvas, Pen, text_width};
use crate::report::figure::grid::{Grid, MAX_COLUMNS, PANEL_TITLE, legend_entry, swatch};
use crate::report::figure::look::ON_COLOUR;
use crate::report::figure::page::{MARGIN, PLAIN, notes, title};

const TOP: f64 = 190.0;
/// Room above a panel for its title, and below it for its ticks and its axis title.
const HEADING: f64 = 52.0;
const FOOT: f64 = 80.0;
/// Room for the labels of the concurrencies, and their axis title.
const LEFT: f64 = 84.0;
const BETWEEN: f64 = 24.0;
const ROW: f64 = 66.0;
/// The speedup with the fullest colour; its inverse has the other.
const FULL: f64 = 8.0;

// The two ends of a scale, distinguishable with any common colour blindness.
const BETTER: RGBColor = RGBColor(0, 114, 178);
const WORSE: RGBColor = RGBColor(213, 94, 0);
/// The colour of a cell without a ratio.
const NONE: RGBColor = RGBColor(222, 222, 222);

/// A heat map, one panel a tier where all else but length and concurrency is equal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeatMap {
    pub title: String,
    pub caption: String,
    pub mark: Option<&'static str>,
    pub panels: Vec<HeatPanel>,
    pub notes: Vec<String>,
}

/// The panel of one tier.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeatPanel {
    pub title: String,
    /// Prompt lengths, from left to right.
    pub columns: Vec<String>,
    /// Concurrencies, from bottom to top.
    pub rows: Vec<String>,
    /// By row, then column.
    pub cells: Vec<Vec<HeatCell>>,
}

/// The field of one prompt length and concurrency.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeatCell {
    /// The text in it.
    pub text: String,
    /// The speedup that colours it; absent without a ratio.
    pub speedup: Option<f64>,
}

impl HeatMap {
    fn grid(&self) -> Grid {
        let rows = self.panels.iter().map(|panel| panel.rows.len()).max();
        Grid {
            top: TOP,
            between: BETWEEN,
            columns: self.panels.len().clamp(1, MAX_COLUMNS),
            panel_height: HEADING + rows.unwrap_or(1) as f64 * ROW + FOOT,
        }
    }

    pub(super) fn height(&self) -> u32 {
        self.grid().height(self.panels.len(), self.notes.len())
    }
}

/// Draws all of it.
pub(super) fn draw<DB: DrawingBackend>(canvas: &Canvas<DB>, map: &HeatMap) -> Result<()> {
    title(canvas, &map.title, &map.caption, map.mark)?;
    legend(canvas)?;
    let grid = map.grid();
    for (at, one) in map.panels.iter().enumerate() {
        panel(canvas, one, grid.corner(at), grid.width())?;
    }
    notes(canvas, &map.notes, map.height())
}

fn legend<DB: DrawingBackend>(canvas: &Canvas<DB>) -> Result<()> {
    let mut x = MARGIN;
    for (text, speedup) in [
        ("1/8 or less", 0.125),
        ("1/4", 0.25),
        ("1/2", 0.5),
        ("as fast", 1.0),
        ("2x", 2.0),
        ("4x", 4.0),
        ("8x or more", 8.0),
    ] {
        let end = legend_entry(canvas, x, text, colour(speedup))?;
        let (corner, opposite) = swatch(x);
        canvas.outline(corner, opposite, 1.0)?;
        x = end + 30.0;
    }
    Ok(())
}

fn panel<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    panel: &HeatPanel,
    (left, top): (f64, f64),
    width: f64,
) -> Result<()> {
    let (inside, first) = (left + LEFT, top + HEADING);
    canvas.text_within(
        &panel.title,
        (inside, first - 10.0),
        PANEL_TITLE,
        width - LEFT,
    )?;
    let cell_width = (width - LEFT) / panel.columns.len().max(1) as f64;
    let bottom = first + panel.rows.len() as f64 * ROW;
    let tick = Pen {
        size: 20.0,
        across: HPos::Center,
        along: VPos::Top,
        ..PLAIN
    };
    for (row, (label, cells)) in panel.rows.iter().zip(&panel.cells).enumerate() {
        let y = bottom - (row + 1) as f64 * ROW;
        let pen = Pen {
            across: HPos::Right,
            along: VPos::Center,
            ..tick
        };
        canvas.text(label, (inside - 10.0, y + ROW / 2.0), pen)?;
        for (column, one) in cells.iter().enumerate() {
            let x = inside + column as f64 * cell_width;
            cell(canvas, one, (x, y), (x + cell_width, y + ROW))?;
        }
    }
    for (column, label) in panel.columns.iter().enumerate() {
        let x = inside + (column as f64 + 0.5) * cell_width;
        canvas.text(label, (x, bottom + 8.0), tick)?;
    }
    let middle = f64::midpoint(inside, left + width);
    canvas.text("Prompt length (tokens)", (middle, bottom + 38.0), tick)?;
    let upwards = Pen {
        along: VPos::Center,
        ..tick
    };
    canvas.text_upwards(
        "Concurrency",
        (left + 14.0, f64::midpoint(first, bottom)),
        upwards,
    )
}

fn cell<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    cell: &HeatCell,
    corner: (f64, f64),
    opposite: (f64, f64),
) -> Result<()> {
    let fill = cell.speedup.map_or(NONE, colour);
    canvas.rectangle(corner, opposite, &fill)?;
    canvas.outline(corner, opposite, 1.0)?;
    let middle = (
        f64::midpoint(corner.0, opposite.0),
        f64::midpoint(corner.1, opposite.1),
    );
    let mut pen = Pen {
        size: 22.0,
        colour: if is_dark(fill) { WHITE } else { ON_COLOUR },
        across: HPos::Center,
        ..PLAIN
    };
    while pen.size > 11.0 && text_width(&cell.text, pen)? > opposite.0 - corner.0 - 8.0 {
        pen.size -= 1.0;
    }
    canvas.text(&cell.text, middle, pen)
}

const WHITE: RGBColor = RGBColor(255, 255, 255);

/// White for 1, and the fuller the further from it on a log scale.
fn colour(speedup: f64) -> RGBColor {
    let end = if speedup >= 1.0 { BETTER } else { WORSE };
    let share = (speedup.ln().abs() / FULL.ln()).min(1.0);
    let mix = |end: u8| (255.0 - (255.0 - f64::from(end)) * share).round() as u8;
    RGBColor(mix(end.0), mix(end.1), mix(end.2))
}

/// Whether white reads better on it than black: by the luminance of WCAG 2, roughly.
fn is_dark(RGBColor(r, g, b): RGBColor) -> bool {
    0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b) < 140.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ratios_are_equally_far_from_white() {
        assert_eq!(colour(1.0), WHITE);
        assert_eq!((colour(8.0), colour(100.0)), (BETTER, BETTER));
        assert_eq!(colour(0.125), WORSE);
        // Half of the way on a log scale: the mean of white and the end.
        assert_eq!(colour(8.0_f64.sqrt()), RGBColor(127, 185, 217));
        assert!(is_dark(BETTER) && !is_dark(WHITE));
    }
}
