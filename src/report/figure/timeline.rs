//! Panels under each other on one time axis: what happened when.

use anyhow::Result;
use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{Canvas, Fill, Pen, Stroke, Weight};
use super::look::{FAINT, GREY, INK, Shape};

const LEFT: f64 = 130.0;
const RIGHT: f64 = 1570.0;
const TOP: f64 = 120.0;
const PANEL: f64 = 150.0;
/// Radius of a dot.
const DOT: f64 = 4.0;
const GAP: f64 = 50.0;
const BOTTOM: f64 = 80.0;
const SHADE: RGBColor = RGBColor(240, 245, 250);

/// What is seen on one time axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Timeline {
    pub title: String,
    pub subtitle: String,
    /// First and last second.
    pub span: (f64, f64),
    /// Stretches with their names, shaded.
    pub phases: Vec<(f64, f64, String)>,
    pub panels: Vec<TimePanel>,
}

/// One source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TimePanel {
    pub title: String,
    pub lines: Vec<TimeLine>,
    /// Instants with a value each.
    pub dots: Vec<(f64, f64)>,
    /// Instants, marked at the axis.
    pub ticks: Vec<f64>,
}

/// One series: stretches of time with a value each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TimeLine {
    pub name: &'static str,
    pub colour: RGBColor,
    pub steps: Vec<(f64, f64, f64)>,
}

impl Timeline {
    pub(super) fn height(&self) -> u32 {
        (TOP + (PANEL + GAP) * self.panels.len() as f64 + BOTTOM) as u32
    }

    fn x(&self, at_s: f64) -> f64 {
        let (from, to) = self.span;
        LEFT + (at_s.clamp(from, to) - from) / (to - from).max(1e-9) * (RIGHT - LEFT)
    }
}

fn pen(size: f64, across: HPos, colour: RGBColor) -> Pen {
    Pen {
        size,
        colour,
        weight: Weight::Normal,
        across,
        along: VPos::Center,
    }
}

pub(super) fn draw<DB: DrawingBackend>(canvas: &Canvas<DB>, all: &Timeline) -> Result<()> {
    let bold = Pen {
        weight: Weight::Bold,
        ..pen(26.0, HPos::Left, INK)
    };
    canvas.text(&all.title, (LEFT, 36.0), bold)?;
    canvas.text(&all.subtitle, (LEFT, 68.0), pen(18.0, HPos::Left, GREY))?;
    for (at, panel) in all.panels.iter().enumerate() {
        let top = TOP + (PANEL + GAP) * at as f64 + GAP / 2.0;
        draw_panel(canvas, all, panel, top)?;
    }
    let base = TOP + (PANEL + GAP) * all.panels.len() as f64;
    let step = round_step((all.span.1 - all.span.0) / 10.0);
    let mut tick = (all.span.0 / step).ceil() * step;
    while tick <= all.span.1 {
        let text = format!("{:.*}", usize::from(step < 1.0), tick);
        canvas.text(&text, (all.x(tick), base), pen(16.0, HPos::Center, INK))?;
        tick += step;
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    let pen = pen(18.0, HPos::Center, INK);
    canvas.text("seconds since the run began", (middle, base + 34.0), pen)
}

fn draw_panel<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    all: &Timeline,
    panel: &TimePanel,
    top: f64,
) -> Result<()> {
    let bottom = top + PANEL;
    for (from, to, name) in &all.phases {
        canvas.rectangle((all.x(*from), top), (all.x(*to), bottom), &SHADE)?;
        let at = (all.x(*from) + 4.0, top + 10.0);
        canvas.text(name, at, pen(14.0, HPos::Left, GREY))?;
    }
    let steps = panel.lines.iter().flat_map(|line| &line.steps);
    let values = steps
        .map(|step| step.2)
        .chain(panel.dots.iter().map(|dot| dot.1));
    let most = round_up(values.fold(0.0, f64::max));
    let y = |value: f64| bottom - value / most * (PANEL - 22.0);
    for share in [0.0, 0.5, 1.0] {
        let height = y(most * share);
        canvas.line(
            &[(LEFT, height), (RIGHT, height)],
            &FAINT,
            1.0,
            Stroke::Solid,
        )?;
        let text = label(most * share);
        canvas.text(&text, (LEFT - 10.0, height), pen(16.0, HPos::Right, INK))?;
    }
    canvas.text(&panel.title, (LEFT, top - 12.0), pen(18.0, HPos::Left, INK))?;
    let mut across = RIGHT;
    for line in &panel.lines {
        for (from, to, value) in &line.steps {
            let ends = [(all.x(*from), y(*value)), (all.x(*to), y(*value))];
            canvas.line(&ends, &line.colour, 3.0, Stroke::Solid)?;
        }
        for pair in line.steps.windows(2) {
            let at = all.x(pair[1].0);
            let ends = [(at, y(pair[0].2)), (at, y(pair[1].2))];
            canvas.line(&ends, &line.colour, 1.5, Stroke::Solid)?;
        }
        let named = pen(16.0, HPos::Right, line.colour);
        canvas.text(line.name, (across, top - 12.0), named)?;
        across -= 140.0;
    }
    for at in &panel.ticks {
        let tick = tick(bottom).map(|y| (all.x(*at), y));
        canvas.line(&tick, &INK, 1.5, Stroke::Solid)?;
    }
    for (at, value) in &panel.dots {
        let place = (all.x(*at), y(*value));
        canvas.marker(Shape::Circle, place, DOT, INK, Fill::Solid)?;
    }
    Ok(())
}

/// Ends of the tick of an instant: below the axis at `bottom`, where no dot hides it.
fn tick(bottom: f64) -> [f64; 2] {
    [bottom + DOT + 1.0, bottom + DOT + 9.0]
}

/// A number beside an axis.
pub(crate) fn label(value: f64) -> String {
    if value == 0.0 || value >= 10.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// The next 1, 2 or 5 times a power of ten.
pub(crate) fn round_step(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    let wanted = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    wanted
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(10.0 * power)
}

/// The end of an axis that holds `value`.
pub(crate) fn round_up(value: f64) -> f64 {
    if value > 0.0 { round_step(value) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_at_zero_does_not_hide_the_tick_of_its_instant() {
        let [from, to] = tick(100.0);
        assert!(from > 100.0 + DOT && to > from);
        assert!(to < 100.0 + 22.0, "it stays clear of the next title");
    }

    #[test]
    fn axes_end_on_round_numbers() {
        for (value, end) in [
            (0.0, 1.0),
            (0.3, 0.5),
            (1.0, 1.0),
            (47.0, 50.0),
            (51.0, 100.0),
        ] {
            assert!((round_up(value) - end).abs() < 1e-9, "{value}");
        }
    }
}
