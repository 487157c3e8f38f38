"""The identity of a data set: a name and a hash of its arrays, so that different data under one name are distinguished.

The hash covers the images (uint8) and labels (int64) of both splits, with their shapes. It does not depend on a file's
compression or on the type in which the labels are stored. It is cached beside the file together with the file's size
and times, and computed again when these change.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from vmo import partial

FORMAT = 1
"""Version of the cached hash; raise it when the computation of the hash changes."""

SETTLED = 2.0
"""Seconds since the last change of a file before its hash is cached: a later change could have the same times."""


@dataclass(frozen=True)
class Official:
    """A data set as published.

    Attributes:
        train: number of training images.
        test: number of test images.
        content: hash of its arrays; None if unknown.
        variants: notes on other arrays of the same size that are in use, by their hash.
    """

    train: int
    test: int
    content: str | None = None
    variants: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


OFFICIAL = {
    "digits": Official(1438, 359, "de573274cdce3cca"),
    "cifar10": Official(
        50_000, 10_000, None, MappingProxyType({"93d97ded419e48da": "97 of 60,000 images restored from JPEG"})
    ),
    "cifar100": Official(50_000, 10_000, "4ec76184412ef587"),
    "cifar10_16": Official(
        50_000, 10_000, None, MappingProxyType({"9a642f072c717229": "97 of 60,000 images restored from JPEG"})
    ),
    "cifar100_16": Official(50_000, 10_000, "2cb5fa336a1740fd"),
    "mnist": Official(60_000, 10_000, "e0130f111822ed58"),
    "fashion_mnist": Official(60_000, 10_000, "a06d3266794aa014"),
    "omniglot": Official(19_280, 13_180),
}
OTHER = "content differs from the official arrays"


@dataclass(frozen=True)
class Identity:
    """Which data these are. See `vmo.data.identify`.

    Attributes:
        name: the name they are loaded by, without folders: "cifar10", "my.npz".
        content: 16 hexadecimal digits of the SHA-256 of the arrays.
        dataset: the name to show. For a published set it includes the sizes if they differ from the published ones; for
            a user's own file it includes the start of the hash.
        note: "", or a short note on how the data differ from the published set of this name and size.
    """

    name: str
    content: str
    dataset: str
    note: str

    def __str__(self) -> str:
        return f"{self.dataset.partition('@')[0]} with content {self.content}"

    def recorded(self) -> dict[str, str]:
        """The identity as entries of a result's record."""
        return {"data": self.content, "dataset": self.dataset, "data_name": self.name, "data_note": self.note}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Identity:
        """Read the identity from such a record. Raises KeyError if entries are missing."""
        return cls(record["data_name"], record["data"], record["dataset"], record["data_note"])


def describe(name: str, content: str, train: int, test: int) -> Identity:
    """The identity of data with this hash and this number of images in each split."""
    official = OFFICIAL.get(name)
    if official is None:
        return Identity(name, content, f"{name}@{content[:8]}", "")  # two files may have one name
    if (train, test) != (official.train, official.test):
        return Identity(name, content, f"{name} ({train:,} + {test:,} images)", "")
    known = official.content is None or content == official.content
    return Identity(name, content, name, official.variants.get(content, "" if known else OTHER))


def hashed(splits: Sequence[tuple[Tensor, Tensor]]) -> str:
    """The hash, 16 hexadecimal digits, of the images, uint8 (N, C, H, W), and labels, int64 (N,), of each split."""
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(repr(tuple(images.shape)).encode())
        digest.update(images.cpu().contiguous().numpy().data)
        digest.update(np.ascontiguousarray(labels.cpu().numpy(), "<i8").data)
    return digest.hexdigest()[:16]


Measured = tuple[str, int, int]
"""The hash, and the number of images in each split."""

_known: dict[tuple[str, str], Measured] = {}


def kept(place: Path, files: Sequence[Path], measure: Callable[[], Measured]) -> Measured:
    """The result of `measure` for `files`, cached in the file `place` and in this process.

    Without write permission for the folder it is only cached in this process. Nothing is cached for files that have
    just changed, or that changed while they were read.

    Raises:
        OSError: a file is missing. Errors of `measure` are passed on.
    """
    stamps = _stamps(files)
    key = (str(place.absolute()), json.dumps(stamps))
    found = _known.get(key) or _read(place, stamps)
    if found is None:
        found = measure()
        changed = max(moment for _, *moments in stamps.values() for moment in moments)
        if time.time_ns() - changed < SETTLED * 1e9 or _stamps(files) != stamps:
            return found
        _write(place, stamps, found)
    _known[key] = found
    return found


def _stamps(files: Sequence[Path]) -> dict[str, list[int]]:
    """Size and times of each file. ctime cannot be set by a user, so it changes with every change of content."""
    stats = {file.name: file.stat() for file in files}
    return {name: [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in stats.items()}


def _read(place: Path, stamps: dict[str, list[int]]) -> Measured | None:
    """The cached result for exactly these files; None if it is missing, damaged or of other files."""
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
        content, train, test = known["content"], known["train"], known["test"]
        good = known["format"] == FORMAT and known["files"] == stamps and re.fullmatch("[0-9a-f]{16}", content)
        return (content, int(train), int(test)) if good else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _write(place: Path, stamps: dict[str, list[int]], found: Measured) -> None:
    content, train, test = found
    text = json.dumps({"format": FORMAT, "content": content, "train": train, "test": test, "files": stamps})
    with suppress(OSError), partial.file(place) as temporary:  # if this fails, the next process computes it again
        temporary.write_text(text + "\n", encoding="utf-8")
