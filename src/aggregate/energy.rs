//! The energy that a pass used.

use crate::record::schema::PassRecord;
use crate::series::Series;

/// Energy of all GPUs over a pass, joules: the integral of their power, or their own counter where
/// it was read. `None` where neither was sampled.
pub(super) fn joules(pass: &PassRecord) -> Option<f64> {
    let sum = |series: Series| {
        let totals: Vec<f64> = pass
            .telemetry
            .iter()
            .filter(|row| series.is(&row.source, &row.metric))
            .filter_map(|row| row.total)
            .collect();
        (!totals.is_empty()).then(|| totals.iter().sum::<f64>())
    };
    sum(Series::GpuEnergy).or_else(|| sum(Series::GpuPower))
}

/// `joules` by `count`; `None` where either is not known, and of nothing.
pub(super) fn each(joules: Option<f64>, count: Option<u64>) -> Option<f64> {
    let count = count.filter(|count| *count > 0)?;
    Some(joules? / count as f64)
}

#[cfg(test)]
mod tests {
    use crate::aggregate::fixture::{Bench, gpu_total, rows_of};
    use crate::aggregate::summarize;
    use crate::plan::state::CacheState;
    use crate::series::Series;

    #[test]
    fn energy_is_of_all_gpus_by_output_tokens() {
        let mut bench = Bench::new();
        // Two requests of four output tokens.
        bench
            .cell("cpu", 1024, 1, 1)
            .pass(CacheState::Cold, &rows_of(&[10.0, 20.0], 1));
        let mut run = bench.run();
        assert_eq!(summarize(&run).unwrap().rows[0].energy_j_per_token, None);
        let pass = &mut run.cells[0].passes[0];
        pass.telemetry = vec![
            gpu_total("0", Series::GpuPower, 600.0),
            gpu_total("1", Series::GpuPower, 200.0),
        ];
        assert_eq!(
            summarize(&run).unwrap().rows[0].energy_j_per_token,
            Some(100.0)
        );
        run.cells[0].passes[0]
            .telemetry
            .push(gpu_total("0", Series::GpuEnergy, 400.0));
        assert_eq!(
            summarize(&run).unwrap().rows[0].energy_j_per_token,
            Some(50.0)
        );
    }
}
