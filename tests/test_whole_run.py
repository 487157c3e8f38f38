"""Which images a whole run trains on and is measured on, and how often it is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from making import cell, workshop

from suites import labels, presets, suite
from suites.tasks import factory, network
from suites.tasks.base import Context
from suites.tasks.network_roles import PlainRunSettings, RunSettings
from suites.tasks.network_run import POINTS
from vmo.data import load
from vmo.train import Trainer

TINY = ("train.batch_size=16", "network.width_step=16")


def trainer(label: str, *settings: str) -> Trainer:
    task = factory("width")(Context())
    assert isinstance(task, network.NetworkTask)
    chosen = presets.resolve("smoke", [*TINY, *settings])
    if label == "plain":
        return task.trainer(chosen.hand(PlainRunSettings), None, 0)
    return task.trainer(chosen.hand(RunSettings), labels.parse(label).make, 0)


def rows(out: Path, label: str, *settings: str) -> list[dict[str, Any]]:
    return suite.get("accuracy").run(
        workshop(out).job(cell(workshop(out), "width", "accuracy", label, *TINY, *settings))
    )


@pytest.mark.parametrize("label", ["plain", "rloo"])
def test_a_run_on_some_images_trains_on_these_in_every_run(label: str) -> None:
    few, again = (trainer(label, "train.images=64") for _ in range(2))
    assert len(few.dataset.train) == 64 and few.steps_per_epoch == 4
    assert torch.equal(few.dataset.train.images, again.dataset.train.images)
    digits = load("digits")
    assert len(few.dataset.test) == len(digits.test)
    everything = {image.numpy().tobytes() for image in digits.train.images}
    assert {image.numpy().tobytes() for image in few.dataset.train.images} <= everything
    assert len(trainer(label, "train.images=1000000").dataset.train) == len(digits.train)


def test_validation_images_are_measured_on_and_never_trained_on() -> None:
    held = trainer("rloo", "train.validation=0.25", "train.images=64").dataset
    digits = load("digits")
    assert len(held.test) == round(0.25 * len(digits.train)) and len(held.train) == 64
    whole = trainer("rloo", "train.validation=0.25").dataset
    assert len(whole.train) + len(whole.test) == len(digits.train)
    test = {image.numpy().tobytes() for image in held.test.images}
    both = {image.numpy().tobytes() for image in held.train.images} & test
    assert len(both) <= 2  # digits has a few equal images


def test_rows_say_on_which_images_they_were_measured(tmp_path: Path) -> None:
    found = rows(tmp_path, "rloo", "train.epochs=1", "train.images=64", "train.validation=0.25")
    parts = {(row["metric"], row["part"]) for row in found if row["metric"] in ("accuracy", "curve_accuracy")}
    assert parts == {("accuracy", "train"), ("accuracy", "validation"), ("curve_accuracy", "validation")}


@pytest.mark.parametrize(("epochs", "seen"), [(3, [1, 2, 3]), (25, [3, 5, 8, 10, 13, 15, 18, 20, 23, 25])])
def test_a_run_is_evaluated_at_some_of_its_epochs_and_at_the_last(epochs: int, seen: list[int], tmp_path: Path) -> None:
    found = rows(tmp_path, "plain", f"train.epochs={epochs}", "train.images=16")
    for metric in ("curve_accuracy", "curve_test_loss"):
        assert [row["x"] for row in found if row["metric"] == metric] == seen
    assert len(seen) <= POINTS and [row["x"] for row in found if row["metric"] == "curve_loss"] == list(
        range(1, epochs + 1)
    )
    last = {row["metric"]: row["value"] for row in found if row["metric"] == "curve_accuracy"}
    final = next(row["value"] for row in found if row["metric"] == "accuracy" and row["part"] == "test")
    assert last["curve_accuracy"] == pytest.approx(final, abs=0.15)  # fewer images recalibrate it


@pytest.mark.parametrize(
    "few",
    [
        ("train.images=8",),
        ("train.validation=0.9945",),
        ("train.images=80", "train.held_out=0.1", "train.weights=mode"),
        ("train.images=80", "train.held_out=0.9", "train.weights=mode"),
    ],
)
def test_too_few_images_are_one_line(few: tuple[str, ...]) -> None:
    """Where the weights or φ alone would be left with no minibatch: 8 images of 8, 1,438 or 80."""
    handed = presets.resolve("smoke", [*few, "train.batch_size=16"]).hand(RunSettings)
    with pytest.raises(ValueError, match=r"train\.batch_size=16 exceeds the 8 training images"):
        factory("width")(Context()).prepare("run", handed)
