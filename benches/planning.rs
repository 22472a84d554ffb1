//! `cargo bench --bench planning`: a plan of a million cells, read, ordered and hashed. Prints time,
//! CPU time and the process's peak memory.

use std::io::Write as _;
use std::time::Instant;

use labrun::internals::{Matrix, Plan};

fn axis(count: u32, step: u32) -> String {
    let values: Vec<String> = (1..=count)
        .map(|value| (value * step).to_string())
        .collect();
    values.join(", ")
}

/// Reads plans whose further axis has `count` and ten times as many values: the time of each value
/// must stay.
fn write_further_axes(out: &mut impl std::io::Write, count: u32) -> std::io::Result<()> {
    for values in [count, 10 * count] {
        let text = format!(
            "name = \"t\"\nmodel = \"m\"\n[matrix]\ntier = [\"baseline\", \"cpu\"]\nprompt_len = [1024]\n\
             gen_len = [8]\nconcurrency = [1]\nlabel = [\"rag\"]\n\"run.seed\" = [{}]\n\
             [workload.rag]\nkind = \"shared-prefix\"\n[server]\nlauncher = \"process\"\n",
            axis(values, 1)
        );
        let began = Instant::now();
        let variants = match Plan::parse(&text, "planning") {
            Ok(plan) => plan.variants.len(),
            Err(problems) => return writeln!(out, "{problems}"),
        };
        let each_us = began.elapsed().as_secs_f64() * 1e6 / f64::from(values);
        writeln!(
            out,
            "{variants} values of a further axis: {each_us:.1} us each"
        )?;
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let text = format!(
        "name = \"t\"\nmodel = \"m\"\n[matrix]\ntier = [\"baseline\", \"cpu\", \"disk\", \"redis\"]\n\
         prompt_len = [{}]\ngen_len = [{}]\nconcurrency = [{}]\nlabel = [\"rag\"]\n\
         [run]\nrequests = 5\nrepeats = 10\n[workload.rag]\nkind = \"shared-prefix\"\n\
         [server]\nlauncher = \"process\"\n",
        axis(50, 512),
        axis(50, 8),
        axis(10, 1)
    );
    let began = Instant::now();
    let matrix = Plan::parse(&text, "planning").and_then(|plan| Matrix::expand(&plan));
    let planned = began.elapsed();
    let mut out = std::io::stdout().lock();
    write_further_axes(&mut out, 500)?;
    let cells = match matrix {
        Ok(matrix) => matrix.cells,
        Err(problems) => return writeln!(out, "{problems}"),
    };
    let hash = cells.hash();
    let hashed = began.elapsed();
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_s = usage.tv_sec as f64 + usage.tv_nsec as f64 / 1e9;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    writeln!(
        out,
        "{} cells: planned in {:.3} s, planned and hashed in {:.3} s ({cpu_s:.3} s of CPU), peak {}, \
         {hash}",
        cells.len(),
        planned.as_secs_f64(),
        hashed.as_secs_f64(),
        peak.unwrap_or("unknown")
            .trim_start_matches("VmHWM:")
            .trim(),
    )
}
