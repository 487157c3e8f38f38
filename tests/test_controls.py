"""The baselines of the accuracy suite: plain, random, uniform and scratch."""

import re
from pathlib import Path

import made_rows
import pandas as pd
import pytest
import torch
from making import planned, workshop

from results import packed, table
from suites import labels
from suites.engine.plan import Planned
from suites.run import main
from vmo import checkpoint
from vmo.schedule import SCHEDULES

WORDS = ["--suite", "accuracy", "--preset", "smoke", "--set", "train.epochs=1"]
ALL = ["rloo", "random", "uniform[of=rloo]", "scratch[of=rloo]"]


@pytest.fixture(autouse=True)
def _own_rows_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the committed rows, whose figures take longer to draw than most of these runs."""
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "no reference")


def final(frame: pd.DataFrame, metric: str) -> dict[tuple[str, str], float]:
    rows = frame[(frame["metric"] == metric) & frame["x"].isna() & (frame["part"].isna() | (frame["part"] == "test"))]
    return {(row.task, row.estimator.partition("[")[0]): row.value for row in rows.itertuples()}  # type: ignore[misc]


def widths(frame: pd.DataFrame, task: str, name: str) -> list[float]:
    rows = frame[(frame["task"] == task) & (frame["estimator"] == name) & (frame["metric"] == "block_width")]
    return rows.sort_values("x")["value"].to_list()


def test_controls_end_to_end(tmp_path: Path) -> None:
    """One sweep with two workers: controls wait for what they control, and plain training is one run for two tasks."""
    words = ["--estimator", *ALL, "--task", "width", "joint", *WORDS, "--out", str(tmp_path), "--workers", "2"]
    assert main(words) == 0
    frame = table.read(tmp_path / "rows")
    assert set(frame["status"]) == {"ok"}
    macs, accuracy = final(frame, "macs_ratio"), final(frame, "accuracy")
    for task in ("width", "joint"):
        assert macs[task, "plain"] == 1
        learned = widths(frame, task, "rloo")
        assert widths(frame, task, "scratch[of='rloo']") == learned
        assert macs[task, "scratch"] == macs[task, "rloo"]
        alike = widths(frame, task, "uniform[of='rloo']")
        assert len(alike) == 3
        parts = [k / full for k, full in zip(alike, (16, 32, 64), strict=True)]
        assert max(parts) - min(parts) <= 1 / 16
        assert macs[task, "uniform"] == pytest.approx(macs[task, "rloo"], abs=0.02)
        assert accuracy[task, "scratch"] != accuracy[task, "rloo"]
    assert accuracy["width", "plain"] == accuracy["joint", "plain"]
    runs = {path.stem for path in (tmp_path / "checkpoints").glob("*.safetensors")}
    assert len(runs) == 2 * 4 + 1


def test_random_is_a_sample_of_a_q_that_never_moved(tmp_path: Path) -> None:
    found = []
    for out in ("a", "b"):
        words = ["--estimator", "random", "--task", "joint", "--suite", "accuracy", "--preset", "smoke", "--seeds", "3"]
        words += ["--out", str(tmp_path / out)]
        assert main(words) == 0
        frame = table.read(tmp_path / out / "rows")
        frame = frame[frame["estimator"] == "random"]
        found.append(sorted(frame[frame["metric"] == "macs"]["value"]))
        assert set(frame[frame["metric"] == "curve_entropy"]["x"]) == {0.0, 1.0, 2.0}
        assert frame[frame["metric"] == "curve_entropy"]["value"].nunique() == 1
    assert found[0] == found[1]
    assert len(set(found[0])) == 3
    losses = frame[frame["metric"] == "curve_loss"]
    last = losses[losses["x"] == 2]["value"].to_numpy()
    assert (last < losses[losses["x"] == 1]["value"].to_numpy()).all()  # the weights do train


def test_a_control_brings_the_run_it_needs_and_nothing_else(tmp_path: Path) -> None:
    cells = [
        item.cell for item in planned(workshop(tmp_path), "width", ["scratch[of=rloo]"], ["bias", "memory", "accuracy"])
    ]
    assert [(cell.suite, str(cell.label)) for cell in cells] == [
        ("memory", "plain"),
        ("accuracy", "plain"),
        ("accuracy", "rloo"),
        ("accuracy", "scratch[of='rloo']"),
    ]
    assert cells[3].needed() == cells[2]
    assert all(cell.needed() is None for cell in cells[:3])
    both = planned(workshop(tmp_path), "width", ["scratch[of=rloo]", "rloo"], ["accuracy"])
    assert [str(item.cell.label) for item in both] == ["plain", "rloo", "scratch[of='rloo']"]


def test_a_control_follows_what_it_controls(tmp_path: Path) -> None:
    words = ["--estimator", "scratch[of=rloo]", "--task", "width", *WORDS, "--out", str(tmp_path)]
    assert main(words) == 0

    def now() -> dict[str, Planned]:
        found = planned(workshop(tmp_path), "width", ["scratch[of=rloo]"], ["accuracy"], "train.epochs=1")
        return {item.cell.label.name: item for item in found}

    assert not any(item.to_do for item in now().values())
    learned = tmp_path / "rows" / f"{now()['rloo'].cell.hash}.jsonl"
    kept = learned.read_text()
    learned.unlink()
    assert now()["scratch"].to_do
    assert now()["scratch"].again
    # also if the run is back, with another network
    learned.write_text(re.sub(r'("metric": "block_width".*?"value": )\d+', r"\g<1>3", kept))
    assert now()["scratch"].to_do
    learned.write_text(kept)
    assert not now()["scratch"].to_do
    # and one that could not be is tried again when what was missing is there
    control = tmp_path / "rows" / f"{now()['scratch'].cell.hash}.jsonl"
    text = control.read_text().splitlines()[0].replace('"status": "ok"', '"status": "infeasible"')
    control.write_text(text.replace('"message": null', '"message": "needs it"') + "\n")
    learned.write_text(kept)
    assert now()["scratch"].to_do


def test_a_run_without_widths_has_no_controls(tmp_path: Path) -> None:
    words = ["--estimator", "rloo", "--task", "width", *WORDS, "--out", str(tmp_path)]
    assert main(words) == 0
    for path in (tmp_path / "rows").iterdir():
        lines = [line for line in path.read_text().splitlines() if "block_width" not in line]
        path.write_text("\n".join(lines) + "\n")
    assert main(["--estimator", "scratch[of=rloo]", *words[2:]]) == 0
    frame = table.read(tmp_path / "rows")
    control = frame[frame["estimator"] == "scratch[of='rloo']"].iloc[0]
    assert control["status"] == "infeasible"
    needed = "needs the network that rloo learned on width, seed 0; that run is without a row of its widths"
    assert control["message"] == needed


def test_a_learned_network_is_found_in_a_packed_file(tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    cells = {item.cell.label.name: item.cell for item in planned(shop, "width", ["scratch[of=rloo]"], ["accuracy"])}
    shared = {"cell": made_rows.cell("accuracy", "width", "rloo"), "provenance": made_rows.PROVENANCE}
    rows = [{**table.row("block_width", 4.0, x=at), **shared} for at in range(3)]
    path = table.write(tmp_path / "rows", cells["rloo"].hash, rows)
    alone = shop.job(cells["scratch"]).learned()
    table.pack(tmp_path / "rows", tmp_path / "rows" / packed.NAME)
    path.unlink()
    assert shop.job(cells["scratch"]).learned() == alone != []


def test_plain_training_is_one_run_for_every_penalty(tmp_path: Path) -> None:
    def runs(*settings: str) -> set[str]:
        found = [planned(workshop(tmp_path), task, ["plain"], ["accuracy"], *settings) for task in ("width", "depth")]
        return {item.cell.run for (item,) in found}

    one = runs("penalty.gamma=0.1") | runs("penalty.target_macs=0.5") | runs("train.phi_lr=0.3")
    assert len(one) == 1
    assert not one & runs("train.epochs=3")


def test_the_toy_has_no_controls(tmp_path: Path) -> None:
    cells = planned(workshop(tmp_path), "toy", ["rloo", "random", "scratch[of=rloo]"], ["accuracy"])
    assert [str(item.cell.label) for item in cells] == ["rloo"]


def test_a_control_of_a_run_that_failed_is_infeasible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "step", lambda base, progress: 1e9)  # diverges
    assert main(["--estimator", "scratch[of=rloo]", "--task", "width", *WORDS, "--out", str(tmp_path)]) == 0
    frame = table.read(tmp_path / "rows")
    control = frame[frame["estimator"] == "scratch[of='rloo']"].iloc[0]
    assert control["status"] == "infeasible"
    assert control["message"] == "needs the network that rloo learned on width, seed 0; that run is diverged"


def test_a_checkpoint_says_what_a_run_has_come_to(tmp_path: Path) -> None:
    words = ["--estimator", "rloo", "--task", "width", *WORDS, "--target-macs", "0.6", "--out", str(tmp_path)]
    assert main(words) == 0
    frame = table.read(tmp_path / "rows")
    assert set(frame["preset"]) == {"smoke[penalty.target_macs=0.6, train.epochs=1]", "smoke[train.epochs=1]"}
    name = frame[frame["estimator"] == "rloo"]["hash"].iloc[0]
    state = checkpoint.load(tmp_path / "checkpoints" / f"{name}.safetensors")
    assert state is not None
    assert state["run"]["architecture"]["hidden"] == widths(frame, "width", "rloo")
    assert final(frame, "macs_ratio")["width", "rloo"] == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize(
    "text", ["scratch", "scratch[]", "uniform[of=3]", "uniform[of=rloo, a=1]", "scratch[of=plain]"]
)
def test_a_control_must_name_an_estimator(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be written as (scratch|uniform)\[of=ESTIMATOR\]"):
        labels.parse(text)


def test_labels_of_controls() -> None:
    label = labels.parse('scratch[of="concrete[temperature=0.5]"]')
    assert label.of == labels.parse("concrete[temperature=0.5]")
    assert labels.parse(str(label)) == label
    assert label.version == labels.parse("concrete").version
    with pytest.raises(ValueError, match="did you mean 'rloo'"):
        labels.parse("scratch[of=rlo]")
    with pytest.raises(ValueError, match="random has no options"):
        labels.parse("random[of=rloo]")


def test_target_and_batches_that_cannot_be_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word, said in (
        ("penalty.target_macs=0.1", "cannot be met"),
        ("train.batch_size=5000", "exceeds the 1438 training images"),
    ):
        words = ["--estimator", "rloo", "--task", "width", "--suite", "accuracy", "--preset", "smoke", "--set", word]
        assert main([*words, "--out", str(tmp_path)]) == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("rows/*"))
    assert torch.is_grad_enabled()
