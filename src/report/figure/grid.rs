//! Panels of one size, side by side and in rows, and the legend above them.

use anyhow::Result;
use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;
use plotters::style::text_anchor::VPos;

use crate::report::figure::canvas::{Canvas, Pen, Weight, text_width};
use crate::report::figure::page::{MARGIN, NOTE, PLAIN, WIDTH};

/// The most panels side by side.
pub(super) const MAX_COLUMNS: usize = 3;
/// The height of the legend's middle.
const LEGEND_TOP: f64 = 140.0;

/// The title of a panel.
pub(super) const PANEL_TITLE: Pen = Pen {
    size: 24.0,
    weight: Weight::Bold,
    along: VPos::Bottom,
    ..PLAIN
};

/// Where panels stand.
pub(super) struct Grid {
    /// Where the first row begins.
    pub top: f64,
    /// Room between two panels of a row.
    pub between: f64,
    pub columns: usize,
    pub panel_height: f64,
}

impl Grid {
    /// The height of a figure with so many panels and lines of notes.
    pub(super) fn height(&self, panels: usize, notes: usize) -> u32 {
        let rows = panels.div_ceil(self.columns) as f64;
        (self.top + rows * self.panel_height + notes as f64 * NOTE + MARGIN) as u32
    }

    /// The width of a panel.
    pub(super) fn width(&self) -> f64 {
        let columns = self.columns as f64;
        (f64::from(WIDTH) - 2.0 * MARGIN - self.between * (columns - 1.0)) / columns
    }

    /// The upper left corner of the panel `at`.
    pub(super) fn corner(&self, at: usize) -> (f64, f64) {
        let left = MARGIN + (at % self.columns) as f64 * (self.width() + self.between);
        let top = self.top + (at / self.columns) as f64 * self.panel_height;
        (left, top)
    }
}

/// The corners of the legend's field at `x`.
pub(super) fn swatch(x: f64) -> ((f64, f64), (f64, f64)) {
    ((x, LEGEND_TOP - 13.0), (x + 34.0, LEGEND_TOP + 13.0))
}

/// Draws the legend's field at `x`, and its text. Returns where that ends.
pub(super) fn legend_entry<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    x: f64,
    text: &str,
    colour: RGBColor,
) -> Result<f64> {
    let (corner, opposite) = swatch(x);
    canvas.rectangle(corner, opposite, &colour)?;
    canvas.text(text, (x + 44.0, LEGEND_TOP), PLAIN)?;
    Ok(x + 44.0 + text_width(text, PLAIN)?)
}
