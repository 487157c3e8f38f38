"""Image classification data sets, stored on the device as uint8 and augmented there in batches.

The 50,000 training images of CIFAR take 154 MB as uint8, which fits beside any network. They are moved to the device
once, and whole batches are augmented by tensor operations, so no worker processes and no copies from the host are
needed. Augmentation is that of Wide Residual Networks (arXiv:1605.07146): reflection padding, a random crop and a
random horizontal flip.

Available: "digits" (scikit-learn's 8 × 8 digits, no download), "cifar10", "cifar100", "cifar10_16" and "cifar100_16"
(the same images at 16 × 16, every pixel the mean of 2 × 2), "mnist", "fashion_mnist", "omniglot", and the user's own
"NAME.npz". Pickles are never read.
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
from vmo.npz import DataError as DataError  # these three are re-exported
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
    """A training and a test split, with their normalisation and augmentation.

    Attributes:
        name: a name from `NAMES`, or the file name of a user's own .npz.
        train: the training split.
        test: the test split.
        classes: number of classes.
        mean: mean of each channel, in units of 0 … 255.
        std: standard deviation of each channel, in the same units.
        pad: pixels of reflection padding on every side before the random crop; 0: no crop.
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
        """The identity of these data, computed from the arrays in memory."""
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
            holds `images` uint8 (N, H, W) or (N, H, W, C) and integer `labels` (N,) from 0 without gaps. It may hold
            `test_images` and `test_labels`; otherwise a fixed fifth of every class becomes the test set. Other arrays
            are ignored.
        root: folder of the data sets; default: that of the environment variable VMO_DATA, else "data". All sets except
            the digits are read from `<root>/<name>_train.npz` and `<root>/<name>_test.npz`. Missing files are
            downloaded.
        device: the device of the tensors.

    Raises:
        DataError: unknown data set, failed download or damaged file.
    """
    raw = sources.read(name, _folder(root))
    train, test = _split(raw.train), _split(raw.test)
    mean, std = raw.normalisation or _measure(train.images)
    return Dataset(raw.name, train, test, raw.classes, mean, std, raw.pad, raw.flip).to(device)


def identify(name: str, root: str | os.PathLike[str] | None = None) -> Identity:
    """The identity of the data that `load` would return.

    The hash of the arrays is cached in a file `<name>.sha256` beside the data, so only the first call reads the arrays.
    Without write permission every process reads them once. Missing data are downloaded, as by `load`.

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
    """Split off a part of the training images: the data set without them, and these images. The same in every run.

    Args:
        dataset: the data set to divide.
        part: the fraction of training images to split off, in (0, 1).

    Raises:
        ValueError: one of the two sides would be empty.
    """
    count = round(part * len(dataset.train))
    if not 0 < count < len(dataset.train):
        raise ValueError(f"a part of {part:g} cannot be split off {len(dataset.train)} training images")
    # RandomState, because numpy guarantees its stream
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
        dataset: provides `mean` and `std`.

    Returns:
        float32 (B, C, H, W) on the same device and in the same memory format.
    """
    # One channel at a time, because copying a tensor of means from the host would wait for the device.
    result = images.to(torch.float32, copy=True)
    for channel, (mean, std) in enumerate(zip(dataset.mean, dataset.std, strict=True)):
        result[:, channel].sub_(mean).div_(std)
    return result


def augment(images: Tensor, dataset: Dataset, generator: torch.Generator) -> Tensor:
    """Random crop of every image from its reflection padding, random flip, and normalisation, without a device wait.

    Args:
        images: uint8 (B, C, H, W) in any memory format.
        dataset: provides `pad`, `flip`, `mean` and `std`.
        generator: the only source of randomness, on the device of `images`.

    Returns:
        float32 (B, C, H, W) in the standard memory format.
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
    # Reflected indices give the crop of the padded image without building the padded image.
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
    """The minibatches of one shuffled epoch, without a last partial one.

    Args:
        n: number of images.
        batch_size: images in a minibatch.
        generator: random generator of the order, on `device`.
        device: device of the indices; default: that of `generator`.

    Returns:
        an iterator over n // batch_size disjoint index tensors, int64 (batch_size,).

    Raises:
        ValueError: n is too small for one full minibatch.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"a batch size of {batch_size} leaves no full minibatch: there are {n} images")
    order = torch.randperm(n, generator=generator, device=device if device is not None else generator.device)
    return iter(order[: n - n % batch_size].split(batch_size))


def _reflect(index: Tensor, size: int) -> Tensor:
    """Reflect indices from -(size-1) … 2(size-1) into 0 … size-1, without repeating the border."""
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
