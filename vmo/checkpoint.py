"""Checkpoints: one safetensors file, moved into place whole; no pickle.

Tensors are stored as such. What holds them, nested dicts and lists of tensors and plain numbers, is JSON in the file's
metadata, in which every tensor is a reference to its name. The file before the newest is kept, so that one that a disk
has damaged costs the steps since the one before.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

VERSION = 2


def save(path: Path, state: Any) -> None:
    """Write `state` to `path`, whole or not at all, and keep the file that stood there as `path`.previous.

    Raises:
        OSError: it cannot be written, as on a full disk; what stood there stays.
    """
    tensors: dict[str, Tensor] = {}
    metadata = {"version": str(VERSION), "state": json.dumps(_outline(state, tensors))}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            save_file(tensors, partial, metadata)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(f"{path} cannot be written: {error}") from None
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, _previous(path))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, device: torch.device | str = "cpu") -> Any | None:
    """The newest state that can be read, from `path` or else from the file before it; None where there is neither.

    Tensors come on `device`, but for generator states (uint8), which belong on the CPU.
    """
    for candidate in (path, _previous(path)):
        if not candidate.exists():
            continue
        try:
            with safe_open(candidate, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("version") != str(VERSION):
                    continue
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
            return _filled(json.loads(metadata["state"]), tensors, device)
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError):
            continue  # truncated or damaged: the one before it is whole, for it was moved into place whole
    return None


class Keeper:
    """Keeps one run's checkpoints.

    Args:
        path: the file.
        seconds: the least time between two of them.
    """

    def __init__(self, path: Path, seconds: float = 60.0) -> None:
        self.path, self.seconds = path, seconds
        self._last = time.monotonic()

    def load(self, device: torch.device | str) -> Any | None:
        """What to go on from, if anything. See `load`."""
        return load(self.path, device)

    def offer(self, state: Callable[[], Any]) -> None:
        """Save `state()` if it is time to."""
        if time.monotonic() - self._last >= self.seconds:
            save(self.path, state())
            self._last = time.monotonic()

    def finish(self, state: Any) -> None:
        """Save the last state, beside which no other is needed."""
        save(self.path, state)
        _previous(self.path).unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget the run."""
        for path in (self.path, _previous(self.path)):
            path.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _outline(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON for a nested value, whose tensors go into `tensors`. Dicts become pairs, for JSON keys are only strings."""
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
