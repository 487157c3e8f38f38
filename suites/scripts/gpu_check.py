"""Runs every check that needs a GPU: vmo-bench gpu --out DIR.

In turn: the tests marked `gpu`, if this is a checkout with tests; the fraction of the device's peak that a plain step
of WRN-28-10 reaches, in float32, in bfloat16 and compiled; and the memory and overhead suites of the width task at the
preset `paper`. After a failure it continues, and finally exits with status 1.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from results import table
from suites import run as measure
from suites.overhead import WARM_UP, OverheadSettings, macs, seconds
from suites.presets import resolve
from suites.scripts import rows
from suites.scripts.gpu_projection import fraction_of_peak
from suites.settings import Preset
from suites.tasks import factory
from suites.tasks.base import Context
from vmo.compiled import compile_network

TESTS = Path(__file__).parents[2] / "tests"
WAYS = ((False, False), (True, False), (True, True))  # bfloat16, compiled


class Peak(NamedTuple):
    """One way to run a plain step: its row, the dtype, and the total time in seconds."""

    row: dict[str, Any]
    dtype: str
    seconds: float


def peak(preset: Preset, device: torch.device, name: str, repeats: int) -> Iterator[Peak]:
    """Measure each way to run a plain step of the role "timed". Yields nothing if the device's peak is unknown."""
    task = factory("width")(Context(device=device))
    for bf16, compiled in WAYS:
        handed = preset.with_({"train.bf16": bf16}).hand(task.plain_roles["timed"])
        step: Any = task.workload("timed", handed, None)
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
            yield Peak(table.row("peak_fraction", fraction, part=part, n=repeats, unit="fraction"), dtype, sum(times))


def run(out: Path, estimators: Sequence[str]) -> int:
    """Run all checks. Returns the exit status: 0, or 1 if one failed. Raises ValueError without a GPU."""
    if not torch.cuda.is_available():
        raise ValueError("this machine has no CUDA device that PyTorch can use")
    try:
        (out / "rows").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from None
    failed = []
    if TESTS.is_dir() and subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", str(TESTS)]).returncode:
        failed.append("tests")
    preset, device, name = resolve("paper"), torch.device("cuda"), torch.cuda.get_device_name()
    try:
        for found in peak(preset, device, name, preset.hand(OverheadSettings).overhead.pairs):
            print(f"{found.row['part']}: {found.row['value']:.1%} of the peak of {name}")
            write(out / "rows", found, preset, device)
    except RuntimeError as error:  # out of memory, or no compiler; the suites may work nevertheless
        print(f"fraction of the peak: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        failed.append("peak")
    words = ["--task", "width", "--suite", "memory", "overhead", "--preset", "paper", "--device", "cuda"]
    if measure.main(["--estimator", *estimators, *words, "--out", str(out)]):
        failed.append("suites")
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def write(folder: Path, found: Peak, preset: Preset, device: torch.device) -> None:
    """Write a row of `peak`, as a cell of the overhead suite."""
    settings = {"timed": preset.groups["timed"].model_dump(), "peak": {"way": found.row["part"]}}
    about: dict[str, Any] = {"suite": "overhead", "task": "width", "preset": preset.name, "settings": settings}
    rows.write(folder, [found.row], **about, device=device, dtype=found.dtype, seconds=found.seconds)
