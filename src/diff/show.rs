//! A diff for people: a table a measure, as benchstat has them.

use std::collections::BTreeSet;

use crate::diff::judge::{Basis, Judged, Outcome, REQUESTS_LEVEL};
use crate::diff::rule::Fired;
use crate::diff::{Diff, DiffRow, LEVEL, Measure};
use crate::metric::Better;
use crate::record::schema::Source;
use crate::report::axes::{Axis, Shown, banner, extra_axes, split};
use crate::report::escape::markdown;
use crate::report::notes::Notes;
use crate::report::number::Scale;
use crate::report::section::Section;
use crate::report::table::{Column, Keep, Side, Table};
use crate::report::wrap::push_wrapped;
use crate::stats::Interval;

/// Facts that differ, and cells that are missing, shown before "and so many more".
const MOST: usize = 30;

/// A heading and what stands under it.
pub(super) struct Part {
    pub heading: String,
    pub section: Section,
}

impl Diff {
    /// For a terminal of `width` columns.
    pub(crate) fn terminal(&self, fired: &[Fired], width: u16) -> String {
        let mut text = String::new();
        for line in self.opening() {
            push_wrapped(&mut text, &line, width);
        }
        for part in self.parts() {
            text.push_str(&format!("\n{}\n", part.heading));
            text.push_str(&part.section.terminal(width));
        }
        for line in self.closing(fired) {
            push_wrapped(&mut text, &line, width);
        }
        text
    }

    /// As Markdown.
    pub(crate) fn markdown(&self, fired: &[Fired]) -> String {
        let [a, b] = self.names.each_ref().map(|name| markdown(name));
        let mut text = format!("# {a} → {b}\n\n");
        for line in self.opening() {
            text.push_str(&format!("- {}\n", markdown(&line)));
        }
        for part in self.parts() {
            text.push_str(&format!("\n## {}\n\n", markdown(&part.heading)));
            text.push_str(&part.section.markdown());
        }
        text.push('\n');
        for line in self.closing(fired) {
            let (mark, line) = match line.strip_prefix("- ") {
                Some(inner) => ("  - ", inner),
                None => ("- ", line.as_str()),
            };
            text.push_str(&format!("{mark}{}\n", markdown(line)));
        }
        text
    }

    /// Whether anything changed, and what is compared.
    pub(super) fn opening(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.summary().into_iter().collect();
        let sources = self.rows.iter().map(|row| row.source);
        lines.extend(banner(sources).map(str::to_owned));
        for (letter, (name, origin)) in ["A", "B"].iter().zip(self.names.iter().zip(&self.origins))
        {
            lines.push(format!("{letter} is `{name}`: {origin}"));
        }
        lines
    }

