//! The two figures of requests that no run holds.

use anyhow::Result;

use crate::metric::Metric;
use crate::record::schema::Source;
use crate::report::Drawing;
use crate::report::figure::{Dot, Figure, Picture};
use crate::stats::Summary;

/// Requests that are one point of each figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PlotPoint {
    /// What else they have in common: names and values.
    pub facts: Vec<(String, String)>,
    /// Requests in flight, where that is known.
    pub concurrency: Option<u32>,
    /// Prompt length, tokens.
    pub prompt_len: u32,
    /// The tier.
    pub tier: String,
    /// Measured or simulated, where that is known.
    pub source: Option<Source>,
    /// Times to the first token.
    pub ttft_ms: Vec<f64>,
    /// Times to the last token.
    pub e2e_ms: Vec<f64>,
}

/// TTFT and E2E of `points`, each as PNG and SVG: the ends of file names (`ttft.png`) and what the
/// files hold.
pub(crate) fn files(points: &[PlotPoint], notes: &[String]) -> Result<Vec<(String, Vec<u8>)>> {
    let draw = |name: &str, metric, values: fn(&PlotPoint) -> &Vec<f64>| {
        let dots: Vec<Dot> = points
            .iter()
            .map(|point| dot(point, Summary::of(metric, values(point).clone())))
            .collect();
        let figure = Figure::of(&dots, &[], notes.to_vec());
        Drawing::of(name, Picture::Lines(figure))?.files()
    };
    let ttft = draw("ttft", Metric::Ttft, |point| &point.ttft_ms)?;
    let e2e = draw("e2e", Metric::E2e, |point| &point.e2e_ms)?;
    Ok(ttft.into_iter().chain(e2e).collect())
}

fn dot(point: &PlotPoint, summary: Summary) -> Dot {
    Dot {
        facts: point.facts.clone(),
        concurrency: point.concurrency,
        prompt_len: point.prompt_len,
        tier: point.tier.clone(),
        summary,
        verdict: None,
        source: point.source,
    }
}
