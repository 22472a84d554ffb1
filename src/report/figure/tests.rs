use super::*;
use crate::aggregate::fixture::{Bench, realistic, rows_of};
use crate::aggregate::{Comparison, compare};
use crate::plan::state::CacheState;
use crate::record::schema::{Source, VerdictStatus};

fn drawn(figure: &Figure) -> Picture {
    Picture::Lines(figure.clone())
}

fn ttft_of(comparison: &Comparison) -> Figure {
    let dots: Vec<_> = comparison
        .pools
        .iter()
        .map(|pool| Dot::of(pool, pool.ttft.clone()))
        .collect();
    Figure::of(&dots, &["sim-8b".to_owned()], vec![])
}

fn of(bench: &Bench) -> Figure {
    ttft_of(&compare(&bench.run()).unwrap())
}

/// RGB pixels, width and height.
fn decode(bytes: &[u8]) -> (Vec<u8>, usize, usize) {
    let mut reader = png::Decoder::new(bytes).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (pixels, info.width as usize, info.height as usize)
}

#[test]
fn panels_are_states_by_concurrencies() {
    let figure = ttft_of(&compare(&realistic()).unwrap());
    assert_eq!(figure.tiers, ["baseline", "cpu", "disk", "redis"]);
    let panels: Vec<_> = figure
        .panels
        .iter()
        .map(|p| (p.row, p.column, p.title.as_str()))
        .collect();
    assert_eq!(
        panels,
        [
            (0, 0, "cold, 1 at a time"),
            (0, 1, "cold, 8 at a time"),
            (1, 0, "tier hit, 1 at a time"),
            (1, 1, "tier hit, 8 at a time"),
        ]
    );
    let cpu = &figure.panels[2].lines[&1];
    let lengths: Vec<_> = cpu.iter().map(|point| point.x as u32).collect();
    assert_eq!(lengths, [1024, 5120, 16384]);
    let redis = &figure.panels[3].lines[&3];
    assert_eq!(redis[2].verdict, VerdictStatus::Invalid);
    assert!(
        cpu[0]
            .band
            .is_some_and(|(low, high)| low < cpu[0].y && cpu[0].y < high)
    );
}

#[test]
fn one_concurrency_lets_the_panels_flow() {
    let mut bench = Bench::new();
    let cell = bench.cell("cpu", 1024, 4, 1);
    CacheState::ALL.into_iter().fold(cell, |cell, state| {
        cell.pass(state, &rows_of(&[1.0, 2.0], 0))
    });
    let figure = of(&bench);
    let places: Vec<_> = figure
        .panels
        .iter()
        .map(|panel| (panel.row, panel.column))
        .collect();
    assert_eq!(
        (places, figure.columns),
        (vec![(0, 0), (0, 1), (0, 2), (1, 0)], 3)
    );
    assert_eq!(figure.panels[0].title, "cold");
    assert_eq!(
        figure.caption,
        "sim-8b, workload long_context, gen_len 4, concurrency 4"
    );
}

#[test]
fn few_samples_are_noted_and_have_no_band() {
    let mut bench = Bench::new();
    bench
        .cell("cpu", 1024, 1, 1)
        .pass(CacheState::Cold, &rows_of(&[1.0, 2.0, 3.0], 0));
    bench
        .cell("disk", 1024, 1, 1)
        .pass(CacheState::Cold, &rows_of(&[1.0], 0));
    let figure = of(&bench);
    assert_eq!(figure.panels[0].lines[&0][0].band, None);
    assert_eq!(
        figure.notes,
        [
            "median, and p10 to p90 as a band or whisker, of 3 ok requests a point",
            "no band where a point has fewer than 10 requests",
            "1 point has too few ok requests to be shown",
        ]
    );
}

#[test]
fn the_png_is_as_wide_as_promised_and_shows_each_tier() {
    let (pixels, width, height) = decode(
        &drawn(&ttft_of(&compare(&realistic()).unwrap()))
            .png()
            .unwrap(),
    );
    assert_eq!(width, 1600);
    assert_eq!(pixels.len(), width * height * 3);
    // In the plot area, right of the value axis and below the legend.
    let near = |pixel: &[u8], colour: [u8; 3]| pixel == colour;
    for (tier, colour) in [
        ("baseline", [0, 0, 0]),
        ("cpu", [0, 114, 178]),
        ("disk", [213, 94, 0]),
        ("redis", [0, 158, 115]),
    ] {
        let seen = (200..height)
            .flat_map(|y| (200..width).map(move |x| (y * width + x) * 3))
            .filter(|at| near(&pixels[*at..*at + 3], colour))
            .count();
        assert!(seen > 500, "{tier}: {seen} pixels");
    }
}

#[test]
fn the_svg_describes_what_it_shows() {
    let svg = drawn(&ttft_of(&compare(&realistic()).unwrap()))
        .svg()
        .unwrap();
    for text in [
        "simulated",
        "baseline",
        "cpu",
        "disk",
        "redis",
        "Time to first token (ms, s; log scale)",
        "Prompt length (tokens)",
        "16k",
        "100 ms",
        "1 s",
        "hollow: verdict inconclusive",
        "crossed: verdict invalid",
    ] {
        assert!(svg.contains(&format!(">\n{text}")), "{text}");
    }
    assert!(svg.starts_with("<svg width=\"1600\""));
}

#[test]
fn what_was_measured_is_not_called_simulated() {
    let mut bench = Bench::new();
    let rows = rows_of(&[1.0, 2.0], 0);
    bench
        .cell("cpu", 1024, 1, 1)
        .source(Source::Measured)
        .pass(CacheState::Cold, &rows);
    let figure = of(&bench);
    assert_eq!(figure.mark, None);
    assert!(!drawn(&figure).svg().unwrap().contains("simulated"));
    bench.cell("disk", 1024, 1, 1).pass(CacheState::Cold, &rows);
    assert_eq!(of(&bench).mark, Some("partly simulated"));
}

#[test]
fn a_figure_without_points_notes_it() {
    let mut bench = Bench::new();
    bench
        .cell("cpu", 1024, 1, 1)
        .pass(CacheState::Cold, &rows_of(&[], 2));
    assert!(
        drawn(&of(&bench))
            .svg()
            .unwrap()
            .contains("no point has enough ok requests to be drawn")
    );
}
