"""Reads labelled images from .npz files, which may be damaged or malicious. Pickles are never read."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


class DataError(ValueError):
    """A data set is unknown, missing or damaged. The message is one line: which data set, and what to do."""


def read(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """The named arrays of an .npz file. Other arrays in it are ignored.

    Raises:
        DataError: the file is damaged or not an .npz file, lacks an array, or claims more data than it holds.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path} is not an .npz file, or is damaged")
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy"): name for name in archive.namelist()}
            missing = [key for key in required if key not in names]
            if missing:
                raise DataError(f"{path} has no array {' or '.join(missing)}; it has {', '.join(names) or 'none'}")
            return {
                key: _member(path, archive, key, archive.getinfo(names[key]))
                for key in (*required, *optional)
                if key in names
            }
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many undocumented errors for damaged files
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from error


def _member(path: Path, archive: zipfile.ZipFile, key: str, info: zipfile.ZipInfo) -> NDArray[Any]:
    """One array. Its header is checked against its size first, because numpy allocates whatever the header claims."""
    with archive.open(info) as file:
        if file.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
            raise DataError(f"{path}: {key} is not an array")
        file.seek(0)
        shape, dtype = _header(file)
        claimed, held = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
        if min(shape, default=1) < 0 or (claimed > held and not dtype.hasobject):
            raise DataError(
                f"{path}: {key} claims to be {dtype} of shape {shape}, {claimed:,} bytes, but {held:,} bytes are there"
            )
        file.seek(0)
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype. Leaves `file` at the end of the header."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # 3.0 is only needed for records with names that are not ASCII
        raise ValueError(f"an array is in format {version[0]}.{version[1]}, but only 1.0 and 2.0 are supported")
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    return shape, dtype


def labelled(path: Path, arrays: dict[str, NDArray[Any]], prefix: str = "") -> tuple[NDArray[Any], NDArray[Any]]:
    """Images uint8 (N, H, W, C) and labels int64 (N,). Raises DataError if their types or shapes do not fit."""
    images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
    if images.dtype != np.uint8:
        raise DataError(f"{path}: {prefix}images must be uint8, not {images.dtype}")
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(f"{path}: {prefix}images must be (N, H, W) or (N, H, W, C), not {images.shape}")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {prefix}labels must be integers, not {labels.dtype}")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{path}: {prefix}labels must have shape {images.shape[:1]}, not {labels.shape}")
    labels = labels.astype(np.int64)
    if labels.min() < 0:
        raise DataError(f"{path}: {prefix}label {labels.min()} is out of range; labels start at 0")
    return images if images.ndim == 4 else images[..., None], labels