    /// One table a measure, and one of what differs in provenance.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        if !self.differences.is_empty() {
            parts.push(self.provenance());
        }
        for measure in &self.measures {
            let rows = self.shown_rows(*measure);
            if !rows.is_empty() {
                parts.push(Part {
                    heading: heading(*measure),
                    section: self.measured(*measure, &rows),
                });
            }
        }
        parts
    }

    fn provenance(&self) -> Part {
        let shown: Vec<_> = self.differences.iter().take(MOST).collect();
        let mut notes = Notes::default();
        if self.differences.len() > MOST {
            let more = self.differences.len() - MOST;
            notes.add(format!("and {more} more; --format json has them all"));
        }
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let column = |head: &str, cells| Column::words(head, Keep::Always, cells);
        let columns = vec![
            column("what", shown.iter().map(|d| d.name.clone()).collect()),
            column("A", shown.iter().map(|d| text(&d.a)).collect()),
            column("B", shown.iter().map(|d| text(&d.b)).collect()),
        ];
        Part {
            heading: "What the numbers rest on differs".to_owned(),
            section: Section::new([], String::new(), Table { columns }, &notes),
        }
    }

    fn measured(&self, measure: Measure, rows: &[(&DiffRow, &Judged)]) -> Section {
        let overall = self
            .overall
            .get(&measure)
            .filter(|overall| overall.cells > 1);
        let (mut columns, caption) = split(axes(rows));
        let values = rows.iter().flat_map(|(_, j)| [Some(j.a), Some(j.b)]);
        let scale = Scale::of(measure.unit(), values);
        let value = |value: f64, interval: Option<Interval>| {
            let around = interval.map(|interval| {
                let reach = (interval.high - value).max(value - interval.low) / value;
                format!(" ±{:.0}%", reach * 100.0)
            });
            format!("{}{}", scale.text(Some(value)), around.unwrap_or_default())
        };
        let mut add = |head: &[&str], keep, cell: &dyn Fn(&Judged) -> String, last: String| {
            let mut cells: Vec<String> = rows.iter().map(|(_, j)| cell(j)).collect();
            if overall.is_some() {
                cells.push(last);
            }
            columns.push(Column::numbers(head, keep, cells));
        };
        let (a, b) = (&|j: &Judged| value(j.a, j.intervals.0), &|j: &Judged| {
            value(j.b, j.intervals.1)
        });
        let last = |pick: fn(&crate::diff::Overall) -> f64| {
            overall.map_or_else(String::new, |o| scale.text(Some(pick(o))))
        };
        let always = Keep::Always;
        add(&["A", scale.sign], always, a, last(|o| o.a));
        add(&["B", scale.sign], always, b, last(|o| o.b));
        let ratio = overall.map(|o| signed(o.b / o.a)).unwrap_or_default();
        add(&["change"], always, &change, ratio);
        let named = overall.map(|o| format!("{} better, {} worse", o.better, o.worse));
        add(&["outcome"], always, &word, named.unwrap_or_default());
        let none = String::new;
        add(&["95 % of change"], Keep::Droppable(3), &between, none());
        add(&["p"], always, &|j| probability(j.p), none());
        add(
            &["p", "corrected"],
            Keep::Droppable(1),
            &|j| probability(j.adjusted_p),
            none(),
        );
        add(
            &["least", "change"],
            Keep::Droppable(2),
            &|j| share(j.floor),
            none(),
        );
        let delta = |j: &Judged| {
            j.delta
                .map_or_else(|| "-".to_owned(), |d| format!("{d:+.2}"))
        };
        add(&["Cliff's", "delta"], Keep::Droppable(5), &delta, none());
        let repeats = |j: &Judged| format!("{}+{}", j.repeats.0, j.repeats.1);
        add(&["repeats"], always, &repeats, none());
        let samples = |j: &Judged| format!("{}+{}", j.n.0, j.n.1);
        add(&["n"], Keep::Droppable(4), &samples, none());
        let last_row = overall.map(|overall| match overall.cells {
            all if all == rows.len() => "geomean".to_owned(),
            all => format!("geomean of {all}"),
        });
        with_last_row(&mut columns, rows.len(), last_row);
        Section::new([], caption, Table { columns }, &notes(rows))
    }

    /// What is missing, left out and noted, and whether the diff fails.
    pub(super) fn closing(&self, fired: &[Fired]) -> Vec<String> {
        let mut lines = Vec::new();
        if self.rows.is_empty() {
            lines.push("No cell can be compared.".to_owned());
        }
        lines.extend(self.not_shown());
        let mut list = |what: &str, keys: Vec<String>| {
            if keys.is_empty() {
                return;
            }
            lines.push(format!("{what} ({}):", keys.len()));
            lines.extend(keys.iter().take(MOST).map(|key| format!("- {key}")));
            if keys.len() > MOST {
                lines.push(format!("- and {} more", keys.len() - MOST));
            }
        };
        let keys = |keys: &[crate::diff::CellKey]| keys.iter().map(ToString::to_string).collect();
        list("only in A", keys(&self.missing));
        list("only in B", keys(&self.new));
        let left_out = self.left_out.iter().map(|left| {
            let side = ["A", "B"][left.side.min(1)];
            format!("{} in {side}: {}", left.key, left.reason)
        });
        list(
            "left out, as nothing proves that the tier served",
            left_out.collect(),
        );
        for note in &self.notes {
            lines.push(format!("Note: {note}"));
        }
        for Fired { rule, why } in fired {
            lines.push(format!("FAIL `{rule}`: {why}"));
        }
        lines
    }
}

fn heading(measure: Measure) -> String {
    let spec = measure.metric.spec();
    let better = match measure.better() {
        Better::Lower => ", less is better",
        Better::Higher => ", more is better",
        Better::Neither => "",
    };
    format!("{measure}: {}{better}", spec.title)
}

