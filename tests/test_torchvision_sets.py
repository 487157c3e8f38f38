"""MNIST, Fashion-MNIST and Omniglot: torchvision's own classes read small files in the place of a download."""

import gzip
import io
import pickle
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from vmo import cache, torchvision_sets
from vmo.data import NAMES, DataError, Dataset, load, normalise

RANDOM = np.random.RandomState(0)
SIZES = {"train": 30, "t10k": 20}
MNIST = {part: RANDOM.randint(0, 256, (n, 28, 28), dtype=np.uint8) for part, n in SIZES.items()}
CHARACTERS = {
    "images_background": ("Latin/character01", "Greek/character02", "Greek/character01"),
    "images_evaluation": ("Tengwar/character01", "Angelic/character01"),
}
ALL = tuple(torchvision_sets.SOURCES)
PER_SPLIT = {"mnist": 30, "fashion_mnist": 30, "omniglot": 6}


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">{array.ndim + 1}i", 0x800 + array.ndim, *array.shape) + array.tobytes())


def drawing(number: int) -> np.ndarray:
    """A black horizontal bar on white, lower with the number; (105, 105), true where white."""
    white = np.ones((105, 105), bool)
    white[15 * number + 15 : 15 * number + 30, 15:90] = False
    return white


def omniglot_zip(folder: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, character in reversed(list(enumerate(sorted(CHARACTERS[folder])))):
            for drawer in (2, 1):
                png = io.BytesIO()
                Image.fromarray(drawing(number)).save(png, "png")  # one bit per pixel, as in Omniglot
                archive.writestr(f"{folder}/{character}/{number:04}_{drawer:02}.png", png.getvalue())
    return buffer.getvalue()


def served(filename: str) -> bytes:
    if filename.endswith(".zip"):
        return OMNIGLOT[filename.removesuffix(".zip")]
    part = filename.split("-")[0]
    return idx(MNIST[part] if "images" in filename else (np.arange(SIZES[part]) % 10).astype(np.uint8))


OMNIGLOT = {folder: omniglot_zip(folder) for folder in CHARACTERS}


class Server:
    """What stands in for the network: the files asked for so far, and the one at which it fails."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.timeouts: set[float | None] = set()
        self.fails_at = ""
        self.error: Exception | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    def download_url(self, url: str, root: str, filename: str, md5: str) -> None:
        assert len(md5) == 32 and url.endswith(filename)
        self.asked.append(filename)
        self.timeouts.add(socket.getdefaulttimeout())
        self.meanwhile()
        Path(root).mkdir(parents=True, exist_ok=True)
        content = served(filename)
        if self.error is not None and self.fails_at in filename:
            (Path(root) / filename).write_bytes(content[: len(content) // 2])
            raise self.error
        (Path(root) / filename).write_bytes(content)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", server.download_url)
    monkeypatch.setattr(torchvision.datasets.omniglot, "check_integrity", lambda path, md5: Path(path).is_file())
    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a pickle is read"))
    yield server
    assert socket.getdefaulttimeout() is None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files(name: str) -> list[str]:
    return [f"{name}_test.npz", f"{name}_train.npz"]


def whole(data: Dataset) -> list[torch.Tensor]:
    return [data.train.images, data.train.labels, data.test.images, data.test.labels]


# --- what is made ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_set_is_downloaded_once_and_kept(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = tmp_path / "new" / "root"
    monkeypatch.setenv("VMO_DATA", str(root))
    first = load(name)
    assert names(root) == files(name)
    assert server.timeouts == {10}
    asked = len(server.asked)
    again = load(name)
    assert len(server.asked) == asked == (2 if name == "omniglot" else 4)
    assert all(torch.equal(a, b) for a, b in zip(whole(first), whole(again), strict=True))
    assert name in NAMES and first.name == name
    assert (first.shape, first.pad, first.flip) == ((1, 28, 28), 3, False)
    assert len(first.train) == PER_SPLIT[name]
    assert {split.images.dtype for split in (first.train, first.test)} == {torch.uint8}
    assert {split.labels.dtype for split in (first.train, first.test)} == {torch.int64}
    pixels = normalise(first.train.images, first).double()
    assert abs(float(pixels.mean())) < 1e-5
    assert float(pixels.std()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_is_what_its_files_hold(tmp_path: Path, server: Server, name: str) -> None:
    data = load(name, root=tmp_path)
    assert data.classes == 10
    for split, part in ((data.train, "train"), (data.test, "t10k")):
        assert torch.equal(split.images[:, 0], torch.from_numpy(MNIST[part]))
        assert torch.equal(split.labels, torch.arange(SIZES[part]) % 10)


def test_each_name_is_a_class_of_torchvision() -> None:
    made = {name: getattr(torchvision.datasets, source.factory) for name, source in torchvision_sets.SOURCES.items()}
    sets = torchvision.datasets
    assert made == {"mnist": sets.MNIST, "fashion_mnist": sets.FashionMNIST, "omniglot": sets.Omniglot}


def test_omniglot_is_small_and_its_strokes_are_bright(tmp_path: Path, server: Server) -> None:
    data = load("omniglot", root=tmp_path)
    assert data.classes == 964 + 659
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]  # by name, whatever the order on disk
    assert data.test.labels.tolist() == [964, 964, 965, 965]
    for image, label in zip(data.train.images[:, 0], data.train.labels.tolist(), strict=True):
        assert int(image[0].max()) == 0  # paper
        assert int(image.max()) == 255  # stroke
        rows = image.double().sum(1)
        centre = float(rows @ torch.arange(28.0).double() / rows.sum())
        assert centre == pytest.approx((15 * label + 22.5) / 3.75 - 0.5, abs=0.05)
        assert float(image.double().mean()) == pytest.approx(255 * 15 * 75 / 105**2, abs=0.5)


def test_the_numbers_of_omniglot_do_not_follow_the_file_system(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = []
    for reverse in (False, True):
        for function in ("list_dir", "list_files"):
            real = getattr(torchvision.datasets.utils, function)
            monkeypatch.setattr(
                torchvision.datasets.omniglot,
                function,
                lambda *args, real=real, reverse=reverse: sorted(real(*args), reverse=reverse),
            )
        sets.append(load("omniglot", root=tmp_path / str(reverse)))
    assert all(torch.equal(a, b) for a, b in zip(*map(whole, sets), strict=True))


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((105, 105), np.uint8)
    stripes[::2] = 255
    small = torchvision_sets.shrink(stripes)
    assert (small.shape, small.dtype) == ((28, 28), np.uint8)
    assert abs(small[1:-1].astype(float) - 127.5).max() < 16  # without a filter: 0 … 255
    assert (torchvision_sets.shrink(np.full((105, 105), 255, np.uint8)) == 0).all()
    assert (torchvision_sets.shrink(np.zeros((105, 105), np.uint8)) == 255).all()


@pytest.mark.parametrize("shape", [(10, 28, 28), (10, 28, 28, 1)])
def test_files_of_ones_own_need_no_network_and_no_writing(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(cache, "fill", lambda *_: pytest.fail("nothing is missing"))
    images = RANDOM.randint(0, 256, shape, dtype=np.uint8)
    for path in cache.paths("mnist", tmp_path).values():
        np.savez(path, images=images, labels=np.arange(10))
    data = load("mnist", root=tmp_path)
    assert server.asked == []
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(images.reshape(10, 28, 28)))


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_half_present_set_is_completed(tmp_path: Path, server: Server, name: str, split: str) -> None:
    good = load(name, root=tmp_path / "good")
    root = tmp_path / "half"
    load(name, root=root)
    paths = cache.paths(name, root)
    kept = paths[split].read_bytes()
    paths["test" if split == "train" else "train"].unlink()
    server.asked.clear()
    completed = load(name, root=root)
    assert names(root) == files(name)
    assert paths[split].read_bytes() == kept
    assert server.asked
    assert all(torch.equal(a, b) for a, b in zip(whole(good), whole(completed), strict=True))
    if name == "omniglot":
        assert server.asked == ["images_evaluation.zip" if split == "train" else "images_background.zip"]


ERRORS = [
    URLError("no route to host"),
    TimeoutError("timed out"),
    RuntimeError("File not found\nor corrupted."),
    IncompleteRead(b""),
    OSError(),
]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_without_a_network_one_line_says_what_to_do(
    tmp_path: Path, server: Server, name: str, error: Exception
) -> None:
    server.error = error
    with pytest.raises(DataError) as caught:
        load(name, root=tmp_path)
    message = str(caught.value)
    reason = " ".join(str(error).split()) or type(error).__name__
    factory = f"torchvision.datasets.{torchvision_sets.SOURCES[name].factory}"
    for part in (name, *files(name), factory, "arrays images and labels", str(tmp_path), "VMO_DATA", reason):
        assert part in message
    assert "\n" not in message
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "at", "left"),
    [("mnist", "t10k-labels", []), ("omniglot", "images_evaluation", ["omniglot_train.npz"])],
)
def test_a_download_that_fails_midway_leaves_only_whole_files(
    tmp_path: Path, server: Server, name: str, at: str, left: list[str]
) -> None:
    server.error, server.fails_at = URLError("connection lost"), at
    with pytest.raises(DataError, match="connection lost"):
        load(name, root=tmp_path)
    assert len(server.asked) > 1
    assert names(tmp_path) == left
    server.error = None
    assert len(load(name, root=tmp_path).train) == PER_SPLIT[name]
    assert names(tmp_path) == files(name)


@pytest.mark.parametrize("name", ALL)
def test_a_file_cut_while_it_is_written_has_no_final_name(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def savez(path: Path, **_: object) -> None:
        path.write_bytes(b"PK half")
        assert names(tmp_path) == [path.parent.name]
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(DataError, match="No space left on device"):
        load(name, root=tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ALL)
def test_a_file_gets_its_name_when_it_is_whole(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def replace(partial: Path, target: Path) -> None:
        assert target in cache.paths(name, tmp_path).values() and not target.exists()
        with np.load(partial) as arrays:
            assert len(arrays["images"]) == len(arrays["labels"]) == PER_SPLIT[name]
        raise OSError("renamed")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(DataError, match="renamed"):
        load(name, root=tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ALL)
def test_a_process_beside_may_finish_first(tmp_path: Path, server: Server, name: str) -> None:
    def other() -> None:
        server.meanwhile = lambda: None
        load(name, root=tmp_path)

    server.meanwhile = other
    data = load(name, root=tmp_path)
    assert names(tmp_path) == files(name)
    assert all(torch.equal(a, b) for a, b in zip(whole(data), whole(load(name, root=tmp_path)), strict=True))


@pytest.mark.parametrize(
    ("name", "images", "label", "message"),
    [
        ("mnist", np.zeros((2, 32, 32), np.uint8), 0, r"must be \(N, 28, 28, 1\), not \(2, 32, 32, 1\)"),
        (
            "fashion_mnist",
            np.zeros((2, 28, 28), np.uint8),
            10,
            "label 10 is out of range; fashion_mnist has 10 classes",
        ),
        ("omniglot", np.zeros((2, 28, 28), np.uint8), 1623, "omniglot has 1623 classes"),
        ("omniglot", np.zeros((2, 28, 28)), 0, "must be uint8"),
        ("mnist", np.array([None] * 2), 0, "allow_pickle"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, name: str, images: np.ndarray, label: int, message: str) -> None:
    for path in cache.paths(name, tmp_path).values():
        np.savez(path, images=images, labels=np.array([0, label]))
    with pytest.raises(DataError, match=message) as caught:
        load(name, root=tmp_path)
    assert f"{name}_train.npz" in str(caught.value)
    assert "\n" not in str(caught.value)
