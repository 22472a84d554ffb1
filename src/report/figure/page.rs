//! The page around the panels: title, mark, legend, axis titles and notes.

use std::collections::BTreeSet;

use anyhow::Result;
use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, VPos};

use crate::record::schema::VerdictStatus;
use crate::report::figure::axis::Scale;
use crate::report::figure::canvas::{Canvas, Fill, Pen, Stroke, Weight, text_width};
use crate::report::figure::look::{GREY, INK, Look, MARK, Shape, look};
use crate::report::figure::model::{Figure, Panel};
use crate::report::figure::panel::{self, Axes, Frame, Labels, Side};

/// Width of every page.
pub(super) const WIDTH: u32 = 1600;

const MARGIN: f64 = 36.0;
const CAPTION_TOP: f64 = 92.0;
const LEGEND_TOP: f64 = 140.0;
const LINE: f64 = 38.0;
/// From the start of a legend's entry to its text.
const LEGEND_TEXT: f64 = 64.0;
/// Room for a panel's title above its frame.
const HEADING: f64 = 58.0;
/// Room for the value axis: its title and its labels.
const VALUE_AXIS: f64 = 142.0;
/// Room for the prompt axis: its labels and its title.
const PROMPT_AXIS: f64 = 86.0;
const BETWEEN: f64 = 30.0;
/// Height of a line of the notes.
const NOTE: f64 = 30.0;
/// Radius of the legend's markers.
const MARKER: f64 = 7.0;

const PLAIN: Pen = Pen {
    size: 23.0,
    colour: INK,
    weight: Weight::Normal,
    across: HPos::Left,
    along: VPos::Center,
};
const SMALL: Pen = Pen {
    size: 20.0,
    colour: GREY,
    ..PLAIN
};

/// How a figure lies on its page.
pub(super) struct Layout {
    legend: Vec<Entry>,
    /// Where the panels begin.
    top: f64,
    rows: usize,
    /// Room above a panel's frame: for its title, where it has one.
    heading: f64,
    panel_height: f64,
    /// The page's height.
    pub height: u32,
}

impl Layout {
    /// The layout of `figure`.
    pub fn of(figure: &Figure) -> Result<Self> {
        let legend = legend_of(figure)?;
        let top = legend.last().map_or(LEGEND_TOP, |entry| entry.at.1) + LINE;
        let rows = figure
            .panels
            .iter()
            .map(|panel| panel.row + 1)
            .max()
            .unwrap_or(1);
        let panel_height = match figure.columns {
            1 => 560.0,
            2 => 430.0,
            3 => 360.0,
            _ => 310.0,
        };
        let untitled = figure.panels.iter().all(|panel| panel.title.is_empty());
        let heading = if untitled { 20.0 } else { HEADING };
        let grid = rows as f64 * (panel_height + heading);
        let notes = figure.notes.len() as f64 * NOTE;
        let height = (top + grid + PROMPT_AXIS + notes + MARGIN) as u32;
        Ok(Self {
            legend,
            top,
            rows,
            heading,
            panel_height,
            height,
        })
    }
}

/// Draws the whole of `figure`.
pub(super) fn draw<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    figure: &Figure,
    layout: &Layout,
) -> Result<()> {
    title(canvas, figure)?;
    legend(canvas, &layout.legend)?;
    let points = || {
        figure
            .panels
            .iter()
            .flat_map(|panel| panel.lines.values().flatten())
    };
    let lengths: BTreeSet<u32> = points().map(|point| point.prompt_len).collect();
    let lengths: Vec<u32> = lengths.into_iter().collect();
    let values = points().flat_map(|point| {
        let (low, high) = point.band.unwrap_or((point.p50, point.p50));
        [low, point.p50, high]
    });
    let x = Scale::for_lengths(lengths.iter().copied().map(f64::from));
    if let Some((x, y)) = x.zip(Scale::for_values(values)) {
        let axes = Axes {
            lengths: &lengths,
            x,
            y,
            tiers: &figure.tiers,
            marker: marker(figure),
        };
        panels(canvas, figure, layout, &axes)?;
    } else {
        let middle = (f64::from(WIDTH) / 2.0, layout.top + 200.0);
        let pen = Pen {
            across: HPos::Center,
            ..PLAIN
        };
        canvas.text("no point has enough ok requests to be drawn", middle, pen)?;
    }
    let first = f64::from(layout.height) - MARGIN - figure.notes.len() as f64 * NOTE + 20.0;
    for (at, note) in figure.notes.iter().enumerate() {
        canvas.text(note, (MARGIN, first + at as f64 * NOTE), SMALL)?;
    }
    Ok(())
}

/// Small panels have small markers, so that lines close together stay apart.
fn marker(figure: &Figure) -> f64 {
    match figure.columns {
        1 | 2 => MARKER,
        3 => 6.0,
        _ => 5.0,
    }
}

