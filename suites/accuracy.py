"""A whole training run, and what it leaves: accuracy, size, and the state of q along the way. See `Task.train`."""

from __future__ import annotations

from typing import Any

from suites.cell import Cell, Workshop
from suites.labels import PLAIN


def run(cell: Cell, shop: Workshop) -> list[dict[str, Any]]:
    """The rows of an accuracy cell."""
    make = None if cell.label.name == PLAIN else cell.label.make
    return shop.task(cell.task).train(make, cell.seed, shop.keeper(cell))
