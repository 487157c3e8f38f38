"""Data by their content: what changes the hash and what does not, where it is kept, and what data are called."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmo import data, identity
from vmo.data import DataError, Dataset, Split, identify, load

REAL = Path(os.environ.get("VMO_DATA") or Path(__file__).parents[1] / "data")
RANDOM = np.random.RandomState(0)
IMAGES, LABELS = RANDOM.randint(0, 256, (20, 8, 9, 3), dtype=np.uint8), np.arange(20) % 2
TEST = {"test_images": IMAGES[:4], "test_labels": LABELS[:4]}


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that has identified nothing yet, for which files are at rest when they are written."""
    monkeypatch.setattr(identity, "_known", {})
    monkeypatch.setattr(identity, "SETTLED", 0.0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read whole."""
    seen: list[str] = []

    def read(name: str, *words: Any, **more: Any) -> Dataset:
        seen.append(name)
        return load(name, *words, **more)

    monkeypatch.setattr(data, "load", read)
    return seen


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def named(root: Path, name: str, train: int = 4, test: int = 2, fill: int = 0) -> Path:
    root.mkdir(exist_ok=True)
    shape = (32, 32, 3) if name.startswith("cifar") else (28, 28)
    for split, n in (("train", train), ("test", test)):
        np.savez(root / f"{name}_{split}.npz", images=np.full((n, *shape), fill, np.uint8), labels=np.arange(n) % 2)
    return root


def made(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> Dataset:
    splits = [Split(torch.from_numpy(i).permute(0, 3, 1, 2), torch.from_numpy(n)) for i, n in (train, test)]
    return Dataset("made", *splits, 2, (0.0,) * 3, (1.0,) * 3, 0, False)


# --- the hash -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "omniglot", "own", "split"]
)
def test_what_is_identified_is_what_is_loaded(tmp_path: Path, name: str) -> None:
    if name in ("own", "split"):
        write(tmp_path / f"{name}.npz", images=IMAGES, labels=LABELS, **(TEST if name == "own" else {}))
        name = f"{name}.npz"
    elif name != "digits":
        named(tmp_path, name)
    found = identify(name, tmp_path)
    assert found == load(name, tmp_path).identity
    assert found == identify(name, tmp_path)  # as it was kept
    assert found.name == name
    assert len(found.content) == 16 and int(found.content, 16)


def test_neither_compression_nor_the_type_of_labels_matters(tmp_path: Path) -> None:
    contents = set()
    for i, kind in enumerate((np.uint8, np.int64, np.int16)):
        for savez in (np.savez, np.savez_compressed):
            path = tmp_path / f"{i}{savez.__name__}.npz"
            savez(path, images=np.asfortranarray(IMAGES), labels=LABELS.astype(kind), remark=np.arange(i))
            contents.add(identify(str(path)).content)
    assert len(contents) == 1


def test_a_colour_axis_that_is_left_out_is_the_same(tmp_path: Path) -> None:
    a = write(tmp_path / "a.npz", images=IMAGES[..., 0], labels=LABELS)
    b = write(tmp_path / "b.npz", images=IMAGES[..., :1], labels=LABELS)
    assert identify(str(a)).content == identify(str(b)).content


@given(split=st.integers(0, 1), kind=st.sampled_from(["pixel", "label", "order", "drop"]), at=st.integers(0, 9))
def test_every_pixel_label_and_place_matters(split: int, kind: str, at: int) -> None:
    arrays = [(IMAGES[:10].copy(), LABELS[:10].copy()), (IMAGES[10:].copy(), LABELS[10:].copy())]
    before = made(*arrays).identity.content
    images, labels = arrays[split]
    if kind == "pixel":
        images[at, at % 8, at % 9, at % 3] ^= 1
    elif kind == "label":
        labels[at] ^= 1
    elif kind == "order":
        images[[at, (at + 1) % 10]] = images[[(at + 1) % 10, at]]
    else:
        arrays[split] = np.delete(images, at, 0), np.delete(labels, at)
    assert made(*arrays).identity.content != before


def test_shapes_and_splits_matter() -> None:
    """The same bytes in another shape, or with the border between the splits elsewhere."""
    whole = IMAGES.reshape(20, 8, 9, 3)
    zeros = np.zeros(20, np.int64)
    sets = [
        made((whole[:10], zeros[:10]), (whole[10:], zeros[10:])),
        made((whole[:9], zeros[:9]), (whole[9:], zeros[9:])),
        made((whole[10:], zeros[:10]), (whole[:10], zeros[10:])),
    ]
    pixels = [torch.arange(144, dtype=torch.uint8).view(2, 1, *shape) for shape in ((8, 9), (9, 8))]
    split = [Split(images, torch.zeros(2, dtype=torch.int64)) for images in pixels]
    sets += [Dataset("made", one, one, 2, (0.0,), (1.0,), 0, False) for one in split]
    assert len({one.identity.content for one in sets}) == 5


def test_memory_format_and_device_do_not_matter() -> None:
    digits = load("digits")
    last = Split(digits.train.images.to(memory_format=torch.channels_last), digits.train.labels)
    other = Dataset(digits.name, last, digits.test, 10, digits.mean, digits.std, 1, False)
    assert other.identity == digits.identity == digits.to("cpu").identity


# --- where it is kept -----------------------------------------------------------------------------------------------


def test_it_is_read_once_and_kept_beside_the_file(tmp_path: Path, reads: list[str]) -> None:
    named(tmp_path, "cifar10")
    first = identify("cifar10", tmp_path)
    assert reads == ["cifar10"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cifar10.sha256",
        "cifar10_test.npz",
        "cifar10_train.npz",
    ]
    assert identify("cifar10", tmp_path) == first
    identity._known.clear()  # another process
    assert identify("cifar10", tmp_path) == first
    assert reads == ["cifar10"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_changed_file_is_read_anew(tmp_path: Path, reads: list[str], split: str) -> None:
    """Of the same size, put into place or written over, and with the time of the one before."""
    named(tmp_path, "cifar10")
    first = identify("cifar10", tmp_path)
    path = tmp_path / f"cifar10_{split}.npz"
    before = path.stat()
    time.sleep(0.02)  # a few ticks of the clock that stamps files
    named(tmp_path / "other", "cifar10", fill=1)
    path.write_bytes((tmp_path / "other" / path.name).read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    changed = identify("cifar10", tmp_path)
    assert changed.content != first.content
    assert changed == load("cifar10", tmp_path).identity
    assert len(reads) == 2


def test_a_hash_of_another_file_is_not_believed(tmp_path: Path) -> None:
    a, b = named(tmp_path / "a", "cifar10"), named(tmp_path / "b", "cifar10", fill=1)
    first = identify("cifar10", a)
    shutil.copy2(a / "cifar10.sha256", b / "cifar10.sha256")
    assert identify("cifar10", b).content != first.content
    own, other = (write(a / f"{name}.npz", images=IMAGES ^ i, labels=LABELS) for i, name in enumerate(("own", "other")))
    first = identify(str(own))
    shutil.copy2(f"{own}.sha256", f"{other}.sha256")
    assert identify(str(other)).content != first.content


DAMAGE: list[Any] = [
    lambda text: "",
    lambda text: text[: len(text) // 2],
    lambda text: "[]",
    lambda text: "\x00" * len(text),
    lambda text: json.dumps(json.loads(text) | {"content": "0123"}),
    lambda text: json.dumps(json.loads(text) | {"content": None}),
    lambda text: json.dumps(json.loads(text) | {"train": None}),
    lambda text: json.dumps(json.loads(text) | {"format": 0, "content": "0" * 16}),
    lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "files"}),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_hash_is_made_anew(tmp_path: Path, reads: list[str], damage: Any) -> None:
    path = write(tmp_path / "own.npz", images=IMAGES, labels=LABELS)
    first, place = identify(str(path)), tmp_path / "own.npz.sha256"
    text = place.read_text()
    place.write_text(damage(text))
    identity._known.clear()
    assert identify(str(path)) == first
    assert len(reads) == 2
    assert place.read_text() == text


def test_nothing_is_kept_of_a_file_changed_a_moment_ago(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its times could be those of the next change too, for clocks tick slowly."""
    monkeypatch.setattr(identity, "SETTLED", 3600.0)
    path = write(tmp_path / "own.npz", images=IMAGES, labels=LABELS)
    assert identify(str(path)) == identify(str(path))
    assert len(reads) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["own.npz"]


def test_a_folder_that_cannot_be_written_is_read_once_by_every_process(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "own.npz", images=IMAGES, labels=LABELS)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")  # root may write anywhere

    monkeypatch.setattr(os, "replace", refuse)
    assert identify(str(path)) == identify(str(path)) == load(str(path)).identity
    assert len(reads) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["own.npz"]


def test_the_digits_are_read_once_by_every_process(reads: list[str]) -> None:
    data._digits.cache_clear()
    assert identify("digits") == identify("digits")
    assert reads == ["digits"]


def test_data_that_are_missing_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no file own\.npz or"):
        identify("own.npz", tmp_path)
    with pytest.raises(DataError, match="did you mean 'cifar10'"):
        identify("cifar01", tmp_path)

    def download_url(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    with pytest.raises(DataError, match="no route to host"):
        identify("cifar10", tmp_path)


# --- what data are called -------------------------------------------------------------------------------------------


def test_sizes_that_are_not_the_official_ones_are_named(tmp_path: Path) -> None:
    found = identify("cifar100", named(tmp_path, "cifar100", 5, 3))
    assert (found.name, found.dataset, found.note) == ("cifar100", "cifar100 (5 + 3 images)", "")
    assert identity.describe("cifar100", "0" * 16, 2048, 500).dataset == "cifar100 (2,048 + 500 images)"
    assert identity.describe("cifar100", "0" * 16, 50_000, 9_999).dataset == "cifar100 (50,000 + 9,999 images)"


def test_a_file_of_the_users_own_is_shown_by_name_and_hash(tmp_path: Path) -> None:
    """Two files may have one name, and their rows must not stand under one heading."""
    path = write(tmp_path / "my (2).npz", images=IMAGES, labels=LABELS)
    found = identify(str(path))
    assert (found.name, found.note) == ("my (2).npz", "")
    assert found.dataset == f"my (2).npz@{found.content[:8]}"


def test_notes() -> None:
    for name, official in identity.OFFICIAL.items():
        sizes = official.train, official.test
        if official.content is None:
            assert identity.describe(name, "0" * 16, *sizes).note == ""
        else:
            assert identity.describe(name, official.content, *sizes).note == ""
            assert identity.describe(name, "0" * 16, *sizes).note == identity.OTHER
    assert identity.describe("cifar10", "93d97ded419e48da", 50_000, 10_000).dataset == "cifar10"
    assert "97 of 60,000" in identity.describe("cifar10", "93d97ded419e48da", 50_000, 10_000).note
    assert load("digits").identity.note == ""


def test_a_record_says_it_all() -> None:
    found = identity.describe("cifar10", "93d97ded419e48da", 50_000, 10_000)
    record = json.loads(json.dumps(found.recorded()))
    assert (record["dataset"], record["data"]) == ("cifar10", "93d97ded419e48da")
    assert identity.Identity.read(record) == found


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_the_real_arrays_are_known(name: str) -> None:
    if not (REAL / f"{name}_train.npz").exists():
        pytest.skip(f"needs {name} in VMO_DATA or data")
    found = load(name, REAL).identity
    assert found.dataset == name
    assert found.content in {identity.OFFICIAL[name].content, *identity.OFFICIAL[name].variants}