fn title<DB: DrawingBackend>(canvas: &Canvas<DB>, figure: &Figure) -> Result<()> {
    let pen = Pen {
        size: 38.0,
        weight: Weight::Bold,
        ..PLAIN
    };
    canvas.text(&figure.title, (MARGIN, 48.0), pen)?;
    canvas.text(
        &figure.caption,
        (MARGIN, CAPTION_TOP),
        Pen {
            size: 22.0,
            ..SMALL
        },
    )?;
    let Some(mark) = figure.mark else {
        return Ok(());
    };
    let pen = Pen {
        size: 32.0,
        weight: Weight::Bold,
        across: HPos::Center,
        ..PLAIN
    };
    let half = text_width(mark, pen)? / 2.0 + 24.0;
    let middle = f64::from(WIDTH) - MARGIN - half;
    canvas.rectangle((middle - half, 20.0), (middle + half, 76.0), &MARK)?;
    canvas.text(mark, (middle, 48.0), pen)
}

/// One entry of the legend and where it begins.
struct Entry {
    text: String,
    at: (f64, f64),
    look: Look,
    fill: Fill,
}

/// The tiers, then what hollow and crossed mean where they occur.
fn legend_of(figure: &Figure) -> Result<Vec<Entry>> {
    let mut entries: Vec<(&str, Look, Fill)> = Vec::new();
    for tier in &figure.tiers {
        entries.push((tier, look(tier, &figure.tiers), Fill::Solid));
    }
    let points = || {
        figure
            .panels
            .iter()
            .flat_map(|panel| panel.lines.values().flatten())
    };
    let any = Look {
        colour: GREY,
        shape: Shape::Circle,
    };
    for (verdict, text) in [
        (VerdictStatus::Inconclusive, "hollow: verdict inconclusive"),
        (
            VerdictStatus::Invalid,
            "crossed: verdict invalid, do not read",
        ),
    ] {
        if points().any(|point| point.verdict == verdict) {
            entries.push((text, any, panel::fill(verdict)));
        }
    }
    let (mut x, mut y) = (MARGIN, LEGEND_TOP);
    let mut placed = Vec::new();
    for (text, look, fill) in entries {
        let width = LEGEND_TEXT + text_width(text, PLAIN)?;
        if x > MARGIN && x + width > f64::from(WIDTH) - MARGIN {
            (x, y) = (MARGIN, y + LINE);
        }
        placed.push(Entry {
            text: text.to_owned(),
            at: (x, y),
            look,
            fill,
        });
        x += width + 40.0;
    }
    Ok(placed)
}

fn legend<DB: DrawingBackend>(canvas: &Canvas<DB>, entries: &[Entry]) -> Result<()> {
    for Entry {
        text,
        at: (x, y),
        look,
        fill,
    } in entries
    {
        let (x, y) = (*x, *y);
        if *fill == Fill::Solid {
            canvas.line(&[(x, y), (x + 52.0, y)], &look.colour, 3.0, Stroke::Solid)?;
        }
        canvas.marker(look.shape, (x + 26.0, y), MARKER, look.colour, *fill)?;
        canvas.text(text, (x + LEGEND_TEXT, y), PLAIN)?;
    }
    Ok(())
}

fn panels<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    figure: &Figure,
    layout: &Layout,
    axes: &Axes<'_>,
) -> Result<()> {
    let top = layout.top;
    let left = MARGIN + VALUE_AXIS;
    let columns = figure.columns as f64;
    let width = (f64::from(WIDTH) - left - MARGIN - BETWEEN * (columns - 1.0)) / columns;
    for panel in &figure.panels {
        let frame_left = left + panel.column as f64 * (width + BETWEEN);
        let frame_top =
            top + panel.row as f64 * (layout.panel_height + layout.heading) + layout.heading - 8.0;
        let frame = Frame {
            left: frame_left,
            top: frame_top,
            right: frame_left + width,
            bottom: frame_top + layout.panel_height,
            labels: labels(panel, &figure.panels),
        };
        panel::draw(canvas, panel, frame, axes)?;
    }
    let bottom = top + layout.rows as f64 * (layout.panel_height + layout.heading) - 8.0;
    let middle = left + (f64::from(WIDTH) - MARGIN - left) / 2.0;
    let centred = Pen {
        across: HPos::Center,
        ..PLAIN
    };
    canvas.text("Prompt length (tokens)", (middle, bottom + 58.0), centred)?;
    let scale = match axes.y {
        Scale::Linear { .. } => "ms, s",
        Scale::Log { .. } => "ms, s; log scale",
    };
    let value_axis = format!("{} ({scale})", figure.axis);
    canvas.text_upwards(
        &value_axis,
        (MARGIN + 6.0, f64::midpoint(top, bottom)),
        centred,
    )
}

/// Labels stand where no neighbour has the same axis: left of a row's first panel, and below the
/// last panel of a column.
fn labels(panel: &Panel, panels: &[Panel]) -> Labels {
    let side = |bare: bool| if bare { Side::Bare } else { Side::Labelled };
    Labels {
        left: side(
            panels
                .iter()
                .any(|other| other.row == panel.row && other.column < panel.column),
        ),
        bottom: side(
            panels
                .iter()
                .any(|o| o.column == panel.column && o.row > panel.row),
        ),
    }
}
