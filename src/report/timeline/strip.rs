//! A timeline as SVG that is small enough to stand in a page once for each cell: a path a series,
//! in whole units, in the colours of the page around it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::envelope::{COLUMNS, Range, envelope, most};
use super::model::{Colour, TimePanel, Timeline};
use crate::report::escape::escaped;

const LEFT: i32 = 56;
const COLUMN: i32 = 3;
const WIDTH: i32 = 930;
const _: () = assert!(WIDTH as usize == COLUMN as usize * COLUMNS);
const PANEL: i32 = 72;
const TITLE: i32 = 28;
/// Room for a title, where the strip stands alone.
const HEAD: i32 = 4;
const FOOT: i32 = 46;

/// More requests than this are drawn as the least and the most in each stretch of time.
const MAX_DOTS: usize = 300;

/// The style sheet of a timeline in a file of its own; in a page, the page's own sheet applies.
const ALONE: &str = "svg{background:#fff;font:12px 'DejaVu Sans',Verdana,sans-serif}text{fill:#222}\
    .q{fill:#6e6e6e;font-size:11px}.e{text-anchor:end}.m{text-anchor:middle}.g{stroke:#e2e2e2}\
    .p{fill:#f0f5fa}.a{stroke:#0072b2;fill:#0072b2}.b{stroke:#d55e00;fill:#d55e00}\
    text.a,text.b{stroke:none}path.a,path.b{fill-opacity:.3}.r{stroke:#222;fill:none}\
    .d{stroke:#222;stroke-width:5;stroke-linecap:round}.r.f{fill:#222;fill-opacity:.3}";

/// A timeline in the words and strokes of a page.
pub(super) fn strip(all: &Timeline) -> String {
    let height = HEAD + units(all.panels.len()) * (PANEL + TITLE) + FOOT;
    let mut svg = format!(
        r#"<svg viewBox="0 0 1000 {height}" role="img" aria-label="{}">"#,
        escaped(&format!("Timeline: {}; {}", all.title, all.subtitle))
    );
    for (at, panel) in (0..).zip(&all.panels) {
        draw_panel(&mut svg, all, panel, HEAD + at * (PANEL + TITLE) + TITLE);
    }
    time_axis(&mut svg, all, height - FOOT);
    svg.push_str("</svg>");
    svg
}

