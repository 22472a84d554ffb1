//! `summary.csv` and `comparison.csv`: fixed columns, order and precision. Two versions differ
//! only where numbers do. What is absent is an empty field.

use crate::aggregate::{
    Clarity, Comparison, ComparisonRow, Contrast, Part, Service, Standing, SummaryRow, SummaryTable,
};
use crate::csv_table::push_row;
use crate::metric::Metric;
use crate::record::schema::Counts;
use crate::report::axes::extra_keys;
use crate::stats::{Percentile, Summary};

const SUMMARIZED: [Metric; 5] = [
    Metric::Ttft,
    Metric::Itl,
    Metric::Tpot,
    Metric::E2e,
    Metric::Lateness,
];
const SHOWN: [Percentile; 4] = [
    Percentile::P50,
    Percentile::P90,
    Percentile::P95,
    Percentile::P99,
];

/// What a request took, and what there was room for.
const MEMORY: [Metric; 6] = [
    Metric::RequestEnergy,
    Metric::GpuCapacity,
    Metric::TierCapacity,
    Metric::TierHits,
    Metric::TierBytes,
    Metric::Drift,
];

/// One row a cell and cache state.
pub(crate) fn summary_csv(table: &SummaryTable) -> String {
    let extras: Vec<_> = table
        .rows
        .iter()
        .map(|row| &row.coordinates.extra)
        .collect();
    let keys = extra_keys(&extras);
    let mut head: Vec<String> = ["label", "gen_len"].map(str::to_owned).to_vec();
    head.extend(keys.iter().map(|key| (*key).to_owned()));
    head.extend(
        [
            "state",
            "concurrency",
            "prompt_len",
            "tier",
            "repeat",
            "cell",
            "model",
            "source",
            "verdict",
            "reason",
            "sent",
            "ok",
            "failed",
            "unfinished",
            "duration_s",
        ]
        .map(str::to_owned),
    );
    for metric in SUMMARIZED {
        head.push(format!("{}_n", metric.spec().short.to_lowercase()));
        head.push(metric.column_of("mean"));
        head.extend(SHOWN.map(|percentile| metric.column_of(percentile.name())));
        head.push(metric.column_of("max"));
        if metric != Metric::Itl {
            head.extend(["p50_low", "p50_high"].map(|end| metric.column_of(end)));
        }
    }
    for metric in [
        Metric::RequestThroughput,
        Metric::InputThroughput,
        Metric::OutputThroughput,
        Metric::TotalThroughput,
    ] {
        head.push(metric.spec().column.to_owned());
    }
    head.push(Metric::PromptTokens.column_of("mean"));
    head.push(Metric::CachedTokens.column_of("mean"));
    head.push(Metric::Energy.spec().column.to_owned());
    head.extend([Metric::Goodput.spec().column, "slo_broken", "bottleneck"].map(str::to_owned));
    head.extend(Part::ALL.map(|part| part.column().to_owned()));
    head.extend(MEMORY.map(|metric| metric.spec().column.to_owned()));

    let mut text = String::new();
    push_row(&mut text, &head);
    for row in &table.rows {
        push_row(
            &mut text,
            &summary_fields(row, &keys.iter().copied().collect::<Vec<_>>()),
        );
    }
    text
}

fn summary_fields(row: &SummaryRow, extra: &[&str]) -> Vec<String> {
    let at = &row.coordinates;
    let Counts {
        sent,
        ok,
        failed,
        unfinished,
    } = row.counts;
    let mut fields = vec![at.label.clone(), at.gen_len.to_string()];
    fields.extend(
        extra
            .iter()
            .map(|key| at.extra.get(*key).cloned().unwrap_or_default()),
    );
    fields.extend([
        row.state.to_string(),
        at.concurrency.to_string(),
        at.prompt_len.to_string(),
        at.tier.clone(),
        at.repeat.to_string(),
        row.cell.clone(),
        row.model.clone(),
        row.source.name().to_owned(),
        row.verdict.name().to_owned(),
        row.reason.clone().unwrap_or_default(),
    ]);
    fields.extend([sent, ok, failed, unfinished].map(|count| count.to_string()));
    fields.push(number(Some(row.duration_s)));
    for metric in SUMMARIZED {
        let Some(summary) = row.latency(metric) else {
            continue;
        };
        let Summary { n, mean, max, .. } = summary;
        fields.extend([n.to_string(), number(*mean)]);
        fields.extend(SHOWN.map(|percentile| number(summary.percentile(percentile))));
        fields.push(number(*max));
        if metric != Metric::Itl {
            let ends = summary
                .median_interval
                .map(|interval| [interval.low, interval.high]);
            fields.extend([0, 1].map(|end| number(ends.map(|ends| ends[end]))));
        }
    }
    fields.extend([
        number(row.requests_per_s),
        number(row.input_tokens_per_s),
        number(row.output_tokens_per_s),
        number(row.total_tokens_per_s),
        number(row.prompt_tokens_mean),
        number(row.cached_tokens_mean),
        number(row.energy_j_per_token),
    ]);
    let service = row.service.as_ref();
    let broken = |service: &Service| {
        let broken: Vec<_> = service.broken.iter().map(ToString::to_string).collect();
        broken.join("; ")
    };
    fields.extend([
        number(service.and_then(|service| service.goodput_per_s)),
        service.map(broken).unwrap_or_default(),
        row.bottleneck.clone().unwrap_or_default(),
    ]);
    fields.extend(Part::ALL.map(|part| number(row.parts.and_then(|parts| parts.get(part)))));
    fields.extend(memory_fields(row));
    fields
}

