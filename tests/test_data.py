"""The data sets: what is loaded, how it is augmented, and what is said of files that are missing or damaged."""

import io
import os
import pickle
import socket
import tarfile
import time
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vmo import cache, cifar
from vmo.data import DataError, Dataset, Split, augment, batches, load, normalise

CIFAR_ROOT = Path(os.environ.get("VMO_DATA") or Path(__file__).parents[1] / "data")
RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(0, 256, (20, 8, 9, 3), dtype=np.uint8)
LABELS = np.arange(20) % 2


def make_dataset(images: torch.Tensor, pad: int, flip: bool) -> Dataset:
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    channels = images.shape[1]
    return Dataset("made", split, split, 2, (0.0,) * channels, (1.0,) * channels, pad, flip)


def write(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)
    return str(path)


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


# --- a file of the user's own ---------------------------------------------------------------------------------------


def test_own_file_with_a_test_set(tmp_path: Path) -> None:
    arrays = {"images": IMAGES, "labels": LABELS, "test_images": IMAGES[:4], "test_labels": LABELS[:4]}
    name = write(tmp_path / "own.npz", **arrays, remark=np.array([None]))  # what is not asked for is not read
    own = load(name)
    assert (own.name, own.shape, own.classes, own.pad, own.flip) == ("own.npz", (3, 8, 9), 2, 1, False)
    assert torch.equal(own.train.images.permute(0, 2, 3, 1), torch.from_numpy(IMAGES))
    assert torch.equal(own.train.labels, torch.from_numpy(LABELS))
    assert len(own.test) == 4
    np.testing.assert_allclose(own.mean, IMAGES.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(own.std, IMAGES.std((0, 1, 2)), rtol=1e-5)


def test_own_file_without_a_test_set_is_split_by_class(tmp_path: Path) -> None:
    write(tmp_path / "own.npz", images=IMAGES[..., 0], labels=LABELS.astype(np.uint8))
    first, again = load("own.npz", root=tmp_path), load("own.npz", root=str(tmp_path))
    assert first.shape == (1, 8, 9)
    assert torch.bincount(first.test.labels).tolist() == [2, 2]
    assert torch.bincount(first.train.labels).tolist() == [8, 8]
    assert torch.equal(first.test.images, again.test.images)
    everything = torch.cat([first.train.images, first.test.images]).flatten(1).sort(0)[0]
    assert torch.equal(everything, torch.from_numpy(IMAGES[..., 0]).flatten(1).sort(0)[0])


def test_constant_images_do_not_divide_by_zero(tmp_path: Path) -> None:
    own = load(write(tmp_path / "own.npz", images=np.full((10, 40, 40), 3, np.uint8), labels=np.arange(10) % 2))
    assert own.pad == 4
    assert torch.equal(normalise(own.train.images, own), torch.zeros(8, 1, 40, 40))


GOOD = {"images": IMAGES, "labels": LABELS}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "has no array labels"),
        ({"data": IMAGES, "target": LABELS}, "has no array images or labels; it has data, target"),
        (GOOD | {"images": IMAGES / 255}, "must be uint8, not float64"),
        (GOOD | {"images": IMAGES[0, 0]}, r"must be \(N, H, W\) or \(N, H, W, C\), not \(9, 3\)"),
        (GOOD | {"images": IMAGES[:0], "labels": LABELS[:0]}, r"not \(0, 8, 9, 3\)"),
        (GOOD | {"labels": LABELS / 1}, "must be integers, not float64"),
        (GOOD | {"labels": LABELS[:-1]}, r"labels must be \(20,\) beside the images, not \(19,\)"),
        (GOOD | {"labels": LABELS - 1}, "label -1 is out of range"),
        (GOOD | {"labels": LABELS + 1}, "without gaps, but none is 0"),
        (GOOD | {"labels": LABELS * 10**12}, "without gaps, but none is 1"),
        (GOOD | {"labels": LABELS * 0}, "two classes"),
        (GOOD | {"labels": LABELS.astype(object)}, "allow_pickle"),
        (GOOD | {"test_images": IMAGES}, "belong together"),
        (GOOD | {"test_images": IMAGES[:, :7], "test_labels": LABELS}, "test_images are"),
        (GOOD | {"test_images": IMAGES, "test_labels": LABELS + 1}, "test label 2 is out of range"),
        ({"images": IMAGES[:2], "labels": LABELS[:2]}, "too few images"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    name = write(tmp_path / "own.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def damaged(kind: str) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **GOOD)
    good = buffer.getvalue()
    if kind == "truncated":
        return good[: len(good) // 2]
    if kind == "flipped bits":
        return good[:200] + bytes(255 - byte for byte in good[200:300]) + good[300:]
    if kind == "pickle":
        return pickle.dumps(GOOD)
    if kind == "foreign members":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("images", b"not an array")
            archive.writestr("labels", b"not an array")
        return buffer.getvalue()
    return {"empty": b"", "text": b"<html>404</html>"}[kind]


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "flipped bits", "pickle", "foreign members"])
def test_damaged_files_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(damaged(kind))
    with pytest.raises(DataError) as caught:
        load(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file own\.npz or .*own\.npz"):
        load("own.npz", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"), [("cifar01", "did you mean 'cifar10'"), ("zzz", "available: digits, cifar10, cifar100")]
)
def test_unknown_names_suggest_the_nearest(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(name)


# --- CIFAR ----------------------------------------------------------------------------------------------------------


def binary_archive(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A small archive in the authors' format; returns the images (N, 32, 32, 3) and labels of its training set."""
    layout = cifar.ARCHIVES[name]
    training = []
    with tarfile.open(path, "w:gz") as tar:
        for split, members in layout.members.items():
            for member in members:
                rows = RANDOM.randint(0, 10, (6, layout.label_bytes + 3072), dtype=np.uint8)
                info = tarfile.TarInfo(member)
                info.size = rows.size
                tar.addfile(info, io.BytesIO(rows.tobytes()))
                if split == "train":
                    training.append(rows)
    rows = np.concatenate(training)
    images = np.stack([rows[:, layout.label_bytes + 1024 * c :][:, :1024].reshape(-1, 32, 32) for c in range(3)], -1)
    return images, rows[:, layout.label_bytes - 1]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_downloaded_parsed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    archive = tmp_path / "served.tar.gz"
    images, labels = binary_archive(archive, name)
    calls = []

    def download_url(url: str, root: str, filename: str, md5: str) -> None:
        calls.append((url, md5, socket.getdefaulttimeout()))
        (Path(root) / filename).write_bytes(archive.read_bytes())

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download_url)
    root = tmp_path / "new" / "root"
    monkeypatch.setenv("VMO_DATA", str(root))
    first, again = load(name), load(name)
    assert calls == [(cifar.ARCHIVES[name].url, cifar.ARCHIVES[name].md5, 10)]
    assert socket.getdefaulttimeout() is None
    assert sorted(path.name for path in root.iterdir()) == [f"{name}_test.npz", f"{name}_train.npz"]
    assert (first.shape, first.pad, first.flip) == ((3, 32, 32), 4, True)
    assert first.classes == cifar.ARCHIVES[name].classes
    assert (first.mean, first.std) == ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))
    assert torch.equal(first.train.images.permute(0, 2, 3, 1), torch.from_numpy(images))
    assert torch.equal(first.train.labels, torch.from_numpy(labels).long())
    assert torch.equal(first.test.images, again.test.images)


def test_an_archive_put_there_by_hand_is_used_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / cifar.ARCHIVES["cifar10"].filename
    binary_archive(archive, "cifar10")
    with pytest.raises(DataError, match="does not have the MD5"):
        load("cifar10", root=tmp_path)
    monkeypatch.setattr(torchvision.datasets.utils, "check_md5", lambda path, md5: True)
    assert len(load("cifar10", root=tmp_path).train) == 30


@pytest.mark.parametrize("error", [URLError("no route to host"), TimeoutError("timed out"), RuntimeError("corrupted")])
def test_without_a_network_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def download_url(*_: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download_url)
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        load("cifar10", root=tmp_path)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    for part in ("cifar10_train.npz", "cifar10_test.npz", cifar.ARCHIVES["cifar10"].url, "VMO_DATA", str(error)):
        assert part in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never answers
        url = f"http://127.0.0.1:{server.getsockname()[1]}/cifar-10-binary.tar.gz"
        silent = cifar.Archive(url, "0" * 32, 10, 1, {"train": (), "test": ()})
        monkeypatch.setitem(cifar.ARCHIVES, "cifar10", silent)
        monkeypatch.setattr(cache, "TIMEOUT", 0.2)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(DataError, match="timed out"):
            load("cifar10", root=tmp_path)


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar.gz"
    binary_archive(archive, "cifar10")
    with pytest.raises(ValueError, match=r"archive\.tar\.gz is not the archive"):
        cifar.parse(archive, cifar.ARCHIVES["cifar100"], "train")
    archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"archive\.tar\.gz is not the archive"):
        cifar.parse(archive, cifar.ARCHIVES["cifar10"], "train")
    archive.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"archive\.tar\.gz is not the archive"):
        cifar.parse(archive, cifar.ARCHIVES["cifar10"], "train")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [(GOOD, r"must be \(N, 32, 32, 3\)"), ({"images": np.zeros((2, 32, 32, 3), np.uint8), "labels": [0, 10]}, "10")],
)
def test_a_foreign_cifar_cache_is_named(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"cifar10_{split}.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load("cifar10", root=tmp_path)
    assert "cifar10_train.npz" in str(caught.value)


@pytest.mark.skipif(not (CIFAR_ROOT / "cifar10_train.npz").exists(), reason="needs CIFAR-10 in VMO_DATA or data")
def test_the_real_cifar10() -> None:
    data = load("cifar10", root=CIFAR_ROOT)
    assert (len(data.train), len(data.test), data.shape) == (50_000, 10_000, (3, 32, 32))
    assert torch.bincount(data.train.labels).tolist() == [5000] * 10
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    pixels = normalise(data.train.images[:10_000], data)  # the recipe's constants are those of the training set
    assert float(pixels.mean().abs()) < 0.02
    assert float(pixels.std()) == pytest.approx(1, abs=0.02)