/// The coordinates' columns get an empty cell in the row of geometric means, the first its name.
fn with_last_row(columns: &mut [Column], rows: usize, name: Option<String>) {
    let Some(mut name) = name else {
        return;
    };
    for column in columns
        .iter_mut()
        .filter(|column| column.cells.len() == rows)
    {
        column.cells.push(std::mem::take(&mut name));
    }
}

fn axes(rows: &[(&DiffRow, &Judged)]) -> Vec<Axis> {
    use Shown::{Always, WhereItVaries};
    let each = |name: &str| -> Vec<String> {
        let value = |(row, _): &(&DiffRow, &Judged)| row.key.get(name).unwrap_or_default();
        rows.iter().map(value).collect()
    };
    let extras: Vec<_> = rows.iter().map(|(row, _)| &row.key.place.extra).collect();
    let sources = rows.iter().map(|(row, _)| row.source.name().to_owned());
    let states = rows
        .iter()
        .map(|(row, _)| row.key.place.state.title().to_owned());
    let mut axes = vec![
        Axis::words("tier", Always, each("tier")),
        Axis::words("source", WhereItVaries, sources.collect()),
        Axis::words("workload", WhereItVaries, each("label")),
        Axis::words("state", WhereItVaries, states.collect()),
        Axis::numbers("prompt_len", &["prompt"], WhereItVaries, each("prompt_len")),
        Axis::numbers("gen_len", &["gen"], WhereItVaries, each("gen_len")),
        Axis::numbers("concurrency", &["conc"], WhereItVaries, each("concurrency")),
    ];
    axes.extend(extra_axes(&extras));
    axes
}

fn signed(ratio: f64) -> String {
    format!("{:+.1}%", (ratio - 1.0) * 100.0)
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}%", value * 100.0))
}

fn change(judged: &Judged) -> String {
    match (judged.ratio, judged.outcome) {
        (None, _) => "-".to_owned(),
        (Some(_), Outcome::Same) => "~".to_owned(),
        (Some(ratio), Outcome::Untested) => format!("{}?", signed(ratio)),
        (Some(ratio), Outcome::Better | Outcome::Worse) => signed(ratio),
    }
}

fn word(judged: &Judged) -> String {
    match judged.outcome {
        Outcome::Same => String::new(),
        other => other.name().to_owned(),
    }
}

fn between(judged: &Judged) -> String {
    match judged.ratio_interval {
        Some((low, high)) => format!("{} to {}", signed(low), signed(high)),
        None => "-".to_owned(),
    }
}

fn probability(p: Option<f64>) -> String {
    match p {
        None => "-".to_owned(),
        Some(p) if p < 0.001 => "<0.001".to_owned(),
        Some(p) => format!("{p:.3}"),
    }
}

/// What the tests of one table are over.
fn notes(rows: &[(&DiffRow, &Judged)]) -> Notes {
    let mut notes = Notes::default();
    let bases: BTreeSet<Basis> = rows.iter().map(|(_, judged)| judged.basis).collect();
    for basis in bases {
        notes.add(match basis {
            Basis::Repeats => format!(
                "p over repeats: Mann-Whitney U, exact; a change is named when p < {LEVEL} and, \
                 corrected for all comparisons, so is the chance that the noise of repeats explains it"
            ),
            Basis::PooledRepeats => format!(
                "p over repeats: fewer than 4 a side, so Student's t against the noise of repeats \
                 pooled over cells, named when below {LEVEL} after correction"
            ),
            Basis::Requests => format!(
                "p over requests: one repeat a side, so what differs from run to run is not known \
                 and may look like a change; named when below {REQUESTS_LEVEL} after correction"
            ),
            Basis::Untested => "`?` not tested: too few repeats or requests".to_owned(),
        });
    }
    if rows
        .iter()
        .any(|(_, judged)| judged.outcome == Outcome::Same)
    {
        notes.add("`~` no change distinguishable from noise".to_owned());
    }
    notes
}

/// Whether anything of it is simulated.
pub(super) fn simulated(diff: &Diff) -> bool {
    diff.rows.iter().any(|row| row.source == Source::Simulated)
}

/// Whether a column of the page stands right.
pub(super) fn is_number(column: &Column) -> bool {
    column.side == Side::Right
}
