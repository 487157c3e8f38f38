"""The two .npz files, one per split, in which a data set is kept once it has been downloaded.

They are made in a temporary folder beside their place and renamed into it: nothing half-written is ever left under a
final name, and several processes may start at once. What a killed process left is removed by the next one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmo import partial

TIMEOUT = 10.0
"""Seconds without an answer after which a download gives up; torchvision's own default is to wait for ever."""


def paths(name: str, root: Path) -> dict[str, Path]:
    """The .npz file of each split of the data set `name` under `root`."""
    return {split: root / f"{name}_{split}.npz" for split in ("train", "test")}


def fill(name: str, root: Path, make: Callable[[str, Path], tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Write the missing .npz files of `name` under `root`.

    Args:
        name: of the data set.
        root: folder of the data sets; made if it is not there.
        make: gives the images and labels of a split ("train" or "test"). It may download into the folder it is given,
            which is deleted in the end; no answer within `TIMEOUT` seconds is an `OSError` there.

    Raises:
        OSError: `root` cannot be written. What `make` raises passes through.
    """
    root.mkdir(parents=True, exist_ok=True)
    with partial.folder(root, "download") as scratch, _socket_timeout(TIMEOUT):
        for split, target in paths(name, root).items():
            if not target.exists():
                images, labels = make(split, scratch)
                made = scratch / target.name
                np.savez(made, images=images, labels=labels)
                made.replace(target)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