/// A strip as a file of its own: on white, with its title in it.
pub(super) fn alone(strip: &str, title: &str) -> String {
    let Some((head, rest)) = strip.split_once('>') else {
        return strip.to_owned();
    };
    let head = head.replace("<svg", r#"<svg xmlns="http://www.w3.org/2000/svg""#);
    let title = escaped(title);
    format!(r#"{head}><style>{ALONE}</style><text x="{LEFT}" y="12">{title}</text>{rest}"#)
}

/// How the series were reduced, in a sentence.
pub(super) fn resolution(all: &Timeline) -> String {
    let column_s = (all.span.1 - all.span.0) / COLUMNS as f64;
    let (many, step) = if column_s < 1.0 {
        (column_s * 1e3, "ms")
    } else {
        (column_s, "s")
    };
    format!("Each series from its least to its most in every {many:.1} {step}.")
}

/// What its panels show.
pub(super) fn names(all: &Timeline) -> String {
    let names = all.panels.iter();
    let names: Vec<_> = names
        .map(|panel| panel.title.split(',').next().unwrap_or_default())
        .collect();
    names.join(", ")
}

fn x(all: &Timeline, at_s: f64) -> i32 {
    let (from, to) = all.span;
    let share = (at_s.clamp(from, to) - from) / (to - from).max(1e-9);
    LEFT + (share * f64::from(WIDTH)).round() as i32
}

/// A small count as a number of units.
fn units(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn text(svg: &mut String, class: &str, (x, y): (i32, i32), words: &str) {
    let words = escaped(words);
    let _ = write!(
        svg,
        r#"<text class="{class}" x="{x}" y="{y}">{words}</text>"#
    );
}

fn draw_panel(svg: &mut String, all: &Timeline, panel: &TimePanel, top: i32) {
    let bottom = top + PANEL;
    for (from, to, name) in &all.phases {
        let (left, right) = (x(all, *from), x(all, *to));
        let wide = (right - left).max(1);
        let _ = write!(
            svg,
            r#"<rect class="p" x="{left}" y="{top}" width="{wide}" height="{PANEL}"/>"#
        );
        text(svg, "q", (left + 3, top + 10), name);
    }
    let dots: Vec<_> = panel.dots.iter().map(|dot| (dot.0, dot.0, dot.1)).collect();
    let few = dots.len() <= MAX_DOTS;
    let series: Vec<_> = [&dots]
        .into_iter()
        .chain(panel.lines.iter().map(|line| &line.steps))
        .map(|steps| envelope(steps, all.span))
        .collect();
    let end = round_up(
        series
            .iter()
            .map(|columns| most(columns))
            .fold(0.0, f64::max),
    );
    // Room for the phases' names above the highest value.
    let y = |value: f64| bottom - (value / end * f64::from(PANEL - 12)).round() as i32;
    let _ = write!(svg, r#"<path class="g" d=""#);
    for share in [0.0, 0.5, 1.0] {
        let _ = write!(svg, "M{LEFT} {}h{WIDTH}", y(end * share));
    }
    svg.push_str(r#""/>"#);
    for share in [0.0, 0.5, 1.0] {
        let at = (LEFT - 5, y(end * share) + 4);
        text(svg, "q e", at, &label(end * share));
    }
    let title = if few {
        panel.title.clone()
    } else {
        format!("TTFT, ms; {} requests, least to most", dots.len())
    };
    text(svg, "t", (LEFT, top - 5), &title);
    let mut across = LEFT + WIDTH;
    for (line, columns) in panel.lines.iter().zip(&series[1..]) {
        let class = match line.colour {
            Colour::Blue => "a",
            Colour::Orange => "b",
        };
        band(svg, class, columns, &y);
        text(svg, &format!("{class} e"), (across, top - 5), line.name);
        across -= 110;
    }
    ticks(svg, all, &panel.ticks, bottom);
    if few {
        marks(svg, all, &panel.dots, &y);
    } else {
        band(svg, "r f", &series[0], &y);
    }
}

/// A tick at the axis for each instant; of many, one a column.
fn ticks(svg: &mut String, all: &Timeline, instants: &[f64], bottom: i32) {
    let step = if instants.len() <= MAX_DOTS {
        1
    } else {
        COLUMN
    };
    let place = |at: &f64| LEFT + (x(all, *at) - LEFT) / step * step;
    let places: BTreeSet<i32> = instants.iter().map(place).collect();
    if places.is_empty() {
        return;
    }
    svg.push_str(r#"<path class="r" d=""#);
    for place in places {
        let _ = write!(svg, "M{place} {bottom}v-5");
    }
    svg.push_str(r#""/>"#);
}

/// A dot at each value.
fn marks(svg: &mut String, all: &Timeline, dots: &[(f64, f64)], y: &impl Fn(f64) -> i32) {
    if dots.is_empty() {
        return;
    }
    svg.push_str(r#"<path class="d" d=""#);
    for (at, value) in dots {
        let _ = write!(svg, "M{} {}h0", x(all, *at), y(*value));
    }
    svg.push_str(r#""/>"#);
}

/// The area between least and most, broken where there is no reading.
fn band(svg: &mut String, class: &str, columns: &[Option<Range>], y: &impl Fn(f64) -> i32) {
    let _ = write!(svg, r#"<path class="{class}" d=""#);
    let mut at = 0;
    while at < columns.len() {
        let run: Vec<(i32, i32)> = columns[at..]
            .iter()
            .map_while(|ends| ends.map(|(low, high)| (y(low), y(high))))
            .collect();
        if let Some((low, high)) = run.first() {
            let _ = write!(svg, "M{} {high}", LEFT + COLUMN * units(at));
            edge(svg, run.iter().map(|ends| ends.1), *high, COLUMN);
            let (last_low, last_high) = run.last().copied().unwrap_or((*low, *high));
            if last_low != last_high {
                let _ = write!(svg, "v{}", last_low - last_high);
            }
            edge(svg, run.iter().rev().map(|ends| ends.0), last_low, -COLUMN);
            svg.push('z');
        }
        at += run.len().max(1);
    }
    svg.push_str(r#""/>"#);
}

/// Along `heights` from `height` on, equal ones in one stroke.
fn edge(svg: &mut String, heights: impl Iterator<Item = i32>, mut height: i32, column: i32) {
    let mut across = 0;
    for next in heights {
        if next != height {
            if across != 0 {
                let _ = write!(svg, "h{across}");
            }
            let _ = write!(svg, "v{}", next - height);
            (across, height) = (0, next);
        }
        across += column;
    }
    let _ = write!(svg, "h{across}");
}

fn time_axis(svg: &mut String, all: &Timeline, base: i32) {
    let step = round_step((all.span.1 - all.span.0) / 10.0);
    let decimals = (-step.log10()).ceil().max(0.0) as usize;
    let mut tick = (all.span.0 / step).ceil() * step;
    while tick <= all.span.1 {
        let words = format!("{tick:.decimals$}");
        text(svg, "q m", (x(all, tick), base + 16), &words);
        tick += step;
    }
    let middle = LEFT + WIDTH / 2;
    text(
        svg,
        "q m",
        (middle, base + 34),
        "seconds since the run began",
    );
}

/// A number beside an axis.
fn label(value: f64) -> String {
    if value == 0.0 || value >= 10.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// The next 1, 2 or 5 times a power of ten.
fn round_step(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    let wanted = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    wanted
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(10.0 * power)
}

/// The end of an axis that holds `value`.
fn round_up(value: f64) -> f64 {
    if value > 0.0 { round_step(value) } else { 1.0 }
}

#[cfg(test)]
mod tests;
