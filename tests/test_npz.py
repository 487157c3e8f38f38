"""Files of the user's own: what is loaded of them, and what is said of those that are damaged or of another kind."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmo.data import DataError, load, normalise

IMAGES = np.random.RandomState(0).randint(0, 256, (20, 8, 9, 3), dtype=np.uint8)
LABELS = np.arange(20) % 2


def write(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)
    return str(path)


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
        (GOOD | {"labels": LABELS[:-1]}, r"labels must have shape \(20,\), not \(19,\)"),
        (GOOD | {"labels": LABELS - 1}, "label -1 is out of range"),
        (GOOD | {"labels": LABELS + 1}, "without gaps, but no image has label 0"),
        (GOOD | {"labels": LABELS * 10**12}, "without gaps, but no image has label 1"),
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


def with_header(path: Path, shape: str, descr: str = "|u1") -> str:
    """An .npz whose images have a header of any text."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    labels = io.BytesIO()
    np.save(labels, LABELS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100))
        archive.writestr("labels.npy", labels.getvalue())
    return str(path)


@pytest.mark.parametrize(
    ("shape", "descr", "message"),
    [
        (f"({10**12}, 1, 1)", "|u1", "1,000,000,000,000 bytes, but 100 bytes are there"),
        (f"({2**40}, {2**40}, {2**40})", "|u1", "but 100 bytes are there"),  # a product that overflows to 0
        ("(11, 10, 1)", "|u1", "110 bytes, but 100 bytes"),
        ("(2, 10, 1)", "<f8", "160 bytes, but 100 bytes"),
        ("(-1, -1, 1)", "|u1", "claims to be"),
        (f"(0, {10**30}, 1)", "|u1", "cannot be read"),
        ("(1, 1, 1)", "|V1000000000", "1,000,000,000 bytes, but 100 bytes"),
        ("'many'", "|u1", "cannot be read"),
        ("(1, 1", "|u1", "cannot be read"),
        ("(1, 1, 1)", "nonsense", "cannot be read"),
    ],
)
def test_a_header_that_claims_what_is_not_there(tmp_path: Path, shape: str, descr: str, message: str) -> None:
    """numpy allocates what the header claims before it reads."""
    name = with_header(tmp_path / "own.npz", shape, descr)
    with pytest.raises(DataError, match=message) as caught:
        load(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_memory_than_there_is_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_array(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 931. GiB")

    monkeypatch.setattr("vmo.npz.npy.read_array", read_array)
    with pytest.raises(DataError, match="cannot be read: Unable to allocate"):
        load(write(tmp_path / "own.npz", **GOOD))


GOOD_BYTES = io.BytesIO()
np.savez(GOOD_BYTES, **GOOD)


@given(changes=st.lists(st.tuples(st.integers(0, len(GOOD_BYTES.getvalue()) - 1), st.integers(0, 255)), max_size=4))
def test_whatever_bytes_change_it_is_read_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("npz") / "own.npz"
    content = bytearray(GOOD_BYTES.getvalue())
    for place, value in changes:
        content[place] = value
    path.write_bytes(content)
    message = ""
    try:
        load(str(path))
    except DataError as error:
        message = str(error)
    assert message == "" or (str(path) in message and "\n" not in message)
