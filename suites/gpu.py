"""Every check that needs a GPU, and its rows: python -m suites.gpu --out DIR.

In turn: the tests marked `gpu`, where this is a checkout that has them; the fraction of the device's peak that a plain
step of WRN-28-10 reaches, in float32, in bfloat16 and compiled; and the memory and overhead suites of the width task at
the preset `paper`. Goes on after a failure and then exits with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from results import table
from suites import run
from suites.engine.execute import provenance
from suites.overhead import WARM_UP, macs, seconds
from suites.presets import PRESETS, Preset
from suites.scale import fraction_of_peak
from suites.tasks import factory
from suites.tasks.base import Context
from vmo.compiled import compile_network

TESTS = Path(__file__).parents[1] / "tests"
WAYS = ((False, False), (True, False), (True, True))  # bfloat16, compiled


def peak(preset: Preset, device: torch.device, name: str, repeats: int) -> Iterator[tuple[dict[str, Any], str, float]]:
    """A row of each way to run a plain step at the size of the overhead suite, its dtype, and its seconds.

    There is none on a device whose peak is not known.
    """
    for bf16, compiled in WAYS:
        step: Any = factory("width")(Context(preset, device=device)).workload(None, "overhead")
        step.trainer.recipe = replace(step.trainer.recipe, bf16=bf16)
        counted = macs(step, 1)
        if compiled:
            compile_network(step.trainer.network)
        for _ in range(WARM_UP):
            seconds(step, device, 1)
        times = [seconds(step, device, 1) for _ in range(repeats)]
        dtype = "bfloat16" if bf16 else "float32"
        fraction = fraction_of_peak(counted, float(np.median(times)), name, dtype)
        part = f"{dtype}, compiled" if compiled else dtype
        if fraction is not None:
            yield table.row("peak_fraction", fraction, part=part, n=repeats, unit="fraction"), dtype, sum(times)


def main(argv: Sequence[str] | None = None) -> int:
    """Run all checks. Returns the exit status: 0, 1 where one failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m suites.gpu", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="by default results/gpu")
    parser.add_argument("--estimator", nargs="+", default=["all"], metavar="NAME", help="of the suites; by default all")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("error: this machine has no CUDA device that PyTorch can use", file=sys.stderr)
        return 2
    try:
        (args.out / "rows").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"error: --out {args.out} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    failed = []
    if TESTS.is_dir() and subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", str(TESTS)]).returncode:
        failed.append("tests")
    device, name = torch.device("cuda"), torch.cuda.get_device_name()
    try:
        for row, dtype, spent in peak(PRESETS["paper"], device, name, PRESETS["paper"].overhead_pairs):
            print(f"{row['part']}: {row['value']:.1%} of the peak of {name}")
            write(args.out / "rows", row, name, dtype, spent)
    except RuntimeError as error:  # no memory, or no compiler; the suites may do all the same
        print(f"the fraction of the peak: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        failed.append("peak")
    words = ["--task", "width", "--suite", "memory", "overhead", "--preset", "paper", "--device", "cuda"]
    if run.main(["--estimator", *args.estimator, *words, "--out", str(args.out)]):
        failed.append("suites")
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def write(rows: Path, row: dict[str, Any], device: str, dtype: str, spent: float) -> None:
    """A row of `peak`, as a cell of the overhead suite."""
    preset = PRESETS["paper"]
    settings = {"overhead_depth": preset.overhead_depth, "overhead_widen": preset.overhead_widen, "way": row["part"]}
    cell = {"suite": "overhead", "task": "width", "task_version": 1, "estimator": "plain", "estimator_version": 1}
    cell |= {"preset": "paper", "dataset": "none", "seed": 0, "settings": settings}
    shared = {"cell": cell, "provenance": {**provenance(), "device": device, "dtype": dtype, "wall_s": round(spent, 3)}}
    table.write(rows, hashlib.sha256(repr(cell).encode()).hexdigest()[:16], [{**row, **shared}])


if __name__ == "__main__":
    sys.exit(main())
