"""Image classification data sets, held on the device as uint8 and augmented there in batches.

A training set of 50,000 CIFAR images is 154 MB as uint8, so that it fits beside any network; moving it once and
augmenting whole batches with tensor operations needs no worker processes and no copy from the host. Augmentation is the
one of Wide Residual Networks (arXiv:1605.07146): reflection padding, a random crop and a random horizontal flip.

Available: "digits" (scikit-learn's 8 × 8 digits, which need no download), "cifar10", "cifar100", "mnist",
"fashion_mnist", "omniglot", and any "NAME.npz" of the user's own. Nothing here reads a pickle.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmo import cache, cifar, npz, torchvision_sets
from vmo.npz import DataError

NAMES = ("digits", *cifar.ARCHIVES, *torchvision_sets.SOURCES)
"""The data sets known by name."""

ROOT_VARIABLE = "VMO_DATA"
"""The environment variable that names the folder of the data sets; without it the folder is "data"."""

TEST_FRACTION = 0.2


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels.

    Attributes:
        images: uint8 (N, C, H, W), 0 … 255.
        labels: int64 (N,), 0 … classes - 1.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return self.labels.shape[0]

    def to(self, device: torch.device | str) -> Split:
        """The same split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, and how their images are normalised and augmented.

    Attributes:
        name: a name from `NAMES`, or the file name of a user's own .npz.
        train, test: the two splits.
        classes: number of classes.
        mean, std: one number per channel, in units of 0 … 255.
        pad: pixels of reflection padding on every side before the random crop; 0 for no crop.
        flip: whether images may be flipped left to right.
    """

    name: str
    train: Split
    test: Split
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int
    flip: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def load(name: str, root: str | Path | None = None, device: torch.device | str = "cpu") -> Dataset:
    """Load a data set by name.

    Args:
        name: one of `NAMES`, or the path of a .npz file, relative to the working directory or to `root`. Such a file
            holds `images` uint8 (N, H, W) or (N, H, W, C) and integer `labels` (N,) from 0 without gaps, and may hold
            `test_images` and `test_labels`; without them a fifth of every class, always the same one, becomes the test
            set. Other keys are ignored.
        root: folder of the data sets; by default that of the environment variable VMO_DATA, or "data". All but the
            digits are read from `<root>/<name>_train.npz` and `<root>/<name>_test.npz`, and downloaded into them when
            they are missing.
        device: where the tensors go.

    Raises:
        DataError: there is no such data set, it cannot be downloaded, or its file is damaged.
    """
    folder = _folder(root)
    if name == "digits":
        dataset = _digits()
    elif name in cifar.ARCHIVES:
        dataset = _cifar(name, folder)
    elif name in torchvision_sets.SOURCES:
        dataset = _torchvision(name, folder)
    elif name.endswith(".npz"):
        dataset = _own(_find(name, folder))
    else:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise DataError(f"unknown data set {name!r}{hint} available: {', '.join(NAMES)}, or a NAME.npz of your own")
    return dataset.to(device)


def identity(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """What to call the data in a record: a file of the user's own by name, without folders, and start of its SHA-256.

    Raises:
        DataError: there is no such file.
    """
    if not name.endswith(".npz"):
        return name
    path = _find(name, _folder(root))
    with path.open("rb") as file:
        return f"{path.name}@{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


def normalise(images: Tensor, dataset: Dataset) -> Tensor:
    """Subtract the mean of each channel and divide by its standard deviation.

    Args:
        images: uint8 (B, C, H, W), or any numbers in units of 0 … 255.
        dataset: whose `mean` and `std` to use.

    Returns:
        float32 (B, C, H, W) on the same device and in the same memory format.
    """
    # One channel at a time, because a tensor of means would be copied from the host, which waits for the device.
    result = images.to(torch.float32, copy=True)
    for channel, (mean, std) in enumerate(zip(dataset.mean, dataset.std, strict=True)):
        result[:, channel].sub_(mean).div_(std)
    return result


def augment(images: Tensor, dataset: Dataset, generator: torch.Generator) -> Tensor:
    """Crop every image at random out of its reflection padding, flip it at random, and normalise.

    Args:
        images: uint8 (B, C, H, W) in any memory format.
        dataset: whose `pad`, `flip`, `mean` and `std` to use.
        generator: source of the randomness, on the device of `images`; it alone decides the result.

    Returns:
        float32 (B, C, H, W) in the standard memory format. The device is never waited for.
    """
    batch, channels, height, width = images.shape
    device = images.device
    offsets = torch.randint(-dataset.pad, dataset.pad + 1, (2, batch, 1), generator=generator, device=device)
    rows = _reflect(torch.arange(height, device=device) + offsets[0], height)
    columns = torch.arange(width, device=device).expand(batch, width)
    if dataset.flip:
        flipped = torch.randint(2, (batch, 1), generator=generator, device=device).bool()
        columns = torch.where(flipped, width - 1 - columns, columns)
    columns = _reflect(columns + offsets[1], width)
    # Reading through reflected indices is the crop of the padded image, without building the padded image.
    cropped = images[
        torch.arange(batch, device=device).view(batch, 1, 1, 1),
        torch.arange(channels, device=device).view(channels, 1, 1),
        rows.view(batch, 1, height, 1),
        columns.view(batch, 1, 1, width),
    ]
    return normalise(cropped, dataset)


def batches(
    n: int, batch_size: int, generator: torch.Generator, device: torch.device | str | None = None
) -> Iterator[Tensor]:
    """The minibatches of one shuffled epoch; the last one is skipped when it would be partial.

    Args:
        n: number of images.
        batch_size: images in a minibatch.
        generator: source of the order, on `device`.
        device: of the indices; by default that of `generator`.

    Returns:
        an iterator of int64 (batch_size,), n // batch_size of them, none with an index in common.

    Raises:
        ValueError: there is not a single full minibatch.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"a batch size of {batch_size} leaves no full minibatch: there are {n} images")
    order = torch.randperm(n, generator=generator, device=device if device is not None else generator.device)
    return iter(order[: n - n % batch_size].split(batch_size))


