"""Sweeps that share a folder, with others and with workers that die."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import estimators
from estimators.rloo import Rloo
from results import table
from suites import labels, presets
from suites.engine.cell import Workshop
from suites.engine.execute import execute
from suites.engine.local import sweep
from suites.engine.plan import plan
from suites.run import main
from suites.tasks.base import Context

TINY = ["epochs=1", "toy_steps=20", "toy_estimates=200", "steps=6", "ride=2", "estimates=20", "references=3"]
COLUMNS = ["hash", "metric", "part", "point", "x", "value", "status"]


@pytest.fixture(autouse=True)
def _own_rows_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the committed rows, whose figures take longer to draw than most of these runs."""
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "no reference")


def values(out: Path) -> list[tuple[object, ...]]:
    return sorted(map(str, table.read(out / "rows")[COLUMNS].itertuples(index=False)))  # type: ignore[arg-type]


def test_two_workers_find_what_one_finds(tmp_path: Path) -> None:
    """On equally many threads: sums come out otherwise on others, see docs/determinism.md."""
    words = ["--estimator", "rloo", "--task", "width", "--suite", "bias", "variance", "accuracy", "--preset", "smoke"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for workers in ("1", "2"):
            assert main([*words, "--set", *TINY, "--out", str(tmp_path / workers), "--workers", workers]) == 0
    finally:
        torch.set_num_threads(threads)
    assert values(tmp_path / "1") == values(tmp_path / "2")


def test_a_cell_that_another_process_holds_is_left_to_it(tmp_path: Path) -> None:
    shop = Workshop(Context(presets.resolve("smoke", TINY)), tmp_path)
    rows = tmp_path / "rows"
    planned = plan(shop, ["toy"], [labels.parse("rloo"), labels.parse("reinforce")], ["bias"], "smoke", rows)
    first = planned[0].cell
    lock = FileLock(shop.lock(first))
    lock.acquire()
    found = execute(planned, shop, rows)
    item, status, *_ = next(found)
    assert item.cell == planned[1].cell
    assert status == "ok"
    # the other process finishes its cell and lets go
    source = (rows / f"{planned[1].cell.hash()}.jsonl").read_text()
    text = source.replace(planned[1].cell.hash(), first.hash())
    (rows / f"{first.hash()}.jsonl").write_text(text)
    lock.release()
    assert next(found) == (planned[0], "ok", "by another process", 0.0)
    assert (rows / f"{first.hash()}.jsonl").read_text() == text
    assert next(found, None) is None


def test_two_sweeps_at_once_do_everything_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "suites.run", "--estimator", "rloo", "reinforce", "--task", "toy"]
    command += ["--suite", "bias", "accuracy", "--preset", "smoke", "--set", *TINY, "--out", str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert set(table.read(tmp_path / "rows")["status"]) == {"ok"}


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """So that nothing goes on unseen, and the next sweep has the cells."""
    command = [sys.executable, "-m", "suites.run", "--estimator", "rloo", "reinforce", "--task", "width"]
    command += ["--suite", "accuracy", "--preset", "smoke", "--set", "epochs=500", "--workers", "2"]
    command += ["--checkpoint-seconds", "0", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    began = time.monotonic()
    while len(list((tmp_path / "checkpoints").glob("*.safetensors"))) < 2 and time.monotonic() < began + 120:
        time.sleep(0.2)
    assert process.poll() is None
    assert len(list((tmp_path / "checkpoints").glob("*.safetensors"))) == 2
    process.kill()
    process.communicate(timeout=60)  # returns when the workers, who share its pipes, have ended
    for path in (tmp_path / "locks").iterdir():
        with FileLock(path, timeout=0):
            pass


def test_rows_that_another_sweep_wrote_meanwhile_are_kept(tmp_path: Path) -> None:
    """Planned before, written by another, and then found by this one: nobody has died."""
    shop = Workshop(Context(presets.resolve("smoke", TINY)), tmp_path)
    rows = tmp_path / "rows"
    planned = plan(shop, ["toy"], [labels.parse("rloo")], ["accuracy"], "smoke", rows)
    assert [done.status for done in execute(planned, shop, rows)] == ["ok"]
    path = rows / f"{planned[0].cell.hash()}.jsonl"
    written = path.read_bytes()
    assert [done.status for done in sweep(planned, shop, rows, 2)] == ["ok"]
    assert path.read_bytes() == written


class Deadly(Rloo):
    """Takes its process with it."""

    def draw(self, logits: object, generator: object = None) -> None:  # type: ignore[override]
        import os

        os._exit(7)


def test_a_dead_workers_cell_is_tried_again_and_then_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(estimators._REGISTRY, "deadly", Deadly)
    shop = Workshop(Context(presets.resolve("smoke", TINY)), tmp_path)
    rows = tmp_path / "rows"
    chosen = [labels.parse("deadly"), labels.parse("rloo")]
    planned = plan(shop, ["toy"], chosen, ["bias", "variance"], "smoke", rows)
    # a spawned process does not know the name: it fails there too, and the sweep must still end
    found = {(str(item.cell.label), item.cell.suite): status for item, status, *_ in sweep(planned, shop, rows, 2)}
    assert found[("rloo", "bias")] == found[("rloo", "variance")] == "ok"
    assert found[("deadly", "bias")] == found[("deadly", "variance")] == "error"
    frame = table.read(rows)
    assert set(frame.loc[frame["estimator"] == "deadly", "status"]) == {"error"}
