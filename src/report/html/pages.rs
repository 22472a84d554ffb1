//! Pages of cells beside `report.html`: a run of thousands has more evidence than one page opens with.

use anyhow::{Context as _, Result};
use minijinja::value::Serde;
use minijinja::{Environment, context};
use serde::Serialize;

use super::CSS;
use super::evidence::CellPart;
use crate::report::Report;
use crate::report::timeline::{Strip, Timelines, is_doubtful};

/// A page of cells holds about this much.
const PAGE_BYTES: usize = 2_000_000;

/// Pages: their names below the report's folder, and what they hold.
pub(super) type Files = Vec<(String, String)>;

/// A page of cells, as the report names it.
#[derive(Serialize)]
pub(super) struct PageView {
    pub file: String,
    /// The first cell's number, from 1.
    pub first: usize,
    /// The last cell's number.
    pub last: usize,
    first_id: String,
    /// How many of its cells failed or are not valid.
    doubtful: usize,
}

/// Where the timeline of a cell stands. No text of a cell has it: `<` is escaped.
const PLACE: &str = "<!-- timeline -->";

/// Each cell as HTML, with a place for its timeline.
pub(super) fn render(environment: &Environment<'_>, cells: &[CellPart]) -> Result<Vec<String>> {
    let template = environment.get_template("cell.html")?;
    cells
        .iter()
        .map(|cell| {
            let cell = minijinja::Value::from(Serde(cell));
            let text = template.render(context! { cell });
            text.context("cannot write a cell of the report")
        })
        .collect()
}

/// `cells` with their timelines, or the names of the files that have them.
pub(super) fn with_timelines(
    environment: &Environment<'_>,
    cells: Vec<String>,
    timelines: &Timelines,
) -> Result<Vec<String>> {
    let template = environment.get_template("timeline.html")?;
    let cells = cells.into_iter().enumerate();
    let with = cells.map(|(at, cell)| {
        let drawn = match timelines.of_cell(at) {
            Strip::Nothing => Ok(String::new()),
            Strip::Unreadable(why) => {
                template.render(context! { remark => format!("no timeline: {why}") })
            }
            Strip::Aside { file } => template.render(context! {
                remark => format!("timeline left out for the page's size: figures/{file}"),
            }),
            Strip::Inline {
                svg,
                names,
                resolution,
                ..
            } => template.render(context! { timeline => context! { svg, names, resolution } }),
        };
        let drawn = drawn.context("cannot write a timeline of the report")?;
        Ok(cell.replacen(PLACE, &drawn, 1))
    });
    with.collect()
}

/// The pages of `cells`, the report's cells as HTML: names with what they hold, and how the report
/// names them.
pub(super) fn split(
    environment: &Environment<'_>,
    report: &Report,
    cells: &[String],
) -> Result<(Files, Vec<PageView>)> {
    let template = environment.get_template("cells.html")?;
    let (mut files, mut views) = (Vec::new(), Vec::new());
    let mut start = 0;
    while start < cells.len() {
        let mut bytes = 0;
        let fitting = cells[start..].iter().take_while(|cell| {
            bytes += cell.len();
            bytes <= PAGE_BYTES
        });
        let end = start + fitting.count().max(1);
        let (first, last) = (start + 1, end);
        let file = format!("evidence/cells-{}.html", views.len() + 1);
        let text = template.render(context! {
            title => report.title.as_str(),
            version => env!("CARGO_PKG_VERSION"),
            css => CSS,
            banner => report.banner(),
            cells => cells[start..end].to_vec(),
            first,
            last,
        });
        files.push((file.clone(), text.context("cannot write a page of cells")?));
        let of_page = &report.cells[start..end];
        views.push(PageView {
            file,
            first,
            last,
            first_id: report.cells[start].id.clone(),
            doubtful: of_page.iter().filter(|cell| is_doubtful(cell)).count(),
        });
        start = end;
    }
    Ok((files, views))
}
