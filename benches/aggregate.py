#!/usr/bin/env python3
"""Five million request rows to a cell table: labrun against Python polars, in turns, each in a process of its own.

    python3 -m venv venv && venv/bin/pip install polars
    cargo bench --no-run --bench aggregate
    venv/bin/python benches/aggregate.py FOLDER     # about 1 GB; made on the first call

Both read the same parquet files and compute, per cell and state over the ok requests: n, mean, p50, p90, p95, p99 and
maximum of TTFT, TPOT, E2E, lateness and of all gaps between tokens, and the sums of tokens. Time is from the first open
to the table, without the start of Python or the import of polars; memory is the peak of the whole process.
"""

import glob
import json
import pathlib
import subprocess
import sys
import time

CELLS, ROWS, GAPS, TURNS = 200, 25_000, 4, 5


def make(folder):
    import polars as pl
    for cell in range(CELLS):
        path = folder / "cells" / f"c{cell:03}"
        path.mkdir(parents=True, exist_ok=True)
        ttft = (pl.int_range(ROWS, eager=True).cast(pl.Float64).shuffle(seed=cell) / ROWS + 0.01).log().abs() * 40 + 20
        gaps = [(pl.int_range(ROWS, eager=True).shuffle(seed=cell * 10 + at).cast(pl.Float64) % 997) / 100 + 5
                for at in range(GAPS)]
        frame = pl.DataFrame({"ttft_ms": ttft}).with_columns(
            gaps_ms=pl.concat_list([pl.lit(gap) for gap in gaps]), e2e_ms=ttft + sum(gaps), tpot_ms=sum(gaps) / GAPS)
        none_u32, none_f64 = pl.lit(None, pl.UInt32), pl.lit(None, pl.Float64)
        u32 = lambda value: pl.lit(value, pl.UInt32)
        frame = frame.select(
            state=pl.lit("cold"), request=pl.int_range(ROWS, dtype=pl.UInt32), intended_ms=pl.lit(0.0),
            sent_ms=pl.lit(0.25), lateness_ms=pl.col("ttft_ms") / 1000, connect_ms=none_f64, ttft_ms="ttft_ms",
            e2e_ms="e2e_ms", tpot_ms="tpot_ms", gaps_ms="gaps_ms", prompt_len=u32(1024), gen_len=u32(GAPS + 1),
            prompt_tokens=u32(1030), cached_tokens=u32(512), output_tokens=u32(GAPS + 1), frames=u32(GAPS + 1),
            coalesced_frames=u32(0), outcome=pl.lit("ok"), error=pl.lit(None, pl.String), http_status=u32(200))
        frame.write_parquet(path / "requests.parquet", compression="zstd")
        counts = {"sent": ROWS, "ok": ROWS, "failed": 0, "unfinished": 0}
        (path / "cell.json").write_text(json.dumps({
            "format": 1, "id": f"c{cell:03}", "position": cell + 1, "source": "simulated", "model": "m",
            "coordinates": {"label": "l", "tier": "cpu", "prompt_len": cell + 1, "gen_len": GAPS + 1,
                            "concurrency": 1, "repeat": 1},
            "outcome": {"kind": "completed"}, "warnings": [],
            "server": {"launcher": "sim", "version": None, "lmcache": "none", "ready_s": None, "stopped": None,
                       "reused": False},
            "passes": [{"state": "cold", "started_s": 0.0, "duration_s": 100.0, "counts": counts, "errors": {},
                        "verdict": {"status": "valid", "reasons": ["made up"]}, "evidence": {}, "client": {}}]}))


def polars_once(folder):
    import polars as pl
    began = time.perf_counter()
    cpu = time.process_time()
    summary = lambda name, column: [
        column.count().alias(f"{name}_n"), column.mean().alias(f"{name}_mean"), column.max().alias(f"{name}_max"),
        *[column.quantile(q, "linear").alias(f"{name}_p{round(q * 100)}") for q in (0.5, 0.9, 0.95, 0.99)]]
    rows = pl.scan_parquet(str(folder / "cells/*/requests.parquet"), include_file_paths="path")
    table = rows.filter(pl.col("outcome") == "ok").group_by("path", "state").agg(
        *[part for name in ("ttft_ms", "tpot_ms", "e2e_ms", "lateness_ms") for part in summary(name, pl.col(name))],
        *summary("gaps_ms", pl.col("gaps_ms").explode()),
        pl.len().alias("rows"), pl.col("prompt_tokens", "output_tokens").sum(), pl.col("cached_tokens").mean(),
    ).sort("path").collect()
    wall = time.perf_counter() - began
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    first = table.row(0, named=True)
    print(json.dumps({
        "wall_s": wall, "cpu_s": time.process_time() - cpu, "peak_mib": int(peak.split()[1]) / 1024,
        "cells": table.height, "rows": table["rows"].sum(), "ttft_p50_ms": first["ttft_ms_p50"],
        "ttft_p99_ms": first["ttft_ms_p99"], "itl_p50_ms": first["gaps_ms_p50"], "e2e_mean_ms": first["e2e_ms_mean"]}))


def main():
    folder = pathlib.Path(sys.argv[1])
    if "--polars" in sys.argv:
        return polars_once(folder)
    if not (folder / "cells" / f"c{CELLS - 1:03}" / "cell.json").exists():
        make(folder)
    programs = [path for path in glob.glob("target/release/deps/aggregate-*") if not path.endswith(".d")]
    program = max(programs, key=lambda path: pathlib.Path(path).stat().st_mtime)
    commands = {"labrun": [program, str(folder)], "polars": [sys.executable, __file__, str(folder), "--polars"]}
    results = {name: [] for name in commands}
    for turn in range(TURNS + 1):  # the first warms the page cache
        for name, command in commands.items():
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            if turn:
                results[name].append(result)
    for key in ("cells", "rows", "ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "e2e_mean_ms"):
        ours, theirs = (results[name][0][key] for name in commands)
        assert abs(ours - theirs) <= 1e-6 * abs(theirs), f"{key}: {ours} is not {theirs}"
    median = lambda name, key: sorted(result[key] for result in results[name])[TURNS // 2]
    for key in ("wall_s", "cpu_s", "peak_mib"):
        ours, theirs = median("labrun", key), median("polars", key)
        print(f"{key:9} labrun {ours:9.2f}  polars {theirs:9.2f}  ratio {ours / theirs:.2f}")


main()
