"""CIFAR from its authors' archives: what is downloaded, parsed and kept, and what is said of what is damaged."""

import io
import os
import socket
import tarfile
import time
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from vmo import cache, cifar
from vmo.data import DataError, identify, load, normalise

CIFAR_ROOT = Path(os.environ.get("VMO_DATA") or Path(__file__).parents[1] / "data")
RANDOM = np.random.RandomState(0)


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
    with pytest.raises(ValueError, match=r"archive\.tar\.gz is not the expected archive"):
        cifar.parse(archive, cifar.ARCHIVES["cifar100"], "train")
    archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"archive\.tar\.gz is not the expected archive"):
        cifar.parse(archive, cifar.ARCHIVES["cifar10"], "train")
    archive.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"archive\.tar\.gz is not the expected archive"):
        cifar.parse(archive, cifar.ARCHIVES["cifar10"], "train")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 8, 9, 3), np.uint8), "labels": [0, 1]}, r"must be \(N, 32, 32, 3\)"),
        ({"images": np.zeros((2, 32, 32, 3), np.uint8), "labels": [0, 10]}, "10"),
    ],
)
def test_a_foreign_cifar_cache_is_named(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    for split in ("train", "test"):
        np.savez(tmp_path / f"cifar10_{split}.npz", **arrays)
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


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_halved_images_are_the_means_of_four_pixels(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, n in (("train", 6), ("test", 4)):
        images = random.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / f"{name}_{split}.npz", images=images, labels=np.arange(n))
    whole, halved = load(name, root=tmp_path), load(f"{name}_16", root=tmp_path)
    assert (halved.name, halved.shape, halved.classes, halved.pad) == (f"{name}_16", (3, 16, 16), whole.classes, 2)
    for full, small in ((whole.train, halved.train), (whole.test, halved.test)):
        means = torch.nn.functional.avg_pool2d(full.images.double(), 2)
        assert (small.images - means).abs().max() <= 0.5
        assert torch.equal(full.labels, small.labels)
    assert (halved.mean, halved.std, halved.flip) == (whole.mean, whole.std, whole.flip)
    found = identify(f"{name}_16", tmp_path)
    assert found == halved.identity and found.content != identify(name, tmp_path).content


def test_halved_images_need_the_whole_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "fetch", lambda name, root: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(DataError, match=r"cifar10_train\.npz"):
        load("cifar10_16", root=tmp_path)
