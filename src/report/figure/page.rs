//! The page around the panels: title, mark, legend, axis titles and notes.

use std::collections::BTreeSet;

use anyhow::Result;
use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, VPos};

use crate::record::schema::VerdictStatus;
use crate::report::figure::axis::{Kind, Ruler};
use crate::report::figure::canvas::{Canvas, Fill, Pen, Stroke, Weight, text_width};
use crate::report::figure::look::{GREY, INK, Look, MARK, ON_COLOUR, Shape, look};
use crate::report::figure::model::{Axis, Figure, Panel, Point};
use crate::report::figure::panel::{self, Axes, Frame, Labels, Side};

/// Width of every page.
pub(super) const WIDTH: u32 = 1600;

pub(super) const MARGIN: f64 = 36.0;
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
pub(super) const NOTE: f64 = 30.0;
/// Radius of the legend's markers.
const MARKER: f64 = 7.0;

pub(super) const PLAIN: Pen = Pen {
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
    pub(super) fn of(figure: &Figure) -> Result<Self> {
        let legend = legend_of(figure)?;
        let top = legend.last().map_or(LEGEND_TOP, |entry| entry.at.1) + LINE;
        let rows = figure
            .panels
            .iter()
            .map(|panel| panel.row + 1)
            .max()
            .unwrap_or(1);
        let panel_height = match figure.columns {
            1 => 520.0,
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
    title(canvas, &figure.title, &figure.caption, figure.mark)?;
    legend(canvas, &layout.legend)?;
    let points = || {
        figure
            .panels
            .iter()
            .flat_map(|panel| panel.lines.values().flatten())
    };
    let measured = |point: &&Point| point.label.is_empty() || figure.design.x.kind != Kind::Lengths;
    let along: Vec<f64> = points().filter(measured).map(|point| point.x).collect();
    let values = points().flat_map(|point| {
        let (low, high) = point.band.unwrap_or((point.y, point.y));
        [low, point.y, high]
    });
    let design = &figure.design;
    let x = design.x.kind.ruler(&along).filter(|_| !along.is_empty());
    if let Some((x, y)) = x.zip(design.y.kind.ruler(&values.collect::<Vec<_>>())) {
        let axes = Axes {
            x,
            y,
            join: design.join,
            reference: design.reference,
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
    notes(canvas, &figure.notes, layout.height)
}

/// Lines at the foot of a page of this height.
pub(super) fn notes<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    notes: &[String],
    height: u32,
) -> Result<()> {
    let first = f64::from(height) - MARGIN - notes.len() as f64 * NOTE + 20.0;
    for (at, note) in notes.iter().enumerate() {
        canvas.text(note, (MARGIN, first + at as f64 * NOTE), SMALL)?;
    }
    Ok(())
}

/// Small panels have small markers, which keeps close lines apart.
fn marker(figure: &Figure) -> f64 {
    match figure.columns {
        1 | 2 => MARKER,
        3 => 6.0,
        _ => 5.0,
    }
}

/// A figure's title, what holds for all of it, and the mark of simulated data.
pub(super) fn title<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    title: &str,
    caption: &str,
    mark: Option<&str>,
) -> Result<()> {
    let pen = Pen {
        size: 38.0,
        weight: Weight::Bold,
        ..PLAIN
    };
    canvas.text(title, (MARGIN, 48.0), pen)?;
    canvas.text(
        caption,
        (MARGIN, CAPTION_TOP),
        Pen {
            size: 22.0,
            ..SMALL
        },
    )?;
    let Some(mark) = mark else {
        return Ok(());
    };
    let pen = Pen {
        size: 32.0,
        colour: ON_COLOUR,
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
    sign: Sign,
}

/// What stands before a legend's text.
#[derive(Clone, Copy)]
enum Sign {
    /// A line and a marker.
    Tier(Look),
    /// A line alone.
    Curve(Look),
    /// A marker, by how it is filled.
    Verdict(Fill),
    /// A dashed line.
    Dashes,
    /// A thick line.
    Front,
}

/// The tiers, then what hollow, crossed, dashed and thick mean where they occur.
fn legend_of(figure: &Figure) -> Result<Vec<Entry>> {
    let has_markers = figure.design.join.has_markers();
    let mut entries: Vec<(&str, Sign)> = Vec::new();
    for tier in &figure.tiers {
        let look = look(tier, &figure.tiers);
        let sign = if has_markers {
            Sign::Tier(look)
        } else {
            Sign::Curve(look)
        };
        entries.push((tier, sign));
    }
    let mut points = figure
        .panels
        .iter()
        .flat_map(|panel| panel.lines.values().flatten());
    let seen: BTreeSet<_> = points.by_ref().map(|point| point.verdict).collect();
    for (verdict, text) in [
        (VerdictStatus::Inconclusive, "hollow: verdict inconclusive"),
        (
            VerdictStatus::Invalid,
            "crossed: verdict invalid, do not read",
        ),
    ] {
        if has_markers && seen.contains(&verdict) {
            entries.push((text, Sign::Verdict(panel::fill(verdict))));
        }
    }
    if !has_markers && seen.iter().any(|verdict| *verdict != VerdictStatus::Valid) {
        let text = "dashed: verdict inconclusive or invalid, do not read";
        entries.push((text, Sign::Dashes));
    }
    if figure.panels.iter().any(|panel| !panel.front.is_empty()) {
        entries.push(("Pareto front of the valid points", Sign::Front));
    }
    let (mut x, mut y) = (MARGIN, LEGEND_TOP);
    let mut placed = Vec::new();
    for (text, sign) in entries {
        let width = LEGEND_TEXT + text_width(text, PLAIN)?;
        if x > MARGIN && x + width > f64::from(WIDTH) - MARGIN {
            (x, y) = (MARGIN, y + LINE);
        }
        placed.push(Entry {
            text: text.to_owned(),
            at: (x, y),
            sign,
        });
        x += width + 40.0;
    }
    Ok(placed)
}

fn legend<DB: DrawingBackend>(canvas: &Canvas<DB>, entries: &[Entry]) -> Result<()> {
    let any = Look {
        colour: GREY,
        shape: Shape::Circle,
    };
    for Entry { text, at, sign } in entries {
        let (x, y) = *at;
        let (ends, middle) = ([(x, y), (x + 52.0, y)], (x + 26.0, y));
        let marker =
            |look: Look, fill| canvas.marker(look.shape, middle, MARKER, look.colour, fill);
        match sign {
            Sign::Tier(look) => {
                canvas.line(&ends, &look.colour, 3.0, Stroke::Solid)?;
                marker(*look, Fill::Solid)?;
            }
            Sign::Curve(look) => canvas.line(&ends, &look.colour, 3.0, Stroke::Solid)?,
            Sign::Verdict(fill) => marker(any, *fill)?,
            Sign::Dashes => canvas.line(&ends, &GREY, 3.0, Stroke::Dashed)?,
            Sign::Front => canvas.line(&ends, &panel::FRONT, 9.0, Stroke::Solid)?,
        }
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
    let named = |axis: &Axis, ruler: &Ruler| {
        let all = format!("{}{}", axis.title, axis.kind.unit(ruler.scale));
        all.replace(") (", "; ")
    };
    let design = &figure.design;
    let prompt_axis = match design.x.kind {
        // Powers of two at equal distances need no word.
        Kind::Lengths | Kind::Counts => design.x.title.clone(),
        _ => named(&design.x, &axes.x),
    };
    canvas.text(&prompt_axis, (middle, bottom + 58.0), centred)?;
    let value_axis = named(&design.y, &axes.y);
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
