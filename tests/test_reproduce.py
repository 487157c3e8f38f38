"""vmo-bench reproduce: what is stored, what is shown and refused, and the page of the documentation."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from suites.__main__ import main
from suites.scripts import EXPERIMENTS, LONG, reproduce
from suites.scripts.published import images, registry, structured, unordered
from suites.scripts.published.experiment import Asked
from suites.scripts.published.store import NAME, Store
from vmo import torchvision_sets

ROOT = Path(__file__).parents[1]


# --- what is stored -------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replaces `unordered` by an experiment that notes its runs."""
    done: list[tuple[str, int]] = []

    def measure(one: Asked) -> list[float]:
        if one.seed == 7:
            raise KeyboardInterrupt
        done.append((one.arm, one.seed))
        return [float(one.seed)] * (2 if one.arm == unordered.EVERY else 1)

    made = replace(registry.EXPERIMENTS["unordered"], measure=measure)
    monkeypatch.setitem(registry.EXPERIMENTS, "unordered", made)
    return done


def test_a_run_is_done_once(counted: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "unordered", "--out", str(tmp_path), "--json", "--seeds"]
    assert main([*command, "2"]) == 0
    assert counted == [(unordered.SOME, 0), (unordered.SOME, 1), (unordered.EVERY, 0)]
    assert main([*command, "3"]) == 0
    assert counted[3:] == [(unordered.SOME, 2)]
    capsys.readouterr()
    assert main([*command, "1", "--stored"]) == 0
    first, *_ = json.loads(capsys.readouterr().out)
    assert first["measured"] == [0.0, 1.0, 2.0] and first["mean"] == 1.0 and len(counted) == 4


def test_what_is_finished_survives_an_interruption(
    counted: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "unordered", "--out", str(tmp_path)]
    assert main([*command, "--seeds", "9"]) == 130
    assert len(counted) == 7 and "repeat the command" in capsys.readouterr().err
    store = Store(tmp_path)
    experiment = registry.EXPERIMENTS["unordered"]
    assert [seed for seed, _, _ in store.done(experiment, experiment.arms[0])] == [*range(7)]


def test_values_of_another_version_are_measured_again(
    counted: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["reproduce", "unordered", "--out", str(tmp_path), "--json"]
    assert main(command) == 0
    before = len(counted)
    later = replace(registry.EXPERIMENTS["unordered"], version=99)
    monkeypatch.setitem(registry.EXPERIMENTS, "unordered", later)
    assert main(command) == 0
    assert len(counted) == 2 * before


@pytest.mark.parametrize("content", ["", "[{}]", '[{"experiment": 1}]', "{"])
def test_a_damaged_file_is_not_overwritten(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / NAME).write_text(content)
    assert main(["reproduce", "bernoulli", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "damaged" in said and said.count("\n") == 1
    assert (tmp_path / NAME).read_text() == content


def test_a_value_that_is_not_finite_is_kept_as_such(tmp_path: Path) -> None:
    experiment = registry.EXPERIMENTS["arsm"]
    Store(tmp_path).add(experiment, experiment.arms[0], 0, 5, 1.0, [math.nan])
    (found,) = Store(tmp_path).done(experiment, experiment.arms[0])
    assert found[:2] == (0, 5) and math.isnan(found[2][0])


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_bernoulli_numbers_are_reproduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "bernoulli", "--seeds", "2", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("-4.1589") >= 4  # published and measured, twice
    assert "yes" in shown and " no " not in shown
    assert main(["reproduce", "bernoulli", "--seeds", "1", "--json", "--out", str(tmp_path)]) == 0
    exact, sampled = json.loads(capsys.readouterr().out)
    assert exact["mean"] == pytest.approx(-4.1589, abs=1e-4) and exact["error"] is None
    assert len(sampled["measured"]) == 2 and sampled["agrees"] == "yes"


def test_without_a_name_the_short_ones_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(reproduce, "measure", lambda experiment, *more: ran.append(experiment.name))
    assert main(["reproduce", "--json", "--out", str(tmp_path)]) == 0
    assert ran == [name for name in EXPERIMENTS if name not in LONG]


def test_a_shorter_run_has_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(250, 784, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(reproduce.data, "identify", lambda name, root: None)
    monkeypatch.setattr(images, "intensities", lambda root: (x[:200], x[200:]))
    monkeypatch.setattr(structured, "SAMPLES", 10)
    command = ["reproduce", "structured", "--seeds", "1", "--epochs", "1", "--out", str(tmp_path)]
    page = tmp_path / "deep" / "page.md"
    assert main([*command, "--json", "--page", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["agrees"] for one in found} == {"shorter run"} and found[0]["length"] == "1 epochs"
    text = page.read_text(encoding="utf-8")
    assert "A full run: 800 epochs" in text and "Order of ours" in text and "not run" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["relux"], "did you mean 'relax'"),
        (["--seeds", "0"], "integer of at least 1"),
        (["bernoulli", "--epochs", "2"], "--epochs is for reinmax_vae and structured"),
        (["--epochs", "-1"], "integer of at least 0"),
    ],
)
def test_bad_input_is_one_line(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words, "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_mnist_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, root: Path) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision_sets, "fetch", fail)
    root = tmp_path / "data"
    assert main(["reproduce", "reinmax_vae", "--data-root", str(root), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "torchvision.datasets.MNIST" in said and str(root) in said and "VMO_DATA" in said
    assert not (tmp_path / "out").exists()


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_shows_what_is_stored() -> None:
    shown = (ROOT / "docs/reference/published.md").read_text(encoding="utf-8")
    assert shown == reproduce.rendered(Store(ROOT / "results/reference"))


def test_twelve_numbers_of_five_papers_agree() -> None:
    store = Store(ROOT / "results/reference")
    agreeing = {
        (experiment.arxiv, found.number.what)
        for experiment in registry.EXPERIMENTS.values()
        for found in reproduce.lines_of(experiment, store)
        if found.agrees == "yes"
    }
    assert len(agreeing) >= 12 and len({arxiv for arxiv, _ in agreeing}) >= 5
