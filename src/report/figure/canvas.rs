//! Shapes and text in page units on any plotters backend.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea as _};
use plotters::element::{Circle, PathElement, Polygon, Rectangle, Text};
use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, ShapeStyle, TextStyle, WHITE,
    register_font,
};

use crate::report::figure::look::{GREY, Shape};

/// The embedded font, then one with the same widths for viewers of an SVG that lack it.
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";

/// Registers the embedded fonts, once: no font of the system is ever looked for.
fn register_fonts() -> Result<()> {
    static FONTS: OnceLock<bool> = OnceLock::new();
    let registered = FONTS.get_or_init(|| {
        register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok()
            && register_font(FONT, FontStyle::Bold, dejavu::sans::bold()).is_ok()
    });
    if *registered {
        Ok(())
    } else {
        Err(anyhow!("the embedded fonts cannot be read"))
    }
}

/// How a text is written.
#[derive(Clone, Copy)]
pub(super) struct Pen {
    pub size: f64,
    pub colour: RGBColor,
    pub weight: Weight,
    pub across: HPos,
    pub along: VPos,
}

/// How heavy letters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Normal,
    Bold,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stroke {
    Solid,
    Dashed,
}

/// A page. Coordinates are page units from the top left, enlarged by `zoom` on the backend.
pub(super) struct Canvas<DB: DrawingBackend> {
    area: DrawingArea<DB, Shift>,
    zoom: f64,
    letters: Letters,
}

/// Where a backend puts letters that are centred on a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    /// On it, as SVG viewers do.
    Centred,
    /// A little above it: the bitmap backend centres the font's box, which has more room below.
    High,
}

type Point = (f64, f64);

impl<DB: DrawingBackend> Canvas<DB> {
    /// A white page on `backend`.
    pub(super) fn new(backend: DB, zoom: f64, letters: Letters) -> Result<Self> {
        register_fonts()?;
        let canvas = Self {
            area: backend.into_drawing_area(),
            zoom,
            letters,
        };
        canvas.area.fill(&WHITE).map_err(trouble)?;
        Ok(canvas)
    }

    /// Ends the drawing.
    pub(super) fn finish(self) -> Result<()> {
        self.area.present().map_err(trouble)
    }

    /// A line through `points`.
    pub(super) fn line(
        &self,
        points: &[Point],
        colour: &impl Color,
        width: f64,
        stroke: Stroke,
    ) -> Result<()> {
        let style = self.stroke(colour, width);
        match stroke {
            Stroke::Solid => self.path(points, style),
            Stroke::Dashed => dashes(points)
                .iter()
                .try_for_each(|dash| self.path(dash, style)),
        }
    }

    /// A filled polygon.
    pub(super) fn polygon(&self, corners: &[Point], colour: &impl Color) -> Result<()> {
        let corners: Vec<_> = corners.iter().map(|point| self.pixel(*point)).collect();
        self.area
            .draw(&Polygon::new(corners, colour.filled()))
            .map_err(trouble)
    }

    /// A filled rectangle.
    pub(super) fn rectangle(
        &self,
        corner: Point,
        opposite: Point,
        colour: &impl Color,
    ) -> Result<()> {
        let corners = [self.pixel(corner), self.pixel(opposite)];
        self.area
            .draw(&Rectangle::new(corners, colour.filled()))
            .map_err(trouble)
    }

    /// A text at `at`, anchored as `pen` sets.
    pub(super) fn text(&self, text: &str, (x, y): Point, pen: Pen) -> Result<()> {
        let style = self.text_style(pen, FontTransform::None);
        let at = self.pixel((x, y + self.lowered(pen)));
        self.area.draw(&Text::new(text, at, style)).map_err(trouble)
    }

    /// The same, in smaller letters where it is wider than `width`.
    pub(super) fn text_within(&self, text: &str, at: Point, pen: Pen, width: f64) -> Result<()> {
        let scale = (width / text_width(text, pen)?).min(1.0);
        let size = pen.size * scale;
        self.text(text, at, Pen { size, ..pen })
    }

    /// A text that reads upwards, centred on `at`.
    pub(super) fn text_upwards(&self, text: &str, at: Point, pen: Pen) -> Result<()> {
        let style = self.text_style(pen, FontTransform::Rotate270);
        self.area
            .draw(&Text::new(text, self.pixel(at), style))
            .map_err(trouble)
    }

    fn lowered(&self, pen: Pen) -> f64 {
        match (self.letters, pen.along) {
            (Letters::High, VPos::Center) => pen.size * 0.13,
            _ => 0.0,
        }
    }

    /// The edge of a rectangle between two corners.
    pub(super) fn outline(
        &self,
        (left, top): (f64, f64),
        (right, bottom): (f64, f64),
        width: f64,
    ) -> Result<()> {
        let around = [
            (left, top),
            (right, top),
            (right, bottom),
            (left, bottom),
            (left, top),
        ];
        self.line(&around, &GREY, width, Stroke::Solid)
    }

