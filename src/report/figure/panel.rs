//! One panel: frame, grid, ticks, bands, lines and markers.

use anyhow::Result;
use plotters::prelude::DrawingBackend;
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, VPos};

use crate::record::schema::VerdictStatus;
use crate::report::figure::axis::{Scale, token_label};
use crate::report::figure::canvas::{Canvas, Fill, Pen, Stroke, Weight, text_width};
use crate::report::figure::look::{FAINT, GREY, INK, Look, look};
use crate::report::figure::model::{Panel, Point};

const TICK: Pen = Pen {
    size: 21.0,
    colour: INK,
    weight: Weight::Normal,
    across: HPos::Center,
    along: VPos::Top,
};
/// Distance between the tiers' markers where there is one prompt length only.
const DODGE: f64 = 34.0;

/// What all panels of a figure share.
pub(super) struct Axes<'a> {
    pub lengths: &'a [u32],
    pub x: Scale,
    pub y: Scale,
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
    fn x(&self, axes: &Axes<'_>, prompt_len: u32) -> f64 {
        self.left + axes.x.position(f64::from(prompt_len)) * (self.right - self.left)
    }

    fn y(&self, axes: &Axes<'_>, value: f64) -> f64 {
        self.bottom - axes.y.position(value) * (self.bottom - self.top)
    }
}

/// Draws one panel into its frame.
pub(super) fn draw<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    panel: &Panel,
    frame: Frame,
    axes: &Axes<'_>,
) -> Result<()> {
    let heading = Pen {
        size: 24.0,
        weight: Weight::Bold,
        across: HPos::Left,
        along: VPos::Bottom,
        ..TICK
    };
    canvas.text(&panel.title, (frame.left, frame.top - 10.0), heading)?;
    grid(canvas, frame, axes)?;
    let placed: Vec<_> = panel
        .lines
        .iter()
        .map(|(tier, points)| {
            let look = look(&axes.tiers[*tier], axes.tiers);
            (look, place(points, frame, axes, *tier))
        })
        .collect();
    // Layer by layer, so that no band covers a line and no line a marker.
    for (look, points) in &placed {
        spread(canvas, points, *look)?;
    }
    for (look, points) in &placed {
        for ends in points.windows(2) {
            let sound = ends.iter().all(|end| end.verdict == VerdictStatus::Valid);
            let stroke = if sound { Stroke::Solid } else { Stroke::Dashed };
            canvas.line(&[ends[0].at, ends[1].at], &look.colour, 3.0, stroke)?;
        }
    }
    for (look, points) in &placed {
        for point in points {
            canvas.marker(
                look.shape,
                point.at,
                axes.marker,
                look.colour,
                fill(point.verdict),
            )?;
        }
    }
    Ok(())
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
    for (value, label) in axes.y.ticks_ms() {
        let y = frame.y(axes, value);
        canvas.line(&[(left, y), (right, y)], &FAINT, 1.5, Stroke::Solid)?;
        if labels.left == Side::Labelled {
            let pen = Pen {
                across: HPos::Right,
                along: VPos::Center,
                ..TICK
            };
            canvas.text(&label, (left - 12.0, y), pen)?;
        }
    }
    for length in axes.lengths {
        let x = frame.x(axes, *length);
        canvas.line(&[(x, top), (x, bottom)], &FAINT, 1.5, Stroke::Solid)?;
    }
    if labels.bottom == Side::Labelled {
        for (x, label) in labelled(frame, axes)? {
            canvas.text(&label, (x, bottom + 10.0), TICK)?;
        }
    }
    let around = [
        (left, top),
        (right, top),
        (right, bottom),
        (left, bottom),
        (left, top),
    ];
    canvas.line(&around, &GREY, 1.5, Stroke::Solid)
}

/// Every length's label, or every second, third and so on, so that none touches the next.
fn labelled(frame: Frame, axes: &Axes<'_>) -> Result<Vec<(f64, String)>> {
    let mut all = Vec::new();
    for length in axes.lengths {
        let label = token_label(*length);
        let half = text_width(&label, TICK)? / 2.0 + 7.0;
        all.push((frame.x(axes, *length), half, label));
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
}

fn place(points: &[Point], frame: Frame, axes: &Axes<'_>, tier: usize) -> Vec<Placed> {
    let middle = (axes.tiers.len() as f64 - 1.0) / 2.0;
    let aside = if axes.lengths.len() == 1 {
        (tier as f64 - middle) * DODGE
    } else {
        0.0
    };
    points
        .iter()
        .map(|point| Placed {
            at: (
                frame.x(axes, point.prompt_len) + aside,
                frame.y(axes, point.p50),
            ),
            band: point
                .band
                .map(|(low, high)| (frame.y(axes, low), frame.y(axes, high))),
            verdict: point.verdict,
        })
        .collect()
}

/// The band between neighbours that have one; a whisker where a point stands alone.
fn spread<DB: DrawingBackend>(canvas: &Canvas<DB>, points: &[Placed], look: Look) -> Result<()> {
    let banded = |point: &Placed| point.band.filter(|_| point.verdict == VerdictStatus::Valid);
    for (at, point) in points.iter().enumerate() {
        let Some((low, high)) = banded(point) else {
            continue;
        };
        let next = points
            .get(at + 1)
            .and_then(|next| Some((next, banded(next)?)));
        if let Some((next, (next_low, next_high))) = next {
            let (x, next_x) = (point.at.0, next.at.0);
            let corners = [(x, low), (next_x, next_low), (next_x, next_high), (x, high)];
            canvas.polygon(&corners, &look.colour.mix(0.14))?;
        }
        let joined_before = at > 0 && banded(&points[at - 1]).is_some();
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
