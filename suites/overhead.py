"""Time and multiply-accumulates of a training step relative to a plain step of the same network.

The two steps alternate in one process, so that the ratio survives a machine whose speed drifts. The step is a whole
one: forward, backward, the estimator's own fits, all optimizers. q is as it begins, uniform.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from results.stats import ratio_interval
from results.table import row
from suites.cell import Cell, Workshop
from suites.labels import PLAIN
from suites.tasks.base import Workload

WARM_UP = 2


def macs(workload: Workload, steps: int) -> float:
    """Mean multiply-accumulates of a training step."""
    with FlopCounterMode(display=False) as counter:
        for _ in range(steps):
            workload.step()
    return counter.get_total_flops() / 2 / steps


def seconds(workload: Workload, device: torch.device, repeats: int) -> float:
    """Wall time of one step, by events on a GPU."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            workload.step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats
    begin = time.perf_counter()
    for _ in range(repeats):
        workload.step()
    return (time.perf_counter() - begin) / repeats


def run(cell: Cell, shop: Workshop) -> list[dict[str, Any]]:
    """The rows of an overhead cell."""
    task = shop.task(cell.task)
    device, pairs = task.context.device, task.preset.overhead_pairs
    plain = task.workload(None, "overhead")
    own = plain if cell.label.name == PLAIN else task.workload(cell.label.make, "overhead")
    ratio = macs(own, pairs) / macs(plain, 1)
    for _ in range(WARM_UP):
        seconds(plain, device, 1), seconds(own, device, 1)
    # a step of a microsecond-sized objective is timed in bundles
    repeats = max(1, int(0.01 / seconds(plain, device, 1)))
    times = []
    for pair in range(pairs):
        task.context.progress("timing", pair, pairs)
        times.append((seconds(plain, device, repeats), seconds(own, device, repeats)))
    base, spent = np.array(times).T
    interval = ratio_interval(spent, base)
    # one standard error on the scale of the ratio, from that of its logarithm
    se = interval.estimate * float(np.std(np.log(spent / base), ddof=1)) / len(base) ** 0.5
    return [
        row("time_ratio", interval.estimate, se=se, n=pairs, unit="plain steps"),
        row("macs_ratio", ratio, n=pairs, unit="plain steps"),
        row("seconds", float(np.median(spent)), n=pairs, unit="s"),
    ]
