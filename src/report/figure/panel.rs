//! One panel: frame, grid, ticks, bands, lines and markers.

use anyhow::Result;
use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color as _, RGBColor};

use crate::record::schema::VerdictStatus;
use crate::report::figure::axis::Ruler;
use crate::report::figure::canvas::{Canvas, Fill, Pen, Stroke, Weight, text_width};
use crate::report::figure::grid::PANEL_TITLE;
use crate::report::figure::look::{FAINT, GREY, INK, Look, look};
use crate::report::figure::model::{Join, Panel, Point};

const TICK: Pen = Pen {
    size: 21.0,
    colour: INK,
    weight: Weight::Normal,
    across: HPos::Center,
    along: VPos::Top,
};
/// Distance between the tiers' markers with one prompt length only.
const DODGE: f64 = 34.0;
/// A line of no tier, behind all others.
pub(super) const FRONT: RGBColor = RGBColor(205, 205, 205);

/// What all panels of a figure share.
pub(super) struct Axes<'a> {
    pub x: Ruler,
    pub y: Ruler,
    pub join: Join,
    pub reference: Option<f64>,
    pub tiers: &'a [String],
    /// Radius of markers.
    pub marker: f64,
}

/// Where a panel's frame lies, and which of its sides carry labels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
    pub labels: Labels,
}

/// Which sides of a panel carry tick labels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels {
    pub left: Side,
    pub bottom: Side,
}

/// Whether a side carries tick labels: a neighbour with the same axis may do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Labelled,
    Bare,
}

impl Frame {
    fn x(&self, axes: &Axes<'_>, value: f64) -> f64 {
        self.left + axes.x.scale.position(value) * (self.right - self.left)
    }

    fn y(&self, axes: &Axes<'_>, value: f64) -> f64 {
        self.bottom - axes.y.scale.position(value) * (self.bottom - self.top)
    }
}

/// Draws one panel into its frame.
pub(super) fn draw<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    panel: &Panel,
    frame: Frame,
    axes: &Axes<'_>,
) -> Result<()> {
    let (at, width) = ((frame.left, frame.top - 10.0), frame.right - frame.left);
    canvas.text_within(&panel.title, at, PANEL_TITLE, width)?;
    grid(canvas, frame, axes)?;
    if let Some(value) = axes.reference {
        let y = frame.y(axes, value);
        canvas.line(
            &[(frame.left, y), (frame.right, y)],
            &GREY,
            2.0,
            Stroke::Solid,
        )?;
    }
    let front = panel
        .front
        .iter()
        .map(|(x, y)| (frame.x(axes, *x), frame.y(axes, *y)));
    canvas.line(&front.collect::<Vec<_>>(), &FRONT, 9.0, Stroke::Solid)?;
    let placed: Vec<_> = panel
        .lines
        .iter()
        .map(|(tier, points)| {
            let look = look(&axes.tiers[*tier], axes.tiers);
            (look, place(points, frame, axes, *tier))
        })
        .collect();
    // Layer by layer: no band covers a line, and no line a marker.
    for (look, points) in &placed {
        spread(canvas, points, *look, axes.join)?;
    }
    for (look, points) in placed.iter().filter(|_| axes.join != Join::Whiskers) {
        joined(canvas, points, *look, axes.join)?;
    }
    for (look, points) in placed.iter().filter(|_| axes.join.has_markers()) {
        for point in points {
            let fill = fill(point.verdict);
            canvas.marker(look.shape, point.at, axes.marker, look.colour, fill)?;
        }
    }
    labels(canvas, &placed, frame)
}

/// One line through the points: solid between valid ones, dashed where one end is not.
fn joined<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    points: &[Placed],
    look: Look,
    join: Join,
) -> Result<()> {
    let sound = |ends: &[Placed]| ends.iter().all(|end| end.verdict == VerdictStatus::Valid);
    let mut from = 0;
    while from + 1 < points.len() {
        let is_sound = sound(&points[from..=from + 1]);
        let mut to = from + 1;
        while to + 1 < points.len() && sound(&points[to..=to + 1]) == is_sound {
            to += 1;
        }
        let mut line = Vec::new();
        for point in &points[from..=to] {
            if let (Join::Steps, Some((_, y))) = (join, line.last().copied()) {
                line.push((point.at.0, y));
            }
            line.push(point.at);
        }
        let stroke = if is_sound {
            Stroke::Solid
        } else {
            Stroke::Dashed
        };
        canvas.line(&line, &look.colour, 3.0, stroke)?;
        from = to;
    }
    Ok(())
}

/// What stands beside the points, where neither a marker nor another label is; what finds no room
/// is left out.
fn labels<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    placed: &[(Look, Vec<Placed>)],
    frame: Frame,
) -> Result<()> {
    let all = || placed.iter().flat_map(|(_, points)| points);
    let mut taken: Vec<Area> = all()
        .map(|point| Area::around(point.at, 7.0, 7.0))
        .collect();
    for (look, points) in placed {
        for point in points.iter().filter(|point| !point.label.is_empty()) {
            let pen = Pen {
                size: 17.0,
                colour: look.colour,
                across: HPos::Center,
                along: VPos::Center,
                ..TICK
            };
            let half = text_width(&point.label, pen)? / 2.0;
            let (x, y) = point.at;
            // A line mostly rises to the right: first where it is not.
            let sides = [(1.0, 1.0), (-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0)];
            let areas = sides.map(|(right, down)| {
                Area::around((x + right * (half + 11.0), y + down * 14.0), half, 9.0)
            });
            let inside = |area: &&Area| area.left > frame.left && area.right < frame.right;
            let free = |area: &&Area| taken.iter().all(|other| !other.meets(area));
            if let Some(area) = areas.iter().filter(inside).find(free) {
                canvas.text(&point.label, area.middle(), pen)?;
                taken.push(*area);
            }
        }
    }
    Ok(())
}

