"""Checkpoints: one safetensors file, renamed into place when it is complete; no pickle.

Tensors are stored as such. The nested dicts and lists around them are JSON in the file's metadata, where each tensor is
a reference to its name. The previous file is kept too, so a damaged file only costs the steps since the previous one. A
checkpoint records which run it belongs to, so that no other run resumes from it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vmo import partial

VERSION = 3


def save(path: Path, state: Any, about: Mapping[str, Any] | None = None) -> None:
    """Write `state` to `path` atomically, and keep the file that was there as `path`.previous.

    Args:
        path: the file.
        state: nested dicts and lists of tensors, plain numbers and strings.
        about: which run it belongs to, as JSON data. See `Keeper`.

    Raises:
        OSError: it cannot be written, for example on a full disk. The existing file then stays.
    """
    tensors: dict[str, Tensor] = {}
    metadata = {
        "version": str(VERSION),
        "about": json.dumps(about or {}),
        "state": json.dumps(_outline(state, tensors)),
    }
    with partial.file(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(f"{path} cannot be written: {error}") from None
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, _previous(path))


def load(path: Path, device: torch.device | str = "cpu") -> Any | None:
    """The newest state that can be read, from `path` or else from the previous file; None if neither can.

    Tensors are put on `device`, except generator states (uint8), which belong on the CPU.
    """
    found = _newest(path, device)
    return None if found is None else found[0]


def _newest(path: Path, device: torch.device | str) -> tuple[Any, dict[str, Any]] | None:
    """The newest readable state, and which run it belongs to."""
    for candidate in (path, _previous(path)):
        if not candidate.exists():
            continue
        try:
            with safe_open(candidate, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("version") != str(VERSION):
                    continue
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
            return _filled(json.loads(metadata["state"]), tensors, device), json.loads(metadata["about"])
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError):
            continue  # damaged: try the previous file
    return None


class Keeper:
    """Keeps one run's checkpoints.

    Args:
        path: the file.
        seconds: the least time between two checkpoints.
        about: JSON data that must be the same for a run to resume, for example its seed and its data.
    """

    def __init__(self, path: Path, seconds: float = 60.0, about: Mapping[str, Any] | None = None) -> None:
        self.path, self.seconds = path, seconds
        self.about: dict[str, Any] = json.loads(json.dumps(about or {}))  # as it comes back
        self._last = time.monotonic()

    def load(self, device: torch.device | str) -> Any | None:
        """The state to resume from, or None. See `load`.

        Raises:
            ValueError: the checkpoint belongs to another run; one line that says what differs.
        """
        found = _newest(self.path, device)
        if found is None:
            return None
        state, about = found
        for key in dict.fromkeys((*self.about, *about)):
            own, theirs = self.about.get(key), about.get(key)
            if own != theirs:
                raise ValueError(
                    f"{self.path} is the checkpoint of a run whose {key} is {theirs!r}, and this one's is {own!r}; "
                    "delete it to start from the beginning"
                )
        return state

    def offer(self, state: Callable[[], Any]) -> None:
        """Save `state()` if the last checkpoint is old enough."""
        if time.monotonic() - self._last >= self.seconds:
            save(self.path, state(), self.about)
            self._last = time.monotonic()

    def finish(self, state: Any) -> None:
        """Save the final state and delete the previous file."""
        save(self.path, state, self.about)
        _previous(self.path).unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the checkpoint and the previous file."""
        for path in (self.path, _previous(self.path)):
            path.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _outline(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON for a nested value; tensors go into `tensors`. Dicts become pairs, because JSON keys are strings."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name, "channels_last": _is_channels_last(value)}
    if isinstance(value, dict):
        return {"dict": [[key, _outline(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_outline(inner, tensors) for inner in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint holds tensors, numbers, strings, dicts and lists, not {type(value).__name__}")


def _filled(outline: Any, tensors: dict[str, Tensor], device: torch.device | str) -> Any:
    if not isinstance(outline, dict):
        return outline
    if "tensor" in outline:
        tensor = tensors[outline["tensor"]]
        if outline["channels_last"]:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor if tensor.dtype == torch.uint8 else tensor.to(device)
    if "list" in outline:
        return [_filled(inner, tensors, device) for inner in outline["list"]]
    return {key: _filled(inner, tensors, device) for key, inner in outline["dict"]}


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
