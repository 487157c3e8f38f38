"""MNIST, Fashion-MNIST and Omniglot as grey 28 × 28 images, by torchvision's own classes: download, convert, cache.

Those classes check the MD5 of what they download, and read idx files (MNIST, Fashion-MNIST) and PNGs (Omniglot). The
only pickle torchvision's MNIST knows, a cache of its early versions, cannot lie in the new folder it is given here.

Omniglot is 105 × 105 with black strokes; variational autoencoders are trained on it at 28 × 28 with bright ones, which
is what it becomes here. Its 964 background characters are the training set and its 659 evaluation characters, others
altogether, the test set: labels are 0 … 963 and 964 … 1622, in the order of alphabet and character, and a classifier
has nothing to learn from the one about the other.

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
    """Where a data set comes from.

    Attributes:
        factory: name of the class in torchvision.datasets.
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
        OSError: there is no network, the server does not answer in time, or `root` cannot be written.
        RuntimeError: no mirror answers, or what was downloaded does not have the MD5 it should have.
    """
    cache.fill(name, root, _omniglot if name == "omniglot" else lambda split, scratch: _mnist(name, split, scratch))


def _mnist(name: str, split: str, scratch: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from torchvision import datasets  # slow to import, and needed only here

    dataset = getattr(datasets, SOURCES[name].factory)(scratch, train=split == "train", download=True)
    return dataset.data.numpy(), dataset.targets.numpy()


def _omniglot(split: str, scratch: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from torchvision.datasets import Omniglot
    from torchvision.datasets.folder import pil_loader

    # torchvision numbers the characters as the file system happens to list them; by name they are the same everywhere
    listed = Omniglot(scratch, background=split == "train", download=True, loader=Path)
    files = sorted(listed[i][0] for i in range(len(listed)))
    first = 0 if split == "train" else BACKGROUND
    number = {folder: first + i for i, folder in enumerate(sorted({file.parent for file in files}))}
    images = np.stack([shrink(np.asarray(pil_loader(file))[..., 0]) for file in files])
    return images, np.array([number[file.parent] for file in files], np.int64)


def shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A drawing (H, W) with dark strokes on 255, made (28, 28) without aliasing, strokes bright on 0."""
    bright = 255 - torch.tensor(image, dtype=torch.float32)
    small = functional.interpolate(bright[None, None], (SIDE, SIDE), mode="bilinear", antialias=True)[0, 0]
    return small.round().clamp(0, 255).to(torch.uint8).numpy()
