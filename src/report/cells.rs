//! The table of every cell and cache state.

use crate::aggregate::{Service, Slo, SummaryRow, SummaryTable};
use crate::metric::{Metric, Unit};
use crate::plan::verdict_spec::TextRule;
use crate::record::schema::VerdictStatus;
use crate::report::axes::{Axis, Shown, extra_axes, split};
use crate::report::notes::Notes;
use crate::report::number::Scale;
use crate::report::section::Section;
use crate::report::table::{Column, Keep, Table};
use crate::stats::Percentile;
use crate::units::grouped;

/// The percentiles shown of each latency, and which of them go first where room is short.
const LATENCIES: [(Metric, Percentile, Keep); 12] = [
    (Metric::Ttft, Percentile::P50, Keep::Always),
    (Metric::Ttft, Percentile::P90, Keep::Droppable(3)),
    (Metric::Ttft, Percentile::P95, Keep::Droppable(14)),
    (Metric::Ttft, Percentile::P99, Keep::Droppable(5)),
    (Metric::Itl, Percentile::P50, Keep::Droppable(2)),
    (Metric::Itl, Percentile::P99, Keep::Droppable(8)),
    (Metric::Tpot, Percentile::P50, Keep::Droppable(9)),
    (Metric::Tpot, Percentile::P99, Keep::Droppable(11)),
    (Metric::E2e, Percentile::P50, Keep::Always),
    (Metric::E2e, Percentile::P90, Keep::Droppable(6)),
    (Metric::E2e, Percentile::P95, Keep::Droppable(16)),
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
    columns.extend(service(rows));
    columns.extend(LATENCIES.iter().flat_map(|(metric, percentile, keep)| {
        let mut columns = vec![latency(rows, *metric, *percentile, *keep)];
        if (*metric, *percentile) == (Metric::Ttft, Percentile::P50) {
            columns.extend(interval(rows));
        }
        columns
    }));
    columns.extend(rates(rows));
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

/// Everything but latencies: throughput, tokens, energy and the bottleneck.
fn rates(rows: &[SummaryRow]) -> Vec<Column> {
    let rate = |metric, room, value: fn(&SummaryRow) -> Option<f64>| {
        rate(rows, metric, Keep::Droppable(room), value)
    };
    let mut columns = vec![
        rate(Metric::RequestThroughput, 4, |row| row.requests_per_s),
        rate(Metric::InputThroughput, 15, |row| row.input_tokens_per_s),
        rate(Metric::OutputThroughput, 3, |row| row.output_tokens_per_s),
        rate(Metric::TotalThroughput, 12, |row| row.total_tokens_per_s),
        rate(Metric::PromptTokens, 13, |row| row.prompt_tokens_mean),
        rate(Metric::CachedTokens, 7, |row| row.cached_tokens_mean),
    ];
    if rows.iter().any(|row| row.energy_j_per_token.is_some()) {
        columns.push(rate(Metric::Energy, 8, |row| row.energy_j_per_token));
        columns.push(rate(Metric::RequestEnergy, 8, |row| {
            row.energy_j_per_request
        }));
    }
    let mut add_known = |metric, value: fn(&SummaryRow) -> Option<f64>| {
        if rows.iter().any(|row| value(row).is_some()) {
            columns.push(rate(metric, 17, value));
        }
    };
    add_known(Metric::GpuCapacity, |row| row.memory.gpu_tokens);
    add_known(Metric::TierCapacity, |row| row.memory.tier_tokens);
    add_known(Metric::TierHits, |row| row.memory.hit_percent);
    add_known(Metric::TierBytes, |row| row.memory.moved_mib);
    add_known(Metric::Drift, |row| row.drift_nats);
    if rows.iter().any(|row| row.bottleneck.is_some()) {
        let bottleneck = |row: &SummaryRow| row.bottleneck.clone().unwrap_or_else(|| "-".into());
        columns.push(Column::words(
            "bottleneck",
            Keep::Droppable(6),
            each(rows, bottleneck),
        ));
    }
    columns
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
            "workload",
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
        Axis::words("state", Always, each(rows, |row| row.state.title().into())),
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
            each(rows, |row| grouped(row.coordinates.prompt_len)),
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
    // One scale for all percentiles of a metric: its columns compare at a glance.
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

/// The 95 % interval of the median time to first token; none where no row has one.
fn interval(rows: &[SummaryRow]) -> Option<Column> {
    let ends = |row: &SummaryRow| row.ttft.median_interval.map(|i| [i.low, i.high]);
    if rows.iter().all(|row| ends(row).is_none()) {
        return None;
    }
    let scale = Scale::of(Unit::Milliseconds, rows.iter().map(|row| row.ttft.p50));
    let cells = each(rows, |row| {
        ends(row).map_or("-".to_owned(), |[low, high]| {
            format!("[{}, {}]", scale.text(Some(low)), scale.text(Some(high)))
        })
    });
    Some(Column::numbers(
        &["TTFT", "p50 95 %", scale.sign],
        Keep::Droppable(13),
        cells,
    ))
}

/// How rows stand to the objectives; nothing without any.
fn service(rows: &[SummaryRow]) -> Vec<Column> {
    if rows.iter().all(|row| row.service.is_none()) {
        return Vec::new();
    }
    let goodput = rate(rows, Metric::Goodput, Keep::Always, |row| {
        row.service
            .as_ref()
            .and_then(|service| service.goodput_per_s)
    });
    let standings = each(rows, |row| {
        row.service.as_ref().map_or("-".to_owned(), standing)
    });
    vec![
        goodput,
        Column::words("objectives", Keep::Always, standings),
    ]
}

fn standing(service: &Service) -> String {
    let listed = |what: &str, slos: &[Slo]| {
        let names: Vec<_> = slos.iter().map(ToString::to_string).collect();
        format!("{what}: {}", names.join(", "))
    };
    let Service {
        broken,
        too_few_requests,
        unknown,
        ..
    } = service;
    match (&broken[..], &too_few_requests[..], &unknown[..]) {
        ([], [], []) => "met".to_owned(),
        ([], [], unknown) => listed("no values of single requests for", unknown),
        ([], too_few, _) => listed("too few requests to tell", too_few),
        (broken, _, _) => listed("broken", broken),
    }
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
    } else if TextRule::marks(row.reason.as_deref()) {
        refs.push(notes.refer(row.reason.clone().unwrap_or_default()));
    }
    refs.extend(imported(row).map(|note| notes.refer(note)));
    if row.counts.ok < row.counts.sent {
        refs.push(notes.refer(
            "some requests failed or did not finish; latencies and throughput cover the ok ones"
                .to_owned(),
        ));
    }
    refs.join("")
}

/// A note on a row whose latencies are another tool's summary, with those that it lacks.
fn imported(row: &SummaryRow) -> Option<String> {
    let short = |metric: &Metric| metric.spec().short;
    let imported: Vec<_> = row.imported.iter().map(short).collect();
    let absent = |metric: &Metric| row.latency(*metric).is_none_or(|summary| summary.n == 0);
    let lacking = [Metric::Ttft, Metric::Itl, Metric::Tpot, Metric::E2e];
    let lacking: Vec<_> = lacking.iter().filter(|m| absent(m)).map(short).collect();
    if imported.is_empty() {
        return None;
    }
    let mut note = format!(
        "{}: the imported file's own summary of {} ok requests, without an interval, and with the \
         percentiles that it has",
        imported.join(", "),
        row.counts.ok
    );
    if !lacking.is_empty() {
        note += &format!("; nothing about {}", lacking.join(", "));
    }
    Some(note)
}
