//! The table of every cell and cache state.

use crate::aggregate::{SummaryRow, SummaryTable};
use crate::metric::{Metric, Unit};
use crate::record::schema::VerdictStatus;
use crate::report::axes::{Axis, Shown, extra_axes, split};
use crate::report::notes::Notes;
use crate::report::number::Scale;
use crate::report::section::Section;
use crate::report::table::{Column, Keep, Table};
use crate::stats::Percentile;

/// The percentiles shown of each latency, and which of them go first where room is short.
const LATENCIES: [(Metric, Percentile, Keep); 10] = [
    (Metric::Ttft, Percentile::P50, Keep::Always),
    (Metric::Ttft, Percentile::P90, Keep::Droppable(3)),
    (Metric::Ttft, Percentile::P99, Keep::Droppable(5)),
    (Metric::Itl, Percentile::P50, Keep::Droppable(2)),
    (Metric::Itl, Percentile::P99, Keep::Droppable(8)),
    (Metric::Tpot, Percentile::P50, Keep::Droppable(9)),
    (Metric::Tpot, Percentile::P99, Keep::Droppable(11)),
    (Metric::E2e, Percentile::P50, Keep::Always),
    (Metric::E2e, Percentile::P90, Keep::Droppable(6)),
    (Metric::E2e, Percentile::P99, Keep::Droppable(10)),
];

/// Every cell and state of `table`.
pub(crate) fn section(table: &SummaryTable) -> Section {
    let rows = &table.rows;
    let mut notes = Notes::default();
    let (mut columns, caption) = split(axes(rows));
    columns.push(Column::words(
        "verdict",
        Keep::Always,
        each(rows, |row| row.verdict.name().into()),
    ));
    columns.push(Column::numbers(
        &["ok/sent"],
        Keep::Droppable(1),
        each(rows, |row| format!("{}/{}", row.counts.ok, row.counts.sent)),
    ));
    columns.extend(
        LATENCIES.map(|(metric, percentile, keep)| latency(rows, metric, percentile, keep)),
    );
    columns.push(rate(
        rows,
        Metric::RequestThroughput,
        Keep::Droppable(4),
        |r| r.requests_per_s,
    ));
    columns.push(rate(
        rows,
        Metric::OutputThroughput,
        Keep::Droppable(3),
        |r| r.output_tokens_per_s,
    ));
    columns.push(rate(
        rows,
        Metric::TotalThroughput,
        Keep::Droppable(12),
        |r| r.total_tokens_per_s,
    ));
    columns.push(rate(rows, Metric::PromptTokens, Keep::Droppable(13), |r| {
        r.prompt_tokens_mean
    }));
    columns.push(rate(rows, Metric::CachedTokens, Keep::Droppable(7), |r| {
        r.cached_tokens_mean
    }));
    let refs: Vec<_> = rows.iter().map(|row| references(row, &mut notes)).collect();
    if refs.iter().any(|text| !text.is_empty()) {
        columns.push(Column::words("notes", Keep::Always, refs));
    }
    let missing: Vec<_> = LATENCIES
        .iter()
        .flat_map(|(metric, percentile, _)| {
            let latencies = rows.iter().filter_map(|row| row.latency(*metric));
            latencies.flat_map(|summary| summary.warnings(&[*percentile]))
        })
        .collect();
    notes.add_missing(&missing);
    Section::new(
        rows.iter().map(|row| row.source),
        caption,
        Table { columns },
        &notes,
    )
}

fn each(rows: &[SummaryRow], text: impl Fn(&SummaryRow) -> String) -> Vec<String> {
    rows.iter().map(text).collect()
}

fn axes(rows: &[SummaryRow]) -> Vec<Axis> {
    use Shown::{Always, WhereItVaries};
    let extras: Vec<_> = rows.iter().map(|row| &row.coordinates.extra).collect();
    let mut axes = vec![
        Axis::words(
            "source",
            WhereItVaries,
            each(rows, |row| row.source.name().into()),
        ),
        Axis::words("model", WhereItVaries, each(rows, |row| row.model.clone())),
        Axis::words(
            "label",
            WhereItVaries,
            each(rows, |row| row.coordinates.label.clone()),
        ),
        Axis::numbers(
            "gen_len",
            &["gen"],
            WhereItVaries,
            each(rows, |row| row.coordinates.gen_len.to_string()),
        ),
    ];
    axes.extend(extra_axes(&extras));
    axes.extend([
        Axis::words("state", Always, each(rows, |row| row.state.name().into())),
        Axis::numbers(
            "concurrency",
            &["conc"],
            WhereItVaries,
            each(rows, |row| row.coordinates.concurrency.to_string()),
        ),
        Axis::numbers(
            "prompt_len",
            &["prompt"],
            Always,
            each(rows, |row| row.coordinates.prompt_len.to_string()),
        ),
        Axis::words(
            "tier",
            Always,
            each(rows, |row| row.coordinates.tier.clone()),
        ),
        Axis::numbers(
            "repeat",
            &["rep"],
            WhereItVaries,
            each(rows, |row| row.coordinates.repeat.to_string()),
        ),
    ]);
    axes
}

fn latency(rows: &[SummaryRow], metric: Metric, percentile: Percentile, keep: Keep) -> Column {
    let all = |row: &SummaryRow| {
        let summary = row.latency(metric);
        Percentile::ALL.map(|percentile| summary.and_then(|s| s.percentile(percentile)))
    };
    // One scale for all percentiles of a metric, so that its columns compare at a glance.
    let scale = Scale::of(Unit::Milliseconds, rows.iter().flat_map(all));
    let cells = each(rows, |row| {
        scale.text(
            row.latency(metric)
                .and_then(|summary| summary.percentile(percentile)),
        )
    });
    Column::numbers(
        &[metric.spec().short, percentile.name(), scale.sign],
        keep,
        cells,
    )
}

fn rate(
    rows: &[SummaryRow],
    metric: Metric,
    keep: Keep,
    value: impl Fn(&SummaryRow) -> Option<f64>,
) -> Column {
    let spec = metric.spec();
    let scale = Scale::of(spec.unit, rows.iter().map(&value));
    let head: &[&str] = match spec.unit {
        Unit::Tokens => &[spec.short, "tokens"],
        _ => &[spec.short],
    };
    Column::numbers(head, keep, each(rows, |row| scale.text(value(row))))
}

fn references(row: &SummaryRow, notes: &mut Notes) -> String {
    let mut refs = Vec::new();
    if row.verdict != VerdictStatus::Valid {
        let reason = row.reason.as_deref().unwrap_or("no reason recorded");
        refs.push(notes.refer(format!("{}: {reason}", row.verdict.name())));
    }
    if row.counts.ok < row.counts.sent {
        refs.push(notes.refer(
            "some requests failed or did not finish; latencies and throughput are of the ok ones"
                .to_owned(),
        ));
    }
    refs.join("")
}
