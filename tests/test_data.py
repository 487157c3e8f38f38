"""The data sets: what is loaded, and how it is augmented and cut into minibatches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vmo.data import DataError, Dataset, Split, augment, batches, load, normalise

IMAGES = np.random.RandomState(0).randint(0, 256, (20, 8, 9, 3), dtype=np.uint8)


def make_dataset(images: torch.Tensor, pad: int, flip: bool) -> Dataset:
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    channels = images.shape[1]
    return Dataset("made", split, split, 2, (0.0,) * channels, (1.0,) * channels, pad, flip)


# --- digits ---------------------------------------------------------------------------------------------------------


def test_digits_are_the_same_split_everywhere() -> None:
    digits = load("digits")
    assert digits.shape == (1, 8, 8)
    assert (digits.classes, digits.pad, digits.flip) == (10, 1, False)
    assert (len(digits.train), len(digits.test)) == (1438, 359)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.labels.dtype == torch.int64
    assert int(digits.train.images.max()) == 240
    shares = [torch.bincount(split.labels) / len(split) for split in (digits.train, digits.test)]
    torch.testing.assert_close(*shares, atol=0.003, rtol=0)
    # pinned, so that a split that moves does not pass for the same data set
    assert [int(split.images.sum()) for split in (digits.train, digits.test)] == [6753855, 1671915]


def test_training_images_are_standardised() -> None:
    digits = load("digits")
    pixels = normalise(digits.train.images, digits).double()
    assert abs(float(pixels.mean())) < 1e-5
    assert float(pixels.std()) == pytest.approx(1, abs=1e-4)


# --- augmentation ---------------------------------------------------------------------------------------------------


@given(
    height=st.integers(5, 9),
    width=st.integers(5, 9),
    channels=st.integers(1, 3),
    pad=st.integers(0, 4),
    flip=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_augmented_images_are_crops_of_padded_originals(
    height: int, width: int, channels: int, pad: int, flip: bool, channels_last: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (4, channels, height, width), generator=generator, dtype=torch.uint8)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    augmented = augment(images, make_dataset(images, pad, flip), generator)
    assert augmented.shape == images.shape
    assert augmented.dtype == torch.float32
    assert augmented.is_contiguous()
    for image, result in zip(images.float(), augmented, strict=True):
        crops = [
            functional.pad(candidate, (pad,) * 4, mode="reflect")[:, y : y + height, x : x + width]
            for candidate in ((image, image.flip(-1)) if flip else (image,))
            for y in range(2 * pad + 1)
            for x in range(2 * pad + 1)
        ]
        assert any(torch.equal(crop, result) for crop in crops)


def test_every_crop_and_flip_occurs_equally_often(generator: torch.Generator) -> None:
    images = torch.arange(36, dtype=torch.uint8).view(1, 1, 6, 6).expand(18_000, 1, 6, 6)
    augmented = augment(images, make_dataset(images, 1, True), generator)
    counts = augmented.unique(dim=0, return_counts=True)[1].double()
    assert len(counts) == 18  # 3 × 3 offsets, each flipped or not
    # chi-square with 17 degrees of freedom: above 46.0 in 1 of 5,000 seeds
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 46.0


def test_augmentation_is_decided_by_the_generator() -> None:
    digits = load("digits")
    images = digits.train.images[:64]
    first, again = (augment(images, digits, torch.Generator().manual_seed(1)) for _ in range(2))
    other = augment(images, digits, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_memory_format_changes_nothing() -> None:
    images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    dataset = make_dataset(images, 2, True)
    for layout in (torch.contiguous_format, torch.channels_last):
        augmented = augment(images.contiguous(memory_format=layout), dataset, torch.Generator().manual_seed(0))
        assert torch.equal(augmented, augment(images, dataset, torch.Generator().manual_seed(0)))


def test_normalising_leaves_the_images_alone() -> None:
    images = torch.full((2, 1, 3, 3), 7.0)
    dataset = Dataset("made", *[Split(images, torch.zeros(2))] * 2, 2, (5.0,), (4.0,), 0, False)
    assert torch.equal(normalise(images, dataset), torch.full_like(images, 0.5))
    assert torch.equal(images, torch.full_like(images, 7.0))


@pytest.mark.gpu
def test_augmentation_never_waits_for_the_device() -> None:
    digits = load("digits", device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        augmented = augment(digits.train.images[:64], digits, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert augmented.device.type == "cuda"


# --- minibatches ----------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 60), batch_size=st.integers(1, 60), seed=st.integers(0, 100))
def test_batches_cover_without_repetition(n: int, batch_size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    if batch_size > n:
        with pytest.raises(ValueError, match=f"there are {n} images"):
            batches(n, batch_size, generator)
        return
    epoch = list(batches(n, batch_size, generator, "cpu"))
    assert len(epoch) == n // batch_size
    assert all(batch.shape == (batch_size,) and batch.dtype == torch.int64 for batch in epoch)
    seen = torch.cat(epoch).tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(n))


def test_batches_are_shuffled_by_the_generator() -> None:
    epochs = [torch.cat(list(batches(50, 10, torch.Generator().manual_seed(seed)))) for seed in (0, 0, 1)]
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])


# --- names ---------------------------------------------------------------------------------------------------------


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file own\.npz or .*own\.npz"):
        load("own.npz", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"), [("cifar01", "did you mean 'cifar10'"), ("zzz", "available: digits, cifar10, cifar100")]
)
def test_unknown_names_suggest_the_nearest(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(name)