/// What a request took, and what there was room for.
fn memory_fields(row: &SummaryRow) -> [String; 6] {
    let memory = &row.memory;
    [
        number(row.energy_j_per_request),
        whole(memory.gpu_tokens),
        whole(memory.tier_tokens),
        number(memory.hit_percent),
        number(memory.moved_mib),
        number(row.drift_nats),
    ]
}

/// One row a place and tier other than the baseline.
pub(crate) fn comparison_csv(comparison: &Comparison) -> String {
    let extras: Vec<_> = comparison.rows.iter().map(|row| &row.place.extra).collect();
    let keys: Vec<_> = extra_keys(&extras).into_iter().collect();
    let mut head: Vec<String> = ["label", "gen_len"].map(str::to_owned).to_vec();
    head.extend(keys.iter().map(|key| (*key).to_owned()));
    head.extend(
        [
            "state",
            "concurrency",
            "prompt_len",
            "tier",
            "source",
            "standing",
            "reason",
            "baseline_sent",
            "baseline_ok",
            "tier_sent",
            "tier_ok",
        ]
        .map(str::to_owned),
    );
    for (metric, prefix) in [
        (Metric::Ttft, "p50_"),
        (Metric::E2e, "p50_"),
        (Metric::OutputThroughput, ""),
        (Metric::Energy, ""),
        (Metric::Goodput, ""),
    ] {
        push_columns(&mut head, metric, prefix);
    }
    head.push(Metric::CachedTokens.column_of("mean_tier"));
    // What came later stands behind: readers of older tables go by the place.
    push_columns(&mut head, Metric::RequestEnergy, "");
    let mut text = String::new();
    push_row(&mut text, &head);
    for row in &comparison.rows {
        push_row(&mut text, &comparison_fields(row, &keys));
    }
    text
}

fn push_columns(head: &mut Vec<String>, metric: Metric, prefix: &str) {
    for part in ["baseline", "tier", "difference"] {
        head.push(metric.column_of(&format!("{prefix}{part}")));
    }
    let stem = metric.spec().column.trim_end_matches("_ms");
    for part in ["speedup", "speedup_low", "speedup_high"] {
        head.push(format!("{stem}_{prefix}{part}"));
    }
    if is_latency(metric) {
        head.push(format!("{stem}_{prefix}clarity"));
    }
}

fn comparison_fields(row: &ComparisonRow, extra: &[&str]) -> Vec<String> {
    let place = &row.place;
    let mut fields = vec![place.label.clone(), place.gen_len.to_string()];
    fields.extend(
        extra
            .iter()
            .map(|key| place.extra.get(*key).cloned().unwrap_or_default()),
    );
    let (standing, reason) = match &row.standing {
        Standing::Compared => ("compared", ""),
        Standing::Withheld(reason) => ("withheld", reason.as_str()),
    };
    let baseline = |pick: fn(&Counts) -> u64| {
        row.baseline_counts
            .as_ref()
            .map(|counts| pick(counts).to_string())
            .unwrap_or_default()
    };
    fields.extend([
        place.state.to_string(),
        place.concurrency.to_string(),
        place.prompt_len.to_string(),
        row.tier.clone(),
        row.source.name().to_owned(),
        standing.to_owned(),
        reason.to_owned(),
        baseline(|counts| counts.sent),
        baseline(|counts| counts.ok),
        row.tier_counts.sent.to_string(),
        row.tier_counts.ok.to_string(),
    ]);
    let contrasts = row.contrasts();
    let (later, first): (Vec<&Contrast>, Vec<&Contrast>) = contrasts
        .into_iter()
        .partition(|contrast| contrast.metric == Metric::RequestEnergy);
    for contrast in first {
        push_contrast(&mut fields, contrast);
    }
    fields.push(number(row.cached_tokens_mean));
    for contrast in later {
        push_contrast(&mut fields, contrast);
    }
    fields
}

fn push_contrast(fields: &mut Vec<String>, contrast: &Contrast) {
    let Contrast {
        metric,
        baseline,
        tier,
        difference,
        speedup,
        interval,
        clarity,
    } = contrast;
    fields.extend([baseline, tier, difference, speedup].map(|value| number(*value)));
    let ends = interval.map(|interval| [interval.low, interval.high]);
    fields.extend([0, 1].map(|end| number(ends.map(|ends| ends[end]))));
    if is_latency(*metric) {
        fields.push(clarity_name(*clarity).to_owned());
    }
}

fn is_latency(metric: Metric) -> bool {
    matches!(metric, Metric::Ttft | Metric::E2e)
}

fn clarity_name(clarity: Clarity) -> &'static str {
    match clarity {
        Clarity::Clear => "clear",
        Clarity::MayBeNoise => "may-be-noise",
        Clarity::Untested => "untested",
    }
}

fn whole(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.0}")).unwrap_or_default()
}

fn number(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.3}")).unwrap_or_default()
}
