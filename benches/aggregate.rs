//! `cargo bench --bench aggregate -- RUN`: a run's request rows to its cell table. Prints JSON: time,
//! CPU time, the process's peak memory, and a few numbers of the table to compare.
//! `benches/aggregate.py` makes a run of five million rows and times Python polars beside it.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use labrun::internals::{read_run, summarize};

fn main() -> Result<()> {
    // Cargo hands over `--bench` too.
    let folder = std::env::args()
        .skip(1)
        .find(|word| !word.starts_with("--"));
    let folder = PathBuf::from(folder.context("name a run's folder")?);
    let began = Instant::now();
    let table = summarize(&read_run(&folder)?)?;
    let wall = began.elapsed();
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    let rows: u64 = table.rows.iter().map(|row| row.counts.sent).sum();
    let first = table.rows.first();
    let result = serde_json::json!({
        "wall_s": wall.as_secs_f64(),
        "cpu_s": usage.tv_sec as f64 + usage.tv_nsec as f64 / 1e9,
        "peak_mib": peak_kib.map(|kib| kib as f64 / 1024.0),
        "cells": table.rows.len(),
        "rows": rows,
        "ttft_p50_ms": first.and_then(|row| row.ttft.p50),
        "ttft_p99_ms": first.and_then(|row| row.ttft.p99),
        "itl_p50_ms": first.and_then(|row| row.itl.p50),
        "e2e_mean_ms": first.and_then(|row| row.e2e.mean),
    });
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}
