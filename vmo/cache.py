"""The two .npz files, one per split, that store a downloaded data set.

They are written to a temporary folder and then renamed. So no file under a final name is ever incomplete, and several
processes may run at once. The next process removes what a killed process left behind.
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
"""Seconds without an answer after which a download fails; torchvision's default is to wait for ever."""


def paths(name: str, root: Path) -> dict[str, Path]:
    """The .npz file of each split of the data set `name` under `root`."""
    return {split: root / f"{name}_{split}.npz" for split in ("train", "test")}


def fill(name: str, root: Path, make: Callable[[str, Path], tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Write the missing .npz files of `name` under `root`.

    Args:
        name: the data set's name.
        root: folder of the data sets; created if missing.
        make: returns the images and labels of a split ("train" or "test"). It may download into the folder it is given,
            which is deleted at the end. A download raises `OSError` after `TIMEOUT` seconds without an answer.

    Raises:
        OSError: `root` cannot be written. Errors of `make` are passed on.
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
