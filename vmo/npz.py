"""Reading labelled images from .npz files that may be damaged or foreign, without ever reading a pickle."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class DataError(ValueError):
    """A data set that is unknown, missing or damaged; the message is one line that says which and what to do."""


def read(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """The named arrays of an .npz file; any others in it are never looked at."""
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path} is not an .npz file, or is damaged")
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in required if key not in archive.files]
            if missing:
                raise DataError(
                    f"{path} has no array {' or '.join(missing)}; it has {', '.join(archive.files) or 'none'}"
                )
            arrays = {key: archive[key] for key in (*required, *optional) if key in archive.files}
    except DataError:
        raise
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):  # what numpy returns for a member that is no .npy file
            raise DataError(f"{path}: {key} is not an array")
    return arrays


def labelled(path: Path, arrays: dict[str, NDArray[Any]], prefix: str = "") -> tuple[NDArray[Any], NDArray[Any]]:
    """Images (N, H, W, C) and labels (N,) that fit each other."""
    images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
    if images.dtype != np.uint8:
        raise DataError(f"{path}: {prefix}images must be uint8, not {images.dtype}")
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(f"{path}: {prefix}images must be (N, H, W) or (N, H, W, C), not {images.shape}")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {prefix}labels must be integers, not {labels.dtype}")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{path}: {prefix}labels must be {images.shape[:1]} beside the images, not {labels.shape}")
    labels = labels.astype(np.int64)
    if labels.min() < 0:
        raise DataError(f"{path}: {prefix}label {labels.min()} is out of range; labels start at 0")
    return images if images.ndim == 4 else images[..., None], labels
