//! The table of each tier against the baseline.

use crate::aggregate::{Clarity, Comparison, ComparisonRow, Contrast, Standing};
use crate::metric::Unit;
use crate::record::schema::Counts;
use crate::report::axes::{Axis, Shown, extra_axes, split};
use crate::report::cost::{Price, money};
use crate::report::notes::Notes;
use crate::report::number::{Scale, times};
use crate::report::section::Section;
use crate::report::table::{Column, Keep, Table};
use crate::units::grouped;

/// Each tier against the baseline, one row a place and tier.
pub(crate) fn section(comparison: &Comparison, price: Option<Price>) -> Section {
    let rows = &comparison.rows;
    let mut notes = Notes::default();
    let (mut columns, caption) = split(axes(rows));
    columns.extend(values(comparison, price));
    columns.push(Column::numbers(
        &["ok/sent", "without"],
        Keep::Droppable(1),
        each(rows, |row| {
            row.baseline_counts.map_or_else(|| "-".to_owned(), answered)
        }),
    ));
    columns.push(Column::numbers(
        &["ok/sent", "with"],
        Keep::Droppable(1),
        each(rows, |row| answered(row.tier_counts)),
    ));
    let has_slos = !comparison.slos.is_empty();
    let refs = rows.iter();
    let refs: Vec<_> = refs
        .map(|row| references(row, has_slos, &mut notes))
        .collect();
    if refs.iter().any(|text| !text.is_empty()) {
        columns.push(Column::words("notes", Keep::Always, refs));
    }
    notes.add(
        "without: the baseline at equal coordinates, all repeats pooled; with: the tier; speedup above \
         1 is better: without / with for latencies, with / without for throughput"
            .to_owned(),
    );
    if let Some(price) = price {
        notes.add(price.note());
    }
    if !comparison.slos.is_empty() {
        let slos: Vec<_> = comparison.slos.iter().map(ToString::to_string).collect();
        notes.add(format!(
            "goodput: requests per second that meet {}",
            slos.join(" and ")
        ));
    }
    if rows.iter().any(|row| {
        [&row.ttft, &row.e2e]
            .iter()
            .any(|c| c.clarity == Clarity::MayBeNoise)
    }) {
        notes.add(
            "`~` the difference may be noise (Mann-Whitney U over the requests, p >= 0.05)"
                .to_owned(),
        );
    }
    Section::new(
        rows.iter().map(|row| row.source),
        caption,
        Table { columns },
        &notes,
    )
}

/// The compared values, and the hits behind them.
fn values(comparison: &Comparison, price: Option<Price>) -> Vec<Column> {
    use Keep::{Always, Droppable};
    let rows = &comparison.rows;
    let room = |value, ratio| Room { value, ratio };
    let mut columns = contrast(rows, "TTFT p50", |row| &row.ttft, room(Always, Always));
    let e2e = room(Droppable(2), Always);
    columns.extend(contrast(rows, "E2E p50", |row| &row.e2e, e2e));
    if !comparison.slos.is_empty() {
        let goodput = room(Droppable(1), Always);
        columns.extend(contrast(rows, "goodput", |row| &row.goodput, goodput));
    }
    let output = room(Droppable(4), Droppable(3));
    columns.extend(contrast(rows, "out tok/s", |row| &row.output, output));
    if rows.iter().any(|row| row.energy.tier.is_some()) {
        let energy = room(Droppable(7), Droppable(6));
        columns.extend(contrast(rows, "J/token", |row| &row.energy, energy));
        columns.extend(contrast(
            rows,
            "J/request",
            |row| &row.request_energy,
            energy,
        ));
    }
    if let Some(price) = price {
        columns.extend(costs(rows, price));
    }
    let scale = Scale::of(Unit::Tokens, rows.iter().map(|row| row.cached_tokens_mean));
    columns.push(Column::numbers(
        &["cached", "tokens", "with"],
        Droppable(8),
        each(rows, |row| scale.text(row.cached_tokens_mean)),
    ));
    columns
}

/// What a million generated tokens cost, without and with the tier.
fn costs(rows: &[ComparisonRow], price: Price) -> [Column; 2] {
    let column = |side: &str, rate: fn(&Contrast) -> Option<f64>| {
        let cost = |row: &ComparisonRow| {
            let cost = price.per_million(rate(&row.output));
            cost.map_or_else(|| "-".to_owned(), money)
        };
        Column::numbers(&["cost/M", "tokens", side], Keep::Always, each(rows, cost))
    };
    [
        column("without", |output| output.baseline),
        column("with", |output| output.tier),
    ]
}

fn each(rows: &[ComparisonRow], text: impl Fn(&ComparisonRow) -> String) -> Vec<String> {
    rows.iter().map(text).collect()
}

fn answered(counts: Counts) -> String {
    format!("{}/{}", counts.ok, counts.sent)
}

