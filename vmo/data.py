"""Image classification data sets, held on the device as uint8 and augmented there in batches.

A training set of 50,000 CIFAR images is 154 MB as uint8, so that it fits beside any network; moving it once and
augmenting whole batches with tensor operations needs no worker processes and no copy from the host. Augmentation is the
one of Wide Residual Networks (arXiv:1605.07146): reflection padding, a random crop and a random horizontal flip.

Available: "digits" (scikit-learn's 8 × 8 digits, which need no download), "cifar10", "cifar100", "cifar10_16" and
"cifar100_16" (the same images at 16 × 16, every pixel the mean of 2 × 2), "mnist", "fashion_mnist", "omniglot", and any
"NAME.npz" of the user's own. Nothing here reads a pickle.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vmo import sources
from vmo.identity import Identity, Measured, describe, hashed, kept
from vmo.npz import DataError as DataError  # these three are for those who load
from vmo.sources import NAMES as NAMES
from vmo.sources import ROOT_VARIABLE as ROOT_VARIABLE


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

    @functools.cached_property
    def identity(self) -> Identity:
        """Which data these are, by the very arrays that are held here."""
        content = hashed([(split.images, split.labels) for split in (self.train, self.test)])
        return describe(self.name, content, len(self.train), len(self.test))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def load(name: str, root: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> Dataset:
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
    raw = sources.read(name, _folder(root))
    train, test = _split(raw.train), _split(raw.test)
    mean, std = raw.normalisation or _measure(train.images)
    return Dataset(raw.name, train, test, raw.classes, mean, std, raw.pad, raw.flip).to(device)


def identify(name: str, root: str | os.PathLike[str] | None = None) -> Identity:
    """Which data `load` would give, by their content.

    The hash of the arrays is kept in a file `<name>.sha256` beside the data, so that only the first call reads them;
    where that folder cannot be written every process reads them once. Data that are missing are downloaded, as by
    `load`, for without them nothing can be said of them.

    Raises:
        DataError: see `load`.
    """
    files = sources.files(name, _folder(root))
    if not files:
        return _digits()
    label = files[0].name if name.endswith(".npz") else name

    def measure() -> Measured:
        data = load(name, root)
        return data.identity.content, len(data.train), len(data.test)

    return describe(label, *kept(files[0].with_name(f"{label}.sha256"), files, measure))


def split_off(dataset: Dataset, part: float) -> tuple[Dataset, Split]:
    """A data set without a part of its training images, and these images; which they are is the same for every run.

    Args:
        dataset: whose training images are divided.
        part: in (0, 1), of the training images.

    Raises:
        ValueError: nothing would be left on one of the sides.
    """
    count = round(part * len(dataset.train))
    if not 0 < count < len(dataset.train):
        raise ValueError(f"a part of {part:g} cannot be split off {len(dataset.train)} training images")
    # RandomState, because its stream is frozen for ever
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(dataset.train)))
    off, rest = (
        index.sort().values.to(dataset.train.labels.device) for index in order.split([count, len(order) - count])
    )
    first, second = (Split(dataset.train.images[index], dataset.train.labels[index]) for index in (off, rest))
    return replace(dataset, train=second), first


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


@functools.cache
def _digits() -> Identity:
    return load("digits").identity


def _folder(root: str | os.PathLike[str] | None) -> Path:
    return Path(root if root is not None else os.environ.get(ROOT_VARIABLE) or "data")


def _split(labelled: sources.Labelled) -> Split:
    images, labels = labelled
    return Split(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))), torch.from_numpy(labels))


def _measure(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel; a constant channel is divided by 1."""
    values = torch.arange(256, dtype=torch.float64)
    mean, std = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256) / channel.numel()
        mean.append(float(share.double() @ values))
        std.append(float(share.double() @ (values - mean[-1]) ** 2) ** 0.5 or 1.0)
    return tuple(mean), tuple(std)
