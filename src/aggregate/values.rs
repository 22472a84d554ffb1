//! The request values behind a row of the summary, for tests that need more than its quantiles.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::aggregate::samples::{Samples, gather};
use crate::metric::Metric;
use crate::plan::state::CacheState;
use crate::record::reader::RunData;

/// The latencies of the ok requests of one pass, each ascending: one value a request.
#[derive(Clone, Debug, PartialEq)]
pub struct PassValues {
    /// The cell's id.
    pub cell: String,
    /// What was warm when the clock started.
    pub state: CacheState,
    /// TTFT, TPOT and E2E, milliseconds. The gaps between tokens are not here: those of one
    /// request are no independent values.
    pub latencies: BTreeMap<Metric, Vec<f64>>,
}

/// The request values of each pass of each cell, in the order of the record.
pub fn request_values(run: &RunData) -> Result<Vec<PassValues>> {
    let each_its_own: Vec<u32> = (0..).take(run.cells.len()).collect();
    let mut samples = gather(&run.requests, &each_its_own)?;
    let mut passes = Vec::new();
    for (at, cell) in (0_u32..).zip(&run.cells) {
        for pass in &cell.passes {
            let Samples {
                ttft, tpot, e2e, ..
            } = samples
                .remove(&(at, pass.state))
                .unwrap_or_else(Samples::none);
            let ascending = |mut values: Vec<f64>| {
                values.retain(|value| value.is_finite());
                values.sort_by(f64::total_cmp);
                values
            };
            let latencies = [
                (Metric::Ttft, ttft),
                (Metric::Tpot, tpot),
                (Metric::E2e, e2e),
            ];
            passes.push(PassValues {
                cell: cell.id.clone(),
                state: pass.state,
                latencies: latencies
                    .into_iter()
                    .map(|(metric, values)| (metric, ascending(values)))
                    .collect(),
            });
        }
    }
    Ok(passes)
}