def _reflect(index: Tensor, size: int) -> Tensor:
    """Fold indices from -(size-1) to 2(size-1) into 0 … size-1, without repeating the border."""
    return size - 1 - (size - 1 - index.abs()).abs()


def _digits() -> Dataset:
    from sklearn.datasets import load_digits  # slow to import, and needed only here

    digits = load_digits()
    images = (digits.images * 15).astype(np.uint8)[..., None]  # 0 … 16 becomes 0 … 240
    return _from_arrays("digits", images, digits.target, pad=1, flip=False)


def _cifar(name: str, root: Path) -> Dataset:
    archive = cifar.ARCHIVES[name]
    ways = f"from {archive.url}", f"put that archive into {root}"
    train, test = _kept(name, root, cifar.fetch, ways, (32, 32, 3), archive.classes)
    mean, std = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
    return Dataset(name, train, test, archive.classes, mean, std, pad=4, flip=True)


def _torchvision(name: str, root: Path) -> Dataset:
    source, side = torchvision_sets.SOURCES[name], torchvision_sets.SIDE
    ways = f"by torchvision.datasets.{source.factory}", f"put both, with arrays images and labels, into {root}"
    train, test = _kept(name, root, torchvision_sets.fetch, ways, (side, side, 1), source.classes)
    return replace(_assemble(name, train, test, pad=_pad(side), flip=False), classes=source.classes)


