"""What tests run in processes of its own, which have to be able to import it."""

import os
import sys
from pathlib import Path

import making
import torch

from estimators.rloo import Rloo
from suites.engine.cell import Workshop
from suites.engine.local import InProcess
from suites.engine.plan import Planned
from suites.engine.schedule import sweep
from suites.tasks.base import Context

TINY = [
    "train.epochs=1", "function.steps=20", "function.estimates=200", "trajectory.steps=6", "trajectory.ride=2",
    "gradient.estimates=20", "truth.minibatches=3",
]  # fmt: skip


def planned(shop: Workshop, names: list[str], suites: list[str], task: str = "toy") -> list[Planned]:
    """Cells of a few seconds at most."""
    return making.planned(shop, task, names, suites, *TINY)


def sweep_toy(out: Path) -> None:
    """A sweep, as one of several on the same folder."""
    torch.set_num_threads(1)
    shop = Workshop(Context(), out)
    items = planned(shop, ["rloo", "reinforce"], ["bias", "accuracy"])
    assert {done.status for done in sweep(items, shop, out / "rows", InProcess())} == {"ok"}


class Deadly(Rloo):
    """Says a word and ends its process."""

    def draw(self, logits: object, generator: object = None) -> None:  # type: ignore[override]
        print("a word\nand the last word", file=sys.stderr, flush=True)
        os._exit(7)