/// A part of the page that something stands on.
#[derive(Clone, Copy)]
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Area {
    fn around((x, y): (f64, f64), half_width: f64, half_height: f64) -> Self {
        Self {
            left: x - half_width,
            top: y - half_height,
            right: x + half_width,
            bottom: y + half_height,
        }
    }

    fn middle(&self) -> (f64, f64) {
        (
            f64::midpoint(self.left, self.right),
            f64::midpoint(self.top, self.bottom),
        )
    }

    fn meets(&self, other: &Self) -> bool {
        let across = self.left < other.right && other.left < self.right;
        across && self.top < other.bottom && other.top < self.bottom
    }
}

/// How a verdict shows in a marker.
pub(super) fn fill(verdict: VerdictStatus) -> Fill {
    match verdict {
        VerdictStatus::Valid => Fill::Solid,
        VerdictStatus::Inconclusive => Fill::Hollow,
        VerdictStatus::Invalid => Fill::Crossed,
    }
}

fn grid<DB: DrawingBackend>(canvas: &Canvas<DB>, frame: Frame, axes: &Axes<'_>) -> Result<()> {
    let Frame {
        left,
        top,
        right,
        bottom,
        labels,
    } = frame;
    for (value, label) in &axes.y.ticks {
        let y = frame.y(axes, *value);
        canvas.line(&[(left, y), (right, y)], &FAINT, 1.5, Stroke::Solid)?;
        if labels.left == Side::Labelled {
            let pen = Pen {
                across: HPos::Right,
                along: VPos::Center,
                ..TICK
            };
            canvas.text(label, (left - 12.0, y), pen)?;
        }
    }
    for (value, _) in &axes.x.ticks {
        let x = frame.x(axes, *value);
        canvas.line(&[(x, top), (x, bottom)], &FAINT, 1.5, Stroke::Solid)?;
    }
    if labels.bottom == Side::Labelled {
        for (x, label) in labelled(frame, axes)? {
            canvas.text(&label, (x, bottom + 10.0), TICK)?;
        }
    }
    canvas.outline((left, top), (right, bottom), 1.5)
}

/// Every tick's label, or every second, third and so on: none touches the next.
fn labelled(frame: Frame, axes: &Axes<'_>) -> Result<Vec<(f64, String)>> {
    let mut all = Vec::new();
    for (value, label) in &axes.x.ticks {
        let half = text_width(label, TICK)? / 2.0 + 7.0;
        all.push((frame.x(axes, *value), half, label.clone()));
    }
    let fits = |step: &usize| {
        let shown: Vec<_> = all.iter().step_by(*step).collect();
        shown
            .windows(2)
            .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0 - pair[1].1)
    };
    let step = (1..=all.len()).find(fits).unwrap_or(1);
    Ok(all
        .into_iter()
        .step_by(step)
        .map(|(x, _, label)| (x, label))
        .collect())
}

/// A point on the page.
struct Placed {
    at: (f64, f64),
    band: Option<(f64, f64)>,
    verdict: VerdictStatus,
    label: String,
}

fn place(points: &[Point], frame: Frame, axes: &Axes<'_>, tier: usize) -> Vec<Placed> {
    let middle = (axes.tiers.len() as f64 - 1.0) / 2.0;
    let aside = if axes.x.ticks.len() == 1 && axes.join == Join::Line {
        (tier as f64 - middle) * DODGE
    } else {
        0.0
    };
    points
        .iter()
        .map(|point| Placed {
            at: (frame.x(axes, point.x) + aside, frame.y(axes, point.y)),
            band: point
                .band
                .map(|(low, high)| (frame.y(axes, low), frame.y(axes, high))),
            verdict: point.verdict,
            label: point.label.clone(),
        })
        .collect()
}

/// The band between neighbours that have one; a whisker where a point stands alone.
fn spread<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    points: &[Placed],
    look: Look,
    join: Join,
) -> Result<()> {
    let banded = |point: &Placed| point.band.filter(|_| point.verdict == VerdictStatus::Valid);
    let alone = join == Join::Whiskers;
    for (at, point) in points.iter().enumerate() {
        let Some((low, high)) = banded(point) else {
            continue;
        };
        let next = points
            .get(at + 1)
            .filter(|_| !alone)
            .and_then(|next| Some((next, banded(next)?)));
        if let Some((next, (next_low, next_high))) = next {
            let (x, next_x) = (point.at.0, next.at.0);
            let corners = [(x, low), (next_x, next_low), (next_x, next_high), (x, high)];
            canvas.polygon(&corners, &look.colour.mix(0.14))?;
        }
        let joined_before = !alone && at > 0 && banded(&points[at - 1]).is_some();
        if next.is_none() && !joined_before {
            let x = point.at.0;
            canvas.line(&[(x, low), (x, high)], &look.colour, 3.0, Stroke::Solid)?;
            for end in [low, high] {
                canvas.line(
                    &[(x - 9.0, end), (x + 9.0, end)],
                    &look.colour,
                    3.0,
                    Stroke::Solid,
                )?;
            }
        }
    }
    Ok(())
}
