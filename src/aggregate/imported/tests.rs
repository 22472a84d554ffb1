use crate::aggregate::fixture::{Bench, rows_of};
use crate::aggregate::slo::{Slo, Slos};
use crate::aggregate::{compare_under, summarize_under};
use crate::metric::Metric;
use crate::plan::state::CacheState::Cold;
use crate::record::reader::RunData;
use crate::record::schema::RequestRow;

/// Requests that were answered; nothing else about them is known.
fn bare(count: usize) -> Vec<RequestRow> {
    let mut rows = rows_of(&vec![1.0; count], 0);
    for row in &mut rows {
        (row.ttft_ms, row.e2e_ms, row.tpot_ms) = (None, None, None);
        (row.prompt_tokens, row.output_tokens) = (None, None);
        row.gaps_ms.clear();
    }
    rows
}

/// One pass of 2 s for each list of rows, each with the evidence of an imported file.
fn imported(passes: &[(&str, Vec<RequestRow>)], evidence: &[(&str, f64)]) -> RunData {
    let mut bench = Bench::new();
    for (repeat, (tier, rows)) in (1..).zip(passes) {
        bench.cell(tier, 1024, 1, repeat).pass(Cold, rows);
    }
    let mut run = bench.run();
    for pass in run.cells.iter_mut().flat_map(|cell| &mut cell.passes) {
        let evidence = evidence
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        pass.evidence.extend(evidence);
    }
    run
}

const EVIDENCE: [(&str, f64); 9] = [
    ("imported_ttft_n", 20.0),
    ("imported_ttft_mean_ms", 110.0),
    ("imported_ttft_p50_ms", 100.0),
    ("imported_ttft_p90_ms", 150.0),
    ("imported_ttft_p99_ms", 190.0),
    ("imported_itl_n", 620.0),
    ("imported_itl_p99_ms", 40.0),
    ("imported_output_tokens_per_s", 320.0),
    ("imported_total_tokens_per_s", 10_320.0),
];

fn slos(text: &str) -> Vec<Slo> {
    text.parse::<Slos>().unwrap().0
}

#[test]
fn a_summary_stands_in_with_its_n_and_without_an_interval() {
    let run = imported(&[("cpu", bare(20))], &EVIDENCE);
    let row = summarize_under(&run, &[]).unwrap().rows.remove(0);
    let ttft = &row.ttft;
    assert_eq!(
        (ttft.n, ttft.mean, ttft.p50),
        (20, Some(110.0), Some(100.0))
    );
    // Of 20 requests no 99th percentile is shown, whoever computed it; of 620 gaps it is.
    assert_eq!((ttft.p90, ttft.p95, ttft.p99), (Some(150.0), None, None));
    assert_eq!(
        (ttft.p10, ttft.max, ttft.median_interval),
        (None, None, None)
    );
    assert_eq!(row.imported, [Metric::Ttft]);
    assert_eq!((row.e2e.n, row.tpot.n), (0, 0));
    // 640 tokens out and 20 000 in, in 2 s.
    assert_eq!(row.output_tokens_per_s, Some(320.0));
    assert_eq!(row.input_tokens_per_s, Some(10_000.0));
    assert_eq!(row.prompt_tokens_mean, Some(1000.0));
}

#[test]
fn gaps_have_as_many_values_as_the_file_reports() {
    let evidence = [&EVIDENCE[..], &[("imported_itl_mean_ms", 5.0)]].concat();
    let run = imported(&[("cpu", bare(20))], &evidence);
    let row = summarize_under(&run, &[]).unwrap().rows.remove(0);
    assert_eq!(
        (row.itl.n, row.itl.p99, row.itl.mean),
        (620, Some(40.0), Some(5.0))
    );
    assert_eq!(row.imported, [Metric::Ttft, Metric::Itl]);
}

#[test]
fn values_of_its_own_are_not_overruled() {
    let run = imported(&[("cpu", rows_of(&[10.0, 20.0], 0))], &EVIDENCE);
    let row = summarize_under(&run, &slos("ttft=15ms"))
        .unwrap()
        .rows
        .remove(0);
    assert_eq!((row.ttft.n, row.ttft.p50), (2, Some(15.0)));
    assert_eq!(
        (row.imported.len(), row.output_tokens_per_s),
        (0, Some(4.0))
    );
    assert_eq!(row.service.unwrap().goodput_per_s, Some(0.5));
}

#[test]
fn an_objective_on_values_that_were_not_stored_is_unknown() {
    let mut rows = bare(20);
    for row in &mut rows {
        row.e2e_ms = Some(50.0);
    }
    let run = imported(&[("cpu", rows)], &EVIDENCE);
    let service = |text: &str| {
        let mut rows = summarize_under(&run, &slos(text)).unwrap().rows;
        rows.remove(0).service.unwrap()
    };
    for text in ["ttft=500ms", "tpot=1s", "itl=1s", "ttft_p50=1s"] {
        let service = service(text);
        assert_eq!(
            (service.unknown, service.goodput_per_s),
            (slos(text), None),
            "{text}"
        );
    }
    assert_eq!(service("e2e=60ms").goodput_per_s, Some(10.0));
    assert_eq!(service("e2e=40ms").goodput_per_s, Some(0.0));
}

#[test]
fn a_single_repeat_is_compared_by_its_summary_and_several_are_not_pooled() {
    let run = imported(
        &[("baseline", bare(20)), ("cpu", bare(20)), ("cpu", bare(20))],
        &EVIDENCE,
    );
    let comparison = compare_under(&run, &slos("ttft=1s")).unwrap();
    let row = &comparison.rows[0];
    assert_eq!((row.ttft.baseline, row.ttft.tier), (Some(100.0), None));
    assert_eq!(row.ttft.interval, None);
    // Rates can be: tokens over time.
    assert_eq!(
        (row.output.baseline, row.output.tier),
        (Some(320.0), Some(320.0))
    );
    assert_eq!((row.goodput.baseline, row.goodput.tier), (None, None));
}
