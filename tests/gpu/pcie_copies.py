#!/usr/bin/env python3
"""Copies a known number of bytes over PCIe or NVLink, and compares what others saw with it.

    pcie_copies.py copy --out copies.json [--gib 100] [--burst-gib 40]
    pcie_copies.py compare copies.json TELEMETRY_DIR [--dmon dmon.csv]
    pcie_copies.py work [--seconds 12]
    pcie_copies.py levels TELEMETRY_DIR SMI_CSV --begin-unix T --end-unix T
    pcie_copies.py nvlink --out nvlink.json [--gib 200]
    pcie_copies.py compare-nvlink nvlink.json TELEMETRY_DIR

`copy` needs torch and a GPU, `nvlink` two. Each mode copies pinned memory of a known size again and again and
prints its exact bytes with begin and end on the monotonic clock, which `labrun telemetry` uses
too. `compare` needs nothing but Python: it sums up `pcie_stats.csv` over each mode's time.
"""

import argparse
import csv
import json
import math
import sys
import time
from pathlib import Path

CHUNK = 256 << 20
BURST_S = 0.050
PAUSE_S = 0.150


def copy(args):
    import torch

    device = torch.device("cuda", args.gpu)
    host = torch.empty(CHUNK, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(CHUNK, dtype=torch.uint8, device=device)
    # A twin for both directions at once.
    host_back = torch.empty(CHUNK, dtype=torch.uint8, pin_memory=True)
    there_back = torch.empty(CHUNK, dtype=torch.uint8, device=device)
    torch.cuda.synchronize(device)
    streams = [torch.cuda.Stream(device), torch.cuda.Stream(device)]

    def into(size=CHUNK):
        there[:size].copy_(host[:size], non_blocking=True)

    def out_of(size=CHUNK):
        host[:size].copy_(there[:size], non_blocking=True)

    def steady(step, rx, tx):
        def run(target):
            moved = 0
            while moved < target:
                step()
                moved += CHUNK
                torch.cuda.synchronize(device)
            return moved * rx, moved * tx

        return run

    def bursts(step, rx, tx):
        size = 32 << 20

        def run(target):
            moved = 0
            while moved < target:
                until = time.monotonic() + BURST_S
                while time.monotonic() < until:
                    step(size)
                    moved += size
                    torch.cuda.synchronize(device)
                time.sleep(PAUSE_S)
            return moved * rx, moved * tx

        return run

    def both():
        with torch.cuda.stream(streams[0]):
            there.copy_(host, non_blocking=True)
        with torch.cuda.stream(streams[1]):
            host_back.copy_(there_back, non_blocking=True)

    def idle(_target):
        time.sleep(3)
        return 0, 0

    steady_bytes = int(args.gib * 2**30)
    burst_bytes = int(args.burst_gib * 2**30)
    modes = [
        ("idle", idle, 0),
        ("h2d-steady", steady(into, 1, 0), steady_bytes),
        ("d2h-steady", steady(out_of, 0, 1), steady_bytes),
        ("both-steady", steady(both, 1, 1), steady_bytes),
        ("h2d-bursts", bursts(into, 1, 0), burst_bytes),
        ("d2h-bursts", bursts(out_of, 0, 1), burst_bytes),
    ]
    # Warm: contexts, clocks and the link's generation.
    for _ in range(4):
        into()
        out_of()
    torch.cuda.synchronize(device)
    results = []
    for name, run, target in modes:
        time.sleep(1.0)
        begin, wall = time.monotonic(), time.time()
        rx, tx = run(target)
        end = time.monotonic()
        results.append(
            {
                "mode": name,
                "begin_monotonic_s": begin,
                "end_monotonic_s": end,
                "begin_unix_s": wall,
                "rx_bytes": rx,
                "tx_bytes": tx,
            }
        )
        seconds = end - begin
        print(
            f"{name}: rx {rx / 1e9:.2f} GB, tx {tx / 1e9:.2f} GB in {seconds:.2f} s "
            f"({(rx + tx) / seconds / 1e9:.1f} GB/s)",
            file=sys.stderr,
        )
    text = json.dumps({"gpu": args.gpu, "modes": results}, indent=1)
    Path(args.out).write_text(text + "\n")
    print(text)


def nvlink(args):
    """Copies from GPU 0 to GPU 1, steadily and in bursts. Exits with 3 where they are not linked."""
    import torch

    if torch.cuda.device_count() < 2 or not torch.cuda.can_device_access_peer(0, 1):
        print("no two GPUs that reach each other", file=sys.stderr)
        sys.exit(3)
    here = torch.empty(CHUNK, dtype=torch.uint8, device="cuda:0")
    there = torch.empty(CHUNK, dtype=torch.uint8, device="cuda:1")
    there.copy_(here)
    torch.cuda.synchronize(0)
    time.sleep(2.0)
    moved, begin = 0, time.monotonic()
    while moved < args.gib * 2**30:
        # Bursts of 50 ms in the second half.
        until = time.monotonic() + BURST_S
        while time.monotonic() < until:
            there.copy_(here, non_blocking=True)
            moved += CHUNK
            torch.cuda.synchronize(0)
        if moved > args.gib * 2**29:
            time.sleep(PAUSE_S)
    seconds = time.monotonic() - begin
    text = json.dumps({"bytes": moved + CHUNK, "seconds": seconds})
    Path(args.out).write_text(text + "\n")
    print(f"NVLink 0 to 1: {moved / 1e9:.2f} GB in {seconds:.2f} s", file=sys.stderr)


def compare_nvlink(args):
    """Compares with the totals of a `labrun telemetry` that ran around all of `nvlink`."""
    true = json.loads(Path(args.copies).read_text())["bytes"]
    metrics = json.loads((Path(args.telemetry) / "summary.json").read_text())["metrics"]
    wrong = 0
    for gpu, way in (("0", "tx"), ("1", "rx"), ("0", "rx"), ("1", "tx")):
        for method in ("counters", "gpm"):
            totals = [m["total"] for m in metrics
                      if m["metric"] == f"nvlink_{way}_{method}" and m["device"] == gpu]
            if not totals:
                print(f"GPU {gpu} {way} by {method}: not recorded")
                wrong += method == "counters"
                continue
            used = (gpu, way) in (("0", "tx"), ("1", "rx"))
            off = (totals[0] / true - 1) * 100 if used else totals[0] / true * 100
            # What comes back over the link is acknowledgements.
            out = method == "counters" and abs(off) > 5.0
            wrong += out
            print(f"GPU {gpu} {way} by {method:8} true {true * used / 1e9:8.2f} GB "
                  f"seen {totals[0] / 1e9:8.2f} GB {off:+.2f} %{' OUT' if out else ''}")
    return 1 if wrong else 0


def seen_bytes(rows, gpu, method, column, begin, end):
    """Bytes in begin..end, rows weighted by the part of their span that lies in it; and the share
    of the time that rows cover."""
    total = covered = 0.0
    for row in rows:
        if row["gpu"] != str(gpu) or row["method"] != method or not row[column]:
            continue
        to, span = float(row["time_s"]), float(row["span_s"])
        part = min(to, end) - max(to - span, begin)
        if part > 0:
            total += float(row[column]) * 1e6 * part
            covered += part
    return total, covered / (end - begin)


def dmon_bytes(path, gpu, begin_unix, seconds):
    """What the samples of nvidia-smi dmon would add up to: for the record, not to be believed."""
    sums, names = [0.0, 0.0], []
    for line in Path(path).read_text().splitlines():
        fields = [field.strip().lstrip("#") for field in line.split(",")]
        if "rxpci" in fields:
            names = fields
        if line.startswith("#") or not names or len(fields) != len(names):
            continue
        row = dict(zip(names, fields))
        at = time.mktime(time.strptime(row["Date"] + row["Time"], "%Y%m%d%H:%M:%S"))
        if row["gpu"] == str(gpu) and begin_unix - 1 <= at <= begin_unix + seconds:
            for place, name in enumerate(("rxpci", "txpci")):
                sums[place] += float(row[name]) * 1e6 if row[name].isdigit() else 0.0
    return sums


def work(args):
    """Keeps the GPU busy with memory in use, for power and memory to be compared."""
    import torch

    device = torch.device("cuda", args.gpu)
    memory = torch.empty(args.hold_gib << 30, dtype=torch.uint8, device=device)
    left = torch.randn(8192, 8192, dtype=torch.bfloat16, device=device)
    right = torch.randn(8192, 8192, dtype=torch.bfloat16, device=device)
    until = time.monotonic() + args.seconds
    while time.monotonic() < until:
        for _ in range(20):
            left @ right
        torch.cuda.synchronize(device)
    del memory


def levels(args):
    """Compares means of power, memory, temperature and clocks with nvidia-smi's."""
    metrics = json.loads((Path(args.telemetry) / "summary.json").read_text())["metrics"]
    ours = {m["metric"]: m for m in metrics if m["source"] == "gpu" and m["device"] == str(args.gpu)}
    with open(args.smi, newline="") as file:
        rows = [{k.strip(): v.strip() for k, v in row.items()} for row in csv.DictReader(file)]
    def mean(name):
        values = []
        for row in rows:
            at = time.mktime(time.strptime(row["timestamp"].split(".")[0], "%Y/%m/%d %H:%M:%S"))
            if int(row["index"]) == args.gpu and args.begin_unix <= at <= args.end_unix:
                values.append(float(row[name].split()[0]))
        return sum(values) / len(values)
    results = []
    for metric, name, scale, limit in [
        ("power", "power.draw [W]", 1.0, 5.0),
        ("power", "power.draw.instant [W]", 1.0, None),
        ("energy", "power.draw [W]", 1.0, 5.0),
        ("memory_used", "memory.used [MiB]", 2**20, 2.0),
        ("temperature", "temperature.gpu", 1.0, 5.0),
        ("sm_clock", "clocks.current.sm [MHz]", 1.0, 5.0),
        ("utilization", "utilization.gpu [%]", 1.0, 5.0),
        ("pcie_generation", "pcie.link.gen.current", 1.0, 1.0),
        ("pcie_width", "pcie.link.width.current", 1.0, 1.0),
    ]:
        try:
            theirs = mean(name) * scale
            mine = ours[metric]["mean"]
        except (KeyError, ValueError, ZeroDivisionError) as error:
            print(f"{metric:16} {name}: not recorded ({error!r})")
            continue
        off = (mine / theirs - 1) * 100 if theirs else 0.0
        good = limit is None or abs(off) <= limit
        results.append({"metric": metric, "nvidia_smi": name, "ours": mine, "theirs": theirs,
                        "off_percent": off, "good": good})
        print(f"{metric:16} {mine:.6g} | {name} {theirs:.6g} | {off:+.2f} %{'' if good else ' OUT'}")
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(result["good"] for result in results) else 1


def compare(args):
    copies = json.loads(Path(args.copies).read_text())
    folder = Path(args.telemetry)
    epoch = json.loads((folder / "summary.json").read_text())["epoch_monotonic_s"]
    with open(folder / "pcie_stats.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    methods = sorted({row["method"] for row in rows} - {"throughput"})
    if not methods:
        sys.exit("no method recorded bytes over PCIe")
    # The payload is what is known; the wire carries headers and requests besides.
    limits = {"gpm_payload": 5.0, "counters_payload": 10.0}
    wrong, results = [], []
    for mode in copies["modes"]:
        begin = mode["begin_monotonic_s"] - epoch
        end = mode["end_monotonic_s"] - epoch
        for way, column in (("rx", "rxpci"), ("tx", "txpci")):
            true = mode[f"{way}_bytes"]
            for method in methods:
                seen, covered = seen_bytes(rows, copies["gpu"], method, column, begin, end)
                off = (seen / true - 1) * 100 if true else None
                result = {
                    "mode": mode["mode"], "way": way, "method": method, "true_bytes": true,
                    "seen_bytes": seen, "covered": covered, "off_percent": off,
                    "seconds": end - begin,
                }
                results.append(result)
                difference = f"{off:+.2f} %" if true else f"{seen / (end - begin) / 1e9:.3f} GB/s of overhead"
                print(
                    f"{mode['mode']:12} {way} {method:16} true {true / 1e9:7.2f} GB "
                    f"seen {seen / 1e9:7.2f} GB {difference} (covered {covered * 100:.1f} %)"
                )
                if covered < 0.95:
                    wrong.append(f"{mode['mode']} {way} by {method}: {covered:.0%} covered")
                if true and abs(off) > limits.get(method, math.inf):
                    wrong.append(f"{mode['mode']} {way} by {method}: {off:+.2f} %")
            if args.dmon and true:
                sums = dmon_bytes(args.dmon, copies["gpu"], mode["begin_unix_s"], end - begin)
                seen = sums[0 if way == "rx" else 1]
                results.append(
                    {"mode": mode["mode"], "way": way, "method": "dmon", "true_bytes": true,
                     "seen_bytes": seen, "off_percent": (seen / true - 1) * 100}
                )
                print(
                    f"{mode['mode']:12} {way} dmon             true {true / 1e9:7.2f} GB "
                    f"seen {seen / 1e9:7.2f} GB {(seen / true - 1) * 100:+.2f} %"
                )
    if args.out:
        Path(args.out).write_text(json.dumps({"results": results, "wrong": wrong}, indent=1) + "\n")
    for text in wrong:
        print(f"OUT OF BOUNDS: {text}")
    print("all within bounds" if not wrong else f"{len(wrong)} out of bounds")
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("copy")
    one.add_argument("--out", required=True)
    one.add_argument("--gpu", type=int, default=0)
    one.add_argument("--gib", type=float, default=100.0, help="GiB a steady mode")
    one.add_argument("--burst-gib", type=float, default=40.0, help="GiB a mode of bursts")
    two = commands.add_parser("compare")
    two.add_argument("copies")
    two.add_argument("telemetry")
    two.add_argument("--dmon", help="output of nvidia-smi dmon -s pucmt -o DT --format csv")
    two.add_argument("--out", help="write the comparison as JSON")
    three = commands.add_parser("work")
    three.add_argument("--gpu", type=int, default=0)
    three.add_argument("--seconds", type=float, default=12)
    three.add_argument("--hold-gib", type=int, default=20)
    four = commands.add_parser("levels")
    four.add_argument("telemetry")
    four.add_argument("smi", help="output of nvidia-smi --query-gpu=... --format=csv -lms ...")
    four.add_argument("--gpu", type=int, default=0)
    four.add_argument("--begin-unix", type=float, required=True)
    four.add_argument("--end-unix", type=float, required=True)
    four.add_argument("--out")
    five = commands.add_parser("nvlink")
    five.add_argument("--out", required=True)
    five.add_argument("--gib", type=float, default=200.0)
    six = commands.add_parser("compare-nvlink")
    six.add_argument("copies")
    six.add_argument("telemetry")
    args = parser.parse_args()
    do = {"copy": copy, "compare": compare, "work": work, "levels": levels,
          "nvlink": nvlink, "compare-nvlink": compare_nvlink}
    sys.exit(do[args.command](args))


if __name__ == "__main__":
    main()
