"""`suites.compare` on an objective in a file of the user's."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from suites.commands import tables
from suites.comparison import compare


def run(
    target: str,
    *,
    logits: str,
    weights: str | None,
    fresh: bool,
    estimators: Sequence[str],
    seconds: float,
    seed: int,
    out: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Compare, print the result, and write it to `out`. Returns the exit status.

    Args:
        target: "FILE.py:NAME" of the objective.
        logits, weights: names in that file; a function is called without arguments, a module gives its parameters.
        fresh: see `compare`; the file's `logits` may be missing then.
        estimators: labels; "all" among them means all.
        seconds, seed, quiet: see `compare`.
        out: where comparison.txt, comparison.csv and comparison.png go.
        as_json: print the frame as JSON instead of the table.

    Raises:
        ValueError: the file has no such name, or as `compare`.
        OSError: there is no such file, or `out` cannot be written.
    """
    file, _, name = target.partition(":")
    path = Path(file)
    module = _loaded(path)
    sites = None if fresh and not hasattr(module, logits) else _get(module, logits, path)
    objective = _get(module, name or "objective", path)
    try:
        result = compare(
            objective,
            sites() if callable(sites) else sites,
            estimators="all" if "all" in estimators else estimators,
            seconds=seconds,
            weights=() if weights is None else _weights(_get(module, weights, path)),
            fresh=fresh,
            seed=seed,
            quiet=quiet,
        )
    except Exception as error:
        if isinstance(error, ValueError | OSError) and _line(error, path) is None:
            raise  # it is not of the user's code
        raise ValueError(_told(error, path)) from error
    if as_json:
        best = result.best() if result.frame["rank"].notna().any() else None
        lines = result.frame.astype(object).where(result.frame.notna(), None).to_dict("records")
        tables.say_json({"best": best, "recommendation": result.recommendation(), "estimators": lines})
    else:
        tables.say(str(result))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "comparison.txt").write_text(f"{result}\n", encoding="utf-8")
        result.frame.to_csv(out / "comparison.csv", index=False)
        result.plot(out / "comparison.png")
    return 0


def _loaded(path: Path) -> ModuleType:
    """A file of the user's as a module, with its folder on the path as `python FILE.py` has it."""
    if path.suffix != ".py":
        raise ValueError(f"name a Python file and the objective in it, as my_model.py:objective; got {str(path)!r}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    sys.path.insert(0, str(path.resolve().parent))
    name = path.stem
    while name in sys.modules:  # a file may have the name of a module that is in use, such as random.py
        name += "_"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # of a name that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(_told(error, path)) from error
    return module


def _told(error: Exception, path: Path) -> str:
    """An error of the user's code, and the line of the file that it came from."""
    line = _line(error, path)
    if isinstance(error, SyntaxError):
        line = error.lineno
    where = "" if line is None else f", line {line}"
    return f"{path}{where}: {type(error).__name__}: {error}"


def _line(error: Exception, path: Path) -> int | None:
    """The last line of the file in the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if Path(frame.filename) == path), None)


def _get(module: ModuleType, name: str, path: Path) -> Any:
    if not hasattr(module, name):
        raise ValueError(f"{path} has no {name!r} at its top level")
    return getattr(module, name)


def _weights(given: Any) -> Any:
    if isinstance(given, nn.Module):
        return given.parameters()
    return given() if callable(given) else given
