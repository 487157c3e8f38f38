"""MNIST, Fashion-MNIST and Omniglot as grey 28 × 28 images: downloaded by torchvision's classes, converted, cached.

These classes check the MD5 of their downloads, and read idx files (MNIST, Fashion-MNIST) and PNGs (Omniglot). No pickle
is read: torchvision's MNIST only reads one from a cache of its early versions, and the folder used here is new.

Omniglot images are 105 × 105 with black strokes. Variational autoencoders usually train on 28 × 28 with bright strokes,
so the images are converted to that. The 964 background characters are the training set, with labels 0 … 963. The 659
evaluation characters are the test set, with labels 964 … 1622. Labels are in the order of alphabet and character. The
two sets share no character, so this split is not suited to a classifier.

References: LeCun et al., "Gradient-based learning applied to document recognition" (1998); Xiao, Rasul, Vollgraf,
arXiv:1708.07747; Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program induction"
(2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vmo import cache

SIDE = 28
BACKGROUND = 964
"""Characters in Omniglot's training set."""


@dataclass(frozen=True)
class Source:
    """The source of a data set.

    Attributes:
        factory: name of its class in torchvision.datasets.
        classes: number of classes in both splits together.
    """

    factory: str
    classes: int


SOURCES = {
    "mnist": Source("MNIST", 10),
    "fashion_mnist": Source("FashionMNIST", 10),
    "omniglot": Source("Omniglot", BACKGROUND + 659),
}


def fetch(name: str, root: Path) -> None:
    """Download the missing .npz files of `name`, a key of `SOURCES`, into `root`.

    Raises:
        OSError: no network, no answer in time, or `root` cannot be written.
        RuntimeError: no mirror answers, or a download has the wrong MD5.
    """
    cache.fill(name, root, _omniglot if name == "omniglot" else lambda split, scratch: _mnist(name, split, scratch))


def _mnist(name: str, split: str, scratch: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from torchvision import datasets  # slow to import, and needed only here

    dataset = getattr(datasets, SOURCES[name].factory)(scratch, train=split == "train", download=True)
    return dataset.data.numpy(), dataset.targets.numpy()


def _omniglot(split: str, scratch: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from torchvision.datasets import Omniglot
    from torchvision.datasets.folder import pil_loader

    # torchvision numbers characters in the file system's order; sorting by name gives the same labels everywhere
    listed = Omniglot(scratch, background=split == "train", download=True, loader=Path)
    files = sorted(listed[i][0] for i in range(len(listed)))
    first = 0 if split == "train" else BACKGROUND
    number = {folder: first + i for i, folder in enumerate(sorted({file.parent for file in files}))}
    images = np.stack([shrink(np.asarray(pil_loader(file))[..., 0]) for file in files])
    return images, np.array([number[file.parent] for file in files], np.int64)


def shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert a drawing (H, W), dark strokes on 255, to (28, 28), bright strokes on 0, with antialiasing."""
    bright = 255 - torch.tensor(image, dtype=torch.float32)
    small = functional.interpolate(bright[None, None], (SIDE, SIDE), mode="bilinear", antialias=True)[0, 0]
    return small.round().clamp(0, 255).to(torch.uint8).numpy()
