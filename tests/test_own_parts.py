"""A task and a suite of one's own, each one file here: registered, measured, planned, hashed and told like the rest."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from making import cell, job, planned, workshop
from pydantic import Field
from torch import Tensor

from results import table
from results.table import row
from suites import presets, suite, tasks
from suites.engine.execute import execute
from suites.run import main
from suites.settings import Group, Settings, dotted
from suites.suite import Job, Rows, Suite
from suites.tasks.base import Sites
from suites.tasks.function import Control, Estimates, FunctionGroup, FunctionTask, Ride
from suites.tasks.functions import Function

# --- the task -------------------------------------------------------------------------------------------------------


class Slope(Settings):
    """What a step depends on."""

    steepness: float = Field(2.0, gt=0)
    """Of the second category over the first."""


class Slide(Slope):
    """What a run depends on."""

    steps: int = Field(50, ge=1)
    """Training steps."""


class SlideGroup(Slide, Group, name="slide"):
    """The slide."""

    presets: ClassVar = {"smoke": {"steps": 20}}


class SlopeSettings(Settings):
    """Handed for a step."""

    slide: Slope


class EstimatesSettings(SlopeSettings):
    """Handed for "estimates"."""

    function: Estimates


class RunSettings(Settings):
    """Handed for "run"."""

    function: Control
    slide: Slide


class PointsSettings(Settings):
    """Handed for "points"."""

    function: Ride
    slide: Slide


class Linear(Function):
    """steepness · x_{1,2} · x_{2,2}."""

    sizes = (2, 2)

    def __init__(self, steepness: float, device: torch.device) -> None:
        self.steepness, self.device = steepness, device

    def __call__(self, sample: Sites) -> Tensor:
        return self.steepness * sample[0][..., 1] * sample[1][..., 1]


class SlideTask(FunctionTask):
    """The slide task."""

    name = "slide"
    groups = (FunctionGroup, SlideGroup)
    roles: ClassVar = FunctionTask.roles | {
        "points": PointsSettings,
        "estimates": EstimatesSettings,
        "step": SlopeSettings,
        "timed": SlopeSettings,
        "counted": SlopeSettings,
        "run": RunSettings,
    }

    def function(self, settings: Any) -> Linear:
        return Linear(settings.slide.steepness, self.context.device)

    def steps(self, settings: Any) -> int:
        return int(settings.slide.steps)

    def about(self, settings: Any) -> Settings:
        return Slide(**settings.slide.model_dump())


# --- the suite ------------------------------------------------------------------------------------------------------


class CountGroup(Group, name="count"):
    """How much is counted."""

    times: int = Field(2, ge=1)
    """How often."""
    presets: ClassVar = {"smoke": {"times": 1}}


class CountSettings(Settings):
    """Handed to the suite."""

    count: CountGroup


class Count(Suite):
    """How many categories there are."""

    name = "count"
    title = "numbers of a sample"
    groups = (CountGroup,)
    settings = CountSettings
    roles: ClassVar = ("points",)
    by_name = True
    seeds: ClassVar = {"smoke": 2}
    measures: ClassVar = {"numbers": "numbers"}

    def run(self, job: Job) -> Rows:
        times = job.settings.count.times
        return [
            row("numbers", times * sum(site.shape[-1] for site in point.logits), point=point.name, unit="numbers")
            for point in job.task.points(job.seed)
        ]


class Greedy(Count):
    """Reaches for more than it asked for."""

    name = "greedy"
    reach = "step"

    def run(self, job: Job) -> Rows:
        if self.reach == "step":
            job.task.workload("step", None)
        elif self.reach == "truth":
            assert job.task.truth
        elif self.reach == "run":
            job.task.run(None, 0, job.keeper)
        elif self.reach == "estimates":
            job.task.estimates(1)
        elif self.reach == "scaled":
            job.task.base()
        return []


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "no reference")
    monkeypatch.setattr(tasks, "_REGISTRY", dict(tasks._REGISTRY))
    monkeypatch.setattr(suite, "_REGISTRY", dict(suite._REGISTRY))
    tasks.register("slide", SlideTask)
    suite.register("count", Count)
    suite.register("greedy", f"{__name__}:Greedy")


SHORT = ("function.estimates=2000", "function.ride=2")


def test_its_settings_are_settings_like_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    preset = presets.resolve("smoke", ["slide.steepness=3", "count.times=4"])
    assert preset.groups["slide"] == SlideGroup(steepness=3.0, steps=20)
    assert preset.changed == {"slide.steepness": 3.0, "count.times": 4}
    assert presets.resolve("cpu").groups["slide"] == SlideGroup()
    with pytest.raises(ValueError, match=r"setting slide\.steepness: input should be greater than 0, got '0'"):
        presets.resolve("smoke", ["slide.steepness=0"])
    with pytest.raises(ValueError, match=r"no setting 'steepness', did you mean 'slide\.steepness'"):
        presets.resolve("smoke", ["steepness=1"])
    assert main(["--help", "--preset", "smoke"]) == 0
    told = capsys.readouterr().out
    assert "steepness" in told and "Of the second category over the first" in told


def test_its_settings_are_in_the_hashes_of_what_reads_them(tmp_path: Path) -> None:
    shop = workshop(tmp_path)

    def hash_of(of: str, *settings: str) -> str:
        return cell(shop, "slide", of, "rloo", *settings).hash

    for of, reads in (("bias", True), ("accuracy", True), ("memory", False), ("count", True)):
        assert (hash_of(of, "slide.steps=9") != hash_of(of)) == reads
        assert hash_of(of, "slide.steepness=1") != hash_of(of)
    assert hash_of("count", "count.times=3") != hash_of("count")
    assert hash_of("bias", "count.times=3") == hash_of("bias")
    assert dotted(cell(shop, "slide", "memory", "rloo").settings) == ["slide.steepness"]
    named = planned(shop, "slide", ["rloo"], ["memory", "bias"], "slide.steps=9", "count.times=3")
    labels = {item.cell.suite: item.cell.described()["preset"] for item in named}
    assert labels == {"memory": "smoke", "bias": "smoke[slide.steps=9]"}


def test_bias_and_accuracy_of_it(tmp_path: Path) -> None:
    """Leave-one-out has no bias on it; training finds its minimum and is longer with more steps."""
    shop = workshop(tmp_path)
    bias = suite.get("bias").run(job(shop, "slide", "bias", "rloo", *SHORT))
    assert {one["point"] for one in bias} == {"uniform", "mid", "peaked"}
    assert all(one["value"] > 1e-6 for one in bias if one["metric"] == "bias_p")
    (size,) = (one for one in bias if (one["metric"], one["point"]) == ("gradient_sq", "uniform"))
    assert size["value"] == pytest.approx(2 * 2 * (2.0 / 8) ** 2)  # of each of four logits
    found = suite.get("accuracy").run(job(shop, "slide", "accuracy", "rloo"))
    curve = [(one["x"], one["value"]) for one in found if one["metric"] == "curve_objective"]
    assert curve[0] == (0, 0.5) and curve[-1][0] == 20 and curve[-1][1] < 0.5


def test_a_sweep_of_both(tmp_path: Path) -> None:
    words = ["--estimator", "rloo", "--task", "slide", "toy", "--preset", "smoke", "--set", *SHORT, "count.times=3"]
    assert main([*words, "--suite", "count", "memory", "--out", str(tmp_path)]) == 0
    frame = table.read(tmp_path / "rows")
    assert set(frame["status"]) == {"ok"}
    mine = frame[frame["suite"] == "count"]
    assert set(mine["preset"]) == {"smoke[count.times=3, function.ride=2]"}
    numbers = mine.groupby("task")["value"].agg(set).to_dict()
    assert numbers == {"slide": {12.0}, "toy": {27.0}}
    assert set(mine["seed"]) == {0, 1}
    assert set(frame.loc[frame["suite"] == "memory", "preset"]) == {"smoke"}


def test_what_a_suite_did_not_ask_for_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it reaches for: the task, its truth or a run. The sweep goes on, and the row says what it was."""
    for reach in ("step", "truth", "run", "estimates", "scaled"):
        monkeypatch.setattr(Greedy, "reach", reach)
        with pytest.raises(KeyError, match=reach):
            suite.get("greedy").run(job(workshop(tmp_path), "slide", "greedy", "rloo"))
    items = planned(workshop(tmp_path), "slide", ["rloo"], ["greedy", "count"])
    found = {done.item.cell.suite: (done.status, done.message) for done in execute(items, workshop(tmp_path), tmp_path)}
    assert found["count"] == ("ok", None)
    assert found["greedy"][0] == "error" and str(found["greedy"][1]).startswith("KeyError: 'scaled'")


def test_a_suite_applies_where_a_task_has_its_roles(tmp_path: Path) -> None:
    class Grows(Count):
        name = "grows"
        roles = ("points", "scaled")

    suite.register("grows", Grows)
    found = [(task, planned(workshop(tmp_path), task, ["rloo"], ["grows"])) for task in ("slide", "width")]
    assert [(task, len(items)) for task, items in found] == [("slide", 0), ("width", 2)]


@pytest.mark.parametrize("where", [tasks, suite], ids=["task", "suite"])
def test_a_name_is_given_once_and_a_wrong_one_has_a_nearest(where: Any) -> None:
    name, find = ("slide", tasks.factory) if where is tasks else ("count", suite.get)
    with pytest.raises(ValueError, match=f"there is a (task|suite) '{name}' already"):
        where.register(name, SlideTask if where is tasks else Count)
    with pytest.raises(ValueError, match=f"did you mean '{name}'"):
        find(f"{name}s")
    assert name in where.available()


def test_it_runs_by_name_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--estimator", "rloo", "--task", "slide", "--preset", "smoke", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "bias" in told and "count" not in told