    /// A marker: outlined in white to stand out from lines, or hollow.
    pub(super) fn marker(
        &self,
        shape: Shape,
        at: Point,
        radius: f64,
        colour: RGBColor,
        fill: Fill,
    ) -> Result<()> {
        let (outer, inner) = match fill {
            Fill::Solid => (WHITE, colour),
            Fill::Hollow | Fill::Crossed => (colour, WHITE),
        };
        self.blot(shape, at, radius * 1.35, outer)?;
        self.blot(shape, at, radius, inner)?;
        if fill == Fill::Crossed {
            let r = radius * 1.5;
            let (x, y) = at;
            for slope in [-1.0, 1.0] {
                let ends = [(x - r, y - slope * r), (x + r, y + slope * r)];
                self.line(&ends, &colour, 3.0, Stroke::Solid)?;
            }
        }
        Ok(())
    }

    fn blot(&self, shape: Shape, at: Point, radius: f64, colour: RGBColor) -> Result<()> {
        if shape == Shape::Circle {
            let circle = Circle::new(self.pixel(at), radius * self.zoom, colour.filled());
            return self.area.draw(&circle).map_err(trouble);
        }
        let corners: Vec<_> = corners(shape)
            .into_iter()
            .map(|(x, y)| (at.0 + x * radius, at.1 + y * radius))
            .collect();
        self.polygon(&corners, &colour)
    }

    fn path(&self, points: &[Point], style: ShapeStyle) -> Result<()> {
        let points: Vec<_> = points.iter().map(|point| self.pixel(*point)).collect();
        self.area
            .draw(&PathElement::new(points, style))
            .map_err(trouble)
    }

    fn stroke(&self, colour: &impl Color, width: f64) -> ShapeStyle {
        ShapeStyle {
            color: colour.to_rgba(),
            filled: false,
            stroke_width: (width * self.zoom).round() as u32,
        }
    }

    fn text_style(&self, pen: Pen, transform: FontTransform) -> TextStyle<'static> {
        TextStyle {
            font: font(pen, self.zoom).transform(transform),
            color: pen.colour.to_backend_color(),
            pos: Pos::new(pen.across, pen.along),
        }
    }

    fn pixel(&self, (x, y): Point) -> (i32, i32) {
        (
            (x * self.zoom).round() as i32,
            (y * self.zoom).round() as i32,
        )
    }
}

/// How wide a text is, in page units.
pub(super) fn text_width(text: &str, pen: Pen) -> Result<f64> {
    register_fonts()?;
    // Measured ten times as large: the answer is in whole pixels.
    let (width, _) = font(pen, 10.0).box_size(text).map_err(trouble)?;
    Ok(f64::from(width) / 10.0)
}

fn font(pen: Pen, zoom: f64) -> FontDesc<'static> {
    let weight = match pen.weight {
        Weight::Normal => FontStyle::Normal,
        Weight::Bold => FontStyle::Bold,
    };
    FontDesc::new(FontFamily::Name(FONT), pen.size * zoom, weight)
}

/// How a marker is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Solid,
    Hollow,
    Crossed,
}

/// A shape's corners around a unit circle, scaled to look equally large.
fn corners(shape: Shape) -> Vec<Point> {
    let around = |count: u32, first_degrees: f64, radii: &[f64]| -> Vec<Point> {
        (0..count)
            .zip(radii.iter().cycle())
            .map(|(at, radius)| {
                let turn = first_degrees + 360.0 / f64::from(count) * f64::from(at);
                let (sin, cos) = turn.to_radians().sin_cos();
                (cos * radius, sin * radius)
            })
            .collect()
    };
    match shape {
        Shape::Circle | Shape::Hexagon => around(6, 0.0, &[1.15]),
        Shape::Square => around(4, 45.0, &[1.3]),
        Shape::Triangle => around(3, -90.0, &[1.4]),
        Shape::TriangleDown => around(3, 90.0, &[1.4]),
        Shape::Diamond => around(4, 0.0, &[1.4]),
        Shape::Star => around(10, -90.0, &[1.6, 0.7]),
    }
}

/// Dashes of 12 with gaps of 8 along `points`, round their corners.
fn dashes(points: &[Point]) -> Vec<Vec<Point>> {
    let mut dashes: Vec<Vec<Point>> = Vec::new();
    let (mut drawing, mut left) = (true, 12.0);
    for ends in points.windows(2) {
        let (mut at, to) = (ends[0], ends[1]);
        if drawing && dashes.is_empty() {
            dashes.push(vec![at]);
        }
        loop {
            let (dx, dy) = (to.0 - at.0, to.1 - at.1);
            let rest = dx.hypot(dy);
            let step = rest.min(left);
            if rest > 0.0 {
                at = (at.0 + dx / rest * step, at.1 + dy / rest * step);
            }
            left -= step;
            if let (true, Some(dash)) = (drawing, dashes.last_mut()) {
                dash.push(at);
            }
            if left > 0.0 {
                break;
            }
            drawing = !drawing;
            left = if drawing { 12.0 } else { 8.0 };
            if drawing {
                dashes.push(vec![at]);
            }
        }
    }
    // One may have begun where the line ends.
    dashes.retain(|dash| dash.len() > 1 && dash.first() != dash.last());
    dashes
}

fn trouble(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_go_on_round_corners() {
        let dashes = dashes(&[(0.0, 0.0), (10.0, 0.0), (10.0, 30.0)]);
        assert_eq!(
            dashes,
            [
                vec![(0.0, 0.0), (10.0, 0.0), (10.0, 2.0)],
                vec![(10.0, 10.0), (10.0, 22.0)],
            ]
        );
    }
}
