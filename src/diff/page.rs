//! A diff as one page that needs nothing else.

use crate::diff::Diff;
use crate::diff::rule::Fired;
use crate::diff::show::{is_number, simulated};
use crate::report::escape::escaped;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --good: #1b7837; --bad: #b35806; }
@media (prefers-color-scheme: dark) { :root { --good: #7fbf7b; --bad: #f1a340; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 80rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.answer { font-size: 1.1rem; font-weight: 600; }
.simulated { border: 2px solid var(--bad); padding: .5rem .8rem; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.words { white-space: normal; overflow-wrap: break-word; }
.number { text-align: right; }
tbody tr:hover { background: var(--soft); }
.better { color: var(--good); font-weight: 600; } .worse { color: var(--bad); font-weight: 600; }
.notes { color: GrayText; font-size: .9rem; }
@media print { body { margin: 0; max-width: none; } }
";

impl Diff {
    /// As a page of HTML: no script, no network, light and dark.
    pub(crate) fn html(&self, fired: &[Fired]) -> String {
        let [a, b] = self.names.each_ref().map(|name| escaped(name));
        let mut text = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{a} → {b}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{a} → {b}</h1>\n"
        );
        for (at, line) in self.opening().iter().enumerate() {
            let class = match at {
                0 => " class=\"answer\"",
                1 if simulated(self) => " class=\"simulated\"",
                _ => "",
            };
            text.push_str(&format!("<p{class}>{}</p>\n", escaped(line)));
        }
        for part in self.parts() {
            text.push_str(&format!("<h2>{}</h2>\n", escaped(&part.heading)));
            if let Some(caption) = part.section.caption() {
                text.push_str(&format!("<p>{}</p>\n", escaped(caption)));
            }
            text.push_str(&table(&part.section.table));
            for note in &part.section.notes {
                text.push_str(&format!("<p class=\"notes\">{}</p>\n", escaped(note)));
            }
        }
        for line in self.closing(fired) {
            text.push_str(&format!("<p>{}</p>\n", escaped(&line)));
        }
        text + "</body></html>\n"
    }
}

fn table(table: &crate::report::table::Table) -> String {
    let mut text = "<div class=\"wide\"><table>\n<thead><tr>".to_owned();
    let class = |number: bool| {
        if number {
            " class=\"number\""
        } else {
            " class=\"words\""
        }
    };
    for column in &table.columns {
        let head = escaped(&column.head.join(" "));
        text.push_str(&format!("<th{}>{head}</th>", class(is_number(column))));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    let height = table.columns.first().map_or(0, |column| column.cells.len());
    for row in 0..height {
        text.push_str("<tr>");
        for column in &table.columns {
            let cell = column.cells[row].as_str();
            let class = match cell {
                "better" | "worse" => format!(" class=\"number {cell}\""),
                _ => class(is_number(column)).to_owned(),
            };
            text.push_str(&format!("<td{class}>{}</td>", escaped(cell)));
        }
        text.push_str("</tr>\n");
    }
    text + "</tbody></table></div>\n"
}
