"""A whole training run, and what it leaves: accuracy, size, and the state of q along the way. See `Task.train`.

Beside the estimators there are baselines, each by the same recipe, for the same epochs and from the same seed:

    plain              the full network
    random             q stays uniform; weights train on its samples, and one more sample is what is deployed (with a
                       target for its cost, the one that is most probable under Gumbel noise and meets it)
    uniform[of=NAME]   of full depth, every block cut by one factor, at the MACs of the network that NAME learned
    scratch[of=NAME]   the network that NAME learned, trained anew from initial weights of its own size
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from results import table
from suites.engine.cell import Cell, Workshop
from suites.engine.labels import FIXED, PLAIN, RANDOM, parse
from vmo.space import Architecture


class Missing(ValueError):
    """There is no learned network to be a control of."""


def run(cell: Cell, shop: Workshop) -> list[dict[str, Any]]:
    """The rows of an accuracy cell.

    Raises:
        Missing: the run that this is a control of has not finished.
        vmo.learner.Diverged: see there.
    """
    task, name = shop.task(cell.task), cell.label.name
    train: Callable[..., list[dict[str, Any]]] = functools.partial(
        task.train, seed=cell.seed, keeper=shop.keeper(cell)
    )  # of a network also with `learn` and `architecture`
    if name == PLAIN:
        return train(None)
    if name == RANDOM:
        return train(parse("reinforce[baseline=none]").make, learn=False)  # hard samples, at their cheapest
    if name in FIXED:
        learned = _learned(cell, shop)
        return train(None, architecture=learned if name == "scratch" else task.cut_alike(learned))
    return train(cell.label.make)


def _learned(cell: Cell, shop: Workshop) -> Architecture:
    """What the run that a cell is a control of has come to, from its rows."""
    other = cell.controlled()
    assert other is not None
    path = shop.out / "rows" / f"{other.hash()}.jsonl"
    found = table.read_file(path) if path.exists() else []
    widths = {row["x"]: int(row["value"]) for row in found if row["metric"] == "block_width"}
    if not widths:
        status = found[0]["status"] if found else "not there"
        if status == "ok":
            status = "of a version that did not record it; --overwrite always runs it again"
        raise Missing(f"needs what {other.label} learned on {other.task}, seed {other.seed}, and that run is {status}")
    hidden = tuple(widths[block] for block in sorted(widths))
    return Architecture(len(hidden), hidden)
