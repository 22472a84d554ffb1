#!/usr/bin/env python3
"""Writes the list of arguments of `vllm serve` that src/server/vllm_arguments/ holds.

usage: scripts/list-vllm-arguments.py VLLM      the program of an installed vLLM, such as venv/bin/vllm

The names are read from `vllm serve --help=all`, the version from `vllm --version`.
"""

import pathlib
import re
import subprocess
import sys

LIST = pathlib.Path(__file__).resolve().parents[1] / "src/server/vllm_arguments/serve.txt"


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    vllm = sys.argv[1]
    version = re.search(r"\d+\.\d+\.\d+", output(vllm, "--version").splitlines()[-1]).group()
    names = set()
    for line in output(vllm, "serve", "--help=all").splitlines():
        if re.match(r"  -", line):
            names |= set(re.findall(r"--([a-z][a-z0-9.-]*)", line))
    head = [
        "# Arguments of `vllm serve`, without the leading dashes.",
        "# Written by scripts/list-vllm-arguments.py.",
        f"version: {version}",
    ]
    LIST.write_text("\n".join(head + sorted(names)) + "\n")


main()
