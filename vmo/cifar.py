"""CIFAR-10 and CIFAR-100 from their authors' binary archives: download, parse, cache.

torchvision's CIFAR classes read the Python archives, which are pickles, and a pickle can run code. The binary archives
hold the same images as fixed-size records: one or two label bytes, then 3,072 bytes of a (3, 32, 32) image. numpy reads
them directly. The download uses torchvision, with its MD5 check.

Reference: Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmo import cache


@dataclass(frozen=True)
class Archive:
    """One binary archive: its address, its hash and the layout of its records.

    Attributes:
        url: address of the .tar.gz.
        md5: hash of the whole archive, hexadecimal.
        classes: number of classes.
        label_bytes: label bytes before the pixels; the last one is the (fine) class.
        members: names of the files inside the archive, for "train" and for "test".
    """

    url: str
    md5: str
    classes: int
    label_bytes: int
    members: dict[str, tuple[str, ...]]

    @property
    def filename(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


ARCHIVES = {
    "cifar10": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        classes=10,
        label_bytes=1,
        members={
            "train": tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
            "test": ("cifar-10-batches-bin/test_batch.bin",),
        },
    ),
    "cifar100": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        classes=100,
        label_bytes=2,
        members={"train": ("cifar-100-binary/train.bin",), "test": ("cifar-100-binary/test.bin",)},
    ),
}

NORMALISATION = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
"""Mean and standard deviation of each channel, in units of 0 … 255, from the Wide Residual Networks recipe."""

CLASS_NAMES = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
        can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
        dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
        lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
        pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
        seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
        tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
        worm
    """,
}
"""Class names in the order of the labels; for CIFAR-100 the fine classes."""


def fetch(name: str, root: Path) -> None:
    """Write the missing .npz files of `name` ("cifar10" or "cifar100") under `root`.

    Uses the archive in `root` if there is one, and downloads it otherwise.

    Raises:
        OSError: no network, no answer in time, or `root` cannot be written.
        RuntimeError: the download has the wrong MD5.
        ValueError: the archive in `root` is damaged.
    """
    from torchvision.datasets.utils import check_md5, download_url  # slow to import, and needed only here

    archive = ARCHIVES[name]
    own = root / archive.filename
    is_there = own.exists()
    if is_there and not check_md5(own, archive.md5):
        raise ValueError(f"{own} does not have the MD5 {archive.md5}")

    def make(split: str, scratch: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        local = own if is_there else scratch / archive.filename
        if not local.exists():  # one download serves both splits
            download_url(archive.url, str(scratch), archive.filename, archive.md5)
        return parse(local, archive, split)

    cache.fill(name, root, make)


def parse(path: Path, archive: Archive, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read one split of a binary archive at `path`, in the official order.

    Returns:
        images uint8 (N, 32, 32, 3) and labels uint8 (N,).

    Raises:
        ValueError: a file is missing in the archive, or is not a whole number of records.
    """
    record = archive.label_bytes + 3 * 32 * 32
    parts = []
    try:
        with tarfile.open(path, "r:gz") as tar:  # members are read, never unpacked to disk
            for member in archive.members[split]:
                handle = tar.extractfile(member)
                parts.append(np.frombuffer(handle.read() if handle else b"", np.uint8))
    except (KeyError, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} is not the expected archive: {error}") from error
    flat = np.concatenate(parts)
    if flat.size == 0 or flat.size % record:
        raise ValueError(f"{path}: {flat.size} bytes of {split} data are not a whole number of {record}-byte records")
    rows = flat.reshape(-1, record)
    images = rows[:, archive.label_bytes :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), rows[:, archive.label_bytes - 1].copy()
