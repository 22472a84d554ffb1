//! What a check found, as one page that needs nothing else.

use anyhow::{Context as _, Result};
use minijinja::{Environment, context};

use super::{Answer, StackCheck};
use crate::record::schema::Source;

const TEMPLATE: &str = include_str!("../../templates/report/check.html");
const CSS: &str = include_str!("../../templates/report/report.css");

impl Answer {
    /// The page's colour: that of the verdict which says as much.
    fn colour(self) -> &'static str {
        match self {
            Self::Right => "valid",
            Self::CannotTell => "inconclusive",
            Self::NotLoaded | Self::Wrong => "invalid",
        }
    }
}

impl StackCheck {
    /// The page.
    pub(crate) fn html(&self) -> Result<String> {
        let mut environment = Environment::new();
        environment
            .add_template("check.html", TEMPLATE)
            .context("the check's template is wrong")?;
        let table = self.table();
        let heads: Vec<String> = table.columns.iter().map(|one| one.head.join(" ")).collect();
        let height = table.columns.first().map_or(0, |one| one.cells.len());
        let rows: Vec<Vec<_>> = (0..height)
            .map(|row| {
                let cells = table.columns.iter().map(|one| &one.cells[row]);
                let colour = |text: &String| {
                    let answer = Answer::ALL.into_iter().find(|one| one.name() == text);
                    answer.map_or("", Answer::colour)
                };
                cells
                    .map(|text| context! { text, colour => colour(text) })
                    .collect()
            })
            .collect();
        let groups: Vec<_> = self
            .groups()
            .into_iter()
            .map(|group| {
                let colour = group.answer.colour();
                context! { title => group.title(), colour, reasons => group.reasons.to_vec(), cell => group.cell }
            })
            .collect();
        let template = environment.get_template("check.html")?;
        let page = template.render(context! {
            css => CSS,
            stack => self.stack(),
            sentence => self.sentence(),
            simulated => self.source == Source::Simulated,
            heads,
            rows,
            groups,
            unreadable => self.unreadable.clone(),
            version => env!("CARGO_PKG_VERSION"),
        })?;
        Ok(page)
    }
}
