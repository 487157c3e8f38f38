"""The sources of images: scikit-learn's digits, downloads stored as .npz files, and the user's own .npz files."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmo import cache, cifar, npz, torchvision_sets
from vmo.npz import DataError

HALVED = {"cifar10_16": "cifar10", "cifar100_16": "cifar100"}
"""Data sets of 16 × 16 images, and the data set they are made from: every pixel is the mean of 2 × 2 pixels."""

NAMES = ("digits", *cifar.ARCHIVES, *HALVED, *torchvision_sets.SOURCES)
"""The data sets known by name."""

ROOT_VARIABLE = "VMO_DATA"
"""The environment variable with the folder of the data sets; the default folder is "data"."""

TEST_FRACTION = 0.2

Labelled = tuple[NDArray[Any], NDArray[Any]]
"""Images uint8 (N, H, W, C) and labels int64 (N,)."""


@dataclass(frozen=True, eq=False)
class Raw:
    """A data set as read from its source.

    Attributes:
        name: a name from `NAMES`, or the file name of a user's own .npz.
        train: the training split.
        test: the test split.
        classes: number of classes.
        pad: pixels of padding for random crops, see `vmo.data.Dataset`.
        flip: whether images may be flipped, see `vmo.data.Dataset`.
        normalisation: mean and standard deviation of each channel; None: those of the training images.
    """

    name: str
    train: Labelled
    test: Labelled
    classes: int
    pad: int
    flip: bool = False
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def read(name: str, root: Path) -> Raw:
    """The data set `name` under `root`. Raises what `vmo.data.load` raises."""
    places = files(name, root)
    if name == "digits":
        return _digits()
    if name.endswith(".npz"):
        return _own(places[0])
    if name in HALVED:
        whole = read(HALVED[name], root)
        train, test = ((_halved(images), labels) for images, labels in (whole.train, whole.test))
        return replace(whole, name=name, train=train, test=test, pad=whole.pad // 2)
    if name in cifar.ARCHIVES:
        classes = cifar.ARCHIVES[name].classes
        train, test = _published(name, places, (32, 32, 3), classes)
        return Raw(name, train, test, classes, 4, flip=True, normalisation=cifar.NORMALISATION)
    classes, side = torchvision_sets.SOURCES[name].classes, torchvision_sets.SIDE
    train, test = _published(name, places, (side, side, 1), classes)
    return Raw(name, train, test, classes, _pad(side))


def files(name: str, root: Path) -> tuple[Path, ...]:
    """The files of a data set: none for the digits, a user's own file, or one per split. Missing files are downloaded.

    Raises:
        DataError: unknown data set, missing file or failed download.
    """
    if name == "digits":
        return ()
    if name.endswith(".npz"):
        return (_find(name, root),)
    if name in HALVED:
        return files(HALVED[name], root)
    if name in cifar.ARCHIVES:
        archive = cifar.ARCHIVES[name]
        return _fetched(name, root, cifar.fetch, f"from {archive.url}", f"put that archive into {root}")
    if name in torchvision_sets.SOURCES:
        factory = torchvision_sets.SOURCES[name].factory
        how = f"by torchvision.datasets.{factory}", f"put both, with arrays images and labels, into {root}"
        return _fetched(name, root, torchvision_sets.fetch, *how)
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    raise DataError(f"unknown data set {name!r}{hint} available: {', '.join(NAMES)}, or your own NAME.npz")


def _fetched(name: str, root: Path, fetch: Callable[[str, Path], None], how: str, otherwise: str) -> tuple[Path, ...]:
    """The files of both splits. `how` and `otherwise` are for the error: how `fetch` makes them, what a user can do."""
    paths = tuple(cache.paths(name, root).values())
    if not all(path.exists() for path in paths):
        try:
            fetch(name, root)
        except (OSError, HTTPException, RuntimeError, ValueError) as error:
            looked_for = " and ".join(map(str, paths))
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{name}: {looked_for} are not both there, and getting them {how} failed ({reason}); "
                f"{otherwise}, or set {ROOT_VARIABLE} to a folder that has them"
            ) from error
    return paths


def _halved(images: NDArray[Any]) -> NDArray[Any]:
    """The mean of every 2 × 2 pixels of uint8 images `(N, H, W, C)`, rounded, halves to even."""
    n, height, width, channels = images.shape
    blocks = images.reshape(n, height // 2, 2, width // 2, 2, channels)
    return np.rint(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)


def _find(name: str, folder: Path) -> Path:
    places = list(dict.fromkeys((Path(name), folder / name)))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(f"there is no file {' or '.join(str(place) for place in places)}")
    return path


def _digits() -> Raw:
    from sklearn.datasets import load_digits  # slow to import, and needed only here

    digits = load_digits()
    images = (digits.images * 15).astype(np.uint8)[..., None]  # 0 … 16 becomes 0 … 240
    return _held_out("digits", "digits", images, digits.target.astype(np.int64), pad=1)


def _published(
    name: str, paths: tuple[Path, ...], shape: tuple[int, int, int], classes: int
) -> tuple[Labelled, Labelled]:
    splits = []
    for path in paths:
        images, labels = npz.labelled(path, npz.read(path, ("images", "labels")))
        if images.shape[1:] != shape:
            raise DataError(f"{path}: images must be (N, {', '.join(map(str, shape))}), not {images.shape}")
        if labels.max() >= classes:
            raise DataError(f"{path}: label {labels.max()} is out of range; {name} has {classes} classes")
        splits.append((images, labels))
    return splits[0], splits[1]


def _own(path: Path) -> Raw:
    arrays = npz.read(path, ("images", "labels"), ("test_images", "test_labels"))
    images, labels = npz.labelled(path, arrays)
    missing = np.flatnonzero(~np.isin(np.arange(min(labels.max() + 1, len(labels) + 1)), labels))
    if missing.size:
        raise DataError(f"{path}: labels must be 0, 1, 2, … without gaps, but no image has label {missing[0]}")
    if labels.max() == 0:
        raise DataError(f"{path}: at least two classes are needed, but every label is 0")
    pad = _pad(min(images.shape[1:3]))
    held_out = [key in arrays for key in ("test_images", "test_labels")]
    if not any(held_out):
        return _held_out(path.name, path, images, labels, pad=pad)
    if not all(held_out):
        raise DataError(f"{path}: test_images and test_labels belong together, but it has only one of them")
    test_images, test_labels = npz.labelled(path, arrays, "test_")
    if test_images.shape[1:] != images.shape[1:]:
        raise DataError(f"{path}: test_images are {test_images.shape[1:]}, but images are {images.shape[1:]}")
    if test_labels.max() > labels.max():
        raise DataError(f"{path}: test label {test_labels.max()} is out of range; labels end at {labels.max()}")
    return Raw(path.name, (images, labels), (test_images, test_labels), int(labels.max()) + 1, pad)


def _pad(side: int) -> int:
    return 4 if side >= 32 else side // 8


def _held_out(name: str, where: str | Path, images: NDArray[Any], labels: NDArray[Any], *, pad: int) -> Raw:
    """Split every class 80 / 20 into training and test images, with a fixed seed."""
    # RandomState, because numpy guarantees its stream; that of default_rng may change with numpy's version.
    random = np.random.RandomState(0)
    test = np.zeros(len(labels), bool)
    classes = int(labels.max()) + 1
    for label in range(classes):
        members = random.permutation(np.flatnonzero(labels == label))
        test[members[: round(TEST_FRACTION * len(members))]] = True
    if not test.any():
        raise DataError(f"{where}: too few images per class to hold out a test set; add test_images and test_labels")
    return Raw(name, (images[~test], labels[~test]), (images[test], labels[test]), classes, pad)