def _kept(
    name: str,
    root: Path,
    fetch: Callable[[str, Path], None],
    ways: tuple[str, str],
    shape: tuple[int, int, int],
    classes: int,
) -> tuple[Split, Split]:
    """Both splits from their .npz files; `ways` says how `fetch` makes those, and how the user can where it fails."""
    paths = cache.paths(name, root)
    if not all(path.exists() for path in paths.values()):
        try:
            fetch(name, root)
        except (OSError, HTTPException, RuntimeError, ValueError) as error:
            looked_for = " and ".join(str(path) for path in paths.values())
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{name}: {looked_for} are not both there, and making them {ways[0]} failed ({reason}); "
                f"{ways[1]}, or set {ROOT_VARIABLE} to a folder that has them"
            ) from error
    splits = []
    for path in paths.values():
        images, labels = npz.labelled(path, npz.read(path, ("images", "labels")))
        if images.shape[1:] != shape:
            raise DataError(f"{path}: images must be (N, {', '.join(map(str, shape))}), not {images.shape}")
        if labels.max() >= classes:
            raise DataError(f"{path}: label {labels.max()} is out of range; {name} has {classes} classes")
        splits.append(_split(images, labels))
    return splits[0], splits[1]


def _folder(root: str | os.PathLike[str] | None) -> Path:
    return Path(root if root is not None else os.environ.get(ROOT_VARIABLE) or "data")


def _find(name: str, folder: Path) -> Path:
    places = list(dict.fromkeys((Path(name), folder / name)))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(f"there is no file {' or '.join(str(place) for place in places)}")
    return path


def _own(path: Path) -> Dataset:
    arrays = npz.read(path, ("images", "labels"), ("test_images", "test_labels"))
    images, labels = npz.labelled(path, arrays)
    missing = np.flatnonzero(~np.isin(np.arange(min(labels.max() + 1, len(labels) + 1)), labels))
    if missing.size:
        raise DataError(f"{path}: labels must be 0, 1, 2, … without gaps, but none is {missing[0]}")
    if labels.max() == 0:
        raise DataError(f"{path}: at least two classes are needed, but every label is 0")
    pad = _pad(min(images.shape[1:3]))
    held_out = [key in arrays for key in ("test_images", "test_labels")]
    if not any(held_out):
        return _from_arrays(path.name, images, labels, pad=pad, flip=False, path=path)
    if not all(held_out):
        raise DataError(f"{path}: test_images and test_labels belong together, but only one of them is there")
    test_images, test_labels = npz.labelled(path, arrays, "test_")
    if test_images.shape[1:] != images.shape[1:]:
        raise DataError(f"{path}: test_images are {test_images.shape[1:]}, but images are {images.shape[1:]}")
    if test_labels.max() > labels.max():
        raise DataError(f"{path}: test label {test_labels.max()} is out of range; labels end at {labels.max()}")
    return _assemble(path.name, _split(images, labels), _split(test_images, test_labels), pad=pad, flip=False)


def _pad(side: int) -> int:
    return 4 if side >= 32 else side // 8


def _from_arrays(
    name: str, images: NDArray[Any], labels: NDArray[Any], *, pad: int, flip: bool, path: Path | None = None
) -> Dataset:
    """Split every class 80 / 20 by a fixed seed."""
    # RandomState, because its stream is frozen for ever; that of default_rng may change with numpy's version.
    random = np.random.RandomState(0)
    test = np.zeros(len(labels), bool)
    for label in range(int(labels.max()) + 1):
        members = random.permutation(np.flatnonzero(labels == label))
        test[members[: round(TEST_FRACTION * len(members))]] = True
    if not test.any():
        raise DataError(f"{path or name}: too few images of every class to hold a test set out; add test_images")
    return _assemble(name, _split(images[~test], labels[~test]), _split(images[test], labels[test]), pad=pad, flip=flip)


def _assemble(name: str, train: Split, test: Split, *, pad: int, flip: bool) -> Dataset:
    """Measure mean and standard deviation on the training images; a constant channel is divided by 1."""
    values = torch.arange(256, dtype=torch.float64)
    mean, std = [], []
    for channel in train.images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256) / channel.numel()
        mean.append(float(share.double() @ values))
        std.append(float(share.double() @ (values - mean[-1]) ** 2) ** 0.5 or 1.0)
    return Dataset(name, train, test, int(train.labels.max()) + 1, tuple(mean), tuple(std), pad, flip)


def _split(images: NDArray[Any], labels: NDArray[Any]) -> Split:
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return Split(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)))
