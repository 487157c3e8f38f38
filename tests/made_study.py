"""Made-up runs of the study, with effects that are known."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from made_rows import PROVENANCE, cell

from results import study, table
from results.study_design import (
    DEFAULTS,
    PRESET,
    RIVALS,
    Arm,
)


def write(out: Path, of: Arm, seed: int, accuracy: float, part: str = "test", **more: float) -> None:
    """The rows of a finished run with a test accuracy in %."""
    settings: dict[str, dict[str, object]] = {}
    for name, value in {**DEFAULTS, **{key: study._typed(text) for key, text in of.changed.items()}}.items():
        group, key = name.split(".")
        settings.setdefault(group, {})[key] = value
    about = cell(
        "accuracy", of.task, of.estimator, preset=f"{PRESET}[{sorted(of.changed.items())}]", preset_name=PRESET,
        dataset=of.dataset, seed=seed, settings=settings,
    )  # fmt: skip
    numbers = [("accuracy", part, None, accuracy / 100), ("accuracy", "train", None, more.get("train", 99.0) / 100)]
    numbers += [("parameters", None, None, more.get("parameters", 1000.0)), ("macs", None, None, 1e6)]
    numbers += [("macs_ratio", None, None, 0.5), ("layers", None, None, 16), ("width_fraction", None, None, 0.6)]
    numbers += [("width_sd_blocks", None, None, 0.1)]
    if of.estimator in RIVALS:
        numbers.append(("training_cost", None, None, 0.75))
    for epoch in (1, 2, 3, 4):
        numbers.append(("curve_test_loss", "test", epoch, more.get("slow", 1.0) / epoch))
        numbers.append(("curve_accuracy", "test", epoch, accuracy / 100 * epoch / 4))
    rows = [table.row(metric, value, part=part, x=x) for metric, part, x, value in numbers]
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    table.write(out, name, [{**row, "cell": about, "provenance": PROVENANCE} for row in rows])


def sets(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    chosen = list(names)
    return itertools.chain.from_iterable(itertools.combinations(chosen, n) for n in range(len(chosen) + 1))


EFFECTS = {"bias": 0.3, "variance": 1.1, "soft weights": 2.0}


def factorial(
    out: Path,
    value: Callable[[tuple[str, ...]], float],
    seeds: int = 5,
    dataset: str = "cifar10_16",
    only: Sequence[Arm] | None = None,
) -> None:
    """Runs of every arm of the decomposition: plain at 90, its smaller network at 88, weights on the mode at 87 − v.

    With `only`, these arms alone.
    """
    random = np.random.default_rng(0)
    for key, one in study.arms_of(dataset).items():
        if only is not None and one not in only:
            continue
        for seed in range(seeds):
            common = 0.5 * seed
            if key == "plain":
                accuracy = 90.0
            elif key == "scratch":
                accuracy = 88.0
            elif key == "concrete":
                accuracy = 87.0 - value(study.SWITCHES) - 0.1
            else:
                assert isinstance(key, tuple)
                accuracy = 87.0 - value(key)
            write(out, one, seed, accuracy + common + random.normal(0, 0.02))