fn axes(rows: &[ComparisonRow]) -> Vec<Axis> {
    use Shown::{Always, WhereItVaries};
    let extras: Vec<_> = rows.iter().map(|row| &row.place.extra).collect();
    let mut axes = vec![
        Axis::words(
            "source",
            WhereItVaries,
            each(rows, |row| row.source.name().into()),
        ),
        Axis::words(
            "workload",
            WhereItVaries,
            each(rows, |row| row.place.label.clone()),
        ),
        Axis::numbers(
            "gen_len",
            &["gen"],
            WhereItVaries,
            each(rows, |row| row.place.gen_len.to_string()),
        ),
    ];
    axes.extend(extra_axes(&extras));
    axes.extend([
        Axis::words(
            "state",
            Always,
            each(rows, |row| row.place.state.title().into()),
        ),
        Axis::numbers(
            "concurrency",
            &["conc"],
            WhereItVaries,
            each(rows, |row| row.place.concurrency.to_string()),
        ),
        Axis::numbers(
            "prompt_len",
            &["prompt"],
            Always,
            each(rows, |row| grouped(row.place.prompt_len)),
        ),
        Axis::words("tier", Always, each(rows, |row| row.tier.clone())),
    ]);
    axes
}

/// What may be left out where room is short; the difference always goes first.
#[derive(Clone, Copy)]
struct Room {
    value: Keep,
    ratio: Keep,
}

fn contrast(
    rows: &[ComparisonRow],
    head: &str,
    pick: impl Fn(&ComparisonRow) -> &Contrast,
    room: Room,
) -> Vec<Column> {
    let unit = rows
        .first()
        .map_or(Unit::Milliseconds, |row| pick(row).metric.spec().unit);
    let values = rows.iter().map(&pick).flat_map(|c| [c.baseline, c.tier]);
    let scale = Scale::of(unit, values);
    let sign = if unit == Unit::Milliseconds {
        scale.sign
    } else {
        ""
    };
    let value = |part: &str, keep, text: &dyn Fn(&Contrast) -> String| {
        Column::numbers(&[head, part, sign], keep, each(rows, |row| text(pick(row))))
    };
    let mut columns = vec![
        value("without", room.value, &|c| scale.text(c.baseline)),
        value("with", room.value, &|c| scale.text(c.tier)),
        value("diff", Keep::Droppable(9), &|c| scale.signed(c.difference)),
        Column::numbers(
            &[head, "speedup"],
            room.ratio,
            each(rows, |row| speedup(pick(row))),
        ),
    ];
    if rows.iter().any(|row| pick(row).interval.is_some()) {
        let ends = each(rows, |row| interval(pick(row)));
        columns.push(Column::numbers(&[head, "95 %"], Keep::Droppable(5), ends));
    }
    columns
}

/// `[3.90x, 5.41x]`.
fn interval(contrast: &Contrast) -> String {
    contrast.interval.map_or("-".to_owned(), |ends| {
        format!("[{}, {}]", times(ends.low), times(ends.high))
    })
}

/// `5.94x`, with `~` before it where the difference may be noise.
fn speedup(contrast: &Contrast) -> String {
    match (contrast.speedup, contrast.clarity) {
        (None, _) => "-".to_owned(),
        (Some(ratio), Clarity::MayBeNoise) => format!("~{}", times(ratio)),
        (Some(ratio), Clarity::Clear | Clarity::Untested) => times(ratio),
    }
}

fn references(row: &ComparisonRow, has_slos: bool, notes: &mut Notes) -> String {
    let mut refs = Vec::new();
    if let Standing::Withheld(reason) = &row.standing {
        refs.push(notes.refer(format!("no ratio: {reason}")));
    }
    if row.text_optional {
        refs.push(
            notes.refer("text optional: no text proves this tier, as the plan allows".to_owned()),
        );
    }
    let short = |counts: &Counts| counts.ok < counts.sent;
    if short(&row.tier_counts) || row.baseline_counts.as_ref().is_some_and(short) {
        refs.push(notes.refer(
            "some requests failed or did not finish; the values cover the ok ones".to_owned(),
        ));
    }
    let few =
        |contrast: &Contrast| contrast.speedup.is_none() || contrast.clarity == Clarity::Untested;
    if row.standing == Standing::Compared && few(&row.ttft) {
        refs.push(
            notes.refer("too few requests to distinguish a difference from noise".to_owned()),
        );
    }
    let goodput = &row.goodput;
    if has_slos && (goodput.tier.is_none() || goodput.baseline.is_none()) {
        let unknown = "no goodput: a repeat has too few requests, or no values of each, to decide whether it meets the objectives";
        if row.baseline_counts.is_some() || goodput.tier.is_none() {
            refs.push(notes.refer(unknown.to_owned()));
        }
    } else if has_slos && row.standing == Standing::Compared && goodput.speedup.is_none() {
        let nothing = "no ratio of goodput: the baseline's is 0";
        refs.push(notes.refer(nothing.to_owned()));
    }
    refs.join("")
}
