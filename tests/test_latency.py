"""The suite that times the network of a finished run."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from making import planned, workshop

from results import table
from suites import suite
from suites.engine.plan import Planned
from suites.labels import parse
from suites.learned import Missing
from suites.run import main
from vmo import compact
from vmo.space import Architecture

WORDS = ["--suite", "latency", "--preset", "smoke", "--set", "train.epochs=1", "--task", "width"]


@pytest.fixture(autouse=True)
def _own_rows_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "no reference")


def test_it_brings_the_runs_it_needs_and_nothing_else(tmp_path: Path) -> None:
    cells = [item.cell for item in planned(workshop(tmp_path), "width", ["scratch[of=rloo]", "relax"], ["latency"])]
    called = [(cell.suite, str(cell.label)) for cell in cells]
    assert called == [
        ("accuracy", "relax"), ("latency", "relax"), ("accuracy", "rloo"),
        ("accuracy", "scratch[of='rloo']"), ("latency", "scratch[of='rloo']"),
    ]  # fmt: skip
    assert cells[1].needed() == cells[0] and cells[4].needed() == cells[3] and cells[3].needed() == cells[2]
    apart = [item.cell for item in planned(workshop(tmp_path), "width", ["relax"], ["accuracy"])]
    assert cells[0].hash in {cell.hash for cell in apart}, "the run is that of the suite accuracy"
    both = planned(workshop(tmp_path), "width", ["relax"], ["latency", "accuracy"])
    assert [item.cell.suite for item in both] == ["accuracy", "accuracy", "latency"], "after the run; plain has none"


@pytest.mark.parametrize("task", ["toy", "vae"])
def test_a_task_without_networks_has_none(task: str, tmp_path: Path) -> None:
    assert not suite.get("latency").applies(workshop(tmp_path).task(task), parse("rloo"))


def test_of_a_task_without_networks_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--suite", "latency", "--preset", "smoke", "--out", str(tmp_path), "--estimator"]
    assert main([*words, "rloo", "--task", "toy"]) == 2
    assert "nothing to run: latency does not apply to rloo on toy" in capsys.readouterr().err
    mixed = planned(workshop(tmp_path), "toy", ["rloo"], ["latency", "memory"])
    assert {item.cell.suite for item in mixed} == {"memory"}


def test_it_follows_the_version_of_what_it_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suites.accuracy.Accuracy.version", 7)
    run, time = (item.cell for item in planned(workshop(tmp_path), "width", ["rloo"], ["latency"]))
    assert (run.suite_version, time.suite_version) == (7, 1) and time.needed() == run


def test_networks_have_one_head_and_the_blocks_of_the_architecture(tmp_path: Path) -> None:
    cell = planned(workshop(tmp_path), "depth", ["rloo"], ["latency"])[-1].cell
    (full, small), _ = workshop(tmp_path).job(cell).task.networks(Architecture(2, (4, 8)))
    assert len(full.heads) == len(small.heads) == 1
    assert small.config.widths == (4, 8) and small.config.blocks == len(small.blocks) == 2 and len(full.blocks) == 3


def test_it_runs_again_when_a_run_before_it_does(tmp_path: Path) -> None:
    """Through a control, which needs a network itself."""
    assert main(["--estimator", "scratch[of=rloo]", *WORDS, "--seeds", "1", "--out", str(tmp_path)]) == 0

    def now() -> dict[tuple[str, str], Planned]:
        found = planned(workshop(tmp_path), "width", ["scratch[of=rloo]"], ["latency"], "train.epochs=1")
        return {(item.cell.suite, item.cell.label.name): item for item in found}

    assert not any(item.to_do for item in now().values())
    learned = tmp_path / "rows" / f"{now()['accuracy', 'rloo'].cell.hash}.jsonl"
    kept = learned.read_text()
    learned.unlink()
    assert all(item.to_do for item in now().values())
    # and one that could not be timed is tried again when the network is there
    time = tmp_path / "rows" / f"{now()['latency', 'scratch'].cell.hash}.jsonl"
    text = time.read_text().splitlines()[0].replace('"status": "ok"', '"status": "infeasible"')
    time.write_text(text.replace('"message": null', '"message": "needs it"') + "\n")
    learned.write_text(kept)
    assert [key for key, item in now().items() if item.to_do] == [("latency", "scratch")]


def test_it_times_the_network_that_was_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def timed(networks, images):  # type: ignore[no-untyped-def]
        assert not any(network.training for network in networks)
        seen.append(([network.config.widths for network in networks], tuple(images.shape)))
        for network in networks:
            assert network(images).shape == (len(images), 10)
        return [2.0, 1.0], 7

    monkeypatch.setattr("suites.latency.latency", timed)
    assert main(["--estimator", "rloo", *WORDS, "--seeds", "2", "--out", str(tmp_path)]) == 0
    frame = table.read(tmp_path / "rows")
    assert set(frame["status"]) == {"ok"}
    learned = frame[frame["metric"] == "block_width"].sort_values(["seed", "x"]).groupby("seed")["value"].apply(tuple)
    assert [(networks[1], shape[0]) for networks, shape in seen] == [
        (learned[seed], batch) for seed in (0, 1) for batch in compact.BATCHES
    ]
    assert {networks[0] for networks, _ in seen} == {(16, 32, 64)}
    rows = frame[frame["suite"] == "latency"]
    assert sorted(rows["x"]) == [1, 1, 128, 128] and set(rows["value"]) == {0.5} and set(rows["n"]) == {7}


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 5), (1e9, 50), (335.0, 7)])
def test_a_latency_is_the_median_after_a_warm_up(seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock moves only while a network runs. A round takes 20 s, the warm-up 200 s."""
    now, order = [0.0], []

    class Timed(torch.nn.Module):
        def __init__(self, name: str, times: Iterable[float]) -> None:
            super().__init__()
            self.name, self.times = name, iter(times)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            order.append(self.name)
            now[0] += next(self.times)
            return images

    monkeypatch.setattr("vmo.compact.time", SimpleNamespace(perf_counter=lambda: now[0]))
    slow = Timed("slow", itertools.chain([100.0], itertools.cycle([19.0, 11.0, 14.0, 12.0, 18.0])))
    fast = Timed("fast", itertools.chain([100.0], itertools.cycle([1.0, 9.0, 6.0, 8.0, 2.0])))
    (one, other), n = compact.latency((slow, fast), torch.zeros(1), seconds)
    assert n == rounds and order == ["slow", "fast"] * (rounds + 1)
    assert (one, other) == (14.0, 6.0)


def test_without_the_run_it_says_what_it_needs(tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    cell = planned(shop, "width", ["rloo"], ["latency"])[-1].cell
    with pytest.raises(Missing, match="needs the network that rloo learned on width, seed 0; that run is missing"):
        suite.get("latency").run(shop.job(cell))
    control = planned(shop, "width", ["scratch[of=rloo]"], ["latency"])[-1].cell
    with pytest.raises(Missing, match=r"needs the network that scratch\[of='rloo'\] learned"):
        suite.get("latency").run(shop.job(control))
