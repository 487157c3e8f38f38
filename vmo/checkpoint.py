"""Checkpoints: one safetensors file, moved into place whole; no pickle.

Tensors are stored as such. What holds them, nested dicts and lists of tensors and plain numbers, is JSON in the file's
metadata, in which every tensor is a reference to its name. The file before the newest is kept, so that one that a disk
has damaged costs the steps since the one before. A run's checkpoints say whose they are, so that no other goes on from
them.
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
    """Write `state` to `path`, whole or not at all, and keep the file that stood there as `path`.previous.

    Args:
        path: the file.
        state: nested dicts and lists of tensors and plain numbers.
        about: whose it is, as JSON has it. See `Keeper`.

    Raises:
        OSError: it cannot be written, as on a full disk; what stood there stays.
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
    """The newest state that can be read, from `path` or else from the file before it; None where there is neither.

    Tensors come on `device`, but for generator states (uint8), which belong on the CPU.
    """
    found = _newest(path, device)
    return None if found is None else found[0]


def _newest(path: Path, device: torch.device | str) -> tuple[Any, dict[str, Any]] | None:
    """The state, and whose it is."""
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
            continue  # truncated or damaged: the one before it is whole, for it was moved into place whole
    return None


class Keeper:
    """Keeps one run's checkpoints.

    Args:
        path: the file.
        seconds: the least time between two of them.
        about: whose they are, in plain numbers, strings, dicts and lists: what has to be the same for a run to go on,
            such as its data.
    """

    def __init__(self, path: Path, seconds: float = 60.0, about: Mapping[str, Any] | None = None) -> None:
        self.path, self.seconds = path, seconds
        self.about: dict[str, Any] = json.loads(json.dumps(about or {}))  # as it comes back
        self._last = time.monotonic()

    def load(self, device: torch.device | str) -> Any | None:
        """What to go on from, if anything. See `load`.

        Raises:
            ValueError: it is another run's; one line that says what differs.
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
                    "delete it to begin anew"
                )
        return state

    def offer(self, state: Callable[[], Any]) -> None:
        """Save `state()` if it is time to."""
        if time.monotonic() - self._last >= self.seconds:
            save(self.path, state(), self.about)
            self._last = time.monotonic()

    def finish(self, state: Any) -> None:
        """Save the last state, beside which no other is needed."""
        save(self.path, state, self.about)
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
