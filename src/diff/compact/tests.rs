use super::*;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::record::schema::Phase;

fn side() -> Side {
    let mut bench = Bench::new();
    for repeat in [2, 1] {
        bench
            .cell("cpu", 1024, 8, repeat)
            .pass(CacheState::Cold, &rows_of(&[10.0, 20.0, 60.0], 1))
            .pass(CacheState::Tier, &rows_of(&[5.0], 0))
            .verdict(VerdictStatus::Invalid, "hits, but \"no\" bytes");
    }
    bench
        .cell("disk", 1024, 8, 1)
        .failed(Phase::Ready, "no answer");
    let mut run = bench.run();
    for cell in &mut run.cells {
        let axis = ("server.args.x".to_owned(), "a,b".to_owned());
        cell.coordinates.extra.extend([axis]);
        cell.passes
            .iter_mut()
            .for_each(|pass| pass.corpus = "0123456789abcdef".into());
    }
    let facts = BTreeMap::from([("host.cpu".to_owned(), "some".to_owned())]);
    Side::of_run("a", "here".to_owned(), &run, facts).unwrap()
}

#[test]
fn stored_tables_give_back_what_was_measured() {
    let side = side();
    let compact = Compact::of(&side).unwrap();
    let read = compact.read("a", "here".to_owned()).unwrap();
    assert_eq!(read, side);
}

#[test]
fn rows_are_in_the_order_of_coordinates_and_say_everything() {
    let compact = Compact::of(&side()).unwrap();
    let cells: Vec<_> = compact.cells.lines().collect();
    assert_eq!(
        cells[..3],
        [
            "label,gen_len,state,concurrency,prompt_len,tier,repeat,server.args.x,outcome,cell,\
             source,model,verdict,reason,sent,ok,failed,unfinished,duration_s,identity,corpus",
            "long_context,4,cold,8,1024,cpu,1,\"a,b\",completed,cpu-p1024-c8-r1,simulated,\
             sim-8b,valid,all seen,4,3,1,0,2.000,,0123456789ab",
            "long_context,4,cold,8,1024,cpu,2,\"a,b\",completed,cpu-p1024-c8-r2,simulated,\
             sim-8b,valid,all seen,4,3,1,0,2.000,,0123456789ab",
        ]
    );
    assert!(cells[5].ends_with("disk,1,\"a,b\",failed,,,,,failed in ready: no answer,,,,,,,"));
    assert!(
        compact
            .measures
            .contains("cold,8,1024,cpu,1,\"a,b\",ttft_ms,ms,3,,30.000,20.000,,,,,\n")
    );
    assert!(
        compact
            .samples
            .contains("cpu,1,\"a,b\",ttft_ms,10.000 20.000 60.000\n")
    );
}

#[test]
fn many_requests_become_quantiles() {
    let values: Vec<f64> = (0..10_000).map(f64::from).collect();
    let thinned_values: Vec<f64> = thinned(&values).collect();
    assert_eq!(
        (thinned_values.len(), thinned_values.is_sorted()),
        (100, true)
    );
    assert!((thinned_values[49] - 4949.5).abs() < 2.0 && (thinned_values[99] - 9949.0).abs() < 2.0);
}

#[test]
fn a_table_that_is_not_ours_is_named() {
    let good = Compact::of(&side()).unwrap();
    let error = |compact: Compact| format!("{:#}", compact.read("a", String::new()).unwrap_err());
    let cells = good.cells.replacen(",valid,", ",vali,", 1);
    let message = error(Compact {
        cells,
        ..good.clone()
    });
    assert_eq!(message, "cells.csv, row 2: unusable `verdict`: `vali`");
    let measures = good.measures.replacen("unit,n", "unit,m", 1);
    let message = error(Compact {
        measures,
        ..good.clone()
    });
    assert_eq!(message, "measures.csv has no column `n`");
    let samples = format!("{}x\n", good.samples);
    assert!(error(Compact { samples, ..good }).contains("1 fields under 10 names"));
}
