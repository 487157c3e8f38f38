"""How the cost of a training step grows: its seconds and its bytes as one size is varied and the others are held.

They are held at the network that the preset trains, on 32×32 images, with minibatches of `scaling_batch` and the
estimator's own number of samples. Varied are the minibatch, the widen factor, the residual blocks (each is a site of
the width task), K, by the step of the width, and the samples of an estimator that has such an option. A row's `point`
is what is varied and its `x` to what; rows of the metric `base` say where it is held.

Seconds are taken as in `suites.overhead`, in turn with a plain step of the same network, and bytes counted as in
`suites.memory`. The base is measured once and stands in every range.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

import estimators
from results.table import row
from suites.engine.cell import Cell, Workshop
from suites.engine.labels import PLAIN, Label
from suites.memory import count
from suites.overhead import WARM_UP, interleaved, ratio
from suites.tasks import factory
from suites.tasks.base import Task

# what is varied, the field of `Size` that does it, and its values, of which a preset takes the first so many
RANGES = {
    "batch": ("batch", (16, 32, 64, 128)),
    "widen": ("widen", (1, 2, 3, 4)),
    "blocks": ("depth", (10, 16, 22, 28)),
    "K": ("step", (16, 8, 4, 2, 1)),
    "samples": ("samples", (2, 4, 8, 16)),
}
OF_PLAIN = ("batch", "widen", "blocks")


@dataclass(frozen=True)
class Size:
    """What the cost of a step is measured at; no samples where the estimator has no such option."""

    batch: int
    widen: int
    depth: int
    step: int
    samples: int | None


def run(cell: Cell, shop: Workshop) -> list[dict[str, Any]]:
    """The rows of a scaling cell; a size at which the estimator cannot work is a row that says why."""
    base = _base(cell, shop)
    sizes = list(_sizes(cell, shop, base))
    rows = [row("base", x, point=what) for what, x, size in sizes if size == base]
    measured: dict[Size, list[dict[str, Any]]] = {}
    for done, (what, x, size) in enumerate(sizes):
        shop.context.progress(f"scaling {what}", done, len(sizes))
        if size not in measured:
            measured[size] = _measure(cell, shop, size)
        rows += [found | {"point": what, "x": x} for found in measured[size]]
    return rows


def _base(cell: Cell, shop: Workshop) -> Size:
    p, samples = shop.context.preset, None
    if cell.label.name != PLAIN:
        option = inspect.signature(estimators.factory(cell.label.name)).parameters.get("samples")
        samples = None if option is None else dict(cell.label.options).get("samples", option.default)
    return Size(p.scaling_batch, p.widen, p.depth, p.width_step, samples)


def _sizes(cell: Cell, shop: Workshop, base: Size) -> Iterator[tuple[str, int, Size]]:
    """What is varied, to what, and the size that this is, in ascending order."""
    for what, (name, values) in RANGES.items():
        held = getattr(base, name)
        if held is None or (cell.label.name == PLAIN and what not in OF_PLAIN):
            continue
        found = {}
        possible = [(value, replace(base, **{name: value})) for value in values]
        # where a site has one category there is nothing to estimate
        possible = [(value, size) for value, size in possible if what != "K" or min(_categories(cell, shop, size)) > 1]
        for value, size in [*possible[: shop.context.preset.scaling_values], (held, base)]:
            x = max(_categories(cell, shop, size)) if what == "K" else value // 2 - 2 if what == "blocks" else value
            found[x] = size
        if len(found) > 1:  # the step of the width is nothing to the depth task
            yield from ((what, x, size) for x, size in sorted(found.items()))


def _task(cell: Cell, shop: Workshop, size: Size, device: torch.device) -> Task:
    """The task with a step of this size, timed or counted."""
    of_suites = {
        f"{suite}_{name}": getattr(size, name)
        for suite in ("overhead", "memory")
        for name in ("depth", "widen", "batch")
    }
    preset = replace(shop.context.preset, width_step=size.step, **of_suites)
    return factory(cell.task)(replace(shop.context, preset=preset, device=device))


def _categories(cell: Cell, shop: Workshop, size: Size) -> tuple[int, ...]:
    return _task(cell, shop, size, torch.device("cpu")).sizes("overhead")


def _measure(cell: Cell, shop: Workshop, size: Size) -> list[dict[str, Any]]:
    """Seconds and bytes at one size, or why there are none."""
    device, preset = shop.context.device, shop.context.preset
    task, fake = (_task(cell, shop, size, where) for where in (device, torch.device("cpu")))
    pairs, make = preset.scaling_pairs, None
    try:
        if cell.label.name != PLAIN:
            given = {} if size.samples is None else {"samples": size.samples}
            make = Label(cell.label.name, tuple(sorted({**dict(cell.label.options), **given}.items()))).make
            evaluations = make(task.sizes("overhead")).evaluations
            if evaluations * (WARM_UP + pairs) > preset.budget:
                raise ValueError(
                    f"{evaluations} evaluations a step, which budget={preset.budget} is not enough to time"
                )
        plain_step, own_step = (task.workload(made, "overhead") for made in (None, make))
        base, spent = interleaved(plain_step, own_step, device, pairs, preset.overhead_seconds)
        peak, plain = (sum(count(fake, made).values()) for made in (make, None))
    except ValueError as error:
        return [row("seconds", None, n=0, status="infeasible", message=str(error))]
    except (torch.OutOfMemoryError, MemoryError) as error:  # of the largest sizes, which the others are worth without
        return [row("seconds", None, n=0, status="oom", message=" ".join(str(error).split())[:300])]
    estimate, se = ratio(spent, base)
    n = len(spent)  # fewer than pairs where they take long
    # the error of the median of normal times
    median, error_of = float(np.median(spent)), float(np.std(spent, ddof=1)) * (np.pi / 2 / n) ** 0.5
    return [
        row("seconds", median, se=error_of, n=n, unit="s"),
        row("time_ratio", estimate, se=se, n=n, unit="plain steps"),
        row("bytes", peak, part="peak", unit="bytes"),
        row("peak_ratio", peak / plain, unit="plain peaks"),
    ]
