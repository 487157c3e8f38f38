"""The estimators of this project as `estimators/registry.toml` lists them. The file is read; nothing is imported."""

import functools
import importlib.util
import tomllib
from pathlib import Path
from typing import Any


@functools.cache
def estimators() -> dict[str, dict[str, Any]]:
    """The entry of each estimator, by name. Empty where the package `estimators` is not installed."""
    spec = importlib.util.find_spec("estimators")
    if spec is None or spec.origin is None:
        return {}
    entries: dict[str, dict[str, Any]] = tomllib.loads(
        Path(spec.origin).with_name("registry.toml").read_text(encoding="utf-8")
    )
    return entries
