use super::*;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::aggregate::summarize_under;
use crate::plan::state::CacheState;
use crate::record::schema::RequestRow;

fn slos(text: &str) -> Vec<Slo> {
    text.parse::<Slos>().unwrap().0
}

#[test]
fn objectives_are_read_and_shown() {
    let shown: Vec<_> = slos("ttft_p99=500ms,tpot=12.5ms,e2e_p90=2s,itl=40ms")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        shown,
        [
            "TTFT p99 <= 500 ms",
            "TPOT <= 12.5 ms",
            "E2E p90 <= 2000 ms",
            "ITL <= 40 ms"
        ]
    );
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = text.parse::<Slos>().unwrap_err().to_string();
    assert_eq!(error, expected, "\n{error}\n");
}

#[test]
fn errors_point_at_the_column() {
    refused(
        "ttft=1s,ttfb_p99=500ms",
        "column 9: unknown latency `ttfb`: expected ttft, tpot, itl or e2e\n  ttft=1s,ttfb_p99=500ms\n          ^^^^",
    );
    refused(
        "e2e_p42=2s",
        "column 5: unknown percentile `p42`: expected p50, p90, p95 or p99\n  e2e_p42=2s\n      ^^^",
    );
    let limit = "the limit is a time above zero with its unit, such as `500ms` or `2s`";
    refused(
        "ttft=500",
        &format!("column 6: {limit}\n  ttft=500\n       ^^^"),
    );
    refused(
        "ttft=-5ms",
        &format!("column 6: {limit}\n  ttft=-5ms\n       ^^^^"),
    );
    refused(
        "ttft=0s",
        &format!("column 6: {limit}\n  ttft=0s\n       ^^"),
    );
    refused(
        "ttft=infs",
        &format!("column 6: {limit}\n  ttft=infs\n       ^^^^"),
    );
    let whole = "an objective is LATENCY[_PERCENTILE]=LIMIT, such as `ttft_p99=500ms`";
    refused("ttft", &format!("column 1: {whole}\n  ttft\n  ^^^^"));
    refused("", &format!("column 1: {whole}\n  \n  ^"));
}

/// A pass of 2 s with these requests.
fn service(rows: &[RequestRow], slo: &str) -> Service {
    let mut bench = Bench::new();
    bench.cell("cpu", 1024, 1, 1).pass(CacheState::Cold, rows);
    let table = summarize_under(&bench.run(), &slos(slo)).unwrap();
    table.rows[0].service.clone().unwrap()
}

#[test]
fn goodput_counts_requests_that_keep_every_objective() {
    // TTFT 10 to 40 ms; each request ends 30 ms later, its gaps are 5, 10 and 15 ms, its TPOT 10.
    let rows = rows_of(&[10.0, 20.0, 30.0, 40.0], 1);
    let good = |slo| service(&rows, slo).goodput_per_s;
    assert_eq!(good("ttft=30ms"), Some(1.5));
    assert_eq!(good("ttft=30ms,e2e=50ms"), Some(1.0));
    assert_eq!(
        (good("tpot=10ms"), good("tpot=9.9ms")),
        (Some(2.0), Some(0.0))
    );
    assert_eq!((good("itl=15ms"), good("itl=14ms")), (Some(2.0), Some(0.0)));
}

#[test]
fn a_pass_that_breaks_a_percentile_has_no_goodput() {
    let rows = rows_of(&(1..=10).map(f64::from).collect::<Vec<_>>(), 0);
    // The 90th percentile of 1 to 10 is 9.1.
    let met = service(&rows, "ttft_p90=9.1ms");
    assert_eq!((met.broken.len(), met.goodput_per_s), (0, Some(5.0)));
    let broken = service(&rows, "ttft_p90=9ms");
    assert_eq!(
        (broken.broken, broken.goodput_per_s),
        (slos("ttft_p90=9ms"), Some(0.0))
    );
    let uncertain = service(&rows, "ttft_p99=1s");
    assert_eq!(
        (uncertain.too_few_requests, uncertain.goodput_per_s),
        (slos("ttft_p99=1s"), None)
    );
    let both = service(&rows, "ttft_p99=1s,ttft_p50=5ms");
    assert_eq!(
        (both.broken, both.goodput_per_s),
        (slos("ttft_p50=5ms"), Some(0.0))
    );
}

#[test]
fn a_lost_request_counts_as_one_that_took_for_ever() {
    let mut rows = rows_of(&[1.0; 9], 1);
    let nine_of_ten = service(&rows, "ttft_p90=2ms");
    // h = 8.1: between the ninth value and infinity.
    assert_eq!(nine_of_ten.broken, slos("ttft_p90=2ms"));
    assert_eq!(service(&rows, "ttft_p50=2ms").goodput_per_s, Some(4.5));
    rows = rows_of(&[1.0; 2], 3);
    assert_eq!(service(&rows, "ttft_p50=2ms").goodput_per_s, Some(0.0));
}
