//! Stacked bars: what a time is made of, one bar a tier.

use anyhow::Result;
use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::HPos;
use plotters::style::{Color as _, RGBColor};

use crate::report::figure::canvas::{Canvas, Pen, Stroke, text_width};
use crate::report::figure::grid::{Grid, MAX_COLUMNS, PANEL_TITLE, legend_entry};
use crate::report::figure::look::GREY;
use crate::report::figure::page::{MARGIN, PLAIN, notes, title};

const TOP: f64 = 176.0;
/// Room above a panel's bars for its title, and below them.
const HEADING: f64 = 50.0;
const FOOT: f64 = 16.0;
const BETWEEN: f64 = 40.0;
const ROW: f64 = 46.0;
const BAR: f64 = 30.0;

/// The colours of the parts, distinguishable with any common colour blindness, and by lightness.
const COLOURS: [RGBColor; 8] = [
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(86, 180, 233),
    RGBColor(240, 228, 66),
    RGBColor(190, 190, 190),
];

/// Stacked bars, one panel a place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StackChart {
    pub title: String,
    pub caption: String,
    pub mark: Option<&'static str>,
    /// The parts, as the legend names them.
    pub parts: Vec<&'static str>,
    /// How many panels stand side by side.
    pub columns: usize,
    pub panels: Vec<StackPanel>,
    pub notes: Vec<String>,
}

/// The bars of one place, on a scale of their own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StackPanel {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    /// Left of it.
    pub name: String,
    /// As long as the part is; none below zero.
    pub values: Vec<f64>,
    /// Right of it.
    pub label: String,
    /// Pale where it is not proven.
    pub is_proven: bool,
}

impl StackChart {
    fn grid(&self) -> Grid {
        let bars = self.panels.iter().map(|panel| panel.bars.len()).max();
        Grid {
            top: TOP,
            between: BETWEEN,
            columns: self.columns.clamp(1, MAX_COLUMNS),
            panel_height: HEADING + bars.unwrap_or(1) as f64 * ROW + FOOT,
        }
    }

    pub(super) fn height(&self) -> u32 {
        self.grid().height(self.panels.len(), self.notes.len())
    }
}

/// Draws all of it.
pub(super) fn draw<DB: DrawingBackend>(canvas: &Canvas<DB>, chart: &StackChart) -> Result<()> {
    title(canvas, &chart.title, &chart.caption, chart.mark)?;
    legend(canvas, &chart.parts)?;
    let grid = chart.grid();
    for (at, one) in chart.panels.iter().enumerate() {
        panel(canvas, one, grid.corner(at), grid.width())?;
    }
    notes(canvas, &chart.notes, chart.height())
}

fn legend<DB: DrawingBackend>(canvas: &Canvas<DB>, parts: &[&str]) -> Result<()> {
    let mut x = MARGIN;
    for (text, colour) in parts.iter().zip(COLOURS) {
        x = legend_entry(canvas, x, text, colour)? + 34.0;
    }
    Ok(())
}

fn panel<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    panel: &StackPanel,
    (left, top): (f64, f64),
    width: f64,
) -> Result<()> {
    let small = Pen {
        size: 21.0,
        ..PLAIN
    };
    let widest = |text: &dyn Fn(&Bar) -> &str| -> Result<f64> {
        panel.bars.iter().try_fold(0.0, |most: f64, bar| {
            Ok(most.max(text_width(text(bar), small)?))
        })
    };
    let from = left + widest(&|bar| &bar.name)? + 14.0;
    let to = left + width - widest(&|bar| &bar.label)? - 12.0;
    let (at, room) = ((from, top + HEADING - 14.0), left + width - from);
    canvas.text_within(&panel.title, at, PANEL_TITLE, room)?;
    let longest = panel.bars.iter().map(|bar| bar.values.iter().sum::<f64>());
    let longest = longest.fold(0.0, f64::max);
    let bottom = top + HEADING + panel.bars.len() as f64 * ROW;
    canvas.line(
        &[(from, top + HEADING), (from, bottom)],
        &GREY,
        2.0,
        Stroke::Solid,
    )?;
    for (at, bar) in panel.bars.iter().enumerate() {
        let middle = top + HEADING + (at as f64 + 0.5) * ROW;
        let name = Pen {
            across: HPos::Right,
            ..small
        };
        canvas.text(&bar.name, (from - 12.0, middle), name)?;
        let mut x = from;
        for (value, colour) in bar.values.iter().zip(COLOURS) {
            let end = x + value / longest.max(f64::MIN_POSITIVE) * (to - from);
            let (corner, opposite) = ((x, middle - BAR / 2.0), (end, middle + BAR / 2.0));
            if bar.is_proven {
                canvas.rectangle(corner, opposite, &colour)?;
            } else {
                canvas.rectangle(corner, opposite, &colour.mix(0.3))?;
            }
            x = end;
        }
        canvas.text(&bar.label, (x + 10.0, middle), small)?;
    }
    Ok(())
}
