use super::*;
use crate::aggregate::fixture::realistic;
#[test]
fn dump() {
    let report = Report::of(&realistic(), "long_context").unwrap();
    println!("{}", report.terminal(120));
    println!("{}", report.terminal(100));
    println!("{}", report.markdown());
    println!("{}", report.summary_csv());
    println!("{}", report.comparison_csv());
}
