//! Figures: the same drawing as PNG and as SVG.

mod axis;
mod canvas;
mod grid;
mod heat;
mod look;
mod model;
mod page;
mod panel;
mod stack;

use anyhow::{Context as _, Result};
use plotters::backend::{BitMapBackend, SVGBackend};
use plotters::prelude::DrawingBackend;

use crate::report::figure::canvas::{Canvas, Letters};
use crate::report::figure::page::{Layout, WIDTH};

pub(crate) use axis::{Kind, token_label};
pub(crate) use heat::{HeatCell, HeatMap, HeatPanel};
pub(crate) use model::{Axis, Design, Dot, Figure, Join, Mark, Point, facts, simulated};
pub(crate) use stack::{Bar, StackChart, StackPanel};

/// Each pixel of the PNG is the mean of 2 by 2: the bitmap backend does not smooth the edges of
/// thick lines and polygons itself.
const OVERSAMPLING: u32 = 2;

/// Anything that is drawn on a page of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Picture {
    /// Lines and markers in panels.
    Lines(Figure),
    /// Coloured cells in panels.
    Heat(HeatMap),
    /// Stacked bars in panels.
    Stack(StackChart),
}

impl Picture {
    /// What it shows.
    pub(super) fn title(&self) -> &str {
        match self {
            Self::Lines(figure) => &figure.title,
            Self::Heat(map) => &map.title,
            Self::Stack(chart) => &chart.title,
        }
    }

    fn height(&self) -> Result<u32> {
        match self {
            Self::Lines(figure) => Ok(Layout::of(figure)?.height),
            Self::Heat(map) => Ok(map.height()),
            Self::Stack(chart) => Ok(chart.height()),
        }
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Result<()> {
        match self {
            Self::Lines(figure) => page::draw(canvas, figure, &Layout::of(figure)?),
            Self::Heat(map) => heat::draw(canvas, map),
            Self::Stack(chart) => stack::draw(canvas, chart),
        }
    }

    /// As an SVG document, 1600 units wide.
    pub(super) fn svg(&self) -> Result<String> {
        let mut text = String::new();
        let backend = SVGBackend::with_string(&mut text, (WIDTH, self.height()?));
        let canvas = Canvas::new(backend, 1.0, Letters::Centred)?;
        self.draw(&canvas)?;
        canvas.finish()?;
        Ok(text)
    }

    /// As a PNG, 1600 pixels wide.
    pub(super) fn png(&self) -> Result<Vec<u8>> {
        let page_height = self.height()?;
        let (width, height) = (WIDTH * OVERSAMPLING, page_height * OVERSAMPLING);
        let mut pixels = vec![0; width as usize * height as usize * 3];
        {
            let backend = BitMapBackend::with_buffer(&mut pixels, (width, height));
            let canvas = Canvas::new(backend, f64::from(OVERSAMPLING), Letters::High)?;
            self.draw(&canvas)?;
            canvas.finish()?;
        }
        encode(&halved(&pixels, width as usize), WIDTH, page_height)
    }
}

/// RGB pixels of half the width and height, each the mean of four.
fn halved(pixels: &[u8], width: usize) -> Vec<u8> {
    let row_bytes = width * 3;
    let mut small = Vec::with_capacity(pixels.len() / 4);
    for rows in pixels.chunks_exact(row_bytes * 2) {
        let (upper, lower) = rows.split_at(row_bytes);
        for (above, below) in upper.chunks_exact(6).zip(lower.chunks_exact(6)) {
            for channel in 0..3 {
                let four = [
                    above[channel],
                    above[channel + 3],
                    below[channel],
                    below[channel + 3],
                ];
                let sum: u16 = four.into_iter().map(u16::from).sum();
                small.push(((sum + 2) / 4) as u8);
            }
        }
    }
    small
}

fn encode(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder
        .write_header()
        .context("cannot write a PNG header")?;
    writer
        .write_image_data(pixels)
        .context("cannot encode a PNG")?;
    writer.finish().context("cannot end a PNG")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
