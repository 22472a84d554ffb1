//! Figures: the same drawing as PNG and as SVG.

mod axis;
mod canvas;
mod look;
mod model;
mod page;
mod panel;

use anyhow::{Context as _, Result};
use plotters::backend::{BitMapBackend, SVGBackend};

use crate::report::figure::canvas::{Canvas, Letters};
use crate::report::figure::page::{Layout, WIDTH};

pub(crate) use model::{Dot, Figure};

/// Each pixel of the PNG is the mean of 2 by 2: the bitmap backend does not smooth the edges of
/// thick lines and polygons itself.
const OVERSAMPLING: u32 = 2;

impl Figure {
    /// As an SVG document, 1600 units wide.
    pub fn svg(&self) -> Result<String> {
        let layout = Layout::of(self)?;
        let mut text = String::new();
        let backend = SVGBackend::with_string(&mut text, (WIDTH, layout.height));
        let canvas = Canvas::new(backend, 1.0, Letters::Centred)?;
        page::draw(&canvas, self, &layout)?;
        canvas.finish()?;
        Ok(text)
    }

    /// As a PNG, 1600 pixels wide.
    pub fn png(&self) -> Result<Vec<u8>> {
        let layout = Layout::of(self)?;
        let (width, height) = (WIDTH * OVERSAMPLING, layout.height * OVERSAMPLING);
        let mut pixels = vec![0; width as usize * height as usize * 3];
        {
            let backend = BitMapBackend::with_buffer(&mut pixels, (width, height));
            let canvas = Canvas::new(backend, f64::from(OVERSAMPLING), Letters::High)?;
            page::draw(&canvas, self, &layout)?;
            canvas.finish()?;
        }
        encode(&halved(&pixels, width as usize), WIDTH, layout.height)
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
